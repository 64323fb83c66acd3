"""Results of any method as one self-contained HTML page: a section each."""

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from visiondx.core.errors import InputError
from visiondx.core.files import atomic_write
from visiondx.core.results import Result
from visiondx.core.versions import versions
from visiondx.show.report import data_uri, environment, png


def write_page(
    results: Sequence[Result],
    out_dir: str | Path,
    *,
    title: str,
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """Write ``page.html`` into ``out_dir``: what may be said of each result, its figure and table.

    Args:
        results: at least one, in the order in which they are read.
        settings: whatever a reader needs to make it again.

    Raises:
        InputError: no results, or something that is none.
    """
    strange = [type(r).__name__ for r in results if not isinstance(r, Result)]
    if strange or not results:
        raise InputError(
            f"A page needs results with heading, said, to_frame, plot and save, got "
            f"{', '.join(strange) or 'none'}."
        )
    html = (
        environment()
        .get_template("page.html.j2")
        .render(
            title=title,
            date=datetime.date.today().isoformat(),
            parts=[_part(result) for result in results],
            settings=settings or {},
            versions=versions(),
        )
    )
    path = Path(out_dir) / "page.html"
    with atomic_write(path) as part:
        part.write_text(html, encoding="utf-8")
    return path


def _part(result: Result) -> dict[str, Any]:
    frame = result.to_frame()
    return {
        "heading": result.heading,
        "said": list(result.said),
        "figure": data_uri(png(result.plot())),
        "columns": [str(column).replace("_", " ") for column in frame.columns],
        "rows": list(frame.itertuples(index=False, name=None)),
        "csv": data_uri(frame.to_csv(index=False).encode(), "text/csv;charset=utf-8"),
    }
