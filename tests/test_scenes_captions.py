"""The words of scenes: true, false where asked, and blind to pairs that are held out."""

import re

import pytest

from visiondx.core.errors import InputError
from visiondx_worlds.worlds import scenes
from world_checks import pattern, says

GRAMMAR = scenes.grammar
WORDS = GRAMMAR.words


@pytest.fixture(scope="module")
def attributes():
    return scenes.sample(3000, 21)


@pytest.fixture(scope="module")
def captions(attributes):
    return scenes.caption(attributes, 5)


@pytest.fixture(scope="module")
def lies(attributes):
    return scenes.wrong_caption(attributes, 5)


def _shift_phrases(name):
    for factor in ("background", "weather", "light", "beside", "styles", "colours"):
        if name in WORDS[factor]:
            forms = WORDS[factor][name]
            return forms if factor != "beside" else [name]
    raise AssertionError(name)


def test_captions_are_short(captions):
    assert max(len(c.split()) for c in captions) <= 36


def test_held_out_pairs_of_class_and_shift_never_occur(captions, lies):
    for kind, shift in GRAMMAR.heldout["combinations"]:
        one, two = WORDS["classes"][kind], _shift_phrases(shift)
        both = [c for c in captions + lies if says(c, one) and says(c, two)]
        assert not both, f"{kind} and {shift}: {both[0]}"
        assert any(says(c, one) for c in captions)
        assert any(says(c, two) for c in captions)


@pytest.mark.parametrize("factor", ["background", "weather", "light"])
def test_a_caption_says_only_what_is_true(attributes, captions, factor):
    for caption, index in zip(captions, attributes[factor].long().tolist(), strict=True):
        for value, phrases in WORDS[factor].items():
            if value != scenes.categories[factor][index]:
                said = pattern(tuple(phrases)).sub(r"<\1>", caption)
                assert "<" not in said.replace("not <", ""), said


def test_a_denied_shift_is_not_there(attributes, captions):
    labels = scenes.labels(attributes).tolist()
    for name, phrases in WORDS["absent"].items():
        column = scenes.binary.index(name)
        for caption, row in zip(captions, labels, strict=True):
            if says(caption, phrases):
                assert not row[column], caption


def test_a_lie_changes_one_thing(captions, lies):
    assert all(c != lie for c, lie in zip(captions, lies, strict=True))
    changed = []
    for truth, lie in zip(captions, lies, strict=True):
        # what is left after the common beginning and the common end
        one, two = truth.split(), lie.split()
        while one and two and one[0] == two[0]:
            one, two = one[1:], two[1:]
        while one and two and one[-1] == two[-1]:
            one, two = one[:-1], two[:-1]
        changed.append(len(two) / len(lie.split()))
    assert sum(changed) / len(changed) < 0.5


def _tells(text, phrase):
    """Is the phrase, or the pattern around {}, in the text, and not denied?"""
    parts = [re.escape(part.strip()) for part in phrase.split("{}")]
    return re.search(r"(?<!not )\b" + r"\b.*\b".join(filter(None, parts)) + r"\b", text)


def _false(text, truth):
    """The groups about which the text says something that is not so."""
    tables = {**WORDS, "class": WORDS["classes"], "superclass": WORDS["superclasses"]}
    tables |= {"colour": WORDS["colours"], "style": WORDS["styles"]}
    found = {
        group
        for group in truth.keys() - {"state"}
        for value, phrases in tables[group].items()
        if value != truth[group] and any(_tells(text, phrase) for phrase in phrases)
    }
    if truth["class"] in WORDS["states"]:
        other = "absent" if truth["state"] else "present"
        forms = WORDS["states"][truth["class"]][other]
        if any(_tells(text, p) for kind in forms.values() for p in kind):
            found.add("state")
    return found


def test_a_caption_is_true_and_a_lie_is_false_about_one_thing(attributes, captions, lies):
    a = attributes[:600]
    groups = {name: column.tolist() for name, column in scenes.groups(a).items()}
    values = {**scenes.categories, "superclass": tuple(scenes.superclasses)}
    wrong = []
    for i, (caption, lie) in enumerate(zip(captions[:600], lies[:600], strict=True)):
        truth = {g: values[g][column[i]] for g, column in groups.items() if g != "state"}
        truth["state"] = groups["state"][i] == 1
        assert not _false(caption, truth), (caption, truth)
        found = _false(lie, truth)
        assert len(found) == 1, (lie, found, truth)
        wrong += found
    assert set(wrong) == set(groups)  # every kind of thing is lied about


def test_table_1_knows_its_shifts():
    with pytest.raises(InputError, match="hail"):
        GRAMMAR.table1("hail", "dog")
