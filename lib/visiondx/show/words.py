"""A person's words in a figure, in whatever script they are."""

import re
import textwrap
import unicodedata
import warnings
from contextlib import suppress
from functools import cache

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

RESORT = "Last Resort"  # matplotlib's own font of boxes starts so; it has every character


def figure_text(words: object) -> str:
    """Words as matplotlib takes them: between dollars there is no mathematics, and no box anywhere.

    A character that no installed font has is written as Python writes it, ``\\u8138`` or
    ``\\N{ROBOT FACE}``; a warning says so. One that only another font has needs ``lend_fonts``.
    """
    text = str(words).replace("$", r"\$")
    lacking = [c for c in text if not c.isascii() and _lender(c, _own()) is None]
    seen = [c for c in lacking if not _invisible(c)]
    if seen:
        warnings.warn(
            f"No installed font has {''.join(seen)}, so figures show codes: install one, such as "
            "Noto.",
            stacklevel=2,
        )
    return "".join(c if c not in lacking else "" if _invisible(c) else _code(c) for c in text)


def wrapped(text: str, width: int = 44) -> str:
    """A sentence in lines of so many characters, between words; its own line breaks stay."""
    return "\n".join(part for line in text.splitlines() for part in textwrap.wrap(line, width))


def lend_fonts(figure: Figure) -> Figure:
    """The figure, its texts with those installed fonts behind their own that they need."""
    for text in figure.findobj(Text):
        own = tuple(text.get_fontfamily())
        needed = [_lender(c, own) for c in text.get_text() if not c.isascii()]
        if any(needed):
            text.set_fontfamily([*own, *filter(None, dict.fromkeys(needed))])
    return figure


def legend(axis: Axes, **place: object) -> None:
    """Of every line with a name: by itself matplotlib leaves out names that begin with ``_``."""
    unnamed = re.compile(r"_child\d+")  # matplotlib's own names
    lines = [line for line in axis.get_lines() if not unnamed.fullmatch(line.get_label())]
    axis.legend(lines, [line.get_label() for line in lines], **place)


def _own() -> tuple[str, ...]:
    return tuple(mpl.rcParams["font.family"])


def _lender(character: str, families: tuple[str, ...]) -> str | None:
    """The family that has a character: "" for one of these, None for no installed one."""
    if any(_has(font, character) for font in map(_font, families) if font):
        return ""
    return _family_with(character)


def _font(family: str) -> str | None:
    """The file of a family, as the settings of the moment choose it; None of one not installed."""
    with suppress(ValueError):
        properties = font_manager.FontProperties(family=[family])
        return font_manager.findfont(properties, fallback_to_default=False)
    return None


@cache
def _has(path: str, character: str) -> bool:
    return font_manager.get_font(path).get_char_index(ord(character)) != 0


@cache
def _family_with(character: str) -> str | None:
    """The first installed upright family with a character."""
    for font in font_manager.fontManager.ttflist:
        if font.style == "normal" and not font.name.startswith(RESORT):
            with suppress(OSError, RuntimeError):  # a font's file that is gone or broken
                if _has(font.fname, character):
                    return font.name
    return None


def _invisible(character: str) -> bool:
    """Joins others or chooses among their forms."""
    return unicodedata.category(character) == "Cf" or "\ufe00" <= character <= "\ufe0f"


def _code(character: str) -> str:
    name = unicodedata.name(character, "")
    symbol = name and unicodedata.category(character) == "So"
    return f"\\N{{{name}}}" if symbol else character.encode("unicode_escape").decode()
