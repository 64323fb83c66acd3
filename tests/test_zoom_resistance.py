"""Flip resistance on targets whose flips can be counted by hand."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from test_zoom_kept import GridJudges
from visiondx.core.errors import InputError
from visiondx.models.target import Target
from visiondx.zoom.multi import SearchSettings, multi_search
from visiondx.zoom.weights import grid_weights, random_weights
from visiondx_worlds.marking.zoom.fixed_edits import fixed_edits, harm
from visiondx_worlds.marking.zoom.kept import Realism
from visiondx_worlds.marking.zoom.resistance import (
    TOGETHER,
    Jury,
    Resistance,
    change,
    search_seeds,
    transfer,
    white_box,
)
from zoom_standins import (
    GridClassifier,
    GridEncoder,
    GridGenerator,
    GridWorld,
    along,
    cells,
    prompt,
)

SETTINGS = SearchSettings(
    steps=6, eta=1.0, epsilon=4.0, alpha=1.0, beta=0.0, starts=(0.0,), update="sign"
)
WEIGHTS = {0: 20.0, 3: -8.0}


@pytest.fixture(scope="module")
def jury():
    return Jury(GridJudges(), Realism.fit(GridJudges(), GridWorld(), n=1200, seed=3))


def logits(generator, styles, weights=WEIGHTS):
    """Of the originals, and how much each cell's logit moves for one deviation."""
    dim = cells(generator.synthesize(styles).detach())
    start = sum(value * dim[:, cell] for cell, value in weights.items())
    return start, {c: v * 0.05 * float(generator.style_std[c]) for c, v in weights.items()}


def test_grid_resistance_by_hand(jury):
    """Every edit of every image is one line of arithmetic: logit + slope·w."""
    generator, channels, epsilon = GridGenerator(), (0, 3, 11), 2.0
    directions = along(generator, *channels)
    styles, seeds = generator.sample_styles(30, 5), torch.arange(30) // 15
    weights = grid_weights(directions.attributes, epsilon, points=4)
    assert [w.shape for w in weights.values()] == [(4, 3)] * 3
    assert weights[prompt(3)].tolist() == [[0, w, 0] for w in (-2, -1, 1, 2)]
    found = fixed_edits(
        generator, {"a": Target(GridClassifier(WEIGHTS))}, directions, styles, seeds, weights, jury,
        {"a": "bright"}, batch=50,
    )["a"]  # fmt: skip
    start, slope = logits(generator, styles)
    expected = torch.zeros(30, 3).bool()
    for i in range(30):
        for n, channel in enumerate(channels):
            for w in (-2.0, -1.0, 1.0, 2.0):
                moved = start[i] + w * slope.get(channel, 0.0)
                expected[i, n] |= bool((moved >= 0) != (start[i] >= 0))
    assert torch.equal(found.raw, expected)
    assert 3 < expected[:, 0].sum() < 30
    assert not expected[:, 2].any()  # the target does not see cell 11
    assert found.rate().value == pytest.approx(1 - expected.any(1).double().mean().item())
    assert found.rate([prompt(3)]).value == 1 - expected[:, 1].double().mean().item()
    assert found.rate([prompt(11)]) == replace(found.rate([prompt(11)]), value=1, low=1, high=1)
    assert found.columns == directions.attributes


def test_a_kept_flip_leaves_the_label_alone(jury):
    """The target hangs on cells 0 and 3; the label is cell 0, read by judges of cell 0."""
    generator = GridGenerator()
    directions = along(generator, 0, 3)
    styles = generator.sample_styles(40, 6)
    found = fixed_edits(
        generator, {"a": Target(GridClassifier({0: 30.0, 3: 30.0}))}, directions, styles,
        torch.zeros(40), grid_weights(directions.attributes, 3.0), jury, {"a": "bright"},
    )["a"]  # fmt: skip
    assert (found.kept <= found.raw).all()
    own, other = found.raw.sum(0).tolist()
    assert min(own, other) > 10
    kept = found.kept.sum(0)
    assert kept[1] > 3 * kept[0]  # cell 0 moves the label itself
    images = generator.synthesize(styles).detach()
    unsure = GridJudges().read(images)[1][:, 0]
    assert not found.kept[unsure].any()  # nobody can say what their label was
    assert found.rate(kind="kept").value > found.rate().value


