"""A diagnosis as one self-contained HTML page: no script, no network, every word escaped."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from visiondx.core.errors import InputError
from visiondx.core.files import atomic_write
from visiondx.core.versions import versions as installed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from visiondx.zoom.diagnose import Diagnosis

COLUMNS = ("attribute", "h", "low", "high", "n", "behind_low", "share")


def write_report(
    out_dir: str | Path,
    *,
    title: str,
    asked: Mapping[str, Any],
    histogram: "Figure | bytes",
    sensitivity: pd.DataFrame,
    counterfactuals: Sequence[Mapping[str, Any]],
    truth: pd.DataFrame | None = None,
    settings: Mapping[str, Any],
    versions: Mapping[str, str],
    notes: Sequence[str] = (),
) -> Path:
    """Write ``report.html`` into ``out_dir``.

    Args:
        asked: what the person asked for, a row each; lists are joined.
        histogram: the sensitivity histogram, as a figure or as a PNG's bytes.
        sensitivity: columns ``attribute, h, low, high, n, behind_low, share``; h is ZOOM's Eq. 11,
            the mean change of the model's probability, with its interval, share is h over the sum
            of h; ``behind_low`` is how far, image by image, it surely lies behind the first
            (``Sensitivity.to_frame``).
        counterfactuals: ``{attribute, weight, pairs}`` each; a pair is ``{original,
            counterfactual, p_original, p_counterfactual}`` with images (H, W, 3) uint8.
        truth: true sensitivities beside the measured ones, any columns, or None.
        notes: sentences that a reader should know.

    Raises:
        InputError: a missing column or an image of another shape or type.
    """
    missing = [column for column in COLUMNS if column not in sensitivity]
    if missing or sensitivity.empty:
        raise InputError(f"sensitivity needs rows and the columns {COLUMNS}; missing: {missing}.")
    ranked = sensitivity.sort_values("h", ascending=False)
    order = {name: rank for rank, name in enumerate(ranked["attribute"])}
    strips = sorted(counterfactuals, key=lambda strip: order.get(strip["attribute"], len(order)))

    page = _environment().get_template("report.html.j2")
    html = page.render(
        title=title,
        verdict=verdict(ranked),
        asked={name: words(value) for name, value in asked.items()},
        histogram=data_uri(histogram if isinstance(histogram, bytes) else _png(histogram)),
        rows=ranked.to_dict("records"),
        scale=max(float(ranked["high"].max()), 1e-9),
        strips=[strip | {"pairs": [_pair(p) for p in strip["pairs"]]} for strip in strips],
        truth=truth,
        settings={name: words(value) for name, value in settings.items()},
        versions=versions,
        notes=notes,
    )
    path = Path(out_dir) / "report.html"
    with atomic_write(path) as part:
        part.write_text(html, encoding="utf-8")
    return path


def write_diagnosis(
    found: "Diagnosis",
    out_dir: str | Path,
    *,
    title: str,
    asked: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    pairs: int = 4,
) -> Path:
    """Write ``report.html`` of a ZOOM diagnosis; ``asked`` and ``settings`` add rows to its own."""
    result, channels = found.result, found.directions.to_frame().set_index("attribute")["channels"]
    own = {"seed of the images": result.seed, "style channels an attribute": channels.to_dict()}
    return write_report(
        out_dir,
        title=title,
        asked={
            **(asked or {}),
            "Attributes": result.attributes,
            "Neutral prompt": found.directions.neutral,
            "Held fixed": result.consistency,
            "Images": len(result.styles),
        },
        histogram=found.sensitivity.plot(found.truth),
        sensitivity=found.sensitivity.to_frame(),
        counterfactuals=found.counterfactuals(pairs),
        truth=found.truth_frame(),
        settings={**own, **result.settings, **(settings or {})},
        versions=installed(),
        notes=_notes(found),
    )


def _notes(found: "Diagnosis") -> list[str]:
    notes = [
        "Every image was made by the generator, so this speaks about what the generator can draw.",
        "A short bar has two readings: the model does not mind the attribute, or the edit did not "
        "show it. The pairs above tell which.",
    ]
    if not found.result.consistency:
        notes.append(
            "No consistency prompts were given, so an edit was free to change what the model is "
            "asked about."
        )
    if found.planted:
        notes.append(
            f"This model was trained with a planted bias, “{found.planted}”. Of the attributes "
            f"above, it has place {found.truth.place(found.planted)} in the truth and place "
            f"{found.sensitivity.place(found.planted)} here."
        )
    return notes


def verdict(sensitivity: pd.DataFrame) -> str:
    """One or two sentences on the strongest attribute, and on how sure that is.

    Args:
        sensitivity: as for ``write_report``, in any order.
    """
    ranked = sensitivity.sort_values("h", ascending=False).to_dict("records")
    first, others = ranked[0], ranked[1:]
    interval = f"{first['low']:.2f} to {first['high']:.2f}"
    if first["high"] < 0.005:
        return "None of these attributes moved the model: every mean change is below 0.005."
    moved = (
        f"“{first['attribute']}” moved the model's probability by {first['h']:.2f} on average "
        f"(95 % interval {interval}, {first['n']} images)"
    )
    if not others:
        return (
            f"{moved}. No other attribute was asked about, so there is nothing to compare it with."
        )
    rivals = [row["attribute"] for row in others if not row["behind_low"] > 0]
    if not rivals:
        return (
            f"The model hangs most on one attribute: {moved}, {100 * first['share']:.0f} % of all "
            "movement found. In the same images, every other moved it less."
        )
    names = " and ".join(f"“{name}”" for name in rivals[:2])
    if len(rivals) > 2:
        names = f"{len(rivals)} others, such as {names}"
    return (
        f"No single attribute stands out: {moved}, the most of all, but in the same images not "
        f"surely more than {names}. More images would tell them apart."
    )


def words(value: Any) -> str:
    """A setting as a person writes it: 3 digits, no brackets, “–” for nothing."""
    if value is None or (isinstance(value, str) and not value) or value is pd.NA:
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        return f"{value:.3g}" if math.isfinite(value) else "–"
    if isinstance(value, list | tuple | set):
        return " · ".join(words(each) for each in value) or "–"
    if isinstance(value, Mapping):
        return " · ".join(f"{name} {words(each)}" for name, each in value.items()) or "–"
    return str(value)


def data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def image_png(image: np.ndarray) -> bytes:
    """A PNG of an image (H, W, 3), uint8.

    Raises:
        InputError: another shape or type.
    """
    from PIL import Image

    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise InputError(
            f"A report's image must be (H, W, 3) uint8, got {image.shape} {image.dtype}."
        )
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _pair(pair: Mapping[str, Any]) -> dict[str, Any]:
    return dict(pair) | {
        name: data_uri(image_png(pair[name])) for name in ("original", "counterfactual")
    }


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, bbox_inches="tight", facecolor="white")
    return buffer.getvalue()


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["words"] = words
    return environment
