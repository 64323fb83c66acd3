"""How many images at once: as many as memory holds, halved whenever it runs out."""

import warnings
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.core.errors import InputError
from visiondx.core.memory import keep_memory

CPU_BATCH = 64  # more is no faster
CUDA_BATCH = 1024
PIXEL_BYTES = 4096  # that a search may keep of each pixel until its gradient is there
RESOLUTION = 64  # of a generator that does not tell
MESSAGES = ("can't allocate memory", "not enough memory", "ALLOC_FAILED")  # of RuntimeErrors

Result = TypeVar("Result")


class Batch:
    """How many rows are worked on at once, for the length of a search.

    Attributes: ``size``, halved whenever memory runs out. A row's result does not depend on it,
    but for rounding.
    """

    def __init__(self, size: int):
        self.size = self.told = size

    @classmethod
    def start(cls, limit: int | None, generator, styles: Tensor) -> "Batch":
        """The first size: the limit if there is one, else what suits the device of the styles.

        On the CPU, freed memory is also kept in the process from now on. With 64 images the
        system would otherwise map and clear the larger activations anew at every step, half of a
        search's time.
        """
        if styles.device.type == "cpu":
            keep_memory()
        if limit is not None:
            return cls(limit)
        if not styles.is_cuda:
            return cls(CPU_BATCH)
        free, _ = torch.cuda.mem_get_info(styles.device)
        return cls(fitting(free // 2, getattr(generator, "resolution", RESOLUTION)))

    def split(self, rows: int, work: Callable[[int, int], Result], bar: tqdm) -> list[Result]:
        """``work(first, last)`` of all rows in consecutive parts, ``size`` rows each.

        A part that runs out of memory is done again in halves, and so are those after it, with one
        warning. The work may itself split with the same ``Batch``.

        Args:
            bar: moved by the work; set back where a part starts again.

        Raises:
            InputError: a single row does not fit into memory.
        """
        results: list[Result] = []
        first = 0
        while first < rows:
            last, seen = min(first + self.size, rows), bar.n
            try:
                results.append(work(first, last))
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                if last - first == 1:
                    raise InputError(
                        f"A single image does not fit into memory ({_first_line(error)}): free "
                        "some, or use a smaller generator, target or encoder."
                    ) from error
                self.size = (last - first) // 2
                bar.update(seen - bar.n)
                continue  # only now the error lets go of the tensors it was raised among
            first = last
            if self.size < self.told:
                warnings.warn(
                    f"Memory ran out with {self.told} images at once; going on with {self.size}.",
                    RuntimeWarning,
                    stacklevel=2,
                )
                self.told = self.size
        return results


def fitting(free: int, resolution: int) -> int:
    """How many images of this side a search can hold in ``free`` bytes, from 1 to 1,024.

    A guess that ``Batch.split`` corrects; our generator and encoder take 3.3 KiB a pixel.
    """
    return min(CUDA_BATCH, max(1, free // (PIXEL_BYTES * resolution**2)))


def out_of_memory(error: Exception) -> bool:
    """Whether it says that memory ran out; PyTorch has no type of its own for that on the CPU."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in MESSAGES)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
