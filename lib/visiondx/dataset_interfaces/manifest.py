"""A row for each generated image: what made it, what CLIP says of it, and whether it is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from visiondx.core.errors import InputError
from visiondx.core.files import atomic_write, reading
from visiondx.core.stats import proportion
from visiondx.dataset_interfaces.clip_filter import (
    ClipFilter,
    class_scores,
    embedded,
    shift_scores,
)
from visiondx.dataset_interfaces.generation import MADE, Asked, shift_of
from visiondx.dataset_interfaces.shifts import BY_NAME, Shift
from visiondx.models.encoder import Encoder

NAME = "manifest.parquet"
PART = 2048  # images that are scored between two savings
TYPES = {
    "file": "string",
    "shift": "string",
    "class": "string",
    "number": "int64",
    "prompt": "string",
    "seed": "int64",
    "class_score": "float64",
    "shift_score": "float64",
    "kept": "boolean",
}


def read_manifest(folder: str | Path) -> pd.DataFrame:
    """All images below a folder of generated images, or those of one shift's folder.

    Returns:
        file (below `folder`), shift, class, number, prompt, seed, class_score, shift_score (NaN
        for `base`), kept (missing before `filter`).

    Raises:
        InputError: no manifest, or a damaged one.
    """
    folder = Path(folder)
    found = []
    for home in homes(folder):
        rows = _read(home)
        rows["file"] = [(home / file).relative_to(folder).as_posix() for file in rows["file"]]
        found.append(rows)
    return pd.concat(found, ignore_index=True).astype(TYPES)


def homes(folder: str | Path) -> list[Path]:
    """The folders of single shifts at or below a folder. Raises InputError if there is none."""
    folder = Path(folder)
    if (folder / MADE).is_file():
        return [folder]
    found = sorted(path.parent for path in folder.glob(f"*/{MADE}"))
    if not found:
        raise InputError(f"No generated images in {folder}: generate some, or check the path.")
    return found


def score(
    home: Path,
    shift: Shift,
    rows: Sequence[Asked],
    words: Mapping[str, str],
    encoder: Encoder,
) -> pd.DataFrame:
    """Add to a shift's manifest the images that it lacks, with their CLIP scores; all that it has.

    Args:
        words: {class: what captions call it}.
    """
    known = _read(home) if (home / NAME).is_file() else _frame([])
    done = set(known["file"])
    rest = [row for row in rows if row.file not in done]
    for first in range(0, len(rest), PART):
        part = rest[first : first + PART]
        found = embedded([home / row.file for row in part], encoder, f"CLIP {home.name}")
        of_class = class_scores(found, [words[row.kind] for row in part], shift, encoder)
        new = [
            (row.file, shift.name, row.kind, row.number, row.prompt, row.seed, c, s, pd.NA)
            for row, c, s in zip(part, of_class, shift_scores(found, shift, encoder), strict=True)
        ]
        known = write(home, pd.concat([known, _frame(new)], ignore_index=True))
    return known


def write(home: Path, rows: pd.DataFrame) -> pd.DataFrame:
    """Keep a shift's manifest, sorted by class and number; as it is kept."""
    rows = rows.sort_values(["class", "number"], ignore_index=True)
    with atomic_write(home / NAME) as path:
        rows.to_parquet(path)
    return rows


def decide(home: Path, clip: ClipFilter) -> pd.DataFrame:
    """Say in a shift's manifest which images are kept."""
    rows, shift = _read(home), shift_of(home)
    kept = clip.keeps(shift, rows["class"].tolist(), rows["class_score"], rows["shift_score"])
    rows["kept"] = pd.array(kept, dtype="boolean")
    return write(home, rows)


def yields(rows: pd.DataFrame) -> pd.DataFrame:
    """A row a shift: the share of images that pass both filters, beside the paper's (Table 1).

    Args:
        rows: of a manifest that was filtered.

    Returns:
        indexed by shift, those of Table 1 first and in its order: value, low, high (Wilson's
        interval), n, and the paper's, missing for other shifts.

    Raises:
        InputError: images that no filter has decided on.
    """
    if rows["kept"].isna().any():
        name = rows.loc[rows["kept"].isna(), "shift"].iloc[0]
        raise InputError(f"No filter has decided on the images of {name!r}: filter them first.")
    found = {}
    parts = dict(list(rows.groupby("shift")))
    for name in sorted(parts, key=lambda name: (list(BY_NAME) + [name]).index(name)):
        share = proportion(parts[name]["kept"].to_numpy(dtype=bool))
        paper = BY_NAME[name].paper_yield if name in BY_NAME else None
        found[name] = share.as_dict() | {"paper": paper}
    return pd.DataFrame.from_dict(found, orient="index").rename_axis("shift")


def _frame(rows: list[tuple]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(TYPES)).astype(TYPES)


def _read(home: Path) -> pd.DataFrame:
    file = home / NAME
    if not file.is_file():
        raise InputError(f"{home} has no {NAME}: generate its images to the end.")
    with reading(file, "remove it, and generate the images again: they are only scored anew"):
        return pd.read_parquet(file)[list(TYPES)].astype(TYPES)
