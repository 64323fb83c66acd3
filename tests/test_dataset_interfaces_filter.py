"""CLIP's filter: thresholds, calibration, and what filtering gains, on worked values."""

import math

import numpy as np
import pytest
import torch

from dataset_interfaces_standins import ColourWords
from visiondx.core.errors import InputError
from visiondx.dataset_interfaces import clip_filter
from visiondx.dataset_interfaces.clip_filter import ClipFilter, calibrate, near, quality
from visiondx.dataset_interfaces.shifts import Shift

SNOW, SKETCH, BASE = (Shift.named(n) for n in ("in the snow", "pencil sketch", "base"))


def shades(name, *strengths):
    """Images whose cosine with the word of a colour is sqrt(strength)."""
    return ColourWords.images(name, strengths)


def test_similarities_are_cosines_with_each_images_own_caption():
    encoder = ColourWords()
    images = torch.cat([shades("red", 1.0, 0.25), shades("blue", 0.64)])
    found = clip_filter.embedded(images, encoder)
    classes = ["red", "red", "blue"]
    scores = clip_filter.class_scores(found, classes, SNOW, encoder)
    assert scores == pytest.approx([1.0, 0.5, 0.8], abs=1e-6)
    other = clip_filter.class_scores(found, ["blue", "blue", "red"], SNOW, encoder)
    assert other == pytest.approx([0.0, math.sqrt(0.75), 0.0], abs=1e-6)
    assert np.isnan(clip_filter.shift_scores(found, BASE, encoder)).all()
    red = clip_filter.shift_scores(found, Shift.of("so red", "a photo red"), encoder)
    assert red == pytest.approx([1.0, 0.5, 0.0], abs=1e-6)


def test_t_class_is_the_20th_percentile_of_real_images():
    encoder = ColourWords()
    # cosines .5, .6, .7, .8, .9, 1: 0.2 of the way is the second, 0.6
    strengths = [0.25, 0.36, 0.49, 0.64, 0.81, 1.0]
    images = {"red": shades("red", *strengths), "blue": shades("blue", 0.04, 0.09)}
    found = ClipFilter.fit(images, encoder)
    assert found.photo["red"] == pytest.approx(0.6, abs=1e-6)
    assert found.photo["blue"] == pytest.approx(0.22, abs=1e-6)
    assert found.encoder == encoder.fingerprint
    # under an art style the caption is "a red", which this encoder likes half as much
    assert found.style["red"] == pytest.approx(0.3, abs=1e-6)
    said = ClipFilter.fit({"n01": images["red"]}, encoder, {"n01": "red"})
    assert said.photo == {"n01": found.photo["red"]}
    with pytest.raises(InputError, match="percentile must be"):
        ClipFilter.fit(images, encoder, percentile=100)


def test_an_image_is_kept_where_both_similarities_reach_their_thresholds():
    limits = ClipFilter({"a": 0.3, "b": 0.5}, {"a": 0.1, "b": 0.1}, "x").with_shift(SNOW, 0.2)
    classes = ["a", "a", "b", "a", "b"]
    of_class, of_shift = [0.3, 0.29, 0.4, 0.9, 0.5], [0.2, 0.9, 0.9, 0.19, 0.3]
    assert limits.keeps(SNOW, classes, of_class, of_shift).tolist() == [True, *[False] * 3, True]
    nothing = [np.nan] * 5
    assert limits.keeps(BASE, classes, of_class, nothing).tolist() == [
        True,
        False,
        False,
        True,
        True,
    ]
    art = limits.with_shift(SKETCH, 0.0)
    assert art.keeps(SKETCH, classes, of_class, of_shift).all()
    # a NaN passes nothing
    assert not limits.keeps(SNOW, ["a"], [np.nan], [0.9]).any()


