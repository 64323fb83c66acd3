"""Pictures of the explorers, for pages that are read and not run."""

import io
from collections.abc import Mapping, Sequence
from textwrap import wrap

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from visiondx.llm2loss.answers import Comparisons
from visiondx.show import plots
from visiondx.show.report import png
from visiondx.show.words import figure_text, lend_fonts
from visiondx.widgets import kept
from visiondx.widgets.session import EditSession, View


def of_edit(session: EditSession, view: View) -> bytes:
    """A PNG of the explorer of edits: original and edited picture, probabilities, the weights."""
    figure = plt.figure(figsize=(8.2, 2.9), layout="constrained")
    before, after, weights = figure.subplots(1, 3, width_ratios=(1, 1, 1.2))
    for axis, shown, name in (
        (before, session.original, f"Original (seed {session.seed})"),
        (after, view, "Edited, flipped" if view.flipped else "Edited"),
    ):
        axis.imshow(kept.picture(shown.image))
        axis.set_axis_off()
        said = f"{name}\nprobability of {session.target.labels[1]}: {shown.p:.3f}"
        axis.set_title(figure_text(said), fontsize=9)
    at, bound = range(len(session.attributes)), session.settings.epsilon
    weights.barh(at, session.w.tolist(), color=plots.REST)
    weights.axvline(0, color="0.4", linewidth=1)
    weights.set_yticks(at, [figure_text(name) for name in session.attributes], fontsize=8)
    weights.set(xlim=(-bound, bound), ylim=(len(at) - 0.5, -0.5))
    weights.tick_params(axis="x", labelsize=8)
    weights.set_title(f"edit weights; SSIM with the original {view.ssim:.3f}", fontsize=9)
    weights.spines[["top", "right"]].set_visible(False)
    return still(lend_fonts(figure))


def of_question(
    comparison: Comparisons, rows: Sequence[tuple[str, Tensor, Sequence[str]]]
) -> bytes:
    """A PNG of the explorer of sentences: the difference of two, and rows of pictures.

    Args:
        rows: a name, images (k, 3, H, W) and a caption for each.
    """
    names, images, captions = zip(*rows, strict=True)
    grid = plots.image_grid(
        torch.cat(images), [text for row in captions for text in row], len(images[0]), rows=names
    )
    parts = [
        Image.open(io.BytesIO(still(figure))).convert("RGB")
        for figure in (comparison.plot(comparison.verdict[0]), grid)
    ]
    whole = Image.new("RGB", (max(p.width for p in parts), sum(p.height for p in parts)), "white")
    whole.paste(parts[0], (0, 0))
    whole.paste(parts[1], (0, parts[0].height))
    buffer = io.BytesIO()
    whole.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def of_wish(rows: Mapping[str, tuple[Tensor, Sequence[str]]], said: str = "") -> bytes:
    """A PNG of the explorer of explanations: rows of as many pictures, and the verdict above.

    Args:
        rows: {name: (images (k, 3, H, W), a caption for each)}; none leave the picture empty.
    """
    rows = rows or {"": (torch.ones(1, 3, 8, 8), [""])}
    images, captions = zip(*rows.values(), strict=True)
    titles = [text for row in captions for text in row]
    grid = plots.image_grid(torch.cat(images), titles, len(images[0]), rows=list(rows))
    if said:
        grid.suptitle(figure_text("\n".join(wrap(said, 16 * len(images[0])))), fontsize=9)
    return still(lend_fonts(grid))


def still(figure: Figure) -> bytes:
    """A PNG of a figure, which is closed."""
    plt.close(figure)
    return png(figure, dpi=90)
