"""Breeds and ages: what is drawn is what was asked, and what judges say of it is counted."""

import pytest
import torch

from visiondx.core.errors import InputError
from visiondx_worlds.marking.dataset_interfaces.fine_grained import (
    DISAGREE,
    FINE,
    each_class,
    fine_images,
    seen_instead,
    select_fine,
)
from visiondx_worlds.models.judges import Judges
from visiondx_worlds.training.class_tokens import class_images


class Told:
    """Judges who say what they are told."""

    def __init__(self, breed, cat, collar) -> None:
        self.binary = ("cat", "collar")
        there = torch.tensor([cat, collar]).permute(1, 2, 0) > 0
        self.said = {"breed": torch.tensor(breed), "binary": there}

    def answers(self, images):
        return self.said

    def column(self, name):
        return self.binary.index(name)


@pytest.mark.parametrize(("name", "least"), [("animals", 0.95), ("faces", 0.75)])
def test_judges_read_the_data_set(name, least) -> None:
    judges, data = Judges.load(name), FINE[name]
    for shift in ("base", *data.shifts):
        images = fine_images(name, shift, 6, 100)
        shares = select_fine(judges, images, name, shift).frequency()
        assert shares["class"].value > least, shift  # an age may lie at the border of its range
        assert shares["state"].value > 0.9, shift
        assert shares["shift"].value > 0.9, shift
        assert shares["both"].n == 6 * len(data.numbers)
    names = list(images)
    wrong = dict(zip(names, [*list(images.values())[1:], images[names[0]]], strict=True))
    assert select_fine(judges, wrong, name, shift).frequency()["class"].value < 0.1
    table = seen_instead(judges, images, name)
    assert table.sum(axis=1).tolist() == pytest.approx([1.0] * len(data.numbers))
    assert min(table.loc[kind, kind] for kind in data.numbers) > 0.3


@pytest.mark.parametrize("name", FINE)
def test_base_images_are_those_that_words_are_learned_from(name) -> None:
    theirs, ours = class_images(name, 2, 3), fine_images(name, "base", 2, 3)
    assert list(theirs) == list(ours) == list(FINE[name].numbers)
    for kind in theirs:
        torch.testing.assert_close(theirs[kind], ours[kind])


def test_a_shift_changes_one_thing() -> None:
    base, hat = (fine_images("faces", shift, 2, 3) for shift in ("base", "with a hat"))
    changed = (base["child"] - hat["child"]).abs().amax(1) > 0.02
    assert changed[:, :32].float().mean() > 0.1
    assert changed[:, 48:].float().mean() < 0.05  # no hat at the chin


def test_what_judges_say_is_counted() -> None:
    # siamese is 1 and a cat, dalmatian 6 and a dog; two judges, four images
    told = Told(
        breed=[[1, 1, 6, 0], [1, 6, 6, 0]],
        cat=[[1, 0, 0, 0], [1, 1, 0, 0]],
        collar=[[1, 1, 0, 1], [1, 1, 1, 1]],
    )
    images = {"siamese": torch.zeros(2, 3, 64, 64), "dalmatian": torch.zeros(2, 3, 64, 64)}
    found = select_fine(told, images, "animals", "with a collar")
    assert found.kinds == ("siamese", "siamese", "dalmatian", "dalmatian")
    assert found.values["class"].tolist() == [True, False, True, False]
    assert found.values["state"].tolist() == [True, False, True, True]
    assert found.values["shift"].tolist() == [True, True, False, True]
    assert found.both.tolist() == [True, False, False, False]
    assert {kind: share.value for kind, share in each_class(found, "state").items()} == {
        "siamese": 0.5,
        "dalmatian": 1.0,
    }
    assert select_fine(told, images, "animals").values["shift"].all()
    table = seen_instead(told, images, "animals")
    assert list(table.index) == ["siamese", "dalmatian"]
    assert table.loc["siamese", ["siamese", DISAGREE]].tolist() == [0.5, 0.5]
    assert table.loc["dalmatian", ["dalmatian", "no breed"]].tolist() == [0.5, 0.5]


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="No fine-grained data set 'scenes'"):
        fine_images("scenes", "base", 1, 0)
    with pytest.raises(InputError, match="no shift 'with a hat': choose from base, with a collar"):
        fine_images("animals", "with a hat", 1, 0)
    with pytest.raises(InputError, match="n is 0"):
        fine_images("faces", "base", 0, 0)
    with pytest.raises(InputError, match="There is no class 'poodle'"):
        select_fine(None, {"poodle": torch.zeros(1, 3, 64, 64)}, "animals")
