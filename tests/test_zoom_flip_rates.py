"""Flip rates by steps: worked by hand, and the same as what the search and the judges say."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from visiondx.core.errors import InputError
from visiondx.models.home import Home
from visiondx.models.target import Target
from visiondx.zoom.multi import MultiResult, multi_search
from visiondx.zoom.settings import SearchSettings
from visiondx_worlds.marking.zoom.flip_rates import (
    FlipRates,
    flip_rates,
    plot_rates,
    pooled,
    to_frame,
)
from visiondx_worlds.marking.zoom.kept import ALL, Flips, Realism, clear, judge_flips
from visiondx_worlds.marking.zoom.resistance import Jury
from zoom_standins import (
    GridClassifier,
    GridEncoder,
    GridGenerator,
    GridJudges,
    GridWorld,
    along,
)

SETTINGS = SearchSettings(
    steps=12, eta=0.5, epsilon=4.0, alpha=1.0, beta=0.0, gamma=0.1, starts=(0.0,), update="sign"
)


@pytest.fixture(scope="module")
def jury():
    return Jury(GridJudges(), Realism.fit(GridJudges(), GridWorld(), n=400, seed=3))


@pytest.fixture(scope="module")
def setting(jury):
    target = Target(GridClassifier({0: 30.0, 9: 40.0}))
    generator = GridGenerator()
    held = (GridWorld().prompt("bright"), GridWorld().prompt("bright", present=False))
    return target, along(generator, 0, 9), generator, GridEncoder(), held, jury, "bright"


def by_hand() -> FlipRates:
    """Four images, three steps: flips at 1, at 2 (label changed), never, at 3 (not clear)."""
    p = torch.tensor(
        [[0.4, 0.6, 0.9, 0.7], [0.4, 0.4, 0.5, 0.5], [0.9, 0.8, 0.6, 0.7], [0.1, 0.1, 0.1, 0.8]]
    )
    generator = GridGenerator()
    result = MultiResult.from_trajectories(
        directions=along(generator, 0, 3),
        styles=torch.zeros(4, 16),
        p_original=p[:, 0],
        trajectory_w=torch.zeros(4, 4, 2),
        trajectory_p=p,
        settings={"steps": 3},
        consistency=None,
        seed=None,
        generator=generator,
    ).at_first_flip()
    flips = Flips(
        names=(ALL,),
        raw=torch.tensor([[True], [True], [False], [True]]),
        same=torch.tensor([[True], [False], [True], [False]]),
        abstained=torch.tensor([[False], [False], [False], [True]]),
        distance=torch.tensor([[1.0], [1.0], [1.0], [1.0]]),
        limit=2.0,
        label="bright",
    )
    told = torch.tensor([True, True, True, False])
    return FlipRates(result, flips, told, torch.tensor([5, 5, 6, 6]))


def test_rates_by_steps_by_hand():
    found = by_hand()
    assert [found.rate("raw", k).value for k in (0, 1, 2, 3)] == [0, 0.25, 0.5, 0.75]
    assert [found.rate("kept", k).value for k in (0, 1, 3)] == [0, 0.25, 0.25]
    assert found.rate("raw").value == 0.75
    assert found.rate("kept_of_clear").value == pytest.approx(1 / 3)
    assert found.rate("kept_of_clear").n == 3
    assert found.by("kept", 1).tolist() == [True, False, False, False]
    curve = found.curve("raw", (1, 3))
    assert curve["steps"].tolist() == [1, 3]
    assert curve["rate"].tolist() == [0.25, 0.75]
    assert (curve["low"] <= curve["rate"]).all()
    assert (curve["rate"] <= curve["high"]).all()
    axis = plot_rates({"a": curve, "b": found.curve("kept", (0, 1, 3))}).axes[0]
    assert axis.get_xscale() == "log"
    assert [label.get_text() for label in axis.get_xticklabels()] == ["1", "3"]
    assert [line.get_ydata().tolist() for line in axis.lines] == [[0.25, 0.75], [0.25, 0.25]]
    assert found.kinds == ("raw", "kept", "kept_of_clear")
    with pytest.raises(InputError, match="one of raw, kept, kept_of_clear, got 'real'"):
        found.by("real")


def test_best_are_kept_and_the_worst_are_not_clear_ones_first():
    found = by_hand()
    assert found.examples(5) == ([0], [1, 2, 3])
    assert found.examples(1) == ([0], [1])


def test_a_table_says_why():
    row = to_frame({"a": by_hand()}).iloc[0]
    assert (row.search, row.raw, row.kept, row.n) == ("a", 0.75, 0.25, 4)
    assert row.kept_of_clear == pytest.approx(1 / 3)
    assert (row.label_changed, row.abstained, row.unreal) == (0.25, 0.25, 0)
    assert (row.clear, row.median_step) == (0.75, 2)


def test_pooling_resamples_the_images_that_all_targets_see():
    one = by_hand()
    never = torch.zeros_like(one.flips.raw)
    other = FlipRates(one.result, Flips(**{**vars(one.flips), "raw": never}), one.clear, one.seeds)
    both = pooled([one, other], "raw")
    assert (both.value, both.n) == (0.375, 8)
    alone = one.rate("raw")  # of the other nothing ever flips: half as much, and as sure
    assert (both.low, both.high) == (alone.low / 2, alone.high / 2)
    assert pooled([one, other], "kept_of_clear").value == pytest.approx(1 / 6)
    assert pooled([one], "raw") == one.rate("raw")
    nothing = FlipRates(one.result, one.flips, torch.zeros(4).bool(), one.seeds)
    with pytest.raises(InputError, match="No image is clear"):
        pooled([nothing], "kept_of_clear")


def test_twins_on_the_same_images_tell_no_more_than_one():
    one = by_hand()
    twins, many = pooled([one] * 2, "raw"), pooled([one] * 50, "raw")
    alone = one.rate("raw")
    assert (twins.low, twins.high) == (many.low, many.high) == (alone.low, alone.high)
    assert twins.low <= 0.25
    assert (twins.n, many.n) == (8, 200)
    styles = one.result.styles + 1
    other = FlipRates(replace(one.result, styles=styles), one.flips, one.clear, one.seeds)
    with pytest.raises(InputError, match="over the same images"):
        pooled([one, other], "raw")
    fewer = FlipRates(replace(one.result, styles=styles[:2]), one.flips, one.clear, one.seeds)
    with pytest.raises(InputError, match="over the same images"):
        pooled([one, fewer], "raw")


def test_a_study_is_the_search_and_the_judges_at_the_first_flip(setting, tmp_path):
    target, directions, generator, encoder, hold, jury, label = setting
    chosen = {"seeds": [3, 4], "images": 10, "settings": SETTINGS}
    found = flip_rates(*setting, **chosen, folder=tmp_path)
    styles = torch.cat([generator.sample_styles(10, seed) for seed in (3, 4)])
    every = multi_search(generator, target, encoder, directions, styles, SETTINGS, hold)
    assert torch.equal(found.result.first_flip, every.first_flip)
    assert found.by("raw").any()
    for k in (0, 2, 5, 12):
        assert found.rate("raw", k).value == every.flip_rate(k).value
    judged = judge_flips(every.at_first_flip(), jury.judges, label, jury.realism)
    assert torch.equal(found.by("kept"), judged.kept[:, 0])
    assert found.by("kept").any()
    assert not found.by("kept").all()
    seen = clear(generator.synthesize(styles), jury.judges, "bright", jury.realism)
    assert torch.equal(found.clear, seen)
    assert found.seeds.tolist() == [3] * 10 + [4] * 10
    assert (found.by("raw") | ~found.by("kept")).all()

    before = generator.synthesized
    again = flip_rates(*setting, **chosen, folder=tmp_path)
    assert torch.equal(again.result.trajectory_w, found.result.trajectory_w)
    assert generator.synthesized - before <= 4 * 20  # only judged, not searched again
    assert np.isclose(again.rate("kept").high, found.rate("kept").high)


def test_truncated_styles_are_searched_and_kept_apart_from_others(setting, tmp_path):
    chosen = {"seeds": [3], "images": 4, "settings": SETTINGS, "folder": tmp_path}
    plain, near = flip_rates(*setting, **chosen), flip_rates(*setting, **chosen, truncation=0.5)
    mean = setting[2].style_mean
    assert torch.allclose(near.result.styles - mean, 0.5 * (plain.result.styles - mean), atol=1e-6)
    again = flip_rates(*setting, **chosen)  # from the folder
    assert torch.equal(again.result.styles, plain.result.styles)


def test_a_label_that_no_judge_reads_is_refused_before_the_search(setting):
    *asked, _ = setting
    generator = asked[2]
    before = generator.synthesized
    for label in ("hat", None):
        with pytest.raises(InputError, match=f"No judge reads {label!r}"):
            flip_rates(*asked, label, seeds=[0], images=4, settings=SETTINGS)
    assert generator.synthesized == before


def test_without_a_jury_the_raw_flips_are_the_same_and_nothing_is_kept(setting, tmp_path):
    *asked, _, _ = setting
    chosen = {"seeds": [3, 4], "images": 10, "settings": SETTINGS, "folder": tmp_path}
    judged, found = flip_rates(*setting, **chosen), flip_rates(*asked, **chosen)
    assert found.kinds == ("raw",)
    assert found.clear is None
    assert torch.equal(found.by("raw"), judged.by("raw"))
    assert found.rate("raw", 3) == judged.rate("raw", 3)
    for kind in ("kept", "kept_of_clear"):
        for ask in (found.by, found.rate, lambda kind: pooled([found], kind)):
            with pytest.raises(InputError, match="No judges were asked"):
                ask(kind)
    row = to_frame({"a": found}).iloc[0]
    assert list(row.index) == ["search", "raw", "raw_low", "raw_high", "median_step", "n"]
    assert row.raw == to_frame({"a": judged}).iloc[0].raw
    flipped, change = found.by("raw"), found.result.change
    best, worst = found.examples(20)
    assert sorted(best) == flipped.nonzero()[:, 0].tolist()
    assert change[best].tolist() == sorted(change[best].tolist(), reverse=True)
    assert worst == (~flipped).nonzero()[:, 0].tolist()
    said = found.flips.why()
    assert {said[i] for i in best} == {"flipped"}
    assert {said[i] for i in worst} <= {"not flipped"}


def test_ones_own_targets_of_equal_weights_are_kept_apart(tmp_path):
    """Two functions may build what answers otherwise out of the same weights."""
    generator = GridGenerator()
    directions = along(generator, 0, 9)
    chosen = {"seeds": [3], "images": 6, "settings": SETTINGS, "folder": tmp_path}
    found = []
    for bright in (True, False):
        target = Target(GridClassifier({0: 30.0, 9: 40.0}), mean=None if bright else (0.1,) * 3)
        target.home = Home(tmp_path)
        found.append(flip_rates(target, directions, generator, None, **chosen))
    assert not torch.equal(found[0].result.p_original, found[1].result.p_original)
