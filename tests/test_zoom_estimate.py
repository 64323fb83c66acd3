"""Both estimators behind one call."""

import pytest
import torch

from visiondx.core.errors import InputError
from visiondx.zoom.directions import directions, largest_threshold, text_directions
from visiondx.zoom.estimate import CHANNELS, edit_directions, edit_relevance
from visiondx.zoom.gradient_directions import gradient_directions
from visiondx.zoom.relevance import relevance_matrix
from visiondx.zoom.toggle import switching_edits
from zoom_standins import NEUTRAL, GridEncoder, GridGenerator, prompt

WORDS = [prompt(0), prompt(3), prompt(11)]


class WideGenerator(GridGenerator):
    """Every channel bends the image a little, so that many are relevant to every word.

    The grid has 16 channels, too few for the usual 20: each is there three times.
    """

    def __init__(self):
        super().__init__()
        self.num_styles = 48
        for name in ("style_mean", "style_std", "editable"):
            setattr(self, name, getattr(self, name).repeat(3))
        self.layers = ()

    def synthesize(self, styles):
        mixed = styles.unflatten(1, (3, 16)).tanh().sum(1)
        return super().synthesize(mixed + 0.3 * mixed.roll(1, 1) + 0.2 * mixed.roll(5, 1))

    def sample_styles(self, n, seed, truncation=1.0):
        noise = torch.randn(n, 48, generator=torch.Generator().manual_seed(seed))
        return self.style_mean + truncation * self.style_std * noise


def pieces():
    return WideGenerator(), GridEncoder()


def some_matrix():
    """Any M with unit rows will do."""
    drawn = torch.Generator().manual_seed(1)
    return torch.nn.functional.normalize(torch.randn(48, 17, generator=drawn), dim=1)


def same(found, expected):
    assert torch.equal(found.delta_s, expected.delta_s)
    assert torch.equal(found.delta_t, expected.delta_t)
    assert (found.attributes, found.neutral) == (expected.attributes, expected.neutral)
    assert (found.threshold, found.sided) == (expected.threshold, expected.sided)


@pytest.mark.parametrize("sided", ["two", "one"])
def test_relevance_is_m_with_twenty_channels(sided):
    generator, encoder = pieces()
    M = some_matrix()
    found = edit_directions(generator, encoder, WORDS, NEUTRAL, M=M, sided=sided)
    threshold = largest_threshold(M, text_directions(encoder, WORDS, NEUTRAL), 20, sided)
    same(found, directions(M, encoder, WORDS, NEUTRAL, generator.style_std, threshold, sided))
    assert found.n_channels == (CHANNELS,) * 3 == (20, 20, 20)


def test_relevance_takes_lambda_templates_and_another_number_of_channels():
    generator, encoder = pieces()
    M = some_matrix()
    templates = ["{}"]
    std = generator.style_std
    found = edit_directions(
        generator, encoder, WORDS, NEUTRAL, threshold=[0.1, 0.2, 0.1], templates=templates, M=M
    )
    expected = directions(
        M, encoder, WORDS, NEUTRAL, std, [0.1, 0.2, 0.1], "two", templates=templates
    )
    same(found, expected)
    few = edit_directions(generator, encoder, WORDS, NEUTRAL, channels=3, M=M)
    assert few.n_channels == (3, 3, 3)


def test_gradient_is_the_mean_over_32_styles_twice_with_noise():
    generator, encoder = pieces()
    found = edit_directions(generator, encoder, WORDS, NEUTRAL, "gradient", seed=4)
    assert generator.synthesized == 64
    styles = generator.sample_styles(32, 4)
    expected = gradient_directions(
        generator, encoder, WORDS, NEUTRAL, styles, channels=20, noise=0.3, samples=2, seed=4
    )
    same(found, expected)
    assert found.n_channels == (20, 20, 20)
    other = edit_directions(generator, encoder, WORDS, NEUTRAL, "gradient", seed=5)
    assert not torch.equal(found.delta_s, other.delta_s)


def test_gradient_needs_no_matrix(monkeypatch):
    monkeypatch.setattr("visiondx.zoom.estimate.relevance", lambda *_: pytest.fail("M computed"))
    generator, encoder = pieces()
    edit_directions(generator, encoder, WORDS, NEUTRAL, "gradient", channels=2)


def test_without_m_the_kept_or_computed_one_is_taken(monkeypatch):
    generator, encoder = GridGenerator(), GridEncoder()
    M = relevance_matrix(generator, encoder, 4, cache=None)
    monkeypatch.setattr("visiondx.zoom.estimate.relevance", lambda *given: M)
    found = edit_directions(generator, encoder, WORDS, NEUTRAL, threshold=0.7)
    same(found, edit_directions(generator, encoder, WORDS, NEUTRAL, threshold=0.7, M=M))
    assert found.delta_s.argmax(1).tolist() == [0, 3, 11]


