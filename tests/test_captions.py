"""The words of every world: true, varied, and blind to what is held out."""

import re

import pytest

from visiondx.core.errors import InputError
from visiondx_worlds.worlds import animals, faces, scenes
from visiondx_worlds.worlds.animals import BREEDS
from visiondx_worlds.worlds.fillers import FilledGrammar, with_fillers
from world_checks import heldout_phrases, says

IMAGES = {"faces": 6000, "animals": 6000, "scenes": 3000}


def _named(world) -> str:
    return world.name + (" with fillers" if isinstance(world.grammar, FilledGrammar) else "")


ALL = [faces, animals, scenes, with_fillers(faces), with_fillers(animals)]


@pytest.fixture(scope="module", params=ALL, ids=_named)
def world(request):
    return request.param


@pytest.fixture(scope="module")
def attributes(world):
    return world.sample(IMAGES[world.name], 21)


@pytest.fixture(scope="module")
def captions(world, attributes):
    return world.caption(attributes, 5)


@pytest.fixture(scope="module")
def texts(world, attributes, captions):
    """Captions, wrong captions and prompts of the training half."""
    prompts = [
        world.prompt(name, present, seed=s)
        for name in world.binary
        for present in (True, False)
        for s in range(60)
    ]
    return captions + world.wrong_caption(attributes, 5) + prompts


def only(*worlds):
    return pytest.mark.parametrize("world", worlds, indirect=True, ids=lambda world: world.name)


def _training_phrases(world, name):
    sides = world.grammar.words["attributes"][name]
    return {p for side in ("present", "absent") for kind in sides[side].values() for p in kind}


def test_captions_are_deterministic_and_varied(world, captions):
    a = world.sample(50, 1)
    assert world.caption(a, 3) == world.caption(a, 3)
    assert world.caption(a, 3) != world.caption(a, 4)
    assert len(set(captions)) > len(captions) * 5 / 6


def test_held_out_phrasings_never_occur(world, texts):
    openings = [t.split(" {}")[0] for t in world.grammar.heldout["templates"]]
    for text in texts:
        assert not any(text.startswith(opening + " ") for opening in openings), text
        assert not says(text, heldout_phrases(world)), text


def test_held_out_words_are_known_words(world, captions):
    grammar = world.grammar
    known = set(re.findall(r"[a-z-]+", " ".join(captions + grammar.words.get("things", []))))
    text = " ".join(heldout_phrases(world) + grammar.heldout["templates"])
    assert set(re.findall(r"[a-z-]+", text)) <= known
    assert set(grammar.heldout["phrases"]) == set(world.binary)


@only(faces, animals)
def test_held_out_combinations_never_occur(world, captions):
    for first, second in world.grammar.heldout["combinations"]:
        one, two = _training_phrases(world, first), _training_phrases(world, second)
        both = [c for c in captions if says(c, one) and says(c, two)]
        # "hair on the head" and the like may speak of baldness: only real namings count
        assert not both, f"{first} and {second}: {both[0]}"


@pytest.mark.parametrize(
    ("world", "name"),
    [pytest.param(w, name, id=f"{w.name}-{name}") for w in (faces, animals) for name in w.binary],
    indirect=["world"],
)
def test_a_caption_says_only_what_is_true(world, name):
    """With one attribute absent everywhere, no caption uses a phrase of its presence."""
    words = world.grammar.words["attributes"]
    phrases = [p for p in words[name]["present"]["with"] if not p.startswith("no ")]
    denials = [p for each in words.values() for p in each["absent"].get("with", ())]
    denials = "|".join(sorted(map(re.escape, denials), key=len, reverse=True))
    for caption in world.caption(world.switch(world.sample(400, 8), name, False), 2):
        affirmed = re.sub(rf"\b({denials})\b", "", caption)
        for phrase in phrases:
            assert not re.search(rf"\b{re.escape(phrase)}\b", affirmed), caption


@only(animals)
def test_captions_of_animals_name_the_species_and_no_breed(attributes, captions):
    cat = animals.labels(attributes)[:, animals.binary.index("cat")].tolist()
    said = [(says(c, ("cat", "kitty")), says(c, ("dog", "doggy"))) for c in captions]
    assert sum(x or y for x, y in said) > 0.7 * len(said)
    for (says_cat, says_dog), is_cat, caption in zip(said, cat, captions, strict=True):
        assert not (says_dog if is_cat else says_cat), caption
    assert not any(says(caption, BREEDS) for caption in captions)


def test_a_grammar_can_keep_to_sentences_that_say_a_word():
    rows = animals.sample(40, 3)
    said = animals.grammar.saying("portrait").captions(animals, rows, 5)
    every = animals.caption(rows, 5)
    assert all(text.startswith(("a portrait of ", "a portrait showing ")) for text in said)
    assert len({text.split()[2] for text in said}) == 2
    assert not all("portrait" in text for text in every)  # the world's own is as it was
    with pytest.raises(InputError, match="says 'fresco'"):
        animals.grammar.saying("fresco")


def test_a_wrong_caption_is_false_about_one_attribute():
    a = faces.sample(300, 4)
    wrong, right = faces.wrong_caption(a, 9), faces.caption(a, 9)
    assert wrong == faces.wrong_caption(a, 9)
    assert all(one != other for one, other in zip(wrong, right, strict=True))
    # with hats everywhere, a true caption never denies one and some wrong captions do
    hats = faces.switch(a, "hat", True)
    denied = faces.grammar.words["attributes"]["hat"]["absent"]["with"]
    assert any(says(caption, denied) for caption in faces.wrong_caption(hats, 9))
    assert not any(says(caption, denied) for caption in faces.caption(hats, 9))


def test_neutral_prompts_name_nothing():
    assert faces.neutral() == "a face"
    assert len({faces.neutral(s) for s in range(40)}) > 10
    held = {faces.neutral(s, heldout=True) for s in range(40)}
    assert all("a face" in text for text in held)
    assert not held & {faces.neutral(s) for s in range(400)}


def test_plain_prompts():
    assert faces.prompt("bangs") == "a face with bangs"
    assert faces.prompt("smiling") == "a smiling face"
    assert faces.prompt("hat", present=False) == "a face with no hat"
    assert animals.prompt("cat") == "a cat"
    assert animals.prompt("cat", present=False) == "a dog"
    assert animals.prompt("green_eyes") == "an animal with green eyes"
    assert animals.prompt("collar", present=False) == "an animal with no collar"
    assert scenes.prompt("dog") == "a dog"
    assert scenes.prompt("umbrella") == "an umbrella"
    assert scenes.prompt("snow") == "a thing in the snow"
    assert scenes.prompt("food") == "a plate with food"
    assert scenes.prompt("food", present=False) == "a plate with no food"
    heldout = animals.prompt("tongue", seed=0, heldout=True)
    assert "an animal with its tongue hanging down" in heldout


def test_prompts(world):
    name = {"faces": "hat", "animals": "collar", "scenes": "night"}[world.name]
    assert world.prompt(name, seed=1) == world.prompt(name, seed=1)
    assert len({world.prompt(name, seed=s) for s in range(30)}) > 10
    for name in world.binary:
        for side, present in (("present", True), ("absent", False)):
            said = world.prompt(name, present, seed=0, heldout=True)
            assert any(p in said for p in world.grammar.heldout["phrases"][name][side])
    with pytest.raises(InputError, match="monocle"):
        world.prompt("monocle")
    assert world.neutral(0) == world.neutral(0)
