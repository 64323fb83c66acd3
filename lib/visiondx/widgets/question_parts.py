"""The pieces of HTML of the explorer of sentences: the difference, its images, the truth."""

from collections.abc import Sequence
from html import escape

from torch import Tensor

from visiondx.llm2loss.answers import QUARTILES, Comparisons
from visiondx.show.report import data_uri
from visiondx.widgets import kept, parts
from visiondx.widgets.questions import TrueAnswer

STYLE = """<style>
.vdx-ask { position: relative; height: 46px; margin: 6px 0 2px; border-radius: 6px;
  background: var(--jp-layout-color3, #eee); }
.vdx-ask > * { position: absolute; }
.vdx-zero { top: 0; bottom: 0; width: 1px; background: var(--jp-ui-font-color2, #666); }
.vdx-interval { top: 22px; height: 2px; background: #8fa6b8; }
.vdx-interval.vdx-sure { background: #d1495b; }
.vdx-range { top: 13px; height: 20px; border-radius: 3px; background: #8fa6b8; }
.vdx-range.vdx-sure { background: #d1495b; }
.vdx-median { top: 9px; height: 28px; width: 2px; background: var(--jp-ui-font-color1, #222); }
.vdx-member { top: 21px; width: 4px; height: 4px; margin-left: -2px; border-radius: 2px;
  background: var(--jp-ui-font-color1, #222); }
.vdx-ends { display: flex; justify-content: space-between; gap: 20px; }
.vdx-strip { display: flex; gap: 6px; flex-wrap: wrap; margin: 2px 0 10px; }
.vdx-strip figure { margin: 0; width: 72px; text-align: center; }
.vdx-strip img { width: 72px; height: 72px; border-radius: 4px; display: block; }
.vdx-strip figcaption { font-size: 12px; font-variant-numeric: tabular-nums; }
.vdx-half-box { flex: 1 1 470px; min-width: 330px; }
</style>"""
SIDE = 64  # least pixels of a small picture
EDGE = 1.15  # of the largest difference, where the axis ends
KINDS = {
    "new": "new images that show it",
    "nearest": "nearest images, with their losses",
    "hardest": "hardest of the nearest, with their losses",
}


def difference(comparison: Comparisons) -> str:
    """Fig. 3 as a bar, and what it means: right of 0, as in ``Comparisons.plot``, the black box is
    worse on the first sentence.
    """
    members = comparison.members[:, 0].double()
    low, middle, high = members.quantile(members.new_tensor(QUARTILES)).tolist()
    ends = [float(end[0]) for end in comparison.interval]
    reach = EDGE * max(float(members.abs().max()), *map(abs, ends), 1e-6)

    def at(value: float) -> str:
        return f"{50 + 50 * value / reach:.2f}%"

    def span(name: str, left: float, right: float) -> str:
        width = 50 * (right - left) / reach
        return f'<i class="{name}" style="left:{at(left)};width:{width:.2f}%"></i>'

    sure = " vdx-sure" if bool(comparison.confident[0]) else ""
    dots = "".join(f'<i class="vdx-member" style="left:{at(v)}"></i>' for v in members.tolist())
    skill = comparison.skill
    return f"""<div class="vdx-name">{_headline(comparison)}</div>
        <div class="vdx-ask">{span("vdx-interval" + sure, *ends)}
        {span("vdx-range" + sure, low, high)}
        <i class="vdx-zero" style="left:50%"></i>
        <i class="vdx-median" style="left:{at(middle)}"></i>{dots}</div>
        <div class="vdx-ends vdx-soft"><span>← worse on the second</span>
        <span>difference of rank scores {float(comparison.difference[0]):+.2f}
        [{ends[0]:+.2f}, {ends[1]:+.2f}], {len(members)} members; held-out Spearman
        {skill.value:.2f} [{skill.low:.2f}, {skill.high:.2f}]</span>
        <span>worse on the first →</span></div>"""


def _headline(comparison: Comparisons) -> str:
    p, verdict = float(comparison.probability[0]), comparison.verdict[0]
    if verdict == "the same sentence":
        return '<span class="vdx-verdict">The two sentences are the same.</span>'
    if verdict == "unknown words":
        said = escape(parts.unknown(comparison.unknown[0]))
        return f'<span class="vdx-verdict vdx-error">{said}</span>'
    if comparison.warning:
        said = comparison.warning[0].upper() + comparison.warning[1:]
        return f'<span class="vdx-verdict vdx-error">{escape(said)}.</span>'
    if verdict == "cannot tell":
        said = "It cannot be told on which sentence the model is worse: the interval holds 0."
        return f'<span class="vdx-verdict">{said}</span>'
    worse, chance = ("first", p) if p >= 0.5 else ("second", 1 - p)
    return f"""<span class="vdx-verdict">worse on the <b class="vdx-worse">{worse}</b> sentence,
        says a further member with probability</span>
        <span class="vdx-value vdx-p">{chance:.3f}</span>"""


def strip(images: Tensor, captions: Sequence[str]) -> str:
    """Small pictures (k, 3, H, W) in [0, 1] in a row, a caption below each."""
    cells = (
        f'<figure><img src="{data_uri(kept.png(image, SIDE))}" alt="">'
        f"<figcaption>{escape(text)}</figcaption></figure>"
        for image, text in zip(images, captions, strict=True)
    )
    return f'<div class="vdx-strip">{"".join(cells)}</div>'


def side(text: str, groups: Sequence[tuple[str, Tensor, Sequence[str]]]) -> str:
    """One sentence and its groups of pictures: a kind, images and captions each."""
    rows = "".join(
        f'<div class="vdx-soft">{KINDS[kind]}</div>{strip(images, captions)}'
        for kind, images, captions in groups
    )
    return f'<div class="vdx-caption">“{escape(text)}”</div>{rows}'


def truth(answer: TrueAnswer, comparison: Comparisons) -> str:
    """What the black box really does on new images, and whether the ensemble was right."""
    gap = answer.difference
    worse = "first" if gap.value > 0 else "second"
    if not answer.known:
        verdict = '<span class="vdx-soft">too near to 0 to call</span>'
    elif not bool(comparison.confident[0]):
        verdict = '<span class="vdx-soft">which was not foretold</span>'
    elif (gap.value > 0) == bool(comparison.worse[0]):
        verdict = '<span class="vdx-new">the prediction is right</span>'
    else:
        verdict = '<span class="vdx-error">the prediction is wrong</span>'
    first, second = (
        f"{loss.value:.2f} [{loss.low:.2f}, {loss.high:.2f}]" for loss in answer.losses
    )
    return f"""<div class="vdx-name"><span>the truth: worse on the <b>{worse}</b>, {verdict}</span>
        <span class="vdx-value vdx-true">{gap.value:+.2f}</span></div>
        <div class="vdx-soft">mean loss in nats {first} and {second}; difference
        [{gap.low:+.2f}, {gap.high:+.2f}], {answer.losses[0].n} new images each</div>"""
