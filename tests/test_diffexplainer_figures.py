"""Explained features as figures: what stands in each row, and where the dots of a ROC lie."""

import pandas as pd
import pytest
import torch

from toy_painter import RedPixels
from visiondx.core.errors import InputError
from visiondx.diffexplainer.spurious import Features
from visiondx.models.segmenter import Segmenter
from visiondx_worlds.marking.diffexplainer.feature_figures import (
    features_beside_truth,
    place_of,
    r_figure,
    roc_figure,
)
from visiondx_worlds.marking.diffexplainer.truth import FeatureTruth, Interventions
from visiondx_worlds.worlds.contexts import Tie


def rows_of(figure) -> list[str]:
    return [axis.get_ylabel() for axis in figure.axes if axis.get_ylabel()]


@pytest.fixture(scope="module")
def found() -> Features:
    """A dog's features 7 and 3, three pictures each: one half red, one red, one black."""
    images = torch.zeros(1, 2, 3, 3, 64, 64)
    images[0, 0, 0, 0, :32] = 1
    images[0, 0, 1, 0] = 1
    r = torch.tensor([[[0.5, 1.0, 0.0], [0.0, 0.0, 0.0]]])
    taken = torch.tensor([[[True, True, False], [False, False, False]]])
    about = ("dog",), ("dog",), (True,), torch.tensor([[7, 3]]), torch.ones(1, 2)
    return Features(*about, images, taken, r, None, 0.05)


@pytest.fixture(scope="module")
def truth() -> FeatureTruth:
    """Of feature 3 the object raises it, of 7 the beach."""
    rise = torch.tensor([[[2.0, 2.2], [0.0, 0.1]]])
    ranked = torch.tensor([[3, 7]]), torch.ones(1, 2)
    return FeatureTruth(("dog",), (Tie("beach", 0.3),), *ranked, rise, rise.flip(1), 0)


def test_a_row_is_the_renderers_pictures_the_explanation_and_its_masks(found, truth) -> None:
    drawn = Interventions(2, 0)
    look = Segmenter(RedPixels(), ["dog"])
    figure = features_beside_truth(found, look, [(0, 0), (0, 1)], truth, drawn, columns=2)
    assert rows_of(figure) == [
        "dog, 7\nverdict core\ntruth spurious",
        "dog, 3\nverdict unknown\ntruth core",
    ]
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[:6] == ["+0.05", "+2.10", "", "", "r 0.50", "r 1.00"]
    assert titles[6:] == ["+2.10", "+0.05", "not taken", "not taken", "r 0.00", "r 0.00"]
    shown = [torch.from_numpy(axis.images[0].get_array()).permute(2, 0, 1) for axis in figure.axes]
    torch.testing.assert_close(shown[0], drawn.object("dog")[0])
    torch.testing.assert_close(shown[7], drawn.context("beach")[1])
    torch.testing.assert_close(shown[2], found.images[0, 0, 0])
    # the mask's half keeps its red, the rest is darker than it was
    assert shown[4][0, :32].min() > 0.9
    assert shown[4][:, 32:].max() == 0


def test_without_truth_or_word_there_is_the_explanation(found) -> None:
    figure = features_beside_truth(found, Segmenter(RedPixels(), ["dog"]), [(0, 0)])
    assert rows_of(figure) == ["dog, 7\nverdict core"]
    assert len(figure.axes) == 6
    strange = Features(
        *(("dog",), ("dgo",), (False,), found.features, found.carries, found.images, found.taken),
        torch.full_like(found.r, torch.nan), None, 0.05,
    )  # fmt: skip
    figure = features_beside_truth(strange, Segmenter(RedPixels(), ["dog"]), [(0, 0)])
    assert rows_of(figure) == ["dog, 7\nverdict unknown"]
    with pytest.raises(InputError, match="no feature to show"):
        features_beside_truth(found, None, [])


def test_features_are_found_by_their_number(truth) -> None:
    assert place_of(truth, "dog", 7) == (0, 1)
    for name, feature in (("dog", 8), ("cat", 7)):
        with pytest.raises(InputError, match=f"no feature {feature} of {name}"):
            place_of(truth, name, feature)


TABLE = pd.DataFrame(
    {
        "label": ["core", "core", "spurious", "spurious", "spurious", "undecided", "core"],
        "r": [0.3, 0.02, 0.01, 0.04, 0.2, 0.0, float("nan")],
    }
)


def test_the_dot_lies_on_the_curve() -> None:
    figure = roc_figure({"all": TABLE}, 0.05)
    (axis,) = figure.axes
    curve, dot = axis.lines[:2]
    # of two core features with a verdict one is called spurious, of three spurious ones two
    at = [line[0] for line in (dot.get_xdata(), dot.get_ydata())]
    assert at == pytest.approx([1 / 2, 2 / 3])
    on = zip(curve.get_xdata(), curve.get_ydata(), strict=True)
    assert any(point == pytest.approx(tuple(at)) for point in on)
    # of six pairs the spurious one is lower in: .01 both, .04 one, .2 one
    assert axis.get_legend().get_texts()[0].get_text() == f"all, area {4 / 6:.2f}"
    with pytest.raises(InputError, match="none is truly spurious"):
        roc_figure({"core": TABLE[TABLE["label"] == "core"]}, 0.05)


def test_every_verdict_is_a_dot() -> None:
    kinds = dict(list(TABLE.groupby("label")))
    (axis,) = r_figure(kinds, 0.05).axes
    names = [text.get_text() for text in axis.get_xticklabels()]
    assert names == ["core\n2 of 3", "spurious\n3 of 3", "undecided\n1 of 1"]
    assert [line.get_ydata().tolist() for line in axis.lines[:2]] == [
        [0.02, 0.3],
        [0.01, 0.04, 0.2],
    ]
    assert axis.lines[-1].get_ydata()[0] == 0.05
