"""The papers' own numbers, a CSV a table or figure, to stand beside ours."""

import pandas as pd

from visiondx.core.errors import InputError
from visiondx.core.files import data_dir, reading


def published(name: str) -> pd.DataFrame:
    """The published numbers of one table or figure, tidy: one number a row, or a row a metric.

    Args:
        name: of a file in ``data/papers``, without its suffix: "zoom_table1" is Table 1 of ZOOM.
            Rates are in per cent where the paper prints them so.

    Raises:
        InputError: no such table; the message names those there are.
    """
    folder = data_dir() / "papers"
    tables = sorted(path.stem for path in folder.glob("*.csv"))
    if name not in tables:
        raise InputError(
            f"No published numbers {name!r}: choose from {', '.join(tables) or 'none'}."
        )
    path = folder / f"{name}.csv"
    with reading(path, "restore it with 'git checkout data/papers'"):
        return pd.read_csv(path)
