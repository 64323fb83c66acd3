"""The caption grammar: true, varied, and blind to what is held out."""

import re

import pytest

from visiondx.errors import InputError
from visiondx.worlds import faces

GRAMMAR = faces.grammar


@pytest.fixture(scope="module")
def captions():
    return faces.caption(faces.sample(6000, 21), 5)


def _training_phrases(name):
    sides = GRAMMAR.words["attributes"][name]
    return {p for side in ("present", "absent") for kind in sides[side].values() for p in kind}


def _names(caption, phrases):
    return any(re.search(rf"\b{re.escape(p)}\b", caption) for p in phrases)


def test_captions_are_deterministic_and_varied(captions):
    a = faces.sample(50, 1)
    assert faces.caption(a, 3) == faces.caption(a, 3)
    assert faces.caption(a, 3) != faces.caption(a, 4)
    assert len(set(captions)) > 5000


def test_held_out_phrasings_never_occur(captions):
    texts = captions + [
        faces.prompt(name, present, seed=s)
        for name in faces.binary
        for present in (True, False)
        for s in range(60)
    ]
    openings = [t.split(" {}")[0] for t in GRAMMAR.heldout["templates"]]
    phrases = [
        p for sides in GRAMMAR.heldout["phrases"].values() for side in sides.values() for p in side
    ]
    for text in texts:
        assert not any(text.startswith(opening + " ") for opening in openings), text
        assert not any(re.search(rf"\b{re.escape(p)}\b", text) for p in phrases), text


def test_held_out_combinations_never_occur(captions):
    for first, second in GRAMMAR.heldout["combinations"]:
        one, two = _training_phrases(first), _training_phrases(second)
        both = [c for c in captions if _names(c, one) and _names(c, two)]
        # "hair on the head" and the like may speak of baldness: only real namings count
        assert not both, f"{first} and {second}: {both[0]}"


def test_held_out_words_are_known_words(captions):
    known = set(re.findall(r"[a-z-]+", " ".join(captions)))
    heldout = GRAMMAR.heldout
    text = " ".join(
        [p for sides in heldout["phrases"].values() for side in sides.values() for p in side]
        + heldout["templates"]
    )
    assert set(re.findall(r"[a-z-]+", text)) <= known


@pytest.mark.parametrize("name", faces.binary)
def test_a_caption_says_only_what_is_true(name):
    """With one attribute absent everywhere, no caption uses a phrase of its presence."""
    forms = GRAMMAR.words["attributes"][name]["present"]
    unique = [p for p in forms["with"] if p not in ("no hair", "long hair")]
    absent = faces.caption(faces.switch(faces.sample(400, 8), name, False), 2)
    for caption in absent:
        for phrase in unique:
            found = re.search(rf"(?<!no )(?<!no very )\b{re.escape(phrase)}\b", caption)
            assert not found, caption


def test_a_wrong_caption_is_false_about_one_attribute():
    a = faces.sample(300, 4)
    wrong, right = faces.wrong_caption(a, 9), faces.caption(a, 9)
    assert wrong == faces.wrong_caption(a, 9)
    assert all(one != other for one, other in zip(wrong, right, strict=True))
    # with hats everywhere, a true caption never denies one and some wrong captions do
    hats = faces.switch(a, "hat", True)
    denied = GRAMMAR.words["attributes"]["hat"]["absent"]["with"]
    assert any(_names(caption, denied) for caption in faces.wrong_caption(hats, 9))
    assert not any(_names(caption, denied) for caption in faces.caption(hats, 9))


def test_neutral_prompts_name_nothing():
    assert faces.neutral() == "a face"
    assert len({faces.neutral(s) for s in range(40)}) > 10
    held = {faces.neutral(s, heldout=True) for s in range(40)}
    assert all("a face" in text for text in held)
    assert not held & {faces.neutral(s) for s in range(400)}


def test_prompts():
    assert faces.prompt("bangs") == "a face with bangs"
    assert faces.prompt("smiling") == "a smiling face"
    assert faces.prompt("hat", present=False) == "a face with no hat"
    assert faces.prompt("hat", seed=1) == faces.prompt("hat", seed=1)
    assert len({faces.prompt("hat", seed=s) for s in range(30)}) > 10
    assert any(
        p in faces.prompt("hat", seed=0, heldout=True)
        for p in GRAMMAR.heldout["phrases"]["hat"]["present"]
    )
    with pytest.raises(InputError, match="monocle"):
        faces.prompt("monocle")
