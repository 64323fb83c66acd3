"""Which implementation of a kernel runs: "reference", "fused" (CPU) or "triton" (CUDA).

Triton has no wheels for macOS and Windows; without it ``jit`` leaves the function as it is and
nothing calls it.
"""

import os
import types
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from visiondx.core.errors import InputError

try:
    import triton
    import triton.language as tl

    jit = triton.jit
except ImportError:
    triton, tl = None, types.SimpleNamespace(constexpr=None)

    def jit(function: Callable) -> Callable:
        return function


BACKENDS = ("reference", "fused", "triton")
_warned: set[str] = set()


def warn_once(message: str) -> None:
    """A RuntimeWarning the first time in a process that this message comes up."""
    if message not in _warned:
        _warned.add(message)
        warnings.warn(message, RuntimeWarning, stacklevel=3)


def choose(kernel: str, tensor: Tensor, backend: str | None = None, obstacle: str = "") -> str:
    """Name the backend for ``tensor``: fused on CPU, Triton on CUDA, else the reference, loudly.

    Args:
        kernel: name used in messages.
        backend: one of ``BACKENDS`` to insist on it, None to choose by device.
        obstacle: why Triton cannot take this input; empty if it can.

    Raises:
        InputError: unknown backend, or one that cannot run on this tensor.
    """
    if backend is not None:
        if backend not in BACKENDS:
            raise InputError(f"Unknown backend {backend!r}: use one of {', '.join(BACKENDS)}.")
        runnable = triton is not None and (tensor.is_cuda or _interpreted())
        if backend == "triton" and (obstacle or not runnable):
            reason = obstacle or f"it needs triton and a CUDA tensor, not {tensor.device}"
            raise InputError(f"{kernel}: backend 'triton' cannot run here: {reason}.")
        return backend
    if tensor.device.type == "cpu":
        return "fused"
    if tensor.is_cuda and triton is None:
        obstacle = "triton is not installed"
    elif not tensor.is_cuda:
        obstacle = f"there is no kernel for {tensor.device.type}"
    if obstacle:
        warn_once(f"{kernel}: {obstacle}; using the slower PyTorch reference.")
        return "reference"
    return "triton"


def attempt(kernel: str, triton_call: Callable[[], Tensor], reference: Callable[[], Tensor]):
    """``triton_call()``; if this GPU or Triton cannot compile it, the reference, loudly.

    Running out of memory is passed on: the reference would need more.
    """
    try:
        return triton_call()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # compilers raise many types
        first_line = (str(error).splitlines() or [""])[0]
        warn_once(
            f"{kernel}: the Triton kernel failed ({type(error).__name__}: {first_line}); "
            "using the slower PyTorch reference."
        )
        return reference()


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"
