"""What a model's losses say of sentences, as one self-contained HTML page."""

import datetime
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from visiondx.core.versions import versions
from visiondx.show.report import data_uri, image_png, png, words, write_page

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
COLUMNS = {
    "compared": ("Pair", "Difference", "95 % interval", "Verdict"),
    "asked-alone": ("Sentence", "Score", "95 % interval", "Verdict"),
    "audit": ("Attribute", "Gap", "95 % interval", "Verdict"),
    "nearest": ("Sentence", "Mean loss", "95 % interval", ""),
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
    strips = [
        {
            "sentence": sentence,
            "images": _strip(found.nearest.rows[k][:SHOWN], losses, pictures),
        }
        for k, sentence in enumerate(found.nearest.sentences)
    ]
    return write_page(
        "losses.html.j2",
        out_dir,
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


def _part(result: Any) -> dict[str, Any]:
    """A section: its figure, the rows that a reader needs, and the whole table to download."""
    frame, name = result.to_frame(), SECTIONS[type(result).__name__]
    ranked = frame.sort_values("value", ascending=False) if name == "asked-alone" else frame
    rows = [_row(name, row) for row in ranked.to_dict("records")]
    said = "; ".join(f"{of} {value} ({ends})" for of, value, ends, _ in rows)
    return {
        "name": name,
        "heading": result.heading,
        "figure": data_uri(png(result.plot())),
        "alt": f"{result.heading}. {said}.",
        "columns": COLUMNS[name],
        "rows": rows,
        "csv": data_uri(frame.to_csv(index=False).encode(), "text/csv;charset=utf-8"),
    }


def _row(name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    """What is shown of a row of a result's table, under ``COLUMNS``."""
    ends = f"{row['low']:.2f} to {row['high']:.2f}"
    if name == "compared":
        pair = f"{row['a']} — against — {row['b']}"
        found = (pair, f"{row['value']:+.2f}", ends, row["verdict"])
    elif name == "asked-alone":
        found = (row["prompt"], f"{row['value']:+.2f}", ends, row["verdict"])
    elif name == "audit":
        found = (row["attribute"], f"{row['rmm']:.2f}", ends, row["verdict"])
    else:
        said = f"unknown words: {row['unknown']}" if row["unknown"] else ""
        found = (row["sentence"], f"{row['value']:.2f}", ends, said)
    return (found[0], *(text.replace("-", "−") for text in found[1:3]), found[3])


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
