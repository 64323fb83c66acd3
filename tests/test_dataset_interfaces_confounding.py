"""A second shift that comes with the one asked for: prompts, renders, errors, intervals."""

import numpy as np
import pytest
import torch

from dataset_interfaces_standins import ColourWords
from painter_standins import lcm_painter
from visiondx.core.errors import InputError
from visiondx.dataset_interfaces.clip_filter import ClipFilter
from visiondx.dataset_interfaces.interface import DatasetInterface
from visiondx.dataset_interfaces.models import open_model
from visiondx.dataset_interfaces.shifts import PLACE, Shift
from visiondx.models.preprocess import Preprocess
from visiondx_worlds.marking.dataset_interfaces.confounding import (
    drawn_states,
    error,
    mean_error,
    mixed,
    painted,
    parts,
    right,
    share_curve,
    state_phrase,
    with_phrase,
)
from visiondx_worlds.marking.dataset_interfaces.truth import true_images
from visiondx_worlds.worlds.scenes import CLASSES


def yes(count, n):
    return np.arange(n) < count


def test_prompts_say_the_state_after_the_class_and_keep_the_filters_question():
    grass = Shift.named("in the grass")
    full = with_phrase(grass, state_phrase("plate", True))
    assert full.prompt == "a photo of a <class> with food in the grass"
    assert full.asks("plate") == "a photo of a plate with food in the grass"
    assert full.caption == grass.caption
    assert full.name != grass.name
    empty = with_phrase(Shift.named("base"), state_phrase("plate", False))
    assert (empty.prompt, empty.caption) == ("a photo of a <class> with no food", "")
    assert len({grass.folder, full.folder, empty.folder, "base"}) == 4
    with pytest.raises(InputError, match="No words"):
        with_phrase(grass, "  ")
    with pytest.raises(InputError, match="'car' has no state"):
        state_phrase("car", True)


def test_drawn_states_are_the_same_scenes_and_own_is_the_truth():
    shown = drawn_states("in the grass", "plate", 40, 3)
    assert torch.equal(shown["own"], true_images("in the grass", 40, 3, ["plate"])["plate"])
    full = (shown["own"] == shown["present"]).flatten(1).all(1)
    bare = (shown["own"] == shown["absent"]).flatten(1).all(1)
    assert (full ^ bare).all()
    assert full.double().mean() > 0.8
    # grass and sky are the same with food and without: only what is on the plate differs
    changed = (shown["present"] != shown["absent"]).any(1).double().mean((1, 2))
    assert ((changed > 0.002) & (changed < 0.3)).all()
    with pytest.raises(InputError, match="no state"):
        drawn_states("in the grass", "car", 2, 0)


def test_right_is_what_the_classifier_says_of_the_bytes():
    model = open_model("scenes-resnet-w8-d2")
    images = true_images("base", 12, 5, ["boat", "dog"])
    found = right([model, model], images["boat"], "boat")
    said = model.target.logits((images["boat"] * 255).round() / 255).argmax(1)
    assert found.shape == (2, 12)
    assert (found[0] == found[1]).all()
    assert (found[0] == (said == CLASSES.index("boat")).numpy()).all()
    assert found[0].mean() > 0.6 > 0.3 > right([model], images["dog"], "boat").mean()
    with pytest.raises(InputError, match="tench"):
        right([model], images["dog"], "tench")


