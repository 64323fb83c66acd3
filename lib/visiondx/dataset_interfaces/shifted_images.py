"""Images by shift and class on disk, and which of them passed the filter. Without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from visiondx.core.errors import InputError
from visiondx.core.files import reading
from visiondx.models.image_files import SUFFIXES

BASE = "base"  # the folder of the images without a shift
MANIFEST = "manifest.parquet"  # in a shift's folder
MASKS = "masks.npy"  # beside the shifts' folders


@dataclass(frozen=True)
class ShiftedImages:
    """N images ``<shift>/<class>/<file>`` of a folder.

    Attributes:
        shifts: 1 + S, `BASE` first. classes: C, by name.
        paths: N, from the folder. shift, klass: (N,) int, which of these each image is of.
        kept: (N,) bool, whether it passed the filter. filtered: the file that says so, or "".
    """

    folder: Path
    shifts: tuple[str, ...]
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    shift: np.ndarray
    klass: np.ndarray
    kept: np.ndarray
    filtered: str = ""

    def __len__(self) -> int:
        return len(self.paths)

    def counts(self, rows: np.ndarray | None = None) -> np.ndarray:
        """How many images there are of each, (1 + S, C), or of these rows (N,) bool alone."""
        found = np.zeros((len(self.shifts), len(self.classes)), dtype=np.int64)
        chosen = slice(None) if rows is None else rows
        np.add.at(found, (self.shift[chosen], self.klass[chosen]), 1)
        return found

    @classmethod
    def read(
        cls, folder: str | Path, shifts: Sequence[str] = (), masks: str | Path = ""
    ) -> ShiftedImages:
        """What a folder holds; no image is opened.

        Args:
            shifts: these alone, and the base; none: every folder there is.
            masks: a file as ImageNet*'s. None given: ``masks.npy``, if the folder has one, or the
                ``kept`` of each shift's ``manifest.parquet``, as ``DatasetInterface`` writes it;
                without any, every image counts.

        Raises:
            InputError: no such folder or shift, no base, fewer than two classes, images that lie
                elsewhere, or a file of the filter that is of other images.
        """
        folder = Path(folder)
        names = _shifts(folder, shifts)
        table = [(s, *row) for s, name in enumerate(names) for row in _images(folder, name)]
        classes = tuple(sorted({name for _, name, _ in table}))
        if len(classes) < 2:
            raise InputError(
                f"All images of {folder} are of one class, {classes[0]!r}: give a folder with two "
                "or more, as <shift>/<class>/<image>."
            )
        index = {name: k for k, name in enumerate(classes)}
        found = cls(
            folder,
            names,
            classes,
            tuple(f"{names[s]}/{name}/{file}" for s, name, file in table),
            np.array([s for s, _, _ in table]),
            np.array([index[name] for _, name, _ in table]),
            np.ones(len(table), dtype=bool),
        )
        return found._filter(masks, every=not shifts)

    def _filter(self, masks: str | Path, every: bool) -> ShiftedImages:
        """These, with what the files of the filter say of them."""
        homes = [self.folder / name for name in self.shifts]
        written = any((home / MANIFEST).is_file() for home in homes)
        beside = (self.folder / MASKS).is_file()
        if not masks and written and beside:
            raise InputError(
                f"{self.folder} has both {MASKS} and a {MANIFEST} a shift: name the first as "
                "masks, or move one away."
            )
        if masks or beside:
            from visiondx.dataset_interfaces.imagenet_star import check_masks, read_masks

            path = Path(masks) if masks else self.folder / MASKS
            found = read_masks(path)
            counts = self.counts().sum(1)
            check_masks(path, found, dict(zip(self.shifts, counts.tolist())), every)
            kept = np.concatenate([found[name] for name in self.shifts])
            return replace(self, kept=kept, filtered=path.name)
        if not written:
            return self
        passed = [self._passed(home, s) for s, home in enumerate(homes)]
        without = [name for name, own in zip(self.shifts, passed) if own is None]
        if len(without) == len(passed):
            return self
        if without:
            raise InputError(
                f"{self.folder}: no filter has decided on {without[0]!r}, and one has on other "
                "shifts: filter all of them, the base too."
            )
        return replace(self, kept=np.concatenate(passed), filtered=MANIFEST)

    def _passed(self, home: Path, shift: int) -> np.ndarray | None:
        """What a shift's manifest says of its images; None where no filter has decided."""
        import pandas as pd

        file = home / MANIFEST
        if not file.is_file():
            return None
        with reading(file, "filter the images again"):
            table = pd.read_parquet(file, columns=["file", "kept"])
        said = dict(zip(table["file"], table["kept"]))
        own = [self.paths[row].partition("/")[2] for row in np.flatnonzero(self.shift == shift)]
        kept = [said.get(name, pd.NA) for name in own]
        absent = [name for name, value in zip(own, kept) if pd.isna(value)]
        if len(absent) == len(own):
            return None
        if absent:
            raise InputError(
                f"{file} says nothing of {len(absent)} of {len(own)} images, such as {absent[0]}: "
                "filter the images again."
            )
        return np.array(kept, dtype=bool)


def _shifts(folder: Path, wanted: Sequence[str]) -> tuple[str, ...]:
    """Names of the shifts' folders, the base first."""
    if not folder.is_dir():
        raise InputError(f"No folder of images at {folder}: check the path.")
    there = sorted(p.name for p in folder.iterdir() if p.is_dir() and _visible(p.name))
    if BASE not in there:
        some = ", ".join(there[:5]) or "nothing"
        raise InputError(
            f"{folder} has no folder {BASE!r} of the images without a shift, but {some}: the "
            f"accuracy under a shift is measured against it, so add {BASE}/<class>/<image>."
        )
    for name in wanted:
        if name not in there:
            near = get_close_matches(name, there, 3) or there[:5]
            raise InputError(f"{folder} has no shift {name!r}: there are {', '.join(near)}.")
    shifts = [name for name in dict.fromkeys(wanted or there) if name != BASE]
    if not shifts:
        raise InputError(f"{folder} has images without a shift alone: add <shift>/<class>/<image>.")
    return (BASE, *shifts)


def _images(folder: Path, shift: str) -> list[tuple[str, str]]:
    """(class, file) of each image of a shift, in the order of torchvision's ``ImageFolder``."""
    home, found = folder / shift, []
    for path in sorted(home.iterdir()):
        if not _visible(path.name):
            continue
        if path.is_dir():
            files = [p for p in sorted(path.iterdir()) if _image(p)]
            found += [(path.name, file.name) for file in files]
        elif _image(path):
            raise InputError(
                f"{path} lies in no class's folder: sort the images as {home}/<class>/<image>."
            )
    if not found:
        raise InputError(f"No image in {home}: it must hold <class>/<image>, or be removed.")
    return found


def _visible(name: str) -> bool:
    """Neither hidden nor what macOS packs beside."""
    return name[0] != "." and name != "__MACOSX"


def _image(path: Path) -> bool:
    return _visible(path.name) and path.suffix.lower() in SUFFIXES
