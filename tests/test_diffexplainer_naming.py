"""Which words name a place, and whether a search tells them: by hand."""

import math

import pandas as pd
import pytest
import torch
from torch import nn

from visiondx.core.errors import InputError
from visiondx.diffexplainer.objectives import Objectives
from visiondx.models.target import Target
from visiondx_worlds.marking.diffexplainer.naming import (
    causes,
    chance,
    naming,
    object_words,
    shares,
    spoken,
    told,
)
from visiondx_worlds.marking.diffexplainer.place_ranks import place_ranks
from visiondx_worlds.marking.diffexplainer.truth import Interventions
from visiondx_worlds.worlds import scenes
from visiondx_worlds.worlds.contexts import CONTEXTS

SMALL = {
    "templates": ["{}", "a photo of {}", "a print by hand on cloth of {}"],
    "classes": {"dog": ["dog", "dog", "small dog", "hound"], "boat": ["boat", "sailing boat"]},
    "states": {"dog": {"present": {"with": ["with a small bone"]}, "absent": {"with": ["alone"]}}},
    "background": {
        "sea": ["in the sea", "among tall waves", "under waves"],
        "shore": ["on the sand by the sea", "on grey sand", "by a shore"],
        "town": ["in a grey street"],
    },
    "absent": {"sea": ["with no waves", "without sea"], "town": ["not in a street"]},
    "table1": {"town": "A photo of a {} in the town"},
}


def test_a_place_is_named_by_what_most_of_its_phrases_share_and_nothing_else_uses() -> None:
    assert naming(SMALL) == {
        "sea": ("waves",),  # in two phrases; there is a sea at the shore, too
        "shore": ("sand", "shore"),  # grey: of the town, too
        "town": ("street",),
    }
    assert naming(SMALL, "classes") == {
        "dog": ("dog", "hound"),
        "boat": ("boat",),
    }


def test_the_words_of_objects_and_of_captions() -> None:
    # "a", "of" and "with" are said of places, too; table 1 is in no caption
    assert object_words(SMALL) == (*("dog", "small", "hound", "boat", "sailing", "bone", "alone"),)
    assert set(spoken(SMALL)) == {
        *("a", "photo", "of", "print", "hand", "cloth", "dog", "small", "hound", "boat"),
        *("sailing", "with", "bone", "alone"),
        *("in", "the", "sea", "among", "tall", "waves", "under", "on", "sand", "by", "grey"),
        *("shore", "street", "no", "without", "not"),
    }


def test_the_words_of_the_places_of_scenes() -> None:
    names = naming(scenes.grammar.words)
    assert list(names) == list(scenes.categories["background"])
    assert names["grass"] == ("grass", "lawn", "meadow")
    assert names["beach"] == ("beach", "sand")  # the sea is where the water is, too
    assert names["forest"] == ("forest", "woods", "trees")
    assert names["water"] == ("water", "waves")
    assert names["road"] == ("road", "asphalt", "street")
    assert names["rocks"] == ("rocks", "stones")
    assert names["snow"] == ("snow", "snowy")
    own = naming(scenes.grammar.words, "classes")
    assert list(own) == list(scenes.classes)
    assert own["dog"] == ("dog", "hound", "puppy")
    without = set(object_words(scenes.grammar.words))
    assert {word for words in own.values() for word in words} <= without
    assert not {word for words in names.values() for word in words} & without
    with pytest.raises(InputError, match="no table 'neutral': choose from styles, classes"):
        naming(scenes.grammar.words, "neutral")


def test_words_drawn_at_random() -> None:
    # of the ten pairs out of five words, three hold neither of two
    assert chance(5, 2, 2) == pytest.approx(0.7)
    assert chance(100, 1, 5) == pytest.approx(0.05)
    assert chance(5, 0, 5) == 0
    assert chance(5, 1, 5) == 1
    source = torch.Generator().manual_seed(0)
    drawn = torch.rand(4000, 40, generator=source).argsort(1)[:, :5]
    assert (drawn < 3).any(1).float().mean().item() == pytest.approx(chance(40, 3), abs=0.02)
    for wrong in ((5, 6, 2), (5, 2, 6), (5, 2, 0)):
        with pytest.raises(InputError, match="Of 5 words"):
            chance(*wrong)


TEXTS = ["of", "snow", "sand", "snowy", "red", "shore"]
NAMES = {"snow": ["snow", "snowy", "ice"], "shore": ["sand", "shore"], "road": ["asphalt"]}
LIKELY = torch.tensor(
    [
        [0.1, 0.0, 0.3, 0.2, 0.25, 0.15],  # sand red snowy shore of snow
        [0.5, 0.1, 0.0, 0.3, 0.05, 0.05],  # of snowy snow red shore sand
        [0.9, 0.0, 0.0, 0.0, 0.0, 0.1],  # of shore, then as they stand
    ]
)