def test_an_error_has_newcombes_interval_folded_at_nothing():
    # Newcombe 1998, table II (a): 56/70 - 48/80 by method 10 is 0.20, 0.0524 to 0.3339
    found = error(yes(56, 70), yes(48, 80))
    assert (found.value, found.n) == (pytest.approx(0.2), 70)
    assert (found.low, found.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    other = error(yes(48, 80), yes(56, 70))  # the sign does not count
    assert (other.value, other.low, other.high) == pytest.approx((0.2, found.low, found.high))
    none = error(yes(5, 10), yes(50, 100))
    assert none.value == 0 == none.low
    assert 0.2 < none.high < 0.4
    # (g): 10/10 - 0/10 by method 10 is 1, 0.6075 to 1
    whole = error(yes(0, 10), yes(10, 10))
    assert (whole.value, whole.low) == pytest.approx((1, 0.6075), abs=5e-4)
    alike = error(yes(10, 10), yes(10, 10))
    assert (alike.value, alike.low) == (0, 0)
    assert alike.high > 0.2
    with pytest.raises(InputError, match="got 0 estimated and 3 true"):
        error(yes(0, 0), yes(1, 3))


def test_the_mean_error_is_over_models_that_share_their_images():
    estimated = np.stack([yes(2, 10), yes(9, 10)])
    true = np.stack([yes(16, 20), yes(10, 20)])
    found = mean_error(estimated, true)  # |.2 - .8| and |.9 - .5|
    assert found.value == pytest.approx(0.5)
    assert found.low < 0.5 < found.high
    with pytest.raises(InputError, match="same models"):
        mean_error(estimated, true[:1])


def test_prompts_are_mixed_evenly_and_the_curve_follows_the_share():
    present, absent = np.ones(8, dtype=bool), np.zeros(8, dtype=bool)
    for share, count in ((0, 0), (0.25, 2), (0.5, 4), (0.9, 7), (1, 8)):
        assert mixed(present, absent, share).sum() == count
    half = mixed(present, absent, 0.5)
    assert half[:4].sum() == 2  # no run of the one and then the other
    two = mixed(np.stack([present, absent]), np.stack([absent, absent]), 0.5)
    assert (two[0] == half).all()
    assert not two[1].any()
    curve = share_curve(present, absent, yes(3, 4), [0, 0.5, 1])
    assert curve["error"].tolist() == pytest.approx([0.75, 0.25, 0.25])
    assert curve["accuracy"].tolist() == [0, 0.5, 1]
    assert ((curve["low"] <= curve["error"]) & (curve["error"] <= curve["high"])).all()
    with pytest.raises(InputError, match=r"share is 1\.5"):
        mixed(present, absent, 1.5)
    with pytest.raises(InputError, match="paint as many"):
        mixed(present, absent[:3], 0.5)


def test_an_error_is_of_the_state_and_of_the_rest():
    # by hand: 2 of 10 right, 1 of 10 in the state; renders 80 % right, 90 % in it and 30 % not
    drawn = {"own": yes(16, 20), "present": yes(18, 20), "absent": yes(6, 20)}
    found = parts(yes(2, 10), yes(1, 10), drawn)
    assert found["error"].value == pytest.approx(0.2 - 0.8)
    assert found["state"].value == pytest.approx(0.1 * 0.9 + 0.9 * 0.3 - 0.8)
    assert found["rest"].value == pytest.approx(0.2 - 0.36)
    assert all(each.low <= each.value <= each.high for each in found.values())
    assert found["state"].high < 0  # that the state costs is sure
    with pytest.raises(InputError, match="give one an image"):
        parts(yes(2, 10), yes(1, 9), drawn)


def test_painted_images_are_kept_with_what_the_filter_says(tmp_path):
    painter = lcm_painter(tmp_path / "painter")
    words = {"dog": "red", "cat": "blue"}
    clip = ClipFilter(dict.fromkeys(words, -1.0), dict.fromkeys(words, -1.0), "first")
    encoder = ColourWords()
    encoder.preprocess = Preprocess((16, 16))
    interface = DatasetInterface(painter, encoder, words, clip)
    shift = Shift("red", f"a {PLACE} in s", Shift.of("red").caption)
    with pytest.raises(InputError, match="'red' has no threshold"):
        painted(interface, shift, "dog", 3, 0, tmp_path)
    never, always = (interface.with_threshold(shift, limit) for limit in (1.0, -1.0))
    images, passed = painted(never, shift, "dog", 3, 0, tmp_path)
    assert images.shape == (3, 3, 16, 16)
    assert not passed.any()
    # with more words it is other images, of the same threshold
    said = with_phrase(shift, "o")
    other, passed = painted(always, said, "dog", 2, 0, tmp_path)
    assert passed.all()
    assert not torch.equal(other, images[:2])
    again, _ = painted(always, shift, "dog", 2, 0, tmp_path)
    assert torch.equal(again, images[:2])
