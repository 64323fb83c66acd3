"""Shifts of Table 1 and in words, and the world's names for them."""

import pytest

from visiondx.core.errors import InputError
from visiondx.dataset_interfaces.shifts import BY_NAME, PLACE, SHIFTS, Shift
from visiondx_worlds.marking.dataset_interfaces.truth import WORLD_SHIFTS, world_shift
from visiondx_worlds.worlds.scenes import scenes


def test_every_shift_of_table_1_has_one_name_in_the_world():
    assert len(SHIFTS) == len(BY_NAME) == 24
    assert list(WORLD_SHIFTS) == [shift.name for shift in SHIFTS]
    assert list(WORLD_SHIFTS.values()) == ["base", *scenes.shifts]
    assert world_shift("person and a") == "person"
    for shift in SHIFTS:
        assert shift.asks("dog") == scenes.grammar.table1(world_shift(shift), "dog").lower()
    with pytest.raises(InputError, match="cannot draw 'wearing a hat': choose from base, in the"):
        world_shift(Shift.of("wearing a hat"))


def test_thresholds_and_yields_are_those_of_table_1():
    # the sums of the printed columns, and rows of three kinds
    assert sum(s.threshold for s in SHIFTS[1:]) == pytest.approx(3.923)
    assert sum(s.paper_yield for s in SHIFTS) == pytest.approx(14.727)
    assert (SHIFTS[0].threshold, SHIFTS[0].paper_yield) == (None, 0.926)
    snow, person = Shift.named("in the snow"), Shift.named("person and a")
    assert (snow.threshold, snow.paper_yield) == (0.160, 0.732)
    assert (person.threshold, person.paper_yield) == (0.181, 0.299)
    assert [s.name for s in SHIFTS if s.style] == ["oil painting", "pencil sketch", "embroidery"]


def test_captions_are_those_of_section_3():
    beach, sketch = Shift.named("in the beach"), Shift.named("pencil sketch")
    assert beach.caption == "a photo in the beach"
    assert Shift.named("on the road").caption == "a photo on the road"
    assert Shift.named("blue").caption == "a photo of a blue thing"
    assert Shift.named("person and a").caption == "a photo of a person and something"
    assert Shift.named("and a flower").caption == "a photo of something and a flower"
    assert beach.class_caption("dog") == "a photo of a dog"
    assert sketch.caption == "a black and white pencil sketch"
    assert sketch.class_caption("dog") == "a dog"  # footnote 1
    assert Shift.named("base").caption == ""


def test_words_make_a_shift():
    hat = Shift.of(" wearing  a hat ")
    assert (hat.prompt, hat.caption) == (
        f"a photo of a {PLACE} wearing a hat",
        "a photo wearing a hat",
    )
    assert hat.folder == "wearing_a_hat"
    assert hat.threshold is None
    assert Shift.of("in the snow") is Shift.named("in the snow")
    whole = Shift.of(f"a watercolour of a {PLACE}", style=True)
    assert (whole.prompt, whole.caption) == (f"a watercolour of a {PLACE}", "a watercolour")
    assert whole.class_caption("dog") == "a dog"
    assert Shift.of(f"the {PLACE} under a tree").caption == "something under a tree"
    assert Shift.of("by the sea", caption="the sea").caption == "the sea"


def test_no_two_shifts_share_a_folder():
    names = ["a hat", "A hat", "a hat!", "a hat?", "a_hat", "a/hat", f"a {PLACE}", "???", "x" * 300]
    folders = [Shift.of(name).folder for name in names] + [shift.folder for shift in SHIFTS]
    assert len({folder.lower() for folder in folders}) == len(folders)
    assert all(folder[0].isalnum() and len(folder) < 100 for folder in folders)
    assert "/" not in "".join(folders)
    assert Shift.named("in the grass").folder == "in_the_grass"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Shift.of("  "), "needs words"),
        (lambda: Shift.of(f"{PLACE} and {PLACE}"), "must hold <class> once"),
        (lambda: Shift("x", "a photo of a dog", ""), "must hold <class> once"),
        (lambda: Shift(" ", f"a {PLACE}", ""), "needs a name"),
        (lambda: Shift.named("hail"), "No shift 'hail' in Table 1: choose from base, in the grass"),
    ],
)
def test_wrong_words_are_refused(make, said):
    with pytest.raises(InputError, match=said):
        make()
