"""The kernel that a run uses: this interpreter, whatever kernelspecs a machine has."""

from typing import Any

from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager


class OwnKernel(AsyncKernelManager):
    """jupyter_client's manager of one kernel, as nbclient and papermill ask for it."""

    def __init__(self, **given: Any) -> None:
        super().__init__(transport_encryption="auto", **given)

    @property
    def kernel_spec(self) -> KernelSpec:
        return KernelSpec(**get_kernel_dict())
