"""Losses by image: tables as people keep them, and names that stand for files.

A spreadsheet writes CSV with commas, semicolons or tabs, with a byte-order mark, and with decimal
commas where its language has them; names such as 000000 are text, though they look like numbers.
"""

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path, PurePath

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from visiondx.core.errors import InputError, reason
from visiondx.llm2loss.images import SUFFIXES

SEPARATORS = ",;\t|"
SHOWN = 5  # rows named in a message


def read_columns(path: Path, image: str, loss: str) -> tuple[list[str], Tensor]:
    """The names of the images and their losses (N,) float32, of a CSV or Parquet file.

    Raises:
        InputError: a file that cannot be read, a missing column, a row with another number of
            fields, or a loss that is no number.
    """
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise InputError(f"{path} is no table: give a .csv or .parquet file.")
    if not path.is_file():
        raise InputError(f"No table at {path}: check the path.")
    parquet = path.suffix.lower() == ".parquet"
    columns, comma = (_parquet(path), False) if parquet else _csv(path, {image, loss})
    for column in (image, loss):
        if column not in columns:
            raise InputError(f"{path} has no column {column!r}: it has {', '.join(columns)}.")
    return columns[image], _numbers(columns[loss], comma, f"{loss!r} of {path}")


def read_numbers(given: str | Path | ArrayLike, what: str) -> Tensor:
    """float32 on the CPU of an array or a .npy file; never of a pickle, which could run anything.

    Args:
        what: it is, for messages.

    Raises:
        InputError: no such file, or what holds no numbers.
    """
    where = f"The {what}"
    if isinstance(given, str | Path):
        path = Path(given)
        if not path.is_file():
            raise InputError(f"No file of {what} at {path}: check the path.")
        try:
            given = np.load(path, allow_pickle=False)
        except Exception:  # a damaged file, a pickle, or text
            given = None
        if not isinstance(given, np.ndarray):  # or an archive of several
            raise InputError(
                f"{path} cannot be read as a .npy file of {what}: write one array of numbers with "
                "np.save."
            )
        where = f"The {what} in {path}"
    if not isinstance(given, Tensor):
        try:
            given = np.asarray(given)
        except Exception as error:  # rows of several lengths, or what is no array at all
            why = reason(error).partition(". ")[0]
            raise InputError(f"{where} are no array ({why}): give an array of numbers.") from error
        if given.dtype.kind not in "fiub":
            kind = {"U": "text", "S": "text", "O": "objects"}.get(given.dtype.kind, given.dtype)
            raise InputError(f"{where} are {kind}, not numbers: give an array of numbers.")
        given = torch.from_numpy(np.array(given, np.float32))
    if given.is_complex():
        raise InputError(f"{where} are complex, not numbers: give an array of numbers.")
    return given.detach().to("cpu", torch.float32)


def locate(folder: Path, names: Sequence[str]) -> list[Path]:
    """The files of images that are named from a folder; a name may lack its image's suffix.

    Raises:
        InputError: an empty name.
    """
    empty = [str(row) for row, name in enumerate(names) if not name.strip()]
    if empty:
        raise InputError(
            f"{len(empty)} of {len(names)} rows name no image ({_some(empty)}): name one, or drop "
            "these rows."
        )
    listed: dict[Path, dict[str, list[Path]]] = {}

    def file(name: str) -> Path:
        path = folder / name
        if path.suffix.lower() in SUFFIXES or os.path.lexists(path):
            return path
        if path.parent not in listed:
            stems = listed[path.parent] = {}
            for other in path.parent.iterdir() if path.parent.is_dir() else ():
                if other.suffix.lower() in SUFFIXES:
                    stems.setdefault(other.stem, []).append(other)
        found = listed[path.parent].get(path.name, [])
        return found[0] if len(found) == 1 else path

    return [file(name) for name in names]


