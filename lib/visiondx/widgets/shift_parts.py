"""The pieces of HTML of the explorer of shifts: columns of pictures, similarities, the filter.

A picture's HTML says all that may become of it; which of it is seen is up to a small style sheet,
`decided`, so that moving a threshold sends no picture again.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

import numpy as np
from torch import Tensor
from torch.nn.functional import interpolate

from visiondx.core.stats import Estimate
from visiondx.show.report import data_uri
from visiondx.widgets import kept
from visiondx.widgets.shift_rows import NAME, TOKEN, TRUTH, Row

STYLE = """<style>
.vdx-shift-column { flex: 1 1 310px; min-width: 300px; gap: 2px; }
.vdx-shots { display: grid; grid-template-columns: repeat(auto-fill, 72px); gap: 6px 8px; }
.vdx-shots figure { margin: 0; width: 72px; position: relative; }
.vdx-shots img { width: 72px; height: 72px; border-radius: 4px; display: block; }
.vdx-shots figcaption { font-size: 11px; line-height: 1.3; font-variant-numeric: tabular-nums; }
.vdx-shots figcaption > * { display: flex; justify-content: space-between; }
.vdx-shots .vdx-says { white-space: nowrap; gap: 4px; }
.vdx-says span:last-child { overflow: hidden; text-overflow: ellipsis; }
.vdx-hit { color: #2b7a4b; font-weight: 600; }
.vdx-miss { color: #c62828; font-weight: 600; }
.vdx-shots .vdx-out { display: none; }
.vdx-shots .vdx-in, .vdx-shots .vdx-out { justify-content: flex-start; }
.vdx-shots .vdx-in { color: #2b7a4b; }
.vdx-head { min-height: 3.9em; }
.vdx-head .vdx-caption { font-size: 14px; }
.vdx-lanes { position: relative; margin: 0 82px 2px 114px; }  /* as the slider */
.vdx-lane { position: relative; height: 15px; border-bottom: 1px solid
  var(--jp-layout-color3, #e4e4e4); }
.vdx-lane b { position: absolute; right: calc(100% + 10px); font-weight: 400; font-size: 12px;
  white-space: nowrap; line-height: 15px; }
.vdx-lane i { position: absolute; top: 3px; width: 8px; height: 8px; margin-left: -4px;
  border-radius: 4px; opacity: .65; }
.vdx-limit { position: absolute; top: 0; bottom: 0; width: 2px; margin-left: -1px;
  background: var(--jp-ui-font-color1, #222); }
.vdx-lines pre { overflow-x: auto; font-size: 12px; line-height: 1.35; margin: 4px 0 8px; }
</style>"""
INKS = {NAME: "#8fa6b8", TOKEN: "#d1495b", TRUTH: "#2b7a4b"}
TITLES = {NAME: "The class's name", TOKEN: "Its token", TRUTH: "The truth"}
SIDE = 64  # least pixels of a picture


def percent(share: Estimate) -> str:
    return f"{share.value:.0%} [{share.low:.0%}, {share.high:.0%}]"


def shots(row: Row, column: int, says: Sequence[str], order: Iterable[int]) -> str:
    """The pictures of a row, with what model and CLIP say of each.

    Args:
        column: the model's output of the class. says: what it takes each picture for. order: of
            the pictures.
    """
    cells = []
    for k in order:
        p, hit = float(row.p[k, column]), int(row.p[k].argmax()) == column
        verdict = f'<span class="vdx-hit">{p:.2f}</span>'
        if not hit:
            verdict = f'<span class="vdx-miss">{p:.2f}</span><span>{escape(says[k])}</span>'
        of_shift = ""
        if np.isfinite(row.of_shift[k]):
            of_shift = f'<span class="vdx-s"><i>shift</i>{row.of_shift[k]:.3f}</span>'
        title = f"probability {p:.3f}; taken for {says[k]}"
        cells.append(
            f"""<figure class="n{k}" title="{escape(title)}">
            <img src="{data_uri(kept.png(_small(row.images[k]), SIDE))}" alt=""><figcaption>
            <span class="vdx-says">{verdict}</span>
            <span class="vdx-c"><i>class</i>{row.of_class[k]:.3f}</span>{of_shift}
            <span class="vdx-in">✓ kept</span><span class="vdx-out">✕ left out</span>
            </figcaption></figure>"""
        )
    return f'<div class="vdx-shots">{"".join(cells)}</div>'


def _small(image: Tensor) -> Tensor:
    """An image (3, H, W) of twice the pixels that it is shown with at most."""
    scale = 2 * SIDE / max(image.shape[1:])
    if scale >= 1:
        return image
    return interpolate(image[None], scale_factor=scale, mode="bilinear", antialias=True)[0]


def head(name: str, about: str, found: Mapping[str, Estimate] | None = None) -> str:
    """A column's title, what it was asked, and the shares that ``ShiftSession.measures`` finds."""
    lines = [f'<span class="vdx-caption">{TITLES[name]}</span>', escape(about)]
    if found:
        right, kept_right = found["right"], found["right_kept"]
        after = f", {kept_right.value:.0%} of those kept" if kept_right.n else ""
        lines.append(
            f"kept <b>{found['yield'].value:.0%}</b> of {right.n} · model right in "
            f"<b>{right.value:.0%}</b>{after}"
        )
    return f'<div class="vdx-head">{"<br>".join(lines)}</div>'


def decided(box: str, passes: Mapping[str, tuple[np.ndarray, np.ndarray]], at: float) -> str:
    """The sheet that shows which pictures are left out, and why.

    Args:
        box: CSS class of the explorer, of which there may be several in a page.
        passes: of each row, see ``ShiftSession.passes``. at: t_shift, as a share of the axis.
    """
    rules = [f".{box} .vdx-limit {{ left: {100 * min(max(at, 0), 1):.2f}% }}"]

    def rule(chosen: Mapping[str, np.ndarray], inside: str, does: str) -> None:
        places = [
            f".{box} .vdx-row-{name} .n{k} {inside}"
            for name, rows in chosen.items()
            for k in np.flatnonzero(rows)
        ]
        if places:
            rules.append(f"{', '.join(places)} {{ {does} }}")

    of_class = {name: ~found[0] for name, found in passes.items()}
    of_shift = {name: ~found[1] for name, found in passes.items()}
    out = {name: of_class[name] | of_shift[name] for name in passes}
    rule(out, "img", "opacity: .3")
    rule(out, ".vdx-in", "display: none")
    rule(out, ".vdx-out", "display: block; color: #c62828")
    rule(of_class, ".vdx-c", "color: #c62828")
    rule(of_shift, ".vdx-s", "color: #c62828")
    return f"<style>{' '.join(rules)}</style>"


def lanes(rows: Mapping[str, Row], low: float, high: float) -> str:
    """Similarities to the shift, a line a row and a dot a picture, and where t_shift stands."""
    drawn = []
    for name, row in rows.items():
        ink, places = INKS[name], 100 * (row.of_shift - low) / (high - low)
        dots = "".join(f'<i style="left:{at:.2f}%;background:{ink}"></i>' for at in places)
        drawn.append(f'<div class="vdx-lane"><b>{TITLES[name].lower()}</b>{dots}</div>')
    return f"""<div class="vdx-lanes">{"".join(drawn)}<div class="vdx-limit"></div></div>"""


def legend(word: str, captions: Sequence[str], t_class: float) -> str:
    """What the numbers below a picture are."""
    shift = f", and to “{escape(captions[1])}”" if len(captions) > 1 else ""
    return f"""<div class="vdx-soft">Below each picture: the model's probability of
        <b>{escape(word)}</b>, <span class="vdx-miss">red</span> with what it says instead; CLIP's
        similarity to “{escape(captions[0])}”, which must reach {t_class:.3f}{shift}.</div>"""


def told(verdict: str, python: str, command: str) -> str:
    """The sentence, and below it, folded away, what makes it again."""
    blocks = f"<pre>{escape(python)}</pre>" + (f"<pre>{escape(command)}</pre>" if command else "")
    return f"""<div class="vdx-verdict">{escape(verdict)}</div>
        <details class="vdx-lines"><summary>The lines that make it again</summary>
        {blocks}</details>"""
