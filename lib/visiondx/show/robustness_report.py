"""Accuracy of models under shifts as one self-contained HTML page."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from visiondx.core.versions import versions
from visiondx.show.report import data_uri, image_png, png, words, write_page

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from visiondx.dataset_interfaces.robustness import Robustness

PAPER = (
    "J. Vendrow, S. Jain, L. Engstrom, A. Madry: Dataset Interfaces: Diagnosing Model Failures "
    "Using Controllable Counterfactual Generation. 2023."
)


def write_robustness(
    found: Robustness,
    out_dir: str | Path,
    *,
    title: str,
    asked: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    examples: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write ``report.html`` into ``out_dir``.

    Args:
        asked: what the person asked for, a row each. settings: whatever makes it again.
        examples: a few images (k, 3, S, S) in [0, 1] of each shift, the base among them.
    """
    shifts, models = found.shift_frame(), found.model_frame()
    sloped = shifts["slope"].notna()
    return write_page(
        "robustness.html.j2",
        out_dir,
        title=title,
        verdict=list(found.said),
        date=datetime.date.today().isoformat(),
        asked={name: words(value) for name, value in (asked or {}).items()},
        map=data_uri(png(found.plot())),
        plane=data_uri(png(found.plot_plane())) if sloped.any() else None,
        lines=data_uri(png(found.plot_lines())) if sloped.any() else None,
        shifts=[_shift(row) for row in shifts.to_dict("records")],
        models=[_model(row) for row in models.to_dict("records")],
        filtered=bool((found.images != found.drawn).any()),
        least=found.least,
        count=len(found.models),
        files={
            "every model and shift": _csv(found.to_frame()),
            "shifts": _csv(shifts),
            "models": _csv(models),
        },
        examples={
            name.replace("_", " "): _pictures(several) for name, several in (examples or {}).items()
        },
        settings={
            name: words(value)
            for name, value in {
                "images that a class must have": found.least,
                "draws of an interval": found.draws,
                "seed of the intervals": found.seed,
                **(settings or {}),
            }.items()
        },
        versions=versions(),
        paper=PAPER,
    )


def _pictures(images: Tensor) -> list[str]:
    shown = (images.permute(0, 2, 3, 1).clamp(0, 1) * 255).round().byte().cpu().numpy()
    return [data_uri(image_png(np.ascontiguousarray(image))) for image in shown]


def _csv(frame: pd.DataFrame) -> str:
    return data_uri(frame.to_csv(index=False).encode(), "text/csv;charset=utf-8")


def _shift(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "name": row["shift"].replace("_", " "),
        "impact": _points(row["impact"]),
        "ends": _between(row["impact_low"], row["impact_high"], 100),
        "slope": _number(row["slope"]),
        "slope ends": _between(row["slope_low"], row["slope_high"]),
        "classes": str(row["classes"]),
        "images": str(row["images"]),
        "yield": f"{100 * row['yield']:.0f} %",
    }


def _model(row: Mapping[str, Any]) -> dict[str, str]:
    found = {
        "name": row["model"],
        "base": f"{100 * row['base']:.1f} %",
        "ends": _between(row["base_low"], row["base_high"], 100),
        "drop": _points(row.get("drop", float("nan"))),
        "worst": "–",
    }
    if "worst" in row:
        found["worst"] = f"{row['worst'].replace('_', ' ')}, {_points(row['worst_drop'])}"
    return found


def _points(value: float) -> str:
    """A share as points of accuracy."""
    return f"{100 * value:.1f}".replace("-", "−") if value == value else "–"


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-", "−") if value == value else "–"


def _between(low: float, high: float, scale: float = 1) -> str:
    if low != low:
        return "–"
    shape = "{:.1f} to {:.1f}" if scale == 100 else "{:.2f} to {:.2f}"
    return shape.format(scale * low, scale * high).replace("-", "−")
