"""What target, twin and judges say of pictures: by hand, on pictures of one grey."""

from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from torch import nn

from visiondx.core.errors import InputError
from visiondx.diffexplainer.explain import Found, Settings
from visiondx.models.segmenter import Segmenter
from visiondx.models.target import Target
from visiondx_worlds.marking.diffexplainer.shown import (
    evidence,
    look,
    moved,
    reasons,
    seen_shares,
)

LABELS = ("dark", "middle", "bright")


class ByGrey(nn.Module):
    """The class is the third of the grey scale in which the first pixel lies."""

    def __init__(self, gain: float = 10.0) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, images):
        centres = torch.tensor([1 / 6, 1 / 2, 5 / 6])
        return -self.gain * (images[:, 0, 0, 0, None] - centres).abs()


class Pair:
    """Judges: the first as the target is; the second takes dark for middle."""

    groups: ClassVar = {"class": 3}

    def group_probabilities(self, images, name):
        one = (ByGrey(30.0)(images)).softmax(1)
        two = ByGrey(10.0)(images.clamp_min(0.5)).softmax(1)
        return torch.stack([one, two])

    def read_groups(self, images):
        one, two = self.group_probabilities(images, "class").argmax(-1)
        return {"class": (one, one != two)}


class NotBlack:
    def real(self, images):
        return images.flatten(1).amax(1) > 0


class BrightPart(nn.Module):
    """A segmenter's module: each word is found where a picture is bright."""

    def forward(self, images, words):
        found = images[:, :1].expand(-1, len(words), -1, -1)
        return found, torch.ones(len(images), len(words))


def target(gain: float = 10.0) -> Target:
    return Target(ByGrey(gain).eval(), "multiclass", LABELS)


def grey(*rows) -> torch.Tensor:
    return torch.tensor(rows)[:, :, None, None, None].expand(-1, -1, 3, 4, 4)


def test_a_picture_is_asked_of_target_twin_and_judges():
    images = grey([0.9, 0.8, 0.55, 0.0], [0.1, 0.2, 0.0, 0.9])
    twin = Target(nn.Sequential(ByGrey(-10.0)).eval(), "multiclass", LABELS)
    found = look("ours", target(), ["bright", 0], images, Pair(), NotBlack(), twin)
    assert found.classes == ("bright", "dark")
    assert found.said.tolist() == [[2, 2, 1, 0], [0, 0, 0, 2]]
    assert found.values["taken"].tolist() == [[True, True, False, False], [True, True, True, False]]
    assert found.values["twin"].tolist() == [[False, False, False, True]] * 2
    # the second judge takes dark for middle, so that they differ on it
    assert found.seen.tolist() == [[2, 2, 1, -1], [-1, -1, -1, 2]]
    assert found.values["named"].tolist() == [[True, True, False, False], [False] * 4]
    assert found.values["confidence"][1].tolist() == [0, 0, 0, pytest.approx(0.9644, abs=1e-4)]
    by_hand = torch.tensor([-10 * abs(0.9 - c) for c in (1 / 6, 1 / 2, 5 / 6)]).softmax(0)
    assert found.values["p"][0, 0].item() == pytest.approx(by_hand[2].item(), rel=1e-5)
    # of the four black pictures none is real, though the target takes one
    assert found.values["both"].tolist() == [[True, True, False, False], [True, True, False, False]]
    assert not found.values["shared"].any()
    same = look("ours", target(), ["bright", 0], images, Pair(), NotBlack(), target(5.0))
    assert torch.equal(same.values["shared"], same.values["both"])
    share = found.share("taken")
    assert (share.value, share.n) == (pytest.approx(5 / 8), 4)
    assert found.share("taken", 1).value == pytest.approx(3 / 4)
    assert found.order() == [0, 1]
    assert found.to_frame().loc["dark", "taken"] == pytest.approx(0.75)


