"""What sentences say: the reverse of the grammar, and the refusal of what it does not know."""

import random

import pytest

from visiondx.core.errors import InputError
from visiondx_worlds.marking.llm2loss.understand import understand
from visiondx_worlds.worlds import animals, faces


@pytest.mark.parametrize("world", [faces, animals], ids=lambda world: world.name)
@pytest.mark.parametrize("heldout", [False, True])
def test_every_sentence_of_the_grammar_is_understood(world, heldout):
    rng, understood = random.Random(0), 0
    for seed in range(100):
        named = {a: rng.random() < 0.6 for a in rng.sample(world.binary, rng.randint(0, 3))}
        try:
            text = world.grammar.sentence(named, seed, heldout)
        except InputError:  # the grammar has no sentence for it
            continue
        assert understand(world.name, text) == named, text
        understood += 1
    assert understood > 50


def test_a_persons_own_sentence():
    said = {"smiling": True, "male": True, "hat": True}
    assert understand("faces", "A smiling man, with a hat!") == said
    assert understand("faces", "a face with no bangs") == {"bangs": False}
    assert understand("faces", "a photo of a person") == {}


@pytest.mark.parametrize(
    "text", ["a face with red shoes", "not a hat", "", "a smiling face with no smile", "a zebra"]
)
def test_what_is_not_understood_in_full_is_not_understood(text):
    assert understand("faces", text) is None


def test_other_worlds_have_no_such_sentences():
    assert understand("scenes", "a dog in the snow") is None
