"""The pieces of HTML of the explorer of explanations: losses, pictures, the verdict, the lines."""

from collections.abc import Sequence
from html import escape

from torch import Tensor

from visiondx.diffexplainer.result import Explanation
from visiondx.diffexplainer.spurious import CORE, SPURIOUS
from visiondx.show.overlays import draw_masks
from visiondx.widgets.question_parts import strip
from visiondx.widgets.wants import Watched

STYLE = """<style>
.vdx-want .vdx-strip figure, .vdx-want .vdx-strip img { width: 88px; }
.vdx-want .vdx-strip img { height: 88px; }
.vdx-losses { width: 100%; height: 70px; display: block; }
.vdx-losses polyline { fill: none; stroke-width: 1.5; vector-effect: non-scaling-stroke; }
.vdx-verdict-word { padding: 1px 8px; border-radius: 9px; color: #fff; font-weight: 600;
  background: #777; }
.vdx-verdict-word.vdx-core { background: #2b7a4b; }
.vdx-verdict-word.vdx-spurious { background: #d1495b; }
.vdx-lines pre { overflow-x: auto; font-size: 12px; line-height: 1.35; margin: 4px 0 8px; }
</style>"""
INKS = ("#d1495b", "#30638e", "#2b7a4b", "#b07d12", "#7a5195", "#5f6b76")
WIDE, HIGH = 300, 70  # of the drawing of the losses, in its own units


def losses(path: Tensor) -> str:
    """The losses (T + 1, S) so far, a line a start; NaN where no step was made."""
    made = path[~path.isnan().any(1)]
    if not len(made):
        return ""
    low, high = float(made.min()), float(made.max())
    scale = (HIGH - 4) / max(high - low, 1e-9)
    wide = WIDE / max(len(path) - 1, 1)
    lines = []
    for start, line in enumerate(made.T.tolist()):
        points = " ".join(
            f"{step * wide:.1f},{2 + (high - y) * scale:.1f}" for step, y in enumerate(line)
        )
        ink = INKS[start % len(INKS)]
        lines.append(f'<polyline stroke="{ink}" points="{points}"></polyline>')
    return f"""<div class="vdx-soft">loss of every start, on each step's own fresh noise:
        from {float(made[0].mean()):.2f} to {float(made[-1].mean()):.2f} on average</div>
        <svg class="vdx-losses" viewBox="0 0 {WIDE} {HIGH}"
        preserveAspectRatio="none">{"".join(lines)}</svg>"""


def searched(at: Watched) -> str:
    """What a search has come to, a row of pictures a start."""
    rows = (
        f'<div class="vdx-soft" style="color:{INKS[start % len(INKS)]}">start {start}</div>'
        f"{strip(images, captions)}"
        for start, (images, captions) in enumerate(zip(at.images, at.captions, strict=True))
    )
    return "".join(rows)


def pictures(about: str, images: Tensor, captions: Sequence[str]) -> str:
    """A row of pictures under a line of text."""
    return f'<div class="vdx-soft">{escape(about)}</div>{strip(images, captions)}'


def masked(found: Explanation, count: int) -> str:
    """The first pictures with the segmenter's mask of the class's word, and r; "" without one."""
    if not found.known[0]:
        return ""
    drawn = draw_masks(found.images[0, :count], found.masks[0, :count])
    shares = [f"{r:.0%}" for r in found.r[0, :count].tolist()]
    about = f"in red where the segmenter sees “{found.words[0]}”; r, the share that it covers"
    return pictures(about, drawn, shares)


def verdict(found: Explanation) -> str:
    """The verdict's word, its sentence, and r with its interval."""
    word = found.verdict(0)
    style = {CORE: " vdx-core", SPURIOUS: " vdx-spurious"}.get(word, "")
    r = found.share_covered(0)
    measured = (
        f" r = {r.value:.2f} [{r.low:.2f}, {r.high:.2f}] over {r.n} pictures; δ = {found.delta:g}."
        if r
        else ""
    )
    if found.classes[0] is None:
        measured = " No class was asked for, so no object was looked for."
    return f"""<div><span class="vdx-verdict-word{style}">{word}</span>
        {escape(found.said[0])}<span class="vdx-soft">{measured}</span></div>"""


def near(found: Explanation) -> str:
    """The words of the vocabulary nearest to each searched token."""
    rows = "; ".join(escape(", ".join(words)) for words in found.near[0])
    return f'<div><span class="vdx-soft">nearest words, token by token:</span> {rows}</div>'


def lines(python: str, command: str) -> str:
    """What makes it again, folded away."""
    blocks = f"<pre>{escape(python)}</pre>"
    if command:
        blocks += f"<pre>{escape(command)}</pre>"
    return f"""<details class="vdx-lines"><summary>The lines that make it again</summary>
        {blocks}</details>"""
