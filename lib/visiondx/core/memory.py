"""How much memory is free, and how what was freed is kept in the process, which is faster."""

import ctypes
import os
import sys
from functools import cache
from pathlib import Path

import torch

from visiondx.core.errors import InputError

# glibc's malloc.h
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


@cache  # once in a process: every render asks for it
def keep_memory() -> bool:
    """Tell glibc to reuse large blocks instead of returning them to the system.

    By default every activation of a batch is mapped, zeroed page by page, and unmapped again; those
    page faults cost a third of a step. Returns whether the setting was made (Linux with glibc).
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # musl has no mallopt
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, 256 * 2**20))
    return all([mallopt(key, value) for key, value in settings])


def free_memory(device: torch.device | str = "cpu") -> int | None:
    """Bytes that may be taken on a device without swapping; None where the system does not tell.

    Of a CPU: what Linux calls available, within the process's control group (a container's limit);
    elsewhere half of what the machine has. Of a GPU: free on it, with what PyTorch holds unused.
    """
    device = torch.device(device)
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    found = [free for free in (_available(), _group_free()) if free is not None]
    return min(found, default=None)


def peak_memory_of_process(device: torch.device | str = "cpu") -> int:
    """The most bytes that this process has held: resident, or on a GPU allocated by PyTorch.

    Linux keeps the former for the program itself; what ``getrusage`` says includes, in a process
    that was started by another, what that one held.

    Raises:
        InputError: this system does not tell.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if (peak := _number(Path("/proc/self/status"), "VmHWM:")) is not None:
        return 1024 * peak
    try:
        import resource
    except ImportError as error:  # Windows
        raise InputError("This system does not tell the memory of a process.") from error
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _available() -> int | None:
    if (free := _number(Path("/proc/meminfo"), "MemAvailable:")) is not None:
        return 1024 * free
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, OSError, ValueError):  # Windows
        return None


def _group_free(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Of the second version of control groups; None without a limit.

    What is used counts the files that were read, too: those that lie idle the system gives back.
    """
    try:
        limit = int((root / "memory.max").read_text())
        used = int((root / "memory.current").read_text())
    except (OSError, ValueError):  # no group, or "max"
        return None
    idle = _number(root / "memory.stat", "inactive_file ") or 0
    return max(0, limit - max(0, used - idle))


def _number(path: Path, start: str) -> int | None:
    """The number after this start of a line; None where there is none."""
    try:
        for line in path.read_text().splitlines():
            if line.startswith(start):
                return int(line.removeprefix(start).split()[0])
    except (OSError, ValueError, IndexError):
        pass
    return None
