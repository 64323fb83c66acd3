"""Batches of images, from wherever they are: files, a data set, tensors or an iterator of them.

A batch knows its items' names and a hash of their content before anything is decoded, so that what
is in a cache already is neither decoded nor encoded again.
"""

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from visiondx.core.errors import InputError, reason
from visiondx.models.image_files import check_there, files
from visiondx.models.pixels import check_range, pixels
from visiondx.models.preprocess import Preprocess

THREADS = 4  # that read and decode files

Source = str | Path | Sequence[str | Path] | Dataset | Tensor | Iterable


@dataclass(frozen=True)
class Batch:
    """Items of a source that are embedded together."""

    names: tuple[str, ...]
    content: bytes  # a hash
    # () -> the images that can be read, (b, 3, H, W) in [0, 1], and {item: reason} of the others
    load: Callable[[], tuple[Tensor, dict[int, str]]]


def batches(
    source: Source, size: int, preprocess: Preprocess
) -> tuple[Iterator[Batch], int | None]:
    """The batches of a source, in its order, and their number where that is known.

    Args:
        source: a folder or paths of files; a data set of PIL images, of tensors (3, H, W) or of
            tuples that begin with one; a tensor (N, 3, H, W), uint8 or in [0, 1]; or an iterator
            of such batches, which stay as they are.
        size: items of a batch.
        preprocess: how files and PIL images are brought to one size.

    Raises:
        InputError: nothing to embed, a folder or file that does not exist, values beyond [0, 1], or
            another kind of source.
    """
    if isinstance(source, str | Path):
        source = files(source)
    if isinstance(source, Tensor):
        if source.ndim != 4 or source.shape[1] != 3 or not len(source):
            raise InputError(f"Images must be (N, 3, H, W) with N >= 1, got {tuple(source.shape)}.")
        check_range(source)
        parts = range(0, len(source), size)
        return (_of_tensor(source[i : i + size], i, preprocess) for i in parts), len(parts)
    if not hasattr(source, "__getitem__") or not hasattr(source, "__len__"):
        if not isinstance(source, Iterable):
            raise InputError(
                f"Images cannot be taken from a {type(source).__name__}: give a folder, paths, a "
                "data set, a tensor or an iterator of batches."
            )
        return _of_iterator(source, preprocess), None
    if not len(source):
        raise InputError("There is no image to embed: the sequence is empty.")
    parts = [range(i, min(i + size, len(source))) for i in range(0, len(source), size)]
    if not isinstance(source, Dataset) and all(isinstance(path, str | Path) for path in source):
        paths = [Path(path) for path in source]
        check_there(paths)
        return (_of_files([paths[i] for i in part], preprocess) for part in parts), len(parts)
    return (_of_items(source, part, preprocess) for part in parts), len(parts)


def _first(item: object) -> object:
    """The image of an item, which may have a label and more behind it."""
    return item[0] if isinstance(item, tuple | list) else item


def _why(error: Exception) -> str:
    """An image cannot be read."""
    return str(error).rstrip(".") if isinstance(error, InputError) else reason(error)


def _hash(*parts: bytes) -> bytes:
    """Of parts, whose borders count."""
    found = hashlib.sha256()
    for part in parts:
        found.update(hashlib.sha256(part).digest())
    return found.digest()


def _of_tensor(images: Tensor, first: int, preprocess: Preprocess) -> Batch:
    content = _hash(
        f"{preprocess}{images.dtype}{tuple(images.shape)}".encode(),
        images.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes(),
    )
    names = tuple(str(first + i) for i in range(len(images)))
    floats = (lambda: images / 255) if images.dtype == torch.uint8 else images.float
    return Batch(names, content, lambda: (floats(), {}))


def _of_iterator(source: Iterable, preprocess: Preprocess) -> Iterator[Batch]:
    first = 0
    for item in source:
        images = _first(item)
        if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] != 3:
            shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
            raise InputError(f"An iterator must give batches (B, 3, H, W) of images, not {shape}.")
        check_range(images)
        yield _of_tensor(images, first, preprocess)
        first += len(images)


def _of_files(paths: list[Path], preprocess: Preprocess) -> Batch:
    def fetch(path: Path) -> bytes | str:
        try:
            return path.read_bytes()
        except OSError as error:  # a link to nothing, a folder, no permission, a failing disk
            return error.strerror or reason(error)

    def decode(data: bytes | str) -> Tensor | str:
        if isinstance(data, str):
            return data
        try:
            with Image.open(io.BytesIO(data)) as image:
                return pixels(image, preprocess)
        except UnidentifiedImageError:  # its own text names a buffer in memory
            return "it is no image, or a damaged one"
        except Exception as error:  # a damaged file makes decoders raise many kinds
            return _why(error)

    with ThreadPoolExecutor(THREADS) as pool:
        read = list(pool.map(fetch, paths))

    def load() -> tuple[Tensor, dict[int, str]]:
        with ThreadPoolExecutor(THREADS) as pool:
            return _stack(list(pool.map(decode, read)), preprocess)

    parts = [b"-" + data.encode() if isinstance(data, str) else b"+" + data for data in read]
    return Batch(tuple(map(str, paths)), _hash(str(preprocess).encode(), *parts), load)


def _of_items(source: Sequence, part: range, preprocess: Preprocess) -> Batch:
    def item(i: int) -> Tensor | str:
        try:
            return pixels(_first(source[i]), preprocess)
        except InputError as error:
            raise InputError(f"Item {i}: {error}") from error
        except Exception as error:  # whatever a data set raises where it cannot read
            return _why(error)

    read = [item(i) for i in part]
    parts = [t.encode() if isinstance(t, str) else t.numpy().tobytes() for t in read]
    content = _hash(str(preprocess).encode(), *parts)
    return Batch(tuple(map(str, part)), content, lambda: _stack(read, preprocess))


def _stack(read: list[Tensor | str], preprocess: Preprocess) -> tuple[Tensor, dict[int, str]]:
    images = [image for image in read if isinstance(image, Tensor)]
    if len({image.shape for image in images}) > 1:
        raise InputError(
            "The data set gives tensors of several sizes: give PIL images, which are cut to one "
            "size, or resize them."
        )
    why = {i: text for i, text in enumerate(read) if isinstance(text, str)}
    return torch.stack(images) if images else torch.empty(0, 3, *preprocess.size), why
