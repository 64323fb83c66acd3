"""A folder of photographs, brought to a generator's square resolution."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.models.image_files import files
from visiondx.models.images import batches
from visiondx.models.preprocess import Preprocess

BATCH = 64  # files that are read together


@dataclass(frozen=True)
class Photographs:
    """Pictures that no generator made, and what could not be read."""

    names: tuple[str, ...]  # B, such as the files' paths within their folder
    images: Tensor  # (B, 3, R, R) in [0, 1], on the CPU
    unreadable: Mapping[str, str] = field(default_factory=dict)  # name -> why

    def __len__(self) -> int:
        return len(self.images)

    def of(self, rows: Sequence[int]) -> "Photographs":
        """These rows alone, in this order, and nothing unreadable."""
        return Photographs(tuple(self.names[row] for row in rows), self.images[list(rows)])

    @classmethod
    def read(cls, folder: str | Path, resolution: int, most: int | None = None) -> "Photographs":
        """All images under a folder: the shorter edge to ``resolution``, then the centre of it.

        Upright, and over white where they are transparent. Nothing is aligned: where a generator
        was trained on aligned faces, align them as its training images were.

        Args:
            most: of the first files alone, by their paths.

        Raises:
            InputError: no such folder, or no image in it that can be read.
        """
        folder = Path(folder)
        parts, _ = batches(files(folder)[:most], BATCH, Preprocess((resolution, resolution)))
        images, names, unreadable = [], [], {}
        for part in parts:
            own = [Path(name).relative_to(folder).as_posix() for name in part.names]
            some, why = part.load()
            images.append(some)
            names += [name for i, name in enumerate(own) if i not in why]
            unreadable |= {own[i]: text for i, text in why.items()}
        if not names:
            name, why = next(iter(unreadable.items()))
            raise InputError(f"No image in {folder} can be read, such as {name} ({why}).")
        return cls(tuple(names), torch.cat(images), unreadable)


def class_photographs(
    folder: str | Path, resolution: int, most: int | None = None
) -> dict[str, Photographs]:
    """A folder a class, as torchvision's ``ImageFolder`` has it: {its name: its photographs}.

    Args:
        most: of each class, the first files alone.

    Raises:
        InputError: no such folder, none in it, or one without an image that can be read.
    """
    path = Path(folder)
    if not str(folder):
        raise InputError("No folder of images is named: give one that holds a folder a class.")
    found = sorted(p for p in path.iterdir() if p.is_dir()) if path.is_dir() else []
    found = [each for each in found if not each.name.startswith(".")]
    if not found:
        raise InputError(f"{folder} holds no folder: lay its images out as {folder}/<class>/….")
    return {each.name: Photographs.read(each, resolution, most) for each in found}
