"""What a diagnosis lets one say, in a few sentences, and what it does not.

A winner is named only where ``Sensitivity.winner`` is: movement that is large enough, flips and is
surely more than any other's, by an edit that shows what its words say. What was not shown is
listed, for its bar, short or long, says nothing about its words.
"""

from collections.abc import Sequence

from visiondx.zoom.sensitivity import MOVES, Sensitivity
from visiondx.zoom.visibility import SHOWN

FEASIBLE = 1000  # images that a person may be told to search
MEASURES = {
    "binary": "the model's probability of “{}”",
    "keypoints": "the model's points (in sizes of the face)",
    "segmentation": "the model's parts (1 - mean IoU)",
}


def measure(task: str, labels: Sequence[str]) -> str:
    """What h is a mean change of: "the model's probability of “male”"."""
    return MEASURES[task].format(labels[-1])


def verdict(found: Sensitivity, what: str = "the model's probability") -> str:
    """The strongest attribute, how sure that is, and what nothing can be said about: lines of text.

    Args:
        what: h is a mean change of, see ``measure``.
    """
    return "\n".join([_first(found, what), *_hidden(found)])


def _first(found: Sensitivity, what: str) -> str:
    n, first = len(found.change), found.attributes.index(found.rank[0])
    h, name = found.h[first], f"“{found.rank[0]}”"
    moved = f"{name} moved {what} by {h.value:.2f} on average (95 % interval {h.low:.2f} to "
    moved += f"{h.high:.2f}, {n} images)"
    if max(each.high for each in found.h) < MOVES:
        return f"None of these attributes moved {what}: every mean change is below {MOVES}."
    if h.low < MOVES:
        return (
            f"No attribute is named: the most that was found is too little or too unsure. {moved}; "
            f"a change that is surely {MOVES} or more would count."
        )
    if _unknown(found, first):
        return f"No attribute is named: {moved}, the most of all, but CLIP does not know its words."
    if not found.shown[first]:
        return (
            f"No attribute is named: {moved}, the most of all, but the edit hardly shows its "
            "words: it may be something else that came along."
        )
    flips = int(found.flipped[:, first].sum())
    if not flips:
        return f"No attribute is named: {moved}, the most of all, yet it changed no answer."
    flipped = f"It flipped {flips} of {n} answers."
    if len(found.attributes) == 1:
        return f"{moved}. {flipped} No other attribute was asked about, so nothing compares."
    if found.winner:
        return (
            f"The model hangs most on one attribute: {moved}, {100 * found.share[first]:.0f} % of "
            f"all movement found. {flipped} In the same images, every other moved it less."
        )
    return f"No single attribute stands out: {moved}, the most of all. {flipped} {_rivals(found)}"


def _rivals(found: Sensitivity) -> str:
    """Who may be as strong as the first, and how many images would tell."""
    columns = [found.attributes.index(name) for name in found.rank[1:]]
    rivals = [column for column in columns if not found.behind[column].low > 0]
    names = _names([found.attributes[column] for column in rivals], 2)
    said = f"In the same images, that is not surely more than {names}."
    if min(found.behind[column].value for column in rivals) < MOVES:
        return (
            f"{said} The nearest differs by less than {MOVES}, which more images would hardly tell."
        )
    needed = max(found.needed[column] for column in rivals)
    if needed > FEASIBLE:
        return f"{said} It would take more than {FEASIBLE:,} images to tell."
    return f"{said} About {_round_up(needed, len(found.change))} images would tell."


def _hidden(found: Sensitivity) -> list[str]:
    """A line each: words that are not known, edits that do not show, and those that hardly do."""
    said = []
    words = sorted({word for each in found.unknown for word in each})
    if words:
        said.append(
            f"The encoder does not know {_names(words)}: nothing can be said about such words."
        )
    hidden = [n for n, shown in enumerate(found.shown) if not (shown or _unknown(found, n))]
    dark = [n for n in hidden if _least(found, n)[0] < SHOWN]
    dim = [n for n in hidden if n not in dark]
    if dark:
        it = "it" if len(dark) == 1 else "them"
        said.append(f"Not shown: {_list(found, dark)}; nothing can be said about {it}.")
    moving = [found.attributes[n] for n in dark if found.h[n].low >= MOVES]
    if moving:
        said[-1] += (
            f" What moved the model under {_names(moving)} is something else that the edit changes."
        )
    if dim:
        said.append(
            f"Hardly shown: {_list(found, dim)}; a short bar says little there, and a long one may "
            "be something else that the edit changes."
        )
    return said


def _unknown(found: Sensitivity, n: int) -> bool:
    return bool(found.unknown and found.unknown[n])


def _least(found: Sensitivity, n: int) -> tuple[float, str]:
    """How often the edit of an attribute shows to who sees it least often, and who that is."""
    asked = [(found.seen, "CLIP sees it"), (found.judged, "the judges see it")]
    return min((r.share[n].value, who) for r, who in asked if r is not None and r.share[n].n)


def _list(found: Sensitivity, columns: Sequence[int]) -> str:
    """As in "“a hat” (CLIP sees it in 3 % of the pairs), “bangs” (the judges see it in 0 %)"."""
    least = [_least(found, n) for n in columns]
    said = [f"{who} in {100 * share:.0f} %" for share, who in least]
    said[0] += " of the pairs"
    each = zip(columns, said, strict=True)
    return ", ".join(f"“{found.attributes[n]}” ({seen})" for n, seen in each)


def _names(names: Sequence[str], most: int | None = None) -> str:
    shown = [f"“{name}”" for name in names]
    if most and len(shown) > most:
        return f"{len(shown)} others, such as {' and '.join(shown[:most])}"
    return " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))


def _round_up(needed: float, n: int) -> int:
    """Two digits, and more than there were."""
    step = 10 ** max(0, len(str(int(needed))) - 2)
    return max(-int(-needed // step) * step, n + 1)