def test_what_lambda_is_held_against():
    generator, encoder = pieces()
    delta_t = text_directions(encoder, WORDS, NEUTRAL)
    M = some_matrix()
    cosines = edit_relevance(generator, encoder, delta_t, M=M)
    assert torch.allclose(cosines, torch.einsum("nt,ct->nc", delta_t, M), atol=1e-6)
    gradients = edit_relevance(generator, encoder, delta_t, "gradient")
    assert gradients.shape == cosines.shape == (3, 48)
    assert torch.allclose(gradients.norm(dim=1), torch.ones(3))
    assert not gradients[:, ~generator.editable].any()


def test_the_result_says_by_which_estimator():
    generator, encoder = pieces()

    def find(*asked, **more):
        return edit_directions(generator, encoder, WORDS, NEUTRAL, *asked, channels=2, **more)

    assert find("relevance", M=some_matrix()).estimator == "relevance"
    gradients = find("gradient")
    assert gradients.estimator == gradients.of(WORDS[:2]).estimator == "gradient"
    assert set(gradients.to_frame()["estimator"]) == {"gradient"}


def test_auto_takes_a_matrix_where_there_is_one(monkeypatch):
    monkeypatch.setattr("visiondx.zoom.estimate.relevance", lambda *_: pytest.fail("M computed"))
    generator, encoder = GridGenerator(), GridEncoder()

    def find(estimator="auto", **more):
        return edit_directions(
            generator, encoder, WORDS, NEUTRAL, estimator, channels=1, seed=2, **more
        )

    found = find()  # no M is kept: gradients, exactly as if asked for
    assert found.estimator == "gradient"
    same(found, find("gradient"))
    M = relevance_matrix(generator, encoder)  # kept in the user's cache from now on
    drawn = generator.synthesized
    found = find()
    assert (found.estimator, generator.synthesized) == ("relevance", drawn)
    same(found, find("relevance", M=M))
    given = M.flip(0) * generator.editable[:, None]
    same(find(M=given), find("relevance", M=given))
    same(find("gradient", M=given), find("gradient"))  # which asks no M
    generator.fingerprint = "another"
    assert find().estimator == "gradient"


def test_auto_settles_the_edits_that_clip_chooses():
    generator, encoder = GridGenerator(), GridEncoder()
    styles = generator.sample_styles(8, 0)
    for M, estimator in (
        (None, "gradient"),
        (relevance_matrix(generator, encoder, 4), "relevance"),
    ):
        found, expected = (
            switching_edits(
                generator, encoder, WORDS, NEUTRAL, styles, [(1, 2.0)], estimator=how, M=M
            )
            for how in ("auto", estimator)
        )
        same(found, expected)
        assert found.estimator == estimator


@pytest.mark.parametrize("estimator", ["auto", "relevance", "gradient"])
@pytest.mark.parametrize(
    ("attributes", "more", "words"),
    [
        ([], {}, "list of prompts"),
        ([NEUTRAL], {}, "neutral prompt"),
        ([prompt(0), " "], {}, "needs words"),
        ([prompt(0)], {"templates": ["a drawing"]}, "template"),
        ([prompt(0)], {"sided": "three"}, "sided"),
    ],
)
def test_words_are_refused_before_any_image(monkeypatch, estimator, attributes, more, words):
    def never(*_, **__):
        pytest.fail("long work before the words were looked at")

    monkeypatch.setattr("visiondx.zoom.estimate.relevance", never)
    generator, encoder = pieces()
    monkeypatch.setattr(generator, "synthesize", never)
    with pytest.raises(InputError, match=words):
        edit_directions(generator, encoder, attributes, NEUTRAL, estimator, **more)


def test_an_unknown_estimator_is_refused(monkeypatch):
    monkeypatch.setattr("visiondx.zoom.estimate.relevance", lambda *_: pytest.fail("M computed"))
    generator, encoder = pieces()
    words = r"directions must be auto or relevance or gradient, got 'magic'"
    with pytest.raises(InputError, match=words):
        edit_directions(generator, encoder, WORDS, NEUTRAL, "magic")
    with pytest.raises(InputError, match=words):
        edit_relevance(generator, encoder, text_directions(encoder, WORDS, NEUTRAL), "magic")


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"channels": 0}, "whole number from 1, got 0"),
        ({"channels": 2.5}, "whole number from 1, got 2.5"),
        ({"threshold": [0.1]}, "3 attributes need as many thresholds, got 1"),
        ({"threshold": -0.1}, "zero or more"),
        ({"threshold": [0.1, float("nan"), 0.1]}, "zero or more"),
        ({"sided": "three"}, "sided must be one of"),
    ],
)
@pytest.mark.parametrize("estimator", ["relevance", "gradient"])
def test_numbers_are_refused_before_anything_is_computed(estimator, numbers, words):
    generator, encoder = pieces()
    with pytest.raises(InputError, match=words):
        edit_directions(generator, encoder, WORDS, NEUTRAL, estimator, **numbers)
    assert generator.synthesized == 0
