"""Images by class: a folder with a folder a class, as real ones are, or tensors.

data = ClassFolder.read("my_images", painter.size)
data = by_class({"plate": plates, "mug": mugs})            # (n, 3, H, W) in [0, 1] each
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.core.errors import InputError
from visiondx.core.files import digest, result_key
from visiondx.core.words import check_words
from visiondx.models.image_files import files
from visiondx.models.images import batches
from visiondx.models.pixels import METHOD as READING
from visiondx.models.pixels import check_range
from visiondx.models.preprocess import Preprocess

BATCH = 64  # files that are read together
FEWEST = 2  # images of a class: of one alone, a word would be its portrait


class ImagesByClass(Protocol):
    """N square images of C classes, class by class.

    classes: C names. labels: (N,) which class each is. size: pixels. content: a hash of the images.
    """

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def labels(self) -> Tensor: ...

    @property
    def size(self) -> int: ...

    @property
    def content(self) -> str: ...

    def batches(self, count: int = BATCH) -> Iterator[Tensor]:
        """All images in their order, (b, 3, size, size) in [0, 1] on the CPU."""
        ...


@dataclass(frozen=True)
class ClassFolder:
    """The images of a folder with a folder a class; read as they are asked for.

    paths: N files, class by class. left_out: those that cannot be read, by their path in the
    folder, and why.
    """

    folder: Path
    classes: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: Tensor
    size: int
    content: str
    left_out: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: str | Path, size: int, at_most: int | None = None) -> ClassFolder:
        """Look at all images once; one that cannot be read is left out, with a warning.

        The shorter edge is brought to `size` (bicubic) and the centre taken, as the authors do.
        Images are upright, and over white where they are transparent. Hidden files and folders
        do not count; the folders of a class may have folders.

        Args:
            size: of the images in pixels, such as a painter's. at_most: images a class, evenly
                spaced in the order of their names; None for all.

        Raises:
            InputError: no such folder, no folder in it, or a class with fewer than two images that
                can be read.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise InputError(f"No folder of images at {folder}: check the path.")
        if at_most is not None and at_most < FEWEST:
            raise InputError(f"at_most is {at_most}: take {FEWEST} images a class at least.")
        homes = sorted(p for p in folder.iterdir() if p.is_dir() and _counts(p.name))
        if not homes:
            raise InputError(f"{folder} holds no folder: put each class's images in one of theirs.")
        found = [_spaced(files(home), at_most) for home in homes]
        paths = [path for own in found for path in own]
        labels = torch.arange(len(homes)).repeat_interleave(torch.tensor([len(p) for p in found]))
        why, content = _tried(paths, size)
        stay = [row for row in range(len(paths)) if row not in why]
        left_out = {paths[row].relative_to(folder).as_posix(): why[row] for row in why}
        data = cls(
            folder,
            tuple(home.name for home in homes),
            tuple(paths[row] for row in stay),
            labels[stay],
            size,
            content,
            left_out,
        )
        _check_counts(data, left_out)
        if left_out:
            name, reason = next(iter(left_out.items()))
            warnings.warn(
                f"{len(left_out)} of {len(paths)} images in {folder} cannot be read and are left "
                f"out, such as {name} ({reason}).",
                stacklevel=2,
            )
        return data

    def batches(self, count: int = BATCH) -> Iterator[Tensor]:
        """See ``ImagesByClass``. Raises InputError for a file that has changed since."""
        for part in batches(self.paths, count, Preprocess((self.size, self.size)))[0]:
            images, why = part.load()
            if why:
                row, reason = next(iter(why.items()))
                raise InputError(
                    f"{part.names[row]} could be read and now cannot ({reason}): read the folder "
                    "again."
                )
            yield images


@dataclass(frozen=True)
class ClassTensors:
    """Images in memory: see ``ImagesByClass``."""

    classes: tuple[str, ...]
    labels: Tensor
    images: Tensor

    @classmethod
    def of(cls, images: Mapping[str, Tensor]) -> ClassTensors:
        """(n, 3, S, S) in [0, 1] of each class, on the CPU.

        Raises:
            InputError: no class, other shapes or sizes, values beyond [0, 1], or fewer than two
                images of a class.
        """
        if not images:
            raise InputError("There is no class: give the images of one at least.")
        check_words(list(images), "Classes")
        for name, own in images.items():
            if own.ndim != 4 or own.shape[1] != 3 or own.shape[2] != own.shape[3]:
                raise InputError(
                    f"The images of class {name!r} are {tuple(own.shape)}: give (n, 3, S, S)."
                )
            check_range(own)
        if len(sizes := {own.shape[2] for own in images.values()}) > 1:
            raise InputError(f"The images are of {sorted(sizes)} pixels: bring them to one size.")
        counts = torch.tensor([len(own) for own in images.values()])
        labels = torch.arange(len(images)).repeat_interleave(counts)
        data = cls(tuple(images), labels, torch.cat(list(images.values())).float().cpu())
        _check_counts(data, {})
        return data

    @property
    def size(self) -> int:
        return self.images.shape[2]

    @property
    def content(self) -> str:
        return digest(images=self.images)

    def batches(self, count: int = BATCH) -> Iterator[Tensor]:
        yield from self.images.split(count)


def by_class(images: ImagesByClass | Mapping[str, Tensor]) -> ImagesByClass:
    """Images by class, from a mapping of tensors too; see ``ClassTensors.of``."""
    return ClassTensors.of(images) if isinstance(images, Mapping) else images


def _counts(name: str) -> bool:
    """Whether a folder of this name is a class, not hidden nor what macOS packs beside."""
    return name[0] != "." and name != "__MACOSX"


def _spaced(paths: list[Path], at_most: int | None) -> list[Path]:
    if at_most is None or len(paths) <= at_most:
        return paths
    return [paths[row * len(paths) // at_most] for row in range(at_most)]


def _tried(paths: Sequence[Path], size: int) -> tuple[dict[int, str], str]:
    """The rows of the files that cannot be read and why, and a hash of all files' content."""
    parts, count = batches(paths, BATCH, Preprocess((size, size)))
    why: dict[int, str] = {}
    contents = []
    for number, part in enumerate(
        tqdm(parts, desc="reading images", total=count, disable=count == 1)
    ):
        why |= {BATCH * number + row: reason for row, reason in part.load()[1].items()}
        contents.append(part.content.hex())
    return why, result_key(READING, contents)


def _check_counts(data: ClassFolder | ClassTensors, left_out: Mapping[str, str]) -> None:
    """Raise InputError for the first class with fewer than two images."""
    counts = torch.bincount(data.labels, minlength=len(data.classes)).tolist()
    for name, count in zip(data.classes, counts, strict=True):
        if count < FEWEST:
            broken = [file for file in left_out if file.startswith(f"{name}/")]
            such = f" ({broken[0]} cannot be read: {left_out[broken[0]]})" if broken else ""
            raise InputError(
                f"Class {name!r} has {('no image', 'one image')[count]} to learn from{such}: give "
                f"{FEWEST} at least, or leave the class out."
            )
