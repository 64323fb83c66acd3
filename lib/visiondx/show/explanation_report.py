"""What classes and neurons want to see, as one self-contained HTML page."""

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from visiondx.core.versions import versions
from visiondx.show.report import data_uri, image_png, png, words, write_page

if TYPE_CHECKING:
    from torch import Tensor

    from visiondx.diffexplainer.result import Explanation

SHOWN = 8  # pictures of an aim, the first that were painted
SIDE = 256  # pixels of a picture on the page; larger ones are made so small
PAPER = (
    "M. Pennisi, G. Bellitto, S. Palazzo, M. Shah, C. Spampinato: DiffExplainer: Towards "
    "Cross-modal Global Explanations with Diffusion Models. 2024."
)


def write_explanation(
    found: "Explanation",
    out_dir: str | Path,
    *,
    title: str,
    asked: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    opened: str = "",
    command: str = "",
) -> Path:
    """Write ``report.html`` into ``out_dir``.

    Args:
        asked: what the person asked for, a row each. settings: whatever makes it again.
        opened: lines of Python that open ``target``, ``painter`` and ``segmenter``; without them
            the page's lines begin after that. command: of a shell, that makes it again.
    """
    parts = [_part(found, row) for row in range(len(found.names))]
    frame = found.to_frame()
    return write_page(
        "explanation.html.j2",
        out_dir,
        title=title,
        verdict=found.said,
        date=datetime.date.today().isoformat(),
        asked={
            name: words(value)
            for name, value in {
                **(asked or {}),
                "Explained": found.names,
                "Looked for": list(dict.fromkeys(word for word in found.words if word)),
                "Template": found.found.prompt.template,
            }.items()
        },
        parts=parts,
        judged=any(part["covered"] is not None for part in parts),
        classes=any(part["kind"] is not None for part in parts),
        pictures=found.images.shape[1],
        starts=found.found.losses.shape[1],
        delta=f"{100 * found.delta:.3g} %",
        csv=data_uri(frame.to_csv(index=False).encode(), "text/csv;charset=utf-8"),
        next_steps=_next_steps(found),
        command=command,
        python=python_lines(found, opened),
        settings={name: words(value) for name, value in _settings(found, settings).items()},
        versions=versions(),
        paper=PAPER,
    )


def _part(found: "Explanation", row: int) -> dict[str, Any]:
    """A section: the pictures, with their masks where something was looked for, and the numbers."""
    curve = found.plot_search(row)
    covered, taken = found.share_covered(row), found.share_taken(row)
    losses = found.found.losses[row]
    return {
        "id": f"aim-{row + 1}",
        "name": found.names[row],
        "kind": found.classes[row],
        "word": found.words[row],
        "said": found.said[row],
        "pictures": _pictures(found, row),
        "taken": taken,
        "p": None if taken is None else float(found.p[row].mean()),
        "covered": covered,
        "loss": float(losses.min()),
        "spread": float(found.found.spread[row]),
        "near": found.near[row],
        "curve": data_uri(png(curve)),
        "ends": f"from {float(found.found.path[0, row].mean()):.2f} on average over the starts to "
        f"{float(losses.min()):.2f} of the start that was kept",
    }


def _pictures(found: "Explanation", row: int) -> list[dict[str, Any]]:
    """The first pictures, each with its mask drawn if the segmenter looked for a word."""
    from visiondx.show.overlays import draw_masks  # torch

    images = found.images[row, :SHOWN]
    plain, masked = _small(images), [None] * len(images)
    if found.known[row]:
        masked = _small(draw_masks(images, found.masks[row, :SHOWN]))
    return [
        {"image": image, "mask": mask, "p": float(p), "r": float(r)}
        for image, mask, p, r in zip(plain, masked, found.p[row], found.r[row])
    ]


def _small(images: "Tensor") -> list[str]:
    """Images (B, 3, H, W) as the page holds them."""
    from torch.nn.functional import interpolate

    shrink = SIDE / max(images.shape[2:])
    if shrink < 1:
        images = interpolate(images, scale_factor=shrink, mode="bilinear", antialias=True)
    pixels = (images.permute(0, 2, 3, 1).clamp(0, 1) * 255).round().byte().numpy()
    return [data_uri(image_png(np.ascontiguousarray(image))) for image in pixels]


def _next_steps(found: "Explanation") -> list[str]:
    rows = range(len(found.names))
    reached = [found.shows(row) for row in rows]
    steps = ["Look at the pictures before you believe a number: do they show one thing, or many?"]
    if not all(reached):
        steps.append(
            "Where the target does not take the pictures for the class, search longer (steps), "
            "from more starts, or with more tokens."
        )
    if any(found.words[row] is not None and not found.known[row] for row in rows):
        steps.append(
            "Where the segmenter has never seen the word, give another for that class "
            "(--word CLASS WORD), or a segmenter that reads any."
        )
    covered = [found.share_covered(row) for row in rows]
    if any(r is not None and r.low < found.delta <= r.high for r in covered):
        wider = 4 * found.images.shape[1]
        steps.append(
            f"Where an interval holds δ, more pictures tell: half as wide takes about {wider:,}."
        )
    lacking = [
        found.classes[row]
        for row in rows
        if covered[row] is not None and reached[row] and covered[row].value < found.delta
    ]
    if lacking:
        names = ", ".join(f"“{name}”" for name in dict.fromkeys(lacking))
        steps.append(
            f"Of {names}, check photographs of your own before you act on it: the object in "
            "another place, and this place without the object."
        )
    steps.append(
        f"Ask again with another seed than {found.found.seed}: what is true of the target comes "
        "again."
    )
    return steps


def _settings(found: "Explanation", given: Mapping[str, Any] | None) -> dict[str, Any]:
    searched = found.found.settings
    kind, *rest = found.way
    begun = ", the first start at the class's label" if rest == [found.classes] else ""
    through = "all" if searched.through is None else searched.through
    return {
        "tokens that are searched": searched.tokens,
        "kind of tokens": kind + begun,
        "starts": searched.starts,
        "steps": searched.descent.steps,
        "step size": f"{searched.descent.eta:g} ({searched.descent.update})",
        "fresh pictures a step": searched.noises,
        "pictures that choose among starts": searched.held,
        "steps of painting with a gradient": through,
        "pictures of the verdict": found.images.shape[1],
        "pixels of a picture": found.images.shape[-1],
        "δ": found.delta,
        "seed": found.found.seed,
        **(given or {}),
    }


def python_lines(found: "Explanation", opened: str = "") -> str:
    """What makes an explanation again, in Python.

    Args:
        opened: lines that open ``target``, ``painter`` and ``segmenter``.
    """
    told = {
        found.classes[row]: word
        for row, word in enumerate(found.words)
        if word is not None and word != found.classes[row]
    }
    looked = any(word is not None for word in found.words)
    given = [
        "target",
        repr(list(found.names)),
        "painter",
        *(["segmenter"] if looked else []),
        *([f"words={told!r}"] if told else []),
        "settings=settings",
        *([] if found.way == ("free", found.classes) else [f"way=way,  # {found.way[0]}"]),
        f"pictures={found.images.shape[1]}",
        f"delta={found.delta}",
        f"seed={found.found.seed}",
    ]
    lines = [
        "import visiondx as vx",
        "from visiondx.diffexplainer.explain import Settings",
        "from visiondx.search.descent import Descent",
        *([opened.strip()] if opened.strip() else []),
        f"settings = {found.found.settings!r}",
        "found = vx.explain(",
        *(f"    {each}" if "#" in each else f"    {each}," for each in given),
        ")",
    ]
    return "\n".join(lines)
