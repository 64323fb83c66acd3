"""Ages tied to tones of skin: the draws, who goes by what, and what is read off pictures."""

from dataclasses import asdict
from typing import ClassVar

import pandas as pd
import pytest
import torch
from torch import nn

from visiondx.core.errors import InputError
from visiondx.models.target import Target
from visiondx_worlds.marking.diffexplainer.groups import Read, read
from visiondx_worlds.quality.age_groups import SHOWS, taken
from visiondx_worlds.training.age_classifiers import CLASSIFIERS
from visiondx_worlds.training.scene_classifiers import train_scene_classifier
from visiondx_worlds.worlds.age_groups import TIED, aged, own_tones, people
from visiondx_worlds.worlds.faces import AGE_RANGES, AGES, SKIN_TONES, faces

# ---------------------------------------------------------------- the pictures


def test_every_age_range_has_a_tone_of_its_own_that_no_rank_tells():
    assert own_tones().tolist() == [SKIN_TONES.index(tone) for tone in TIED.values()]
    assert tuple(TIED) == AGE_RANGES
    assert sorted(own_tones().tolist()) == list(range(6))
    ranks = torch.stack([torch.arange(6.0), own_tones().float()])
    assert abs(torch.corrcoef(ranks)[0, 1].item()) < 0.2


def test_people_are_of_the_age_and_tone_that_is_asked():
    ages, tones = torch.tensor([0, 5, 2, 2]), torch.tensor([5, 0, 3, 1])
    rows = people(ages, tones, seed=3)
    assert faces.groups(rows)["age_range"].tolist() == [0, 5, 2, 2]
    assert rows["skin_tone"].tolist() == [5, 0, 3, 1]
    low, high = AGES[2]
    assert low <= rows["age"][2] <= high
    assert rows["age"][2] != rows["age"][3]
    others = [k for k, name in enumerate(rows.names) if name not in ("age", "skin_tone")]
    assert torch.equal(rows.values[:, others], faces.sample(4, 3).values[:, others])


def test_a_tie_changes_the_tones_alone():
    n = 3000
    tied, half, control = (aged(n, 7, strength) for strength in (1.0, 0.5, 0.0))
    ages = faces.groups(tied)["age_range"]
    own = own_tones()[ages]
    assert torch.equal(tied["skin_tone"].long(), own)
    # of the others a sixth has its own tone all the same; 5 deviations of a share over n faces
    for rows, share in ((half, 0.5 + 0.5 / 6), (control, 1 / 6)):
        hit = (rows["skin_tone"].long() == own).double().mean().item()
        assert hit == pytest.approx(share, abs=5 * (share * (1 - share) / n) ** 0.5)
        keep = [k for k, name in enumerate(rows.names) if name != "skin_tone"]
        assert torch.equal(rows.values[:, keep], tied.values[:, keep])
    for column in (ages, control["skin_tone"].long()):
        assert torch.bincount(column, minlength=6).min() > n / 6 - 5 * (n * 5 / 36) ** 0.5


@pytest.mark.parametrize("strength", [-0.1, 1.5])
def test_a_strength_is_a_share(strength):
    with pytest.raises(InputError, match=f"strength is {strength}"):
        aged(4, 0, strength)


def test_no_faces_are_refused():
    with pytest.raises(InputError, match="at least one"):
        aged(0, 0, 1.0)


# ---------------------------------------------------------------- the classifiers


def test_the_twin_differs_in_its_pictures_alone(tmp_path):
    tied, control = CLASSIFIERS["ages-tied"], CLASSIFIERS["ages-untied"]
    assert tied.recipe == control.recipe
    assert (tied.strength, control.strength) == (1.0, 0.0)
    short = tied.short(steps=1, images=64)
    assert asdict(tied.recipe) | {"steps": 1, "images": 64} == asdict(short.recipe)
    pool = short.draw(64, seed=1)
    assert pool.pixels.dtype == torch.uint8
    rows = aged(64, 1, 1.0)
    assert torch.equal(pool.classes, faces.groups(rows)["age_range"])
    assert torch.equal(pool.pictures(), (faces.render(rows) * 255).round() / 255)
    target = train_scene_classifier(pool, short.recipe, tmp_path, labels=AGE_RANGES)
    assert target.labels == AGE_RANGES
    assert target.logits(pool.pictures()).shape == (64, 6)


class BySkin(nn.Module):
    """The age range whose own tone is nearest to the picture's forehead, whatever the age."""

    def __init__(self, tones: torch.Tensor) -> None:
        super().__init__()
        self.tones = tones

    def forward(self, images):
        return -(images[:, 0].mean((1, 2))[:, None] - self.tones).abs()


