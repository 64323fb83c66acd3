"""What a model's losses say of sentences, as one self-contained HTML page."""

import datetime
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from visiondx.core.files import atomic_write
from visiondx.core.versions import versions
from visiondx.show.report import data_uri, environment, image_png, png, words

if TYPE_CHECKING:
    from torch import Tensor

    from visiondx.llm2loss.findings import LossFindings

SHOWN = 6  # images of a sentence
PAPER = "S. Ardeshir: LLM2Loss: Leveraging Language Models for Explainable Model Diagnostics. 2023."
SECTIONS = {  # what each part is called in links and files
    "Comparisons": "compared",
    "Answers": "asked-alone",
    "Audit": "audit",
    "Nearest": "nearest",
}


def write_losses(
    found: "LossFindings",
    out_dir: str | Path,
    *,
    title: str,
    losses: "Tensor",
    pictures: "Callable[[Tensor], Tensor]",
    asked: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    truth: Sequence[tuple[str, pd.DataFrame]] = (),
) -> Path:
    """Write ``report.html`` into ``out_dir``.

    Args:
        losses: (N,) of all images.
        pictures: rows (k,) -> the images themselves, (k, 3, S, S) in [0, 1].
        asked: what the person asked for, a row each. settings: whatever makes it again.
        truth: where it is known, tables of any columns, each with what it shows.
    """
    parts = [_part(result) for result in found.results]
    frame = found.nearest.to_frame()
    strips = [
        {
            "sentence": sentence,
            "mean": float(frame["value"][k]),
            "images": _strip(found.nearest.rows[k][:SHOWN], losses, pictures),
        }
        for k, sentence in enumerate(found.nearest.sentences)
    ]
    page = environment().get_template("losses.html.j2")
    html = page.render(
        title=title,
        verdict=found.verdict.splitlines(),
        date=datetime.date.today().isoformat(),
        asked={name: words(value) for name, value in (asked or {}).items()},
        skill=found.model.skill,
        doubtful=bool(found.warning),
        parts=parts,
        strips=strips,
        overall=found.nearest.overall,
        near=found.nearest.rows.shape[1],
        truth=truth,
        next_steps=_next_steps(found),
        settings={name: words(value) for name, value in _settings(found, settings).items()},
        versions=versions(),
        paper=PAPER,
    )
    path = Path(out_dir) / "report.html"
    with atomic_write(path) as part:
        part.write_text(html, encoding="utf-8")
    return path


def _part(result: Any) -> dict[str, Any]:
    """A section: its figure, the rows that a reader needs, and the whole table to download."""
    frame, name = result.to_frame(), SECTIONS[type(result).__name__]
    rows = [_row(name, row) for row in frame.to_dict("records")]
    said = "; ".join(f"{row['name']} {row['Value']} ({row['95 % interval']})" for row in rows)
    return {
        "name": name,
        "heading": result.heading,
        "figure": data_uri(png(result.plot())),
        "alt": f"{result.heading}. {said}.",
        "columns": [column for column in rows[0] if column != "name"],
        "rows": rows,
        "csv": data_uri(frame.to_csv(index=False).encode(), "text/csv;charset=utf-8"),
    }


def _row(name: str, row: Mapping[str, Any]) -> dict[str, str]:
    """What is shown of a row of a result's table, in words."""
    ends = f"{row['low']:.2f} to {row['high']:.2f}"
    if name == "compared":
        said = {"name": f"{row['a']} — against — {row['b']}", "Value": f"{row['value']:+.2f}"}
        return said | {"95 % interval": ends, "Verdict": row["verdict"]}
    if name == "asked-alone":
        said = {"name": row["prompt"], "Value": f"{row['value']:+.2f}"}
        return said | {"95 % interval": ends, "Verdict": row["verdict"]}
    if name == "audit":
        said = {"name": row["attribute"], "Value": f"{row['rmm']:.2f}"}
        return said | {"95 % interval": ends, "Verdict": row["verdict"]}
    said = {"name": row["sentence"], "Value": f"{row['value']:.2f}"}
    return said | {"95 % interval": ends, "Of all images": f"{row['all_images']:.2f}"}


def _strip(
    rows: "Tensor", losses: "Tensor", pictures: "Callable[[Tensor], Tensor]"
) -> list[dict[str, Any]]:
    images = (pictures(rows).permute(0, 2, 3, 1).clamp(0, 1) * 255).round().byte().numpy()
    return [
        {"image": data_uri(image_png(np.ascontiguousarray(image))), "loss": float(loss)}
        for image, loss in zip(images, losses[rows], strict=True)
    ]


def _settings(found: "LossFindings", given: Mapping[str, Any] | None) -> dict[str, Any]:
    model = found.model
    return {
        "kind of loss model": model.kind,
        "members": model.settings.members,
        "head": model.settings.head,
        "different images": model.n,
        "seed of the members": model.seed,
        **(given or {}),
    }


def _next_steps(found: "LossFindings") -> list[str]:
    if found.warning:
        return [
            "Give more images: the interval of the skill narrows with their number.",
            "Check the losses: those of images that the model was trained on say little, and a "
            "column of another meaning says nothing.",
            "Try another encoder: what CLIP does not see in an image, no sentence can ask for.",
        ]
    steps = [
        "Look at the nearest images: if they do not show what the sentence says, the encoder does "
        "not see it, and its answer is about something else.",
        "Compare an answer with the losses of its nearest images: where they disagree, believe "
        "neither.",
        "Check the worst on new, labelled images of it before you act on it.",
    ]
    told = found.comparisons is None or all(v != "cannot tell" for v in found.comparisons.verdict)
    if not told:
        wider = math.ceil(4 * found.model.n / 100) * 100
        steps.insert(
            2,
            "Where it cannot be told, more images narrow the intervals: half as wide takes about "
            f"four times as many, {wider:,}.",
        )
    return steps