def test_a_word_of_the_answer_is_among_the_likeliest_or_not() -> None:
    answers = {"rabbit": "snow", "fish": "shore", "car": "road"}
    table = told(LIKELY, TEXTS, ["rabbit", "cat", "fish"], answers, NAMES, top=2)
    assert table["class"].tolist() == ["rabbit", "fish"]  # the cat is tied to nothing
    assert table["answer"].tolist() == ["snow", "shore"]
    assert table["words"].tolist() == ["sand red", "of shore"]
    assert table["rank"].tolist() == [3, 2]
    assert table["told"].tolist() == [False, True]
    assert table["elsewhere"].tolist() == [1.0, 0.0]  # of the shore, of the snow
    # two of six words each, for there is no ice: 6 of 15 pairs hold neither
    assert table["by_chance"].tolist() == pytest.approx([0.6, 0.6])
    both = told(LIKELY, TEXTS, ["rabbit", "cat", "fish"], answers, NAMES, top=3)
    assert both["told"].tolist() == [True, True]
    few = {"snowy", "of", "shore"}  # sand, snow and red could not be chosen
    table = told(LIKELY, TEXTS, ["rabbit", "cat", "fish"], answers, NAMES, 1, few)
    assert table["words"].tolist() == ["snowy", "of"]
    assert table["rank"].tolist() == [1, 2]
    assert table["by_chance"].tolist() == pytest.approx([1 / 3, 1 / 3])


def test_one_answer_for_all_leaves_no_other_place() -> None:
    table = told(LIKELY[:1], TEXTS, ["rabbit"], {"rabbit": "snow"}, NAMES)
    assert math.isnan(table["elsewhere"].item())


def test_what_cannot_be_marked() -> None:
    with pytest.raises(InputError, match=r"must have shape \(1, 6\), got \(3, 6\)"):
        told(LIKELY, TEXTS, ["rabbit"], {}, NAMES)
    with pytest.raises(InputError, match="No word for 'road' can be chosen: put asphalt"):
        told(LIKELY[:1], TEXTS, ["car"], {"car": "road"}, NAMES)
    with pytest.raises(InputError, match="Of 6 words"):
        told(LIKELY[:1], TEXTS, ["rabbit"], {"rabbit": "snow"}, NAMES, top=7)


def test_shares_by_strength() -> None:
    table = pd.DataFrame(
        {
            "strength": [0.3, 0.3, 1.0],
            "told": [True, False, True],
            "by_chance": [0.1, 0.3, 0.2],
            "elsewhere": [0.0, 0.5, math.nan],
            "rank": [4, 9, 1],
        }
    )
    found = shares(table, ["strength"])
    weak = found.loc[(0.3,)]
    assert (weak["told"].value, weak["told"].n) == (0.5, 2)
    assert weak["by chance"] == pytest.approx(0.2)
    assert weak["elsewhere"] == pytest.approx(0.25)
    assert weak["median rank"] == 6.5
    assert found.loc[(1.0,), "told"].value == 1


def test_what_a_failure_is_the_fault_of() -> None:
    found = pd.DataFrame({"class": ["a", "b", "c", "d"], "told": [True, False, False, False]})
    tried = pd.DataFrame({"class": ["a", "b", "c", "d"], "told": [False, False, False, True]})
    why = causes(found, tried, {"a": 3, "b": 2, "c": 1, "d": 1})
    assert [text.split(":")[0] for text in why] == ["", "the target", "the painter", "the search"]


class Blue(nn.Module):
    """Two classes: more blue than green, and less."""

    def forward(self, images):
        more = 20 * (images[:, 2] - images[:, 1]).mean((1, 2))
        return torch.stack([more, -more], 1)


def test_the_place_that_renders_speak_for_most_is_the_first() -> None:
    target, drawn = Target(Blue().eval(), "multiclass", ["blue", "green"]), Interventions(4, 7)
    aims = Objectives(target, ["blue", "green"], 64)
    blues = {b: (drawn.context(b)[:, 2] - drawn.context(b)[:, 1]).mean((1, 2)) for b in CONTEXTS}
    loss = {b: nn.functional.softplus(-40 * each).mean().item() for b, each in blues.items()}
    order = sorted(loss, key=loss.get)
    found = place_ranks(aims, ["blue", "green"], {"blue": order[2]}, drawn, batch=3)
    assert found == {"blue": 3}
    back = {b: nn.functional.softplus(40 * each).mean().item() for b, each in blues.items()}
    least = min(back, key=back.get)
    answers = {"blue": order[0], "green": least}
    assert place_ranks(aims, ["blue", "green"], answers, drawn) == {"blue": 1, "green": 1}
