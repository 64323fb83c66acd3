"""The explorer's pieces of HTML: its style, its readings, its one line of message."""

from collections.abc import Sequence
from html import escape

from visiondx.widgets.session import View

STYLE = """<style>
.vdx { max-width: 1060px; padding: 10px 14px; gap: 8px; border-radius: 8px;
  border: 1px solid var(--jp-border-color2, #ddd); background: var(--jp-layout-color1, #fff);
  color: var(--jp-ui-font-color1, #222); overflow: visible; }
.vdx .widget-box { overflow: visible; }
.vdx .widget-html-content { line-height: 1.45; font-size: 13px; }
.vdx .widget-label { font-size: 13px; }
.vdx-row { flex-flow: row wrap; gap: 6px 16px; align-items: flex-start; }
.vdx-photo { flex: 1 1 150px; max-width: 320px; gap: 2px; align-items: stretch; }
.vdx-buttons { gap: 4px 6px; }
.vdx-buttons button { width: auto; padding: 0 8px; }
.vdx-sliders .widget-readout { min-width: 36px; width: 36px; }
.vdx-photo img { width: 100%; max-width: 320px; height: auto; object-fit: contain;
  border-radius: 6px; display: block; }
.vdx-caption { font-weight: 600; }
.vdx-side { flex: 1.4 1 210px; min-width: 200px; }
.vdx-sliders { flex: 5 1 340px; min-width: 320px; gap: 0; }
.vdx-words { flex: 2 1 200px; min-width: 190px; gap: 2px; }
.vdx-words textarea, .vdx-words input { width: 100%; }
.vdx-name { display: flex; justify-content: space-between; align-items: baseline; }
.vdx-value { font-size: 22px; font-weight: 600; font-variant-numeric: tabular-nums; }
.vdx-soft { color: var(--jp-ui-font-color2, #666); }
.vdx-bar { position: relative; height: 12px; margin: 2px 0 3px; border-radius: 6px;
  background: var(--jp-layout-color3, #e4e4e4); overflow: hidden; }
.vdx-fill { height: 100%; background: #8fa6b8; }
.vdx-fill.vdx-flipped { background: #d1495b; }
.vdx-tick { position: absolute; top: 0; bottom: 0; width: 2px;
  background: var(--jp-ui-font-color1, #222); }
.vdx-tick.vdx-half { width: 1px; background: var(--jp-layout-color1, #fff); }
.vdx-block { margin-bottom: 8px; }
.vdx-badge { padding: 1px 8px; border-radius: 9px; background: #d1495b; color: #fff;
  font-size: 12px; font-weight: 600; }
.vdx-new { color: #2b7a4b; font-weight: 600; }
.vdx-gone { color: #b03a48; text-decoration: line-through; }
.vdx-error { color: #c62828; }
</style>"""


def readings(view: View, labels: tuple[str, str], original: View) -> str:
    """Probability, SSIM and, if there are judges, what they see; with what has changed."""
    badge = ' <span class="vdx-badge">flipped</span>' if view.flipped else ""
    flipped = " vdx-flipped" if view.flipped else ""
    blocks = [
        f"""<div class="vdx-name"><span>probability of <b>{escape(labels[1])}</b>{badge}</span>
        <span class="vdx-value vdx-p">{view.p:.3f}</span></div>
        <div class="vdx-bar"><div class="vdx-fill{flipped}" style="width:{100 * view.p:.1f}%"></div>
        <div class="vdx-tick vdx-half" style="left:50%"></div>
        <div class="vdx-tick" style="left:calc({100 * view.p_original:.1f}% - 1px)"></div></div>
        <span class="vdx-soft">the original has {view.p_original:.3f} (the mark)</span>""",
        f"""<div class="vdx-name"><span>SSIM with the original</span>
        <span class="vdx-value vdx-ssim">{view.ssim:.3f}</span></div>
        <div class="vdx-bar"><div class="vdx-fill"
        style="width:{100 * min(max(view.ssim, 0), 1):.1f}%"></div></div>""",
    ]
    if view.seen:
        blocks.append(f"<div>the judges see</div><div>{_seen(view, original)}</div>")
    return "".join(f'<div class="vdx-block">{block}</div>' for block in blocks)


def _seen(view: View, original: View) -> str:
    """What is there, what has come, what has gone, and where the judges disagree."""
    words = []
    for name, now in view.seen.items():
        text, before = escape(name.replace("_", " ")), original.seen[name]
        if now is None:
            words.append(f'<span class="vdx-soft">{text}?</span>')
        elif now:
            words.append(f'<span class="vdx-new">+ {text}</span>' if before is False else text)
        elif before:
            words.append(f'<span class="vdx-gone">{text}</span>')
    return ", ".join(words) or '<span class="vdx-soft">nothing that they know</span>'


def unknown(words: Sequence[str]) -> str:
    """A sentence on words that the encoder cannot know; nothing where there are none."""
    if not words:
        return ""
    said = ", ".join(f"“{word}”" for word in words)
    return f"The encoder does not know {said}: what it makes of it means nothing."


def message(text: str, error: bool = False) -> str:
    """One line below the explorer."""
    return f'<span class="{"vdx-error" if error else "vdx-soft"}">{escape(text)}</span>'