def test_without_a_jury_fixed_edits_flip_the_same_and_nothing_is_kept(jury):
    generator = GridGenerator()
    directions = along(generator, 0, 3)
    asked = (
        generator, {"a": Target(GridClassifier(WEIGHTS))}, directions,
        generator.sample_styles(20, 5), torch.zeros(20), grid_weights(directions.attributes, 2.0),
    )  # fmt: skip
    judged, found = fixed_edits(*asked, jury, {"a": "bright"})["a"], fixed_edits(*asked)["a"]
    assert (judged.kinds, found.kinds) == (("raw", "kept"), ("raw",))
    assert torch.equal(found.raw, judged.raw)
    assert found.kept is None
    one = found.of([prompt(3)])
    assert one.kinds == ("raw",)
    assert torch.equal(one.raw, judged.raw[:, 1:])
    assert torch.equal(judged.of([prompt(3)]).kept, judged.kept[:, 1:])
    assert list(one.to_frame()) == ["edit", "raw", "raw_low", "raw_high", "n"]
    with pytest.raises(InputError, match="nobody knows which of these flips are kept"):
        found.rate(kind="kept")


def test_several_targets_are_shown_the_same_pictures(jury):
    generator = GridGenerator()
    directions = along(generator, 0, 3)
    styles = generator.sample_styles(10, 7)
    targets = {"both": Target(GridClassifier(WEIGHTS)), "robust": Target(GridClassifier({1: 9.0}))}
    generator.synthesized = 0
    found = fixed_edits(
        generator, targets, directions, styles, torch.zeros(10),
        {"random": random_weights(directions.attributes, 4.0, 16, seed=1)}, jury,
        dict.fromkeys(targets, "bright"),
    )  # fmt: skip
    assert generator.synthesized == 10 + 10 * 16
    assert found["robust"].rate().value == 1
    assert found["both"].rate().value < 0.5


def test_weights_of_the_grid_and_of_random_edits():
    drawn = random_weights(("a", "b", "c"), 2.0, 500, seed=3)
    assert drawn.shape == (500, 3)
    assert drawn.abs().max() <= 2
    assert drawn.abs().mean() == pytest.approx(1, abs=0.1)
    assert torch.equal(drawn, random_weights(("a", "b", "c"), 2.0, 500, seed=3))
    for points in (0, 3):
        with pytest.raises(InputError, match="points must be even"):
            grid_weights(("a",), 1.0, points)


def test_white_box_counts_first_flips_by_hand(jury):
    """Sign steps of length 1: the logit falls by the sum of both slopes a step."""
    generator = GridGenerator()
    target = Target(GridClassifier(WEIGHTS))
    found, seeds = search_seeds(
        generator, target, None, along(generator, 0, 3), (4, 5), 12, SETTINGS
    )
    start, slope = logits(generator, found.styles)
    needed = (start.abs() / sum(map(abs, slope.values()))).ceil()
    assert seeds.tolist() == [4] * 12 + [5] * 12
    assert torch.equal(found.styles, torch.cat([generator.sample_styles(12, s) for s in (4, 5)]))
    measured = white_box(found, seeds, "bright", jury, steps=(1, 3, 6))
    assert measured.columns == ("1", "3", "6")
    for k, steps in enumerate((1, 3, 4)):  # the fourth step reaches epsilon
        assert torch.equal(measured.raw[:, k], needed <= steps)
    assert measured.rate(["3"]).value == found.flip_resistance(3).value
    assert (measured.kept <= measured.raw).all()
    alone = white_box(found, seeds, "bright", jury, steps=(3,))
    assert torch.equal(measured.kept[:, 1], alone.kept[:, 0])
    assert measured.of(["6", "1"]).columns == ("6", "1")
    assert torch.equal(measured.of(["6", "1"]).raw, measured.raw[:, [2, 0]])
    with pytest.raises(InputError, match="made 6 steps"):
        white_box(found, seeds, "bright", jury, steps=(7,))
    with pytest.raises(InputError, match="'scarf'"):
        white_box(found, seeds, "scarf", jury, steps=(6,))