def test_a_shift_without_a_threshold_is_refused():
    limits = ClipFilter({"a": 0.3}, {"a": 0.1}, "x")
    with pytest.raises(InputError, match="shift 'in the snow' has no threshold: give one"):
        limits.keeps(SNOW, ["a"], [1.0], [1.0])
    with pytest.raises(InputError, match="'wearing a hat' has no threshold"):
        limits.with_shift(Shift.of("wearing a hat"))
    assert limits.with_shift(SNOW).shift == {"in the snow": 0.160}  # the paper's
    with pytest.raises(InputError, match=r"no threshold for the class 'b'.* knows a"):
        limits.keeps(BASE, ["b"], [1.0], [1.0])
    with pytest.raises(InputError, match=r"threshold is a cosine, from -1 to 1, got 16\.0"):
        limits.with_shift(SNOW, 16)


def test_calibration_takes_the_lowest_percentile_with_enough_that_show_it():
    # similarities 0, 0.01, …, 0.99; below 0.40 one image in two shows the shift, above all do
    scores = np.arange(100) / 100
    shown = (scores >= 0.40) | (np.arange(100) % 2 == 0)
    found = calibrate(scores, shown)
    # from percentile p on, 0.5 (40 - p) of 100 - p fail: 5 % of them or less from p = 34 on
    assert found.percentile == 35
    assert found.threshold == pytest.approx(np.percentile(scores, 35))
    assert found.reached
    above = scores >= found.threshold
    assert found.accepted.value == pytest.approx(shown[above].mean())
    assert found.accepted.n == above.sum()
    # the order of the images does not count
    mixed = np.random.default_rng(0).permutation(100)
    assert calibrate(scores[mixed], shown[mixed]) == found


def test_calibration_says_where_no_percentile_is_good_enough():
    scores = np.arange(100) / 100
    shown = np.arange(100) % 10 < 8  # 80 % everywhere
    found = calibrate(scores, shown, percentiles=(0, 50, 70))
    assert not found.reached
    assert found.accepted.value == pytest.approx(0.8)
    assert calibrate(scores, shown, share=0.8).percentile == 0
    with pytest.raises(InputError, match="None of the calibration images shows the shift"):
        calibrate(scores, np.zeros(100, dtype=bool))
    with pytest.raises(InputError, match="5 calibration images are too few: paint 20 or more"):
        calibrate(scores[:5], shown[:5])
    with pytest.raises(InputError, match=r"accepted must be \(100,\) bool"):
        calibrate(scores, shown.astype(int))
    with pytest.raises(InputError, match="No percentile of"):
        calibrate(scores, shown, percentiles=(99,))
    with pytest.raises(InputError, match=r"finite numbers.*`base` has none"):
        calibrate(np.full(30, np.nan), np.ones(30, dtype=bool))


def test_the_images_to_look_at_lie_around_each_percentile():
    scores = np.array([5, 3, 9, 1, 7, 0, 8, 2, 6, 4, 10]) / 10
    rows = near(scores, (0, 50, 100), 3)
    assert scores[rows.numpy()].tolist() == [[0.0, 0.1, 0.2], [0.4, 0.5, 0.6], [0.8, 0.9, 1.0]]
    assert near(scores[:2], (50,), 8).shape == (1, 2)


def test_what_filtering_gains_on_a_hand_worked_table():
    #                 kept and right, kept and wrong, dropped and right, dropped and wrong
    kept = np.repeat([True, True, False, False], [60, 10, 10, 20])
    right = np.repeat([True, False, True, False], [60, 10, 10, 20])
    found = quality(kept, right)
    values = {name: estimate.value for name, estimate in found.items()}
    assert values == pytest.approx(
        {
            "yield": 0.7,
            "before": 0.7,
            "precision": 6 / 7,
            "precision_gain": 6 / 7 - 0.7,
            "recall": 6 / 7,
        }
    )
    assert [found[name].n for name in found] == [100, 100, 70, 100, 70]
    gain = found["precision_gain"]
    assert 0.05 < gain.low < gain.value < gain.high < 0.3
    none = quality(np.zeros(4, dtype=bool), right[:4])
    assert (none["yield"].value, none["recall"].value, none["precision"].n) == (0, 0, 0)
    assert np.isnan(none["precision_gain"].value)
    with pytest.raises(InputError, match="must be \\(N,\\) bool"):
        quality([1, 0], [True, False])
