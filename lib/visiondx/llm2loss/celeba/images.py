"""CelebA (Liu et al., ICCV 2015) as torchvision lays it out on disk; nothing is downloaded."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.models.images import THREADS
from visiondx.models.pixels import pixels

FILES = ("list_attr_celeba.txt", "identity_CelebA.txt", "list_eval_partition.txt")
IMAGES = "img_align_celeba"
SPLITS = ("train", "valid", "test", "all")


@dataclass(frozen=True)
class CelebA:
    """One split: N aligned face images of 178 x 218 pixels, who they show and what is in them."""

    paths: tuple[Path, ...]
    identities: Tensor  # (N,) int64, from 1 as in the file
    labels: Tensor  # (N, A) bool
    attributes: tuple[str, ...]  # A of them in words: "5 o Clock Shadow"

    @classmethod
    def open(cls, root: str | Path, split: str = "all") -> "CelebA":
        """Read the lists; images are read when they are asked for.

        Args:
            root: the folder with ``img_align_celeba/``, or the one that has it as ``celeba/``.
            split: "train", "valid", "test" or "all".

        Raises:
            InputError: an unknown split; a folder, list or image that is missing; a list that
                cannot be read, or lists of different images.
        """
        if split not in SPLITS:
            raise InputError(f"CelebA has no split {split!r}: choose from {', '.join(SPLITS)}.")
        root = Path(root)
        home = root / "celeba" if (root / "celeba").is_dir() else root
        for name in (IMAGES, *FILES):
            if not (home / name).exists():
                raise InputError(
                    f"CelebA in {home} lacks {name}: put {IMAGES}/ and {', '.join(FILES)} there, "
                    "as torchvision.datasets.CelebA does."
                )
        labels = _read(home / FILES[0], header=1)
        identity, part = (_read(home / name, header=None) for name in FILES[1:])
        for name, table in zip(FILES[1:], (identity, part)):
            if not table.index.equals(labels.index):
                raise InputError(
                    f"{home / name} lists other images than {FILES[0]}: "
                    f"{len(table)} and {len(labels)} of them; use the files of one release."
                )
        chosen = part[part.columns[0]].to_numpy() == SPLITS.index(split)
        rows = slice(None) if split == "all" else chosen
        names = labels.index[rows]
        if not len(names):
            raise InputError(f"CelebA in {home} has no image in the split {split!r}.")
        known = {path.name for path in (home / IMAGES).iterdir()}
        absent = [name for name in names if name not in known]
        if absent:
            raise InputError(
                f"{len(absent)} of {len(names)} images of CelebA are not in {home / IMAGES}, such "
                f"as {absent[0]}: unpack {IMAGES}.zip there."
            )
        return cls(
            tuple(home / IMAGES / name for name in names),
            torch.tensor(identity[identity.columns[0]].to_numpy()[rows]),
            torch.tensor(labels.to_numpy()[rows] > 0),
            tuple(name.replace("_", " ") for name in labels.columns),
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: slice | Tensor) -> "CelebA":
        """Some images, by a slice, indices or a mask."""
        paths = tuple(np.array(self.paths, dtype=object)[rows])
        return CelebA(paths, self.identities[rows], self.labels[rows], self.attributes)

    def batches(self, size: int = 256) -> Iterator[tuple[Tensor, Tensor]]:
        """(images (B, 3, 218, 178) in [0, 1], identities (B,)), in order.

        Raises:
            InputError: an image that cannot be read.
        """

        def read(path: Path) -> Tensor:
            try:
                with Image.open(path) as image:
                    return pixels(image)
            except OSError as error:
                raise InputError(
                    f"{path} cannot be read as an image ({error}): replace it."
                ) from error

        with ThreadPoolExecutor(THREADS) as pool:
            for first in range(0, len(self), size):
                images = torch.stack(list(pool.map(read, self.paths[first : first + size])))
                yield images, self.identities[first : first + size]


def _read(path: Path, header: int | None) -> pd.DataFrame:
    """A list of CelebA: whole numbers by file name. The line before the header is a count."""
    try:
        table = pd.read_csv(path, sep=r"\s+", header=header, index_col=0)
        return table.astype(np.int64)
    except Exception as error:  # pandas raises many kinds
        raise InputError(
            f"{path} cannot be read as a list of CelebA: {str(error).splitlines()[0]}."
        ) from error
