"""The pieces of HTML of the explorer of sentences: the difference, its images, the truth."""

from collections.abc import Sequence
from html import escape

from torch import Tensor

from visiondx.llm2loss.answers import QUARTILES, Comparisons
from visiondx.show.report import data_uri
from visiondx.widgets import kept
from visiondx_worlds.widgets.questions import TrueAnswer

STYLE = """<style>
.vdx-ask { position: relative; height: 46px; margin: 6px 0 2px; border-radius: 6px;
  background: var(--jp-layout-color3, #eee); }
.vdx-ask > * { position: absolute; }
.vdx-zero { top: 0; bottom: 0; width: 1px; background: var(--jp-ui-font-color2, #666); }
.vdx-range { top: 13px; height: 20px; border-radius: 3px; background: #8fa6b8; }
.vdx-range.vdx-sure { background: #d1495b; }
.vdx-median { top: 9px; height: 28px; width: 2px; background: var(--jp-ui-font-color1, #222); }
.vdx-member { top: 20px; width: 6px; height: 6px; margin-left: -3px; border-radius: 3px;
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


def difference(comparison: Comparisons) -> str:
    """Fig. 3 as a bar: the members' differences, their quartiles and median, and what they mean."""
    members = comparison.members[:, 0].double()
    low, middle, high = members.quantile(members.new_tensor(QUARTILES)).tolist()
    reach = EDGE * max(float(members.abs().max()), 1e-6)

    def at(value: float) -> str:
        return f"{50 - 50 * value / reach:.2f}%"  # the first sentence is worse to the left

    sure = " vdx-sure" if bool(comparison.confident[0]) else ""
    width = 50 * (high - low) / reach
    dots = "".join(f'<i class="vdx-member" style="left:{at(v)}"></i>' for v in members.tolist())
    p = float(comparison.probability[0])
    worse, chance = ("first", p) if p >= 0.5 else ("second", 1 - p)
    count, agree = len(members), "all" if sure else "not all"
    return f"""<div class="vdx-name"><span>worse on the <b class="vdx-worse">{worse}</b> sentence,
        says a further member with probability</span>
        <span class="vdx-value vdx-p">{chance:.3f}</span></div>
        <div class="vdx-ask">
        <i class="vdx-range{sure}" style="left:{at(high)};width:{width:.2f}%"></i>
        <i class="vdx-zero" style="left:50%"></i>
        <i class="vdx-median" style="left:{at(middle)}"></i>{dots}</div>
        <div class="vdx-ends vdx-soft"><span>← worse on the first</span>
        <span>difference of rank scores {abs(middle):.2f}, spread {float(comparison.spread[0]):.2f};
        {agree} of {count} members agree</span><span>worse on the second →</span></div>"""


def strip(images: Tensor, captions: Sequence[str]) -> str:
    """Small pictures (k, 3, H, W) in [0, 1] in a row, a caption below each."""
    cells = (
        f'<figure><img src="{data_uri(kept.png(image, SIDE))}" alt="">'
        f"<figcaption>{escape(text)}</figcaption></figure>"
        for image, text in zip(images, captions, strict=True)
    )
    return f'<div class="vdx-strip">{"".join(cells)}</div>'


def side(text: str, groups: Sequence[tuple[str, Tensor, Sequence[str]]]) -> str:
    """One sentence and its groups of pictures: a title, images and captions each."""
    rows = "".join(
        f'<div class="vdx-soft">{escape(name)}</div>{strip(images, captions)}'
        for name, images, captions in groups
    )
    return f'<div class="vdx-caption">“{escape(text)}”</div>{rows}'


def truth(answer: TrueAnswer, comparison: Comparisons) -> str:
    """What the black box really does on new images, and whether the ensemble was right."""
    gap = answer.difference
    worse = "first" if gap.value > 0 else "second"
    if not answer.known:
        verdict = '<span class="vdx-soft">too near to 0 to call</span>'
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
