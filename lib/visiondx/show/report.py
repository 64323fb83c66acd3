"""A diagnosis as one self-contained HTML page: no script, no network, every word escaped."""

import base64
import datetime
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
    from visiondx.zoom.projected import Projection

COLUMNS = ("attribute", "h", "low", "high", "n", "share", "flip_rate")
PAPER = "J. Luo, Z. Wang, C. H. Wu, D. Huang, F. De la Torre: Zero-shot Model Diagnosis. CVPR 2023."
READERS = {"seen": "CLIP sees the edit", "judged": "Judges see it"}
PHOTOGRAPHS = {
    "name": "Photograph",
    "reached": "Reached",
    "rms": "RMS, levels",
    "contrast": "its contrast",
    "cosine": "Encoder's cosine",
    "mirrored": "both mirrored",
    "p_photograph": "Answer to it",
    "p_reconstruction": "to its reconstruction",
}
TRUTH = {
    "attribute": "Attribute",
    "h_true": "True mean change",
    "true_low": "from",
    "true_high": "to",
    "h_measured": "Measured here",
}


def write_report(
    out_dir: str | Path,
    *,
    title: str,
    verdict: str,
    what: str,
    asked: Mapping[str, Any],
    histogram: "Figure | bytes",
    sensitivity: pd.DataFrame,
    counterfactuals: Sequence[Mapping[str, Any]],
    truth: pd.DataFrame | None = None,
    settings: Mapping[str, Any],
    versions: Mapping[str, str],
    notes: Sequence[str] = (),
    next_steps: Sequence[str] = (),
    winner: str | None = None,
    photographs: Mapping[str, Any] | None = None,
) -> Path:
    """Write ``report.html`` into ``out_dir``.

    Args:
        verdict: what was found, a sentence a line, the most important first.
        what: h is a mean change of, such as "the model's probability of “male”".
        asked: what the person asked for, a row each; lists are joined.
        histogram: the sensitivity histogram, as a figure or as a PNG's bytes.
        sensitivity: columns ``attribute, h, low, high, n, share, flip_rate``, and perhaps ``seen``
            and ``judged`` with their intervals and ``shown``, see ``Sensitivity.to_frame``. h is
            ZOOM's Eq. 11, the mean change, with its interval; share is h over the sum of h.
        counterfactuals: ``{attribute, pairs}`` each; a pair is ``{original, counterfactual,
            p_original, p_counterfactual}`` with images (H, W, 3) uint8, and perhaps ``random``,
            whether it was drawn, and ``added``, whether the edit adds the attribute.
        truth: true sensitivities beside the measured ones, any columns, or None.
        notes: sentences that a reader should know. next_steps: what one may do now.
        winner: the attribute that the model may be said to hang on most, or None.
        photographs: what the images started from, if not from the generator: ``heading``, ``said``
            (sentences), ``figure`` and ``table`` (a frame).

    Raises:
        InputError: a missing column or an image of another shape or type.
    """
    missing = [column for column in COLUMNS if column not in sensitivity]
    if missing or sensitivity.empty:
        raise InputError(f"sensitivity needs rows and the columns {COLUMNS}; missing: {missing}.")
    ranked = sensitivity.sort_values("h", ascending=False)
    order = {name: rank for rank, name in enumerate(ranked["attribute"])}
    strips = sorted(counterfactuals, key=lambda strip: order.get(strip["attribute"], len(order)))

    return write_page(
        "report.html.j2",
        out_dir,
        title=title,
        verdict=verdict.splitlines(),
        what=what,
        date=datetime.date.today().isoformat(),
        asked={name: words(value) for name, value in asked.items()},
        histogram=data_uri(histogram if isinstance(histogram, bytes) else png(histogram)),
        rows=[{"shown": True} | row for row in ranked.to_dict("records")],
        winner=winner,
        photographs=None
        if photographs is None
        else {**photographs, "figure": data_uri(png(photographs["figure"]))},
        readers=[(k, who) for k, who in READERS.items() if k in ranked],
        scale=max(float(ranked["high"].max()), 1e-9),
        csv=data_uri(ranked.to_csv(index=False).encode(), "text/csv;charset=utf-8"),
        strips=[strip | {"pairs": [_pair(p) for p in strip["pairs"]]} for strip in strips],
        truth=truth,
        settings={name: words(value) for name, value in settings.items()},
        versions=versions,
        notes=notes,
        next_steps=next_steps,
        paper=PAPER,
    )


