"""Painted scenes that a person labelled and outlined, and how far judges and segmenter agree.

    data/labels/painted_by_eye.png        the pictures, 13 a row
    data/labels/painted_by_eye.csv        what each shows, empty where nobody can tell
    data/labels/painted_outlines.csv      objects: picture, word, outline

They are kept as pixels, so that the labels stay true when a painter is trained anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.core.files import data_dir, reading
from visiondx.models.segmenter import Segmenter
from visiondx_worlds.quality.embedded import tiles
from visiondx_worlds.worlds.scenes import FACTORS, scenes

GROUPS = ("class", *FACTORS)
_SIDE, _FINE = 64, 8  # an outline is drawn so many times finer, and a pixel is in if half of it is
_RESTORE = "restore it with 'git checkout data'"


@dataclass(frozen=True)
class Labelled:
    """N painted scenes as a person sees them.

    images: (N, 3, 64, 64) in [0, 1]. labels: {group of GROUPS: (N,) int64}, -1 where the person
    could not tell. outlined: (K,) pictures. words: K, what of each. masks: (K, 64, 64) bool.
    """

    images: Tensor
    labels: dict[str, Tensor]
    outlined: Tensor
    words: tuple[str, ...]
    masks: Tensor


def read_painted(folder: Path | None = None) -> Labelled:
    """The labelled pictures.

    Args:
        folder: default data/labels.

    Raises:
        InputError: a file is missing or damaged, a column is missing, or a value is no value of its
            group, no picture or no outline.
    """
    folder = folder or data_dir() / "labels"
    path = folder / "painted_by_eye.csv"
    table = _table(path, ("index", *GROUPS))
    images = tiles(folder / "painted_by_eye.png", len(table))
    if table["index"].tolist() != [str(k) for k in range(len(table))]:
        raise InputError(f"{path}: the rows must be the pictures 0, 1, 2, … in turn: correct it.")
    labels = {group: _values(path, group, table[group]) for group in GROUPS}
    path = folder / "painted_outlines.csv"
    outlines = _table(path, ("index", "word", "outline"))
    for index in outlines["index"]:
        if not index.isdigit() or int(index) >= len(images):
            raise InputError(
                f"{path}: {index!r} is none of the {len(images)} pictures: correct it."
            )
    masks = [_drawn(path, text) for text in outlines["outline"]]
    return Labelled(
        images,
        labels,
        torch.tensor([int(index) for index in outlines["index"]]),
        tuple(outlines["word"]),
        torch.stack(masks),
    )


def agreement(judges: object, seen: Labelled) -> dict[str, np.ndarray]:
    """{group: (N,)} 1 where the judges say what the person says, 0 where not.

    NaN where the judges disagree with each other, or the person could not tell.
    """
    found = {}
    for group, (said, unsure) in judges.read_groups(seen.images).items():
        if group in seen.labels:
            truth = seen.labels[group]
            same = (said == truth).double()
            found[group] = same.masked_fill(unsure | (truth < 0), torch.nan).numpy()
    return found


def outline_ious(segmenter: Segmenter, seen: Labelled) -> np.ndarray:
    """(K,): intersection over union of the segmenter's mask and the person's outline."""
    words = sorted(set(seen.words))
    column = torch.tensor([words.index(word) for word in seen.words])
    masks = segmenter(seen.images[seen.outlined], words).masks.cpu()
    own = masks[torch.arange(len(column)), column]
    both, either = (own & seen.masks).sum((1, 2)), (own | seen.masks).sum((1, 2))
    return (both / either).double().numpy()


def outline_mask(corners: Sequence[Sequence[float]]) -> Tensor:
    """(64, 64) bool: the pixels of which at least half lies in a polygon of corners (x, y), pixels.

    Coordinates run from 0 at the picture's left and upper edge to 64 at the others.
    """
    fine = Image.new("L", (_SIDE * _FINE,) * 2)
    ImageDraw.Draw(fine).polygon([(x * _FINE, y * _FINE) for x, y in corners], fill=1)
    parts = torch.from_numpy(np.array(fine)).float().view(_SIDE, _FINE, _SIDE, _FINE)
    return parts.mean((1, 3)) >= 0.5


def _drawn(path: Path, text: str) -> Tensor:
    """The union of polygons "x,y x,y x,y; x,y …"."""
    try:
        parts = [[tuple(map(float, c.split(","))) for c in p.split()] for p in text.split(";")]
        masks = [outline_mask(part) for part in parts if len(part) > 2]
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: {text!r} is no outline 'x,y x,y x,y': correct it.") from error
    if not masks or not torch.stack(masks).any():
        raise InputError(f"{path}: the outline {text!r} holds no pixel: correct it.")
    return torch.stack(masks).any(0)


def _table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"No labels made by eye at {path}: {_RESTORE}.")
    with reading(path, _RESTORE):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if missing := [name for name in columns if name not in table]:
        raise InputError(f"{path} has no column {', '.join(missing)}: add it.")
    if table.empty:
        raise InputError(f"{path} has no row: {_RESTORE}.")
    return table


def _values(path: Path, group: str, column: pd.Series) -> Tensor:
    known = ["", *scenes.categories[group]]
    for value in column:
        if value not in known:
            raise InputError(
                f"{path}: {value!r} is no {group}: choose from {', '.join(known[1:])}, or nothing."
            )
    return torch.tensor([known.index(value) - 1 for value in column])
