"""Words in figures, in whatever script they are: no boxes, nobody's font changed, no name lost."""

import warnings

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from matplotlib import font_manager
from matplotlib.text import Text

from visiondx.core.stats import Estimate
from visiondx.show import plots, words

KNOWN = "a café, وجه"  # DejaVu, which comes with matplotlib, has these
NOWHERE = "\u8138"  # a face, in Chinese


@pytest.fixture
def no_other_font(monkeypatch):
    """A machine with matplotlib's own fonts only."""
    own = [font for font in font_manager.fontManager.ttflist if "mpl-data" in str(font.fname)]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)
    words._family_with.cache_clear()
    yield
    words._family_with.cache_clear()


def shown(figure):
    """All texts of a figure, drawn without a warning of missing glyphs."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.draw_without_rendering()
    return {text.get_text(): text for text in figure.findobj(Text)}


def rows(names):
    return {"one": {name: Estimate(0.5, 0.4, 0.6, 9) for name in names}}


def test_letters_that_the_font_has_stay(no_other_font):
    assert words.figure_text(KNOWN) == KNOWN
    assert words.figure_text("$x$") == r"\$x\$"


def test_letters_that_no_font_has_are_codes_and_no_boxes(no_other_font):
    with pytest.warns(UserWarning, match=f"No installed font has {NOWHERE}"):
        figure = plots.intervals(rows([NOWHERE, "a \N{ROBOT FACE}\ufe0f"]))
    assert {r"\u8138", "a \\N{ROBOT FACE}\ufe0f"} <= set(shown(figure))
    with pytest.warns(UserWarning, match="No installed font"):
        grid = plots.image_grid(torch.zeros(1, 3, 4, 4), [NOWHERE])
    assert r"\u8138" in shown(grid)


def test_another_installed_font_lends_its_letters(monkeypatch):
    """cmr10 has no é: DejaVu's, behind it, while the person's own setting stays as it was."""
    with plt.rc_context({"font.family": ["cmr10"]}):
        texts = shown(plots.intervals(rows(["café"])))
        family = texts["café"].get_fontfamily()
        assert family[0] == "cmr10"
        assert len(family) == 2
        assert mpl.rcParams["font.family"] == ["cmr10"]


def test_a_persons_own_font_is_kept():
    mine = {"font.family": ["sans-serif"], "font.sans-serif": ["DejaVu Sans Mono"]}
    with plt.rc_context(mine):
        text = shown(plots.curves({"a": frame(), "b": frame()}, "x", "y"))["a"]
        assert text.get_fontproperties().get_family() == ["sans-serif"]
        assert mpl.rcParams["font.sans-serif"] == ["DejaVu Sans Mono"]
        path = font_manager.findfont(text.get_fontproperties())
        assert "Mono" in path


def frame():
    return pd.DataFrame({"x": [0, 1], "y": [0.2, 0.4], "low": [0.1, 0.3], "high": [0.3, 0.5]})


def test_series_whose_names_begin_with_a_line_are_in_the_legend():
    figure = plots.curves({"_x": frame(), "y": frame()}, "x", "y")
    assert {"_x", "y"} <= set(shown(figure))
    table = {name: {"a": Estimate(0.5, 0.4, 0.6, 9)} for name in ("_x", "y")}
    legend = plots.intervals(table, lines=[0.5]).axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["_x", "y"]  # not the dashed line
