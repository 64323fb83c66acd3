"""Kernels that are forked from one process, whose imports are done: none imports torch anew.

The fork server of ``multiprocessing`` imports ``preload`` and does nothing else: no thread runs in
it, no model is loaded. Its children run ipykernel as ``python -m ipykernel_launcher`` does.
"""

import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

import visiondx
from visiondx.run.own_kernel import OwnKernel

HERE = Path(__file__).resolve().parent
CONTEXT = multiprocessing.get_context("forkserver")
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
OF_TESTS = ("MPLBACKEND", "TRITON_INTERPRET", "PYTEST_CURRENT_TEST")  # a person has none of them


def environment() -> dict[str, str]:
    """A person's, with one thread and with these sources."""
    own = {name: value for name, value in os.environ.items() if name not in OF_TESTS}
    return own | ONE_THREAD | {"PYTHONPATH": str(Path(visiondx.__file__).resolve().parents[1])}


@contextmanager
def fork_server() -> Iterator[None]:
    """While it lasts, ``ForkedKernel`` can start kernels, from any thread of this process."""
    with pytest.MonkeyPatch.context() as patch:
        for name in OF_TESTS:
            patch.delenv(name, raising=False)
        for name, value in environment().items():
            patch.setenv(name, value)
        patch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)
        # matplotlib reads it when it is imported; a kernel would set it before that
        patch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
        CONTEXT.set_forkserver_preload(["preload"])
        forkserver.ensure_running()
    try:
        yield
    finally:
        forkserver._forkserver._stop()  # waits for it, so that its time is counted


class KernelProcess(CONTEXT.Process):
    """A kernel, with what jupyter_client asks of a ``subprocess.Popen``."""

    stdin = stdout = stderr = None

    def __init__(self, arguments: list[str], environment: dict[str, str]) -> None:
        super().__init__()
        self.arguments, self.environment = arguments, environment

    def run(self) -> None:
        from ipykernel import kernelapp

        threading.Thread(target=self._end_with_parent, daemon=True).start()
        os.environ.clear()
        os.environ.update(self.environment)
        sys.path[:] = [place for place in sys.path if Path(place).resolve() != HERE]
        sys.argv[:] = [*self.arguments, f"--parent={os.getppid()}"]
        kernelapp.launch_new_instance()

    def _end_with_parent(self) -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    def poll(self) -> int | None:
        return self.exitcode

    def wait(self) -> int | None:
        self.join()
        return self.exitcode

    def send_signal(self, number: int) -> None:
        if self.exitcode is None:
            os.kill(self.pid, number)


class ForkedKernel(OwnKernel):
    """What a run uses, but that the kernel is a ``KernelProcess``."""

    async def _async_launch_kernel(self, kernel_cmd: list[str], **given: Any) -> None:
        own = {name: value for name, value in given["env"].items() if name not in OF_TESTS}
        arguments = kernel_cmd[kernel_cmd.index("ipykernel_launcher") :]
        process = KernelProcess(arguments, own | ONE_THREAD)
        process.start()
        self.provisioner.process, self.provisioner.pid = process, process.pid