def write_diagnosis(
    found: "Diagnosis",
    out_dir: str | Path,
    *,
    title: str,
    asked: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    projection: "Projection | None" = None,
) -> Path:
    """Write ``report.html`` of a ZOOM diagnosis; ``asked`` and ``settings`` add rows to its own.

    Args:
        projection: of the photographs that the diagnosis started from; it gets a section.
    """
    result, channels = found.result, found.directions.to_frame().set_index("attribute")["channels"]
    own = {
        "seed of the images": result.seed,
        "style channels an attribute": channels.to_dict(),
        "directions estimated by": found.directions.estimator,
    }
    truth = found.truth_frame()
    if projection is not None:
        own |= {f"projection: {name}": value for name, value in projection.settings.items()}
    return write_report(
        out_dir,
        title=title,
        verdict=found.verdict,
        what=found.what,
        asked={
            **(asked or {}),
            "Attributes": result.attributes,
            "Neutral prompt": found.directions.neutral,
            **({"Labels": dict(enumerate(found.labels))} if result.task == "binary" else {}),
            "Held fixed": result.consistency,
            "Images": len(result.styles),
        },
        histogram=found.sensitivity.plot(found.truth),
        sensitivity=found.sensitivity.to_frame(),
        counterfactuals=found.counterfactuals(),
        truth=truth if truth is None else truth.rename(columns=TRUTH),
        settings={**own, **result.settings, **(settings or {})},
        versions=installed(),
        notes=_notes(found, projection),
        next_steps=_next_steps(found),
        winner=found.sensitivity.winner,
        photographs=None if projection is None else _section(projection),
    )


def _section(projection: "Projection") -> dict[str, Any]:
    table = projection.to_frame().drop(columns="left_out")
    return {
        "heading": projection.heading,
        "said": projection.said,
        "figure": projection.plot(),
        "table": table.rename(columns=PHOTOGRAPHS),
    }


def _notes(found: "Diagnosis", projection: "Projection | None") -> list[str]:
    notes = [
        "Every image was made by the generator, so this speaks about what the generator can draw."
        if projection is None
        else "The edits start from the generator's reconstructions, not from the photographs: what "
        "a reconstruction lacks, the model was not asked about.",
        "A bar counts movement of the model's answer, not mistakes: an edit that changes what the "
        "model is asked about moves it rightly.",
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


def _next_steps(found: "Diagnosis") -> list[str]:
    measured = found.sensitivity
    steps = ["Look at the pairs: if the edits do not look like their words, do not believe a bar."]
    if not all(measured.shown):
        other = "edits along gradients (directions = “gradient”)"
        if found.directions.estimator == "gradient":
            other = "the relevance matrix (directions = “relevance”: hours, once for a generator)"
        steps.append(
            "For what was not shown, try other words (synonyms, or what one would see), or "
            f"{other}."
        )
    if measured.winner is None and len(measured.attributes) > 1:
        steps.append("Where the verdict says how many images would tell, ask again with so many.")
    other = f"another seed of the images than {found.result.seed}"
    if found.result.seed is None:
        other = "other photographs"
    steps.append(f"Ask again with {other}: what is true of the model comes again.")
    if measured.winner is not None:
        steps.append(
            f"Check “{measured.winner}” on photographs of your own, with it and without, before "
            "you act on it."
        )
    return steps


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


def data_uri(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64," + base64.b64encode(content).decode()


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
    images = {k: data_uri(image_png(pair[k])) for k in ("original", "counterfactual")}
    return {"random": False, "added": None} | dict(pair) | images


def png(figure: "Figure", dpi: int = 150) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight", facecolor="white")
    return buffer.getvalue()


def write_page(template: str, out_dir: str | Path, **shown: Any) -> Path:
    """Write ``report.html`` into ``out_dir``, what a template of this folder makes of `shown`."""
    html = environment().get_template(template).render(shown)
    path = Path(out_dir) / "report.html"
    with atomic_write(path) as part:
        part.write_text(html, encoding="utf-8")
    return path


def environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["words"] = words
    made.filters["percent"] = lambda v: f"{100 * v:.0f} %" if v == v else "–"
    return made
