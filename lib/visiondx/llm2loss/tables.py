"""Losses by image: tables as people keep them, read without torch.

A spreadsheet writes CSV with commas, semicolons or tabs, with a byte-order mark, and with decimal
commas where its language has them; names such as 000000 are text, though they look like numbers.
"""

import csv
import io
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from visiondx.core.errors import InputError, reason
from visiondx.llm2loss.paths import some

SEPARATORS = ",;\t|"
MINIMUM = 50  # examples: fewer leave nothing to validate on
VARIED = 10  # examples whose loss is not the commonest one: fewer leave nothing to learn
PRECISION = 1e-6  # float32 keeps about seven digits


def check_count(examples: int) -> None:
    """Raises InputError for fewer examples than an ensemble can learn from."""
    if examples < MINIMUM:
        raise InputError(
            f"There are {examples} examples: an ensemble needs {MINIMUM} or more to learn from."
        )


def check_losses(losses: Sequence[float]) -> None:
    """Raises InputError where losses are so nearly constant that there is nothing to learn."""
    (common, count), *_ = Counter(losses).most_common(1)
    low, high, varied = min(losses), max(losses), len(losses) - count
    if not varied:
        raise InputError(
            f"All {len(losses)} losses are {common:g}: there is nothing to learn; check that they "
            "are those of single images."
        )
    if varied < VARIED:
        raise InputError(
            f"All but {varied} of {len(losses)} losses are {common:g}: there is too little to "
            f"learn; give {VARIED} or more examples with another loss."
        )
    if high - low <= PRECISION * max(abs(low), abs(high)):
        raise InputError(
            f"All {len(losses)} losses lie between {low:.9g} and {high:.9g}, no further apart than "
            "rounding: check that they are those of single images."
        )


def read_columns(path: Path, image: str, loss: str) -> tuple[list[str], list[float]]:
    """The names of the images and their losses, of a CSV or Parquet file.

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
    for column, option in ((image, "image"), (loss, "loss")):
        if column not in columns:
            raise InputError(
                f"{path} has no column {column!r}: it has {', '.join(columns)}; say which of them "
                f"it is ({option}=, --{option}-column), or rename it."
            )
    return columns[image], _numbers(columns[loss], comma, f"{loss!r} of {path}")


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
    import pandas as pd  # most of a second

    try:
        frame = pd.read_parquet(path)
    except ImportError as error:
        raise InputError(f"{path} needs a reader: pip install pyarrow, or give a .csv.") from error
    except Exception as error:  # the reader raises many kinds
        raise InputError(f"{path} cannot be read: {reason(error)}.") from error
    return {str(name): list(map(str, frame[name])) for name in frame}


def _numbers(texts: list[str], comma: bool, where: str) -> list[float]:
    """One a row; infinite ones are numbers."""
    if comma and not any("." in text for text in texts):
        texts = [text.replace(",", ".") for text in texts]
    values = [_number(text) for text in texts]
    bad = [f"{row}: {texts[row]!r}" for row, value in enumerate(values) if math.isnan(value)]
    if bad:
        raise InputError(
            f"The loss, {where}, is no number in {len(bad)} of {len(texts)} rows ({some(bad)}): "
            "write numbers with a decimal point, or "
            + ("name another column." if len(bad) == len(texts) else "drop these rows.")
        )
    return values


def _number(text: str) -> float:
    """NaN for what is none."""
    try:
        return math.nan if "_" in text else float(text)
    except ValueError:
        return math.nan