def test_stopping_at_the_first_flip_changes_no_resistance(jury):
    generator = GridGenerator()
    run = partial(
        search_seeds, generator, Target(GridClassifier(WEIGHTS)), None, along(generator, 0, 3), (4,)
    )
    stopping = replace(SETTINGS, stop_when="flipped")
    pairs = [white_box(*run(20, s), "bright", jury, (1, 3, 6)) for s in (SETTINGS, stopping)]
    assert torch.equal(pairs[0].raw, pairs[1].raw)
    assert torch.equal(pairs[0].kept, pairs[1].kept)


def test_finished_seeds_are_kept_and_read_again(tmp_path, monkeypatch):
    generator = GridGenerator()
    encoder, hold = GridEncoder(), (prompt(1), "a grid")
    run = partial(search_seeds, generator, directions=along(generator, 0, 3), images=5)
    run = partial(run, encoder=encoder, settings=SETTINGS, consistency=hold, folder=tmp_path)
    target = Target(GridClassifier(WEIGHTS))
    run(target, seeds=(4,))
    generator.synthesized = 0
    found, seeds = run(target, seeds=(4, 5))
    assert generator.synthesized == 5 * (1 + SETTINGS.steps + 1)  # seed 5 alone
    fresh, _ = run(target, seeds=(4, 5), folder=None)
    for name in ("trajectory_w", "trajectory_p", "p_original", "styles", "w", "p"):
        assert torch.equal(getattr(found, name), getattr(fresh, name)), name
    assert seeds.tolist() == [4] * 5 + [5] * 5
    generator.synthesized = 0
    run(Target(GridClassifier({0: 21.0})), seeds=(4, 5))  # another target is another search
    assert generator.synthesized == 10 * (1 + SETTINGS.steps + 1)
    generator.synthesized = 0
    monkeypatch.setattr("visiondx_worlds.marking.zoom.resistance.SEARCHING", 99)
    run(target, seeds=(4, 5))  # and so is another method
    assert generator.synthesized == 10 * (1 + SETTINGS.steps + 1)


def test_seeds_that_are_searched_together_are_those_searched_alone(tmp_path):
    generator = GridGenerator()
    run = partial(
        search_seeds, generator, Target(GridClassifier(WEIGHTS)), None, along(generator, 0, 3),
        images=TOGETHER // 3, settings=SETTINGS,
    )  # fmt: skip
    many, seeds = run(seeds=range(5), folder=tmp_path)  # three, then two
    for seed in range(5):
        alone, _ = run(seeds=(seed,))
        rows = seeds == seed
        for name in ("styles", "p_original", "trajectory_w", "trajectory_p"):
            assert torch.allclose(getattr(many, name)[rows], getattr(alone, name), atol=1e-6)
    assert len(list(tmp_path.glob("search-*/multi.safetensors"))) == 5


def test_transfer_by_hand(jury):
    """Images edited in cell 0 until they flipped one target; another looks at cell 0 and at 3."""
    generator = GridGenerator()
    styles = generator.sample_styles(40, 8)
    old, new = {0: 20.0}, {0: 20.0, 3: 30.0}
    found = multi_search(
        generator, Target(GridClassifier(old)), None, along(generator, 0), styles,
        replace(SETTINGS, epsilon=1.5),
    )  # fmt: skip
    measured = transfer(found, torch.arange(40), Target(GridClassifier(new)), "bright", jury)
    rows = found.flipped.nonzero()[:, 0]
    before, slope = logits(generator, styles, new)
    after = before + slope[0] * found.w[:, 0]
    assert torch.equal(measured.raw[:, 0], ((before >= 0) != (after >= 0))[rows])
    assert torch.equal(measured.seeds, rows)
    assert 0 < measured.raw.sum() < len(rows) < 40
    blind = multi_search(
        generator, Target(GridClassifier({7: 1.0})), None, along(generator, 0), styles, SETTINGS
    )
    with pytest.raises(InputError, match="flipped no image"):
        transfer(blind, torch.arange(40), Target(GridClassifier(new)), "bright", jury)


