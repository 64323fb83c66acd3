"""How many images at once: as many as memory holds, halved whenever it runs out."""

import warnings
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.core.errors import InputError
from visiondx.core.memory import free_memory, keep_memory

CPU_BATCH = 64  # more is no faster
CUDA_BATCH = 1024
READER_BYTES = (
    1024  # a pixel, kept of what looks at an image (encoder, target, SSIM) for a gradient
)
PIXEL_BYTES = 4096  # a pixel, with the generator's: of one that does not tell
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
    def start(cls, limit: int | None, generator, styles: Tensor, gradient: bool = True) -> "Batch":
        """The first size: the limit if there is one, else what half of the free memory may hold.

        On the CPU, freed memory is also kept in the process from now on. With 64 images the
        system would otherwise map and clear the larger activations anew at every step, half of a
        search's time.

        Args:
            gradient: whether the images are drawn to be gone back through.
        """
        cuda = styles.is_cuda
        if not cuda:
            keep_memory()
        if limit is not None:
            return cls(limit)
        most, free = CUDA_BATCH if cuda else CPU_BATCH, free_memory(styles.device)
        if free is None:
            return cls(most)
        return cls(min(most, fitting(free // 2, image_bytes(generator, gradient))))

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


def fitting(free: int, each: int) -> int:
    """How many images of ``each`` bytes ``free`` bytes hold, 1 at least.

    A guess that ``Batch.split`` corrects.
    """
    return max(1, free // each)


def image_bytes(generator, gradient: bool = True) -> int:
    """About how many bytes an image takes while it is searched, or only drawn and looked at.

    Of a generator with ``image_bytes`` (see ``StyleGenerator``) it follows from its layers. Of
    another, 4 KiB a pixel: our 64 px generator and encoder take 3.3.
    """
    pixels = getattr(generator, "resolution", RESOLUTION) ** 2
    if not hasattr(generator, "image_bytes"):
        return PIXEL_BYTES * pixels
    return generator.image_bytes(gradient) + gradient * READER_BYTES * pixels


def out_of_memory(error: Exception) -> bool:
    """Whether it says that memory ran out; PyTorch has no type of its own for that on the CPU."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in MESSAGES)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
