import re

import pytest
import torch

from visiondx.core.errors import InputError
from visiondx.zoom.directions import (
    Directions,
    directions,
    embed_prompts,
    largest_threshold,
    text_directions,
)
from visiondx.zoom.templates import filled
from zoom_standins import NEUTRAL, GridEncoder, prompt

STD = torch.tensor([1.0, 2.0, 1.0, 0.5])


EMBEDDED = {
    "a face": (1.0, 0.0),
    "a face with a hat": (0.6, 0.8),
    "a face with bangs": (0.8, -0.6),
    "x a face y": (0.0, 1.0),
}


class Words:
    """Texts with embeddings given by hand."""

    def embed_texts(self, texts):
        return torch.tensor([EMBEDDED[text] for text in texts])


# M·Δt of the hat: Δt = (-0.4, 0.8) / sqrt(0.8) = (-1, 2) / sqrt(5)
M = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.6, 0.8], [-0.8, -0.6]])
HAT = torch.tensor([2.0, -1.0, 1.0, -0.4]) / 5**0.5


def hat(**settings) -> Directions:
    settings = {"threshold": 0.4, **settings}
    return directions(M, Words(), ["a face with a hat"], "a face", STD, **settings)


def test_equation_1():
    delta_t = text_directions(Words(), ["a face with a hat"], "a face")
    assert torch.allclose(delta_t, torch.tensor([[-1.0, 2.0]]) / 5**0.5)


def test_templates_are_averaged_before_the_difference():
    embedded = embed_prompts(Words(), ["a face"], ["{}", "x {} y"])
    assert torch.allclose(embedded, torch.tensor([[1.0, 1.0]]) / 2**0.5)
    with pytest.raises(InputError, match="template"):
        embed_prompts(Words(), ["a face"], ["no place"])


def test_a_bank_of_templates_brings_its_own_article():
    texts = filled(["a face with bangs", "The face of a man"], "imagenet")
    assert [len(row) for row in texts] == [80, 80]
    assert "a bad photo of a face with bangs." in texts[0]
    assert "a sketch of the face of a man." in texts[1]
    assert filled(["a hat"], ["art of {}"]) == [["art of a hat"]]
    with pytest.raises(InputError, match="templates must be imagenet or simple, or texts, got 'x'"):
        filled(["a hat"], "x")


def test_equation_2_two_sided():
    found = hat()
    kept = HAT * torch.tensor([1, 1, 1, 0])
    assert found.n_channels == (3,)
    assert torch.allclose(found.delta_s[0], kept / kept.norm() * STD, atol=1e-6)


def test_equation_2_one_sided():
    found = hat(sided="one")
    kept = HAT * torch.tensor([1, 0, 1, 0])
    assert found.n_channels == (2,)
    assert torch.allclose(found.delta_s[0], kept / kept.norm() * STD, atol=1e-6)


def test_unit_weight_is_one_deviation_in_all():
    for threshold in (0.1, 0.4, 0.8):
        found = hat(threshold=threshold)
        assert torch.allclose((found.delta_s / STD).norm(dim=1), torch.ones(1))


@pytest.mark.parametrize("sided", ["two", "one"])
def test_too_large_threshold_names_one_that_works(sided):
    with pytest.raises(InputError, match="'a face with a hat'") as error:
        hat(threshold=0.9, sided=sided)
    largest = float(re.search(r"works is ([\d.e-]+)", str(error.value)).group(1).rstrip("."))
    assert 0.894 <= largest <= 2 / 5**0.5
    assert hat(threshold=largest, sided=sided).n_channels == (1,)


@pytest.mark.parametrize(("sided", "most"), [("two", 4), ("one", 2)])
def test_largest_threshold_leaves_just_so_many_channels(sided, most):
    delta_t = text_directions(Words(), ["a face with a hat"], "a face")
    matrix = M + torch.tensor([[0.0], [0.0], [0.01], [0.0]])  # no ties
    for channels in range(1, most + 1):
        (value,) = largest_threshold(matrix, delta_t, channels, sided)
        found = directions(
            matrix, Words(), ["a face with a hat"], "a face", STD, [value], sided=sided
        )
        assert found.n_channels == (channels,)
    with pytest.raises(InputError, match=f"1 to {most}"):
        largest_threshold(matrix, delta_t, most + 1, sided)


def test_one_threshold_each():
    names = ["a face with a hat", "a face with bangs"]
    found = directions(M, Words(), names, "a face", STD, [0.8, 0.0])
    assert found.n_channels == (1, 4)
    assert found.to_frame()["threshold"].tolist() == [0.8, 0.0]
    with pytest.raises(InputError, match="2 attributes"):
        directions(M, Words(), names, "a face", STD, [0.8])


@pytest.mark.parametrize(
    ("attributes", "neutral", "words"),
    [
        ([], "a face", "list of prompts"),
        ("a face with a hat", "a face", "list of prompts"),
        (["a face with a hat", " "], "a face", "needs words"),
        (["a face with a hat"], "", "needs words"),
        (["a face"], "a face", "neutral"),
        (["a face with a hat"] * 2, "a face", "twice, 'a face with a hat': name"),
        (["a hat", "A  hat "], "a face", "twice, 'a hat' and 'A  hat '"),
        (["a hat", "a\u200b hat\n"], "a face", "twice"),  # a zero-width space
        (["caf\u00e9", "cafe\u0301"], "a face", "twice"),  # one letter, or e and an accent
        (["a hat", "\u200b"], "a face", "needs words"),
        (["a hat", 3], "a face", "needs words, got 3"),
        (["A Face"], "a face", "both the neutral prompt"),
    ],
)
def test_prompts_are_checked(attributes, neutral, words):
    with pytest.raises(InputError, match=words):
        directions(M, Words(), attributes, neutral, STD)


def test_indistinguishable_prompts_and_irrelevant_channels():
    class Same:
        def embed_texts(self, texts):
            return torch.ones(len(texts), 2) / 2**0.5

    with pytest.raises(InputError, match="alike"):
        text_directions(Same(), ["a face with a hat"], "a face")
    with pytest.raises(InputError, match="No style channel"):
        directions(torch.zeros(4, 17), GridEncoder(), [prompt(0)], NEUTRAL, STD)
    with pytest.raises(InputError, match="sided"):
        hat(sided="three")
    with pytest.raises(InputError, match="zero or more"):
        hat(threshold=-1.0)


def test_some_of_the_directions_in_another_order():
    names = ["a face with a hat", "a face with bangs", "x a face y"]
    every = directions(M, Words(), names, "a face", STD, threshold=[0.1, 0.2, 0.3])
    some = every.of([names[2], names[0]])
    assert some.attributes == (names[2], names[0])
    assert some.threshold == (0.3, 0.1)
    assert (some.neutral, some.sided, len(some)) == ("a face", "two", 2)
    assert torch.equal(some.delta_s, every.delta_s[[2, 0]])
    assert torch.equal(some.delta_t, every.delta_t[[2, 0]])
    alone = directions(M, Words(), names[:1], "a face", STD, threshold=[0.1])
    assert torch.equal(every.of(names[:1]).delta_s, alone.delta_s)
    with pytest.raises(InputError, match=r"no direction of .'a scarf'"):
        every.of(["a scarf"])
    with pytest.raises(InputError, match="no attribute"):
        every.of([])