def match(images: Sequence[str], names: Sequence[str], folder: str | None) -> list[int]:
    """Which image each name stands for.

    A name is an image's path, from its folder or as it is, or the end of that path; it may lack the
    suffix.

    Raises:
        InputError: a name of no image or of several, or an image that is named twice.
    """
    parts = [PurePath(image) for image in images]
    ends: dict[str, list[int]] = {}
    for index, path in enumerate(parts):
        for end in {path.name, path.stem}:
            ends.setdefault(end, []).append(index)
    root = None if folder is None else PurePath(folder)

    def found(name: str) -> int:
        wanted = PurePath(name)
        length = len(wanted.parts)
        near = [
            i
            for i in ends.get(wanted.name, [])
            if wanted.parts in (parts[i].parts[-length:], parts[i].with_suffix("").parts[-length:])
        ]
        if len(near) > 1:  # the one that is called so from the folder
            whole = {wanted} if root is None else {wanted, root / wanted}
            near = [i for i in near if whole & {parts[i], parts[i].with_suffix("")}] or near
        if len(near) != 1:
            which = "no image" if not near else f"{len(near)} images, such as {images[near[0]]}"
            raise InputError(
                f"The loss of {name!r} belongs to {which}: name each image by its path."
            )
        return near[0]

    rows = [found(str(name)) for name in names]
    counts = np.bincount(rows, minlength=1)
    if counts.max() > 1:
        raise InputError(
            f"Image {images[int(counts.argmax())]} has {counts.max()} losses: give it one."
        )
    return rows


def _csv(path: Path, wanted: set[str]) -> tuple[dict[str, list[str]], bool]:
    """Its columns, and whether a decimal comma is possible: where it separates no fields."""
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} cannot be read: save it as UTF-8 text.") from error
    if not text.strip():
        raise InputError(f"{path} cannot be read: it is empty.")
    try:
        first = text.strip().splitlines()[0]
        header, separator = max(
            ((_split(first, separator)[0], separator) for separator in SEPARATORS),
            key=lambda found: (wanted <= set(found[0]), len(found[0])),
        )
        rows = _split(text, separator)[1:]
    except csv.Error as error:
        raise InputError(f"{path} cannot be read: {reason(error)}.") from error
    for number, row in enumerate(rows):
        if len(row) < len(header) or any(row[len(header) :]):
            raise InputError(
                f"Row {number} of {path} has {len(row)} fields and the header {len(header)}: quote "
                f"what holds {separator!r}."
            )
    return {name: [row[i] for row in rows] for i, name in enumerate(header)}, separator != ","


def _split(text: str, separator: str) -> list[list[str]]:
    """Rows of fields, without the spaces round them; empty lines are left out."""
    rows = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True)
    return [[field.strip() for field in row] for row in rows if row]


def _parquet(path: Path) -> dict[str, list[str]]:
    try:
        frame = pd.read_parquet(path)
    except ImportError as error:
        raise InputError(f"{path} needs a reader: pip install pyarrow, or give a .csv.") from error
    except Exception as error:  # the reader raises many kinds
        raise InputError(f"{path} cannot be read: {reason(error)}.") from error
    return {str(name): list(map(str, frame[name])) for name in frame}


def _numbers(texts: list[str], comma: bool, where: str) -> Tensor:
    """(N,) float32."""
    if comma and not any("." in text for text in texts):
        texts = [text.replace(",", ".") for text in texts]
    values = pd.to_numeric(pd.Series(texts, dtype=object), errors="coerce").to_numpy(np.float32)
    bad = [f"{row}: {texts[row]!r}" for row in np.isnan(values).nonzero()[0].tolist()]
    if bad:
        raise InputError(
            f"The loss, {where}, is no number in {len(bad)} of {len(texts)} rows ({_some(bad)}): "
            "write numbers with a decimal point, or "
            + ("name another column." if len(bad) == len(texts) else "drop these rows.")
        )
    return torch.from_numpy(values)


def _some(rows: list[str]) -> str:
    return ", ".join(rows[:SHOWN]) + (", ..." if len(rows) > SHOWN else "")
