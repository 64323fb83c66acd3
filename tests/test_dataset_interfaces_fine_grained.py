"""Breeds and ages: what is drawn is what was asked, and what judges say of it is counted."""

import pytest
import torch
import torch.nn.functional as F

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
    """Judges who say what they are told, of breeds with a second choice."""

    binary = ("collar",)

    def __init__(self, breed, second, fur, collar) -> None:
        there = torch.tensor(collar)[..., None] > 0
        self.said = {
            "breed": torch.tensor(breed),
            "fur_colour": torch.tensor(fur),
            "binary": there,
        }
        first, then = F.one_hot(torch.tensor(breed), 11), F.one_hot(torch.tensor(second), 11)
        self.breeds = 0.6 * first + 0.4 * then

    def answers(self, images):
        return self.said

    def group_probabilities(self, images, name):
        assert name == "breed"
        return self.breeds

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
    # siamese is 1 and white, greyhound 9 and grey; two judges, four images
    told = Told(
        breed=[[1, 1, 9, 0], [0, 6, 9, 0]],
        second=[[2, 2, 2, 9], [1, 2, 2, 8]],
        fur=[[0, 0, 3, 3], [0, 1, 3, 3]],
        collar=[[1, 1, 0, 1], [1, 1, 1, 1]],
    )
    images = {"siamese": torch.zeros(2, 3, 64, 64), "greyhound": torch.zeros(2, 3, 64, 64)}
    found = select_fine(told, images, "animals", "with a collar")
    assert found.kinds == ("siamese", "siamese", "greyhound", "greyhound")
    assert found.values["class"].tolist() == [True, False, True, False]
    assert found.values["state"].tolist() == [True, False, True, True]
    assert found.values["shift"].tolist() == [True, True, False, True]
    assert found.both.tolist() == [True, False, False, False]
    assert {kind: share.value for kind, share in each_class(found, "state").items()} == {
        "siamese": 0.5,
        "greyhound": 1.0,
    }
    assert select_fine(told, images, "animals").values["shift"].all()
    table = seen_instead(told, images, "animals")
    assert list(table.index) == ["siamese", "greyhound"]
    assert table.loc["siamese", ["siamese", DISAGREE]].tolist() == [0.0, 1.0]
    assert table.loc["greyhound", ["greyhound", "no breed"]].tolist() == [0.5, 0.5]


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="No fine-grained data set 'scenes'"):
        fine_images("scenes", "base", 1, 0)
    with pytest.raises(InputError, match="no shift 'with a hat': choose from base, with a collar"):
        fine_images("animals", "with a hat", 1, 0)
    with pytest.raises(InputError, match="n is 0"):
        fine_images("faces", "base", 0, 0)
    with pytest.raises(InputError, match="There is no class 'poodle'"):
        select_fine(None, {"poodle": torch.zeros(1, 3, 64, 64)}, "animals")