def test_harm_grows_with_epsilon_and_only_the_label_s_own_edit_changes_it(jury):
    generator = GridGenerator()
    styles = generator.sample_styles(60, 9)
    measure = partial(harm, generator, styles=styles, labels=("bright", "dark"), jury=jury)
    own = measure(along(generator, 0), epsilons=(1.0, 30.0))
    assert own["epsilon"].tolist() == [0, 1, 30]
    assert own.loc[0, ["bright_same", "dark_same"]].tolist() == [1, 1]
    assert own.loc[0, "real"] == jury.realism.real(generator.synthesize(styles)).double().mean()
    assert own.loc[2, "bright_changed"] > 0.2 > own.loc[1, "bright_changed"]
    assert own["dark_same"].tolist() == [1, 1, 1]
    assert own["n"][0] == 60 * 4
    other = measure(along(generator, *range(9, 15)), epsilons=(20.0,))
    assert other[["bright_same", "dark_same"]].to_numpy().min() == 1
    assert other["real"][1] < 0.5 < other["real"][0]


def test_harm_by_hand(jury):
    """Cell 0 moves by w·0.05·0.5; the judges agree below 0 and above 0.1."""
    generator = GridGenerator()
    styles = generator.sample_styles(50, 9)
    found = harm(generator, along(generator, 0), styles, ("bright",), jury, (20.0,), 3, seed=2)
    was = cells(generator.synthesize(styles).detach())[:, 0]
    sure = (was <= 0) | (was > 0.1)
    same = changed = 0
    corners = random_weights(("a",), 1.0, 3, seed=2)[:, 0].sign()
    assert corners.unique().tolist() == [-1, 1]
    for side in corners:
        now = was + 0.025 * 20 * side
        agreed = (now <= 0) | (now > 0.1)
        same += int((sure & agreed & ((now > 0) == (was > 0))).sum())
        changed += int((sure & agreed & ((now > 0) != (was > 0))).sum())
    assert found["bright_same"][1] == pytest.approx(same / (3 * int(sure.sum())))
    assert found["bright_changed"][1] == pytest.approx(changed / (3 * int(sure.sum())))


def test_rates_and_changes_resample_images():
    raw = torch.tensor([[0, 0], [0, 0], [1, 0], [1, 1]]).bool()
    found = Resistance(("a", "b"), raw, raw & False, torch.tensor([7, 7, 8, 8]))
    both = found.rate()
    assert (both.value, both.n) == (0.5, 4)
    # a seed is no cluster: to which one the images belong makes no difference
    assert found.rate() == replace(found, seeds=torch.tensor([7, 8, 9, 7])).rate()
    assert found.rate(["b"]).value == 0.75
    assert found.rate(kind="kept").low == 1
    before = torch.tensor([True, True, False, False])
    after = torch.tensor([True, False, True, True])
    moved = change(before, after)
    assert (moved.value, moved.n) == (0.25, 4)
    assert moved.high > 0.9
    assert moved.low < -0.25
    frame = found.to_frame()
    assert frame["raw"].tolist() == [0.5, 0.75]
    assert frame["kept"].tolist() == [1, 1]
    assert frame["edit"].tolist() == ["a", "b"]


def test_truncation_is_of_the_styles_and_of_the_kept_name(tmp_path):
    generator = GridGenerator()
    run = partial(
        search_seeds, generator, Target(GridClassifier(WEIGHTS)), None, along(generator, 0, 3),
        (4, 5), 6, SETTINGS, folder=tmp_path,
    )  # fmt: skip
    run()
    found, _ = run(truncation=0.5)  # not what was kept of the whole styles
    styles = torch.cat([generator.sample_styles(6, seed, 0.5) for seed in (4, 5)])
    assert torch.equal(found.styles, styles)
