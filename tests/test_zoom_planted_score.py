"""Scores of planted biases over pairs and training seeds, by hand."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from visiondx.core.errors import InputError
from visiondx.zoom.sensitivity import Sensitivity
from visiondx_worlds.marking.zoom.planted_examples import worst_and_best
from visiondx_worlds.marking.zoom.planted_score import (
    found_first,
    planted_frame,
    pool_pair,
    score_planted,
)
from visiondx_worlds.marking.zoom.score import Case

NAMES = ("hat", "beard", "smile", "bangs")


def sensitivity(h, images=20, noise=0.0, seed=0):
    spread = torch.randn(images, len(h), generator=torch.Generator().manual_seed(seed))
    change = torch.tensor(h) + noise * (spread - spread.mean(0))
    return Sensitivity(NAMES, change, change > 0.5, "search")


def case(name, h, truth, planted="hat", noise=0.0):
    return Case(name, (sensitivity(h, noise=noise),), sensitivity(truth), planted)


SURE = (0.9, 0.3, 0.2, 0.1)


def test_all_found():
    cases = [case(f"a-biased-hat@{seed}", SURE, SURE, noise=0.01) for seed in range(3)]
    found = score_planted(cases)
    for key in ("top1", "truth_spearman", "planted_first"):
        estimate = found[f"planted.{key}"]
        assert (estimate.value, estimate.low, estimate.high, estimate.n) == (1, 1, 1, 3), key
    assert found["planted.apart"] == found["planted.apart.a-biased-hat"] == 1
    assert found["planted.truth_spearman.a-biased-hat"].n == 3
    assert found["controls.false_alarms"] == found["controls.number"] == 0


def test_the_truth_counts_and_not_the_intention():
    # planted is the hat, but the beard is what the classifier hangs on, and it is found
    truth = (0.3, 0.9, 0.2, 0.1)
    found = score_planted([case("a-biased-hat@0", truth, truth)])
    assert found["planted.top1"].value == 1
    assert found["planted.planted_first"].value == 0


def test_a_pair_counts_once_however_many_classifiers_it_has():
    missed = (0.2, 0.3, 0.9, 0.1)
    cases = [case(f"a-biased-hat@{seed}", SURE, SURE) for seed in range(3)]
    cases += [case("b-biased-hat@0", missed, SURE)]
    found = score_planted(cases)
    assert found["planted.top1"].value == pytest.approx(0.5)
    assert found["planted.top1.a-biased-hat"] == 1
    assert found["planted.top1.b-biased-hat"] == 0
    # ranks 3 1 0 2 against 3 2 1 0 of missed against the truth: rho = 1 - 6 (4+1+... ) / 60
    ranks, true = (1, 2, 3, 0), (3, 2, 1, 0)
    rho = 1 - 6 * sum((a - b) ** 2 for a, b in zip(ranks, true, strict=True)) / 60
    assert found["planted.truth_spearman.b-biased-hat"].value == pytest.approx(rho)


def test_an_interval_is_about_the_very_classifiers():
    missed = (0.2, 0.3, 0.9, 0.1)
    found = score_planted(
        [case("a-biased-hat@0", SURE, SURE), case("a-biased-hat@1", missed, SURE)]
    )
    estimate = found["planted.top1"]
    assert (estimate.value, estimate.low, estimate.high) == (0.5, 0.5, 0.5)


def test_intervals_resample_the_images():
    close = (0.5, 0.45, 0.2, 0.1)
    wide = score_planted([case("a-biased-hat@0", close, SURE, noise=0.2)])["planted.top1"]
    assert wide.value == 1
    assert wide.low < 0.5
    frame = planted_frame([case("a-biased-hat@0", close, SURE, noise=0.2)])
    assert frame["top1"].tolist() == [True]
    assert frame["apart"].tolist() == [False]
    assert frame["margin"].item() == pytest.approx(0.05, abs=1e-5)


def test_the_classifiers_of_a_pair_pool():
    other = (0.1, 0.5, 0.2, 0.1)
    pair = pool_pair([case("a-biased-hat@0", SURE, SURE), case("a-biased-hat@1", other, other)])
    assert (pair.name, pair.planted) == ("a-biased-hat", "hat")
    torch.testing.assert_close(
        torch.tensor(pair.pooled.raw).float(), (torch.tensor(SURE) + torch.tensor(other)) / 2
    )
    torch.testing.assert_close(torch.tensor(pair.truth.raw), torch.tensor(pair.pooled.raw))
    with pytest.raises(InputError, match=r"Only classifiers of one pair pool.*got a@0, b@0"):
        pool_pair([case("a@0", SURE, SURE), case("b@0", SURE, SURE)])
    fewer = replace(pair, name="a@1", measured=(sensitivity(SURE),) * 3)
    with pytest.raises(InputError, match="of the same images"):
        pool_pair([case("a@0", SURE, SURE), fewer])


def test_three_classifiers_are_not_three_times_as_many_images():
    one = case("a-biased-hat@0", (0.5, 0.45, 0.2, 0.1), SURE, noise=0.2)
    pair = pool_pair([replace(one, name=f"a-biased-hat@{seed}") for seed in range(3)])
    torch.testing.assert_close(pair.pooled.change, one.pooled.change)
    assert torch.equal(pair.pooled.flipped, one.pooled.flipped)
    assert [estimate.low for estimate in pair.pooled.h] == pytest.approx(
        [estimate.low for estimate in one.pooled.h], abs=1e-6
    )


def test_a_tie_is_not_found():
    assert not found_first(sensitivity((0.5, 0.5, 0.1, 0.1)), sensitivity(SURE))


def test_controls_are_counted():
    alarm = Case("a@0", (sensitivity(SURE),), sensitivity((0.01, 0.0, 0.0, 0.02)), None, "smile")
    quiet = Case("a@1", (sensitivity((0.1,) * 4),), sensitivity((0.01,) * 4), None, "smile")
    found = score_planted([case("a-biased-hat@0", SURE, SURE), alarm, quiet])
    assert (found["controls.number"], found["controls.false_alarms"]) == (2, 1)
    with pytest.raises(InputError, match="None of these classifiers has a planted bias"):
        score_planted([alarm])


def test_worst_and_best_are_those_of_the_margin_each_once():
    table = pd.DataFrame({"classifier": list("abcde"), "margin": [0.2, -0.3, 0.5, 0.0, 0.1]})
    assert worst_and_best(table, 2, 2)["classifier"].tolist() == ["b", "d", "c", "a"]
    assert worst_and_best(table, 4, 3)["classifier"].tolist() == ["b", "d", "e", "a", "c"]


def test_classifiers_that_see_the_same_images_share_one_draw_of_them():
    """Two alike tell no more than one: the interval does not shrink. Of two worlds, it may."""
    one = case("a-biased-hat@0", (0.5, 0.45, 0.4, 0.35), SURE, noise=0.2)
    alone = score_planted([one])["planted.truth_spearman"]
    twin = replace(one, name="b-biased-hat@0")
    both = score_planted([one, twin])["planted.truth_spearman"]
    apart = score_planted([one, replace(twin, world="elsewhere")])["planted.truth_spearman"]
    assert alone.low < alone.high
    assert (both.low, both.high) == (alone.low, alone.high)
    assert apart.high - apart.low < both.high - both.low