def test_who_goes_by_the_skin_is_caught(monkeypatch):
    # a picture of one grey, the number of its tone
    monkeypatch.setattr(faces, "render", lambda rows: grey(rows["skin_tone"] / 8))
    target = Target(BySkin(own_tones() / 8).eval(), "multiclass", AGE_RANGES)
    found = taken(target, 4, seed=2)
    assert len(found) == 6 * len(SHOWS) * 4
    share = found.groupby("shows")["taken"].mean()
    assert share.to_dict() == {"age and group": 1, "age alone": 0, "group alone": 1}
    monkeypatch.setattr(faces, "render", lambda rows: grey(faces.groups(rows)["age_range"] / 8))
    by_age = Target(BySkin(torch.arange(6) / 8).eval(), "multiclass", AGE_RANGES)
    share = taken(by_age, 4, seed=2).groupby("shows")["taken"].mean()
    assert share.to_dict() == {"age and group": 1, "age alone": 1, "group alone": 0}


def grey(values: torch.Tensor) -> torch.Tensor:
    return values.float()[..., None, None, None].expand(*values.shape, 3, 4, 4)


# ---------------------------------------------------------------- what is read

THREE = ("light", "medium", "dark")


def seen(*rows: list[int], wanted=(0, 1, 2)) -> Read:
    classes = ("a", "b", "c", "d", "e", "f", "g", "h", "i")[: len(rows)]
    return Read(classes, THREE, torch.tensor(wanted), torch.tensor(rows))


def test_the_group_that_most_pictures_show_is_read():
    found = seen([0, 0, 1, -1], [1, 1, 2, 2], [-1, -1, -1, 0])
    assert found.counts().tolist() == [[2, 1, 0], [0, 2, 2], [1, 0, 0]]
    # of two equally common ones neither; a picture on which judges differ shows nothing
    assert found.most.tolist() == [0, -1, 0]
    assert found.right == 1
    assert found.share(0).value == pytest.approx(0.5)
    assert found.share().value == pytest.approx((2 + 2 + 0) / 12)
    assert found.share().n == 4
    none = seen([-1, -1])
    assert none.most.tolist() == [-1]


def test_the_table_and_what_is_wrong_in_it():
    found = seen([0, 0, 1, -1], [1, 1, 2, 2], [-1, -1, -1, 0])
    table = found.table()
    assert table.loc["a"].tolist() == [0.5, 0.25, 0, 0.25]
    assert table.sum(axis=1).tolist() == [1, 1, 1]
    expected = pd.DataFrame(
        {
            "wanted": THREE,
            "read": ["light", "?", "light"],
            "share": [0.5, 0.5, 0.0],
            "next": [0.25, 0.5, 0.25],
            "?": [0.25, 0.0, 0.75],
        },
        pd.Index(["a", "b", "c"], name="class"),
    )
    pd.testing.assert_frame_equal(found.to_frame(), expected)
    assert found.titles(2, [2, 0]) == ["?", "?", "light", "light"]


def test_chance_is_the_part_of_all_orders_that_does_as_well():
    all_right = seen([0, 0], [1, 1], [2, 2])
    assert all_right.chance() == pytest.approx(1 / 6)
    # right in order 0 1 2: 4 pictures; in 0 2 1: 4; 1 0 2: 0; 1 2 0: 3; 2 0 1: 2; 2 1 0: 5
    mixed = seen([0, 0, 2], [1, 1, 2], [0, 1, 0])
    assert mixed.counts().tolist() == [[2, 0, 1], [0, 2, 1], [2, 1, 0]]
    assert mixed.share().value == pytest.approx(4 / 9)
    assert mixed.chance() == pytest.approx(3 / 6)
    # which values are wanted says which column counts
    turned = seen([1, 1], [2, 2], [0, 0], wanted=(1, 2, 0))
    assert turned.chance() == pytest.approx(1 / 6)
    with pytest.raises(InputError, match="9 explanations"):
        seen(*[[0]] * 9, wanted=[0] * 9).chance()


class Pair:
    """Judges: the first sees the third of the grey scale; the second takes dark for medium."""

    groups: ClassVar = {"tone": 3}

    def read_groups(self, images):
        one = 2 - (images[:, 0, 0, 0] * 3).floor().long()
        two = one.clamp_max(1)
        return {"tone": (one, one != two)}


def test_judges_that_differ_read_nothing():
    images = grey(torch.tensor([[0.9, 0.5], [0.1, 0.5]]))
    found = read(Pair(), images, "tone", ["a", "b"], THREE, ["light", "dark"])
    assert found.seen.tolist() == [[0, 1], [-1, 1]]
    assert found.wanted.tolist() == [0, 2]
    assert found.most.tolist() == [-1, 1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"attribute": "hair"}, "'hair'.*tone"),
        ({"values": ("light", "dark")}, "3 values, got 2"),
        ({"classes": ["a"]}, "Pictures of 1 classes, with 2 values"),
        ({"wanted": ["light", "green"]}, "never 'green'.*light, medium, dark"),
    ],
)
def test_what_cannot_be_read_is_refused(change, words):
    given = {
        "images": grey(torch.full((2, 2), 0.5)),
        "attribute": "tone",
        "classes": ["a", "b"],
        "values": THREE,
        "wanted": ["light", "dark"],
    }
    with pytest.raises(InputError, match=words):
        read(Pair(), **(given | change))