def test_a_segmenter_looks_for_the_class_in_its_pictures():
    images = grey([0.9, 0.1], [0.9, 0.9]).clone()
    images[0, 0, :, :, 2:] = 0.0
    segmenter = Segmenter(BrightPart())
    found = look("ours", target(), ["bright", "dark"], images, segmenter=segmenter)
    assert found.values["object"].tolist() == [[0.5, 0], [1, 1]]
    with pytest.raises(InputError, match="bright"):
        look("ours", target(), ["bright"], images[:1], segmenter=Segmenter(BrightPart(), ["dark"]))


def test_the_judges_confidence_is_the_smaller_of_their_two():
    found = look("ours", target(), ["bright"], grey([0.7]), Pair())
    one, two = Pair().group_probabilities(grey([0.7])[0], "class").amax(-1)[:, 0]
    assert two < one
    assert found.values["confidence"].item() == pytest.approx(two.item())


def test_what_is_not_known_is_left_out_of_the_table():
    images = grey([0.9, 0.0])
    both = [
        look("ours", target(), ["bright"], images, Pair(), NotBlack()),
        look("pixels", target(), ["bright"], images),
    ]
    table = evidence(both)
    assert list(table.index) == ["ours", "pixels"]
    assert list(table) == ["p", "taken", "confidence", "named", "real", "both"]
    assert table.loc["pixels", ["real", "both"]].isna().all()
    assert table.loc["ours", "both"].value == 0.5
    with pytest.raises(InputError, match="'real' is not known of pixels"):
        both[1].share("real")
    with pytest.raises(InputError, match="must have shape"):
        look("ours", target(), ["bright", "dark"], images)


def test_reasons_tell_a_bad_place_from_a_short_search_and_from_the_painter():
    """Four classes' worth of paths: the third quarter's loss is 2, the last one's as given."""
    last = torch.tensor([1.0, 1.0, 1.99, 1.0])
    path = torch.full((8, 4, 2), 2.0)
    path[6:, :, 1] = last
    losses = torch.tensor([[2.0, 1.0]]).repeat(4, 1)
    found = Found((), None, torch.zeros(4, 2, 1, 1), None, losses, path, Settings(), 0)
    classes = ["bright", "dark", "dark", "middle"]
    shown = look(
        "ours", target(), classes,
        grey([0.9] * 3 + [0.1], [0.9, 0.9, 0.5, 0.1], [0.1, 0.1, 0.1, 0.9], [0.5] * 4), Pair(),
    )  # fmt: skip
    words = look(
        "words", target(), classes,
        grey([0.9] * 4, [0.9] * 4, [0.9] * 4, [0.5] * 4),
    )  # fmt: skip
    table = reasons(found, shown, words).reset_index()
    assert table["class"].tolist() == ["dark", "bright", "dark", "middle"]
    assert table["reached"].tolist() == [0.25, 0.75, 0.75, 1.0]
    assert table["by_word"].tolist() == [0, 1, 0, 1]
    assert table["fell"].tolist() == pytest.approx([0.5, 0.5, 0.005, 0.5], abs=1e-5)
    assert table["instead"].tolist() == ["bright", "dark", "bright", ""]
    assert table["judges"].tolist()[1:] == ["bright", "?", "middle"]
    why = table["why"].tolist()
    assert "more steps" in why[0]
    assert "more starts" in why[1]
    assert "does no better" in why[2]
    assert why[3] == ""
    longer = replace(found, path=torch.full((3, 4, 2), 1.0))  # too short to tell
    assert reasons(longer, shown, words)["fell"].eq(0).all()


def test_shares_of_what_both_judges_see_and_how_far_they_moved():
    before, after = grey([0.9, 0.9, 0.5, 0.1])[0], grey([0.9, 0.5, 0.5, 0.5])[0]
    assert seen_shares(Pair(), before, "class").tolist() == [0, 0.25, 0.5, 0.25]
    assert seen_shares(Pair(), after, "class").tolist() == [0, 0.75, 0.25, 0]
    assert moved(Pair(), before, after, "class").value == pytest.approx(0.5)
    assert moved(Pair(), before, before, "class").high == 0
