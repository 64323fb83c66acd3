"""95 % intervals hold 95 % of the time: every helper, on images drawn anew from a known truth.

Images are shared by all targets, as in the notebooks: what they have in common must not count as
evidence twice. Numbers of images are those at which the helpers are used, or fewer.
"""

from collections import namedtuple
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from visiondx.core.stats import bootstrap, crossed, proportion
from visiondx.zoom import agreement, sensitivity
from visiondx.zoom.sensitivity import Sensitivity
from visiondx_worlds.marking.llm2loss import ood, scores, truth
from visiondx_worlds.marking.llm2loss.true_bias import TrueBias
from visiondx_worlds.marking.zoom import control, disentangle, edits, flip_rates, resistance
from visiondx_worlds.marking.zoom.planted_score import score_planted
from visiondx_worlds.marking.zoom.score import Case
from visiondx_worlds.quality.worlds import Readings
from visiondx_worlds.training import parts

RESAMPLES = 150
NAMES = tuple("abcdefghijklmno")


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    """Intervals cover no less with fewer of them; they only differ more from seed to seed."""
    quick = partial(bootstrap, n=RESAMPLES)
    for module in (sensitivity, edits, control, disentangle, flip_rates, resistance, parts, truth):
        monkeypatch.setattr(module, "bootstrap", quick)
    monkeypatch.setattr(scores, "bootstrap", quick)


def assert_all_cover(intervals, expected, times=200, seed=0):
    """Each figure's interval holds what is expected of it, or else the mean of all its values.

    Args:
        intervals: f(rng) -> {name: Estimate}, of images drawn anew. expected: {name: number}.
    """
    rng = np.random.default_rng(seed)
    found = [intervals(rng) for _ in range(times)]
    for name, value in expected.items():
        each = [estimates[name] for estimates in found]
        middle = np.mean([estimate.value for estimate in each]) if value is None else value
        share = np.mean([estimate.low <= middle <= estimate.high for estimate in each])
        assert 0.92 <= share <= 0.98, (name, share)


def assert_covers(interval, expected=None, times=200, seed=0):
    assert_all_cover(lambda rng: {"it": interval(rng)}, {"it": expected}, times, seed)


def shared(rng, targets, images, columns=(), between=1.0):
    """(targets, images, *columns) standard normal; images make targets alike, more where larger."""
    common = rng.normal(size=(1, images, *columns))
    own = rng.normal(size=(targets, images, *columns))
    return (between * common + own) / np.sqrt(between**2 + 1)


def uniform(z):
    """Of normal values: in (0, 1), with the same order."""
    return torch.special.ndtr(torch.as_tensor(z)).numpy()


# ------------------------------------------------------------------------------- plain and crossed


@pytest.mark.parametrize("n", [24, 80])
def test_mean_of_changes(n):
    assert_covers(lambda rng: bootstrap(rng.beta(0.4, 0.8, n), n=RESAMPLES), 1 / 3, 400)


def test_share_of_images():
    assert_covers(lambda rng: bootstrap(rng.random(60) < 0.2, n=RESAMPLES), 0.2, 400)
    assert_covers(lambda rng: proportion(rng.random(60) < 0.05), 0.05, 400)


def test_mean_and_median_of_ten_runs():
    """Of five, the interval of a mean holds 91 %: five runs are few for any bootstrap."""
    assert_covers(lambda rng: bootstrap(rng.normal(size=10), n=RESAMPLES), 0, 400)
    quick = partial(bootstrap, statistic=np.median, n=RESAMPLES)
    assert_covers(lambda rng: quick(rng.lognormal(sigma=0.1, size=10)), 1, 400)


def test_correlation_of_rows():
    def found(rng):
        x, y = rng.normal(size=(2, 80))
        rows = np.column_stack([x, 0.6 * x + 0.8 * y])
        return bootstrap(rows, lambda r: np.corrcoef(r.T)[0, 1], n=RESAMPLES)

    assert_covers(found, 0.6)


def test_clusters():
    def found(rng):
        size = rng.integers(1, 6, 40)
        values = np.repeat(rng.normal(size=40), size) + rng.normal(size=size.sum())
        return bootstrap(values, n=RESAMPLES, groups=np.repeat(np.arange(40), size))

    assert_covers(found, 0)


def test_seeds_are_no_clusters():
    """What resampling seeds as clusters would give: five of them are no sample to speak of."""
    seeds = np.repeat(np.arange(5), 12)

    def width(groups):
        found = bootstrap(np.random.default_rng(1).normal(size=60), groups=groups)
        return found.high - found.low

    spread = [width(np.random.default_rng(k).permutation(seeds)) for k in range(20)]
    assert np.std(spread) > 0.15 * width(None)


@pytest.mark.parametrize("targets", [1, 3, 8])
def test_crossed_mean(targets):
    def found(rng):
        x = shared(rng, targets, 60)
        return crossed(lambda c: {"mean": x @ c.T / 60}, [60], RESAMPLES)["mean"]

    assert_covers(found, 0)


# ------------------------------------------------------------------------------------ sensitivities

TRUE_H = np.array([0.55, 0.3, 0.22, 0.15, 0.1, 0.07, 0.04, 0.02])


def changes(rng, targets, images, h=TRUE_H):
    """Sensitivities of targets on the same images: a change is near 0 or near 1, its mean h."""
    h = np.broadcast_to(h, (targets, np.shape(h)[-1]))[:, None]
    u = uniform(shared(rng, targets, images, (h.shape[2],)))
    change = torch.from_numpy(np.where(u > 1 - h, 0.9, 0.1 * u))
    return [Sensitivity(NAMES[: h.shape[2]], x, x > 0.5, "search") for x in change]


def test_sensitivity_and_paired_differences():
    exact = 0.9 * TRUE_H + 0.05 * (1 - TRUE_H) ** 2
    assert_covers(lambda rng: changes(rng, 1, 40)[0].h[1], exact[1])
    assert_covers(lambda rng: changes(rng, 1, 80)[0].behind[2], exact[0] - exact[2])


def test_none_of_equals_is_apart():
    rng = np.random.default_rng(0)
    equal = np.full(3, 0.4)
    assert np.mean([changes(rng, 1, 40, equal)[0].apart for _ in range(200)]) <= 0.05


@pytest.mark.parametrize(("targets", "images"), [(1, 40), (8, 80)])
def test_rank_correlation_with_the_truth(targets, images):
    """Targets that mind different things; edits that bring others along.

    The interval is a little too wide: resampled ranks are noisier than the images' own.
    """
    source = np.random.default_rng(5)
    true = source.exponential(0.12, (8, 15)).clip(0.01, 0.8)
    h = (true * np.exp(0.5 * source.normal(size=true.shape))).clip(0.01, 0.85)

    def found(rng):
        sides = (
            changes(rng, targets, images, h[:targets]),
            changes(rng, targets, 256, true[:targets]),
        )
        return agreement.mean_spearman(list(zip(*sides, strict=True)), RESAMPLES)

    assert_covers(found)


def test_split_half():
    h = np.random.default_rng(5).exponential(0.12, (3, 15)).clip(0.01, 0.8)
    assert_covers(lambda rng: agreement.split_half(changes(rng, 3, 80, h), 40))


def test_planted_scores():
    """Twelve classifiers, of which some are always found, some never, and some by luck."""
    h = [TRUE_H[:4] * [factor, 1, 1, 1] for factor in np.linspace(0.3, 1, 12)]
    true = Sensitivity(NAMES[:4], torch.from_numpy(TRUE_H[None, :4]), torch.ones(1, 4) > 0, "x")

    def found(rng):
        measured = changes(rng, 12, 60, np.stack(h))
        cases = [Case(f"{k}@0", (m,), true, NAMES[0]) for k, m in enumerate(measured)]
        return score_planted(cases, draws=100)

    assert_all_cover(found, {"planted.top1": None, "planted.truth_spearman": None})


# ------------------------------------------------------------------------------------------- edits


def test_flip_rates_of_targets():
    def found(rng):
        u = uniform(shared(rng, 4, 60))
        clear = uniform(shared(rng, 4, 60)) < 0.8
        styles = torch.zeros(60, 1)
        given = [
            SimpleNamespace(
                result=SimpleNamespace(styles=styles),
                counted=lambda kind, k=k: torch.from_numpy(clear[k]),
                by=lambda kind, steps, k=k: torch.from_numpy((u[k] < 0.6) & clear[k]),
            )
            for k in range(4)
        ]
        return flip_rates.pooled(given, "kept_of_clear")

    assert_covers(found, 0.6)


def test_resistance_and_change_of_answers():
    def found(rng):
        raw = torch.from_numpy(rng.random((80, 2)) < 0.2)
        return resistance.Resistance(("a", "b"), raw, raw, torch.arange(5).repeat(16)).rate()

    assert_covers(found, 0.64, 400)
    draw = lambda rng: (torch.from_numpy(rng.random(200) < p) for p in (0.9, 0.8))  # noqa: E731
    assert_covers(lambda rng: resistance.change(*draw(rng)), -0.1, 400)


def test_ratios_of_changes():
    def leaks(rng):
        change = rng.beta(0.5, 2, (60, 3, 3)) + rng.beta(0.5, 2, (60, 1, 1))
        change[:, range(3), range(3)] *= 2
        return disentangle.Disentanglement(tuple("abc"), change, np.arange(60) // 12, "judge").ratio

    assert_covers(leaks, 2)

    def controlled(rng):
        one, other = torch.from_numpy(rng.gamma(1, 1, (2, 60, 2)))
        yes = torch.ones(60, 2).bool()
        return control.Control(("a", "b"), 3 * one, other, one, other, yes, yes).ratio

    assert_covers(controlled, 3)


def test_success_of_edits():
    def report(rng, chance, u):
        gained = np.where(rng.random((80, 3)) < 0.3, np.nan, (u < chance).astype(float))
        change = rng.normal(size=(80, 3, 3)) + 2 * np.eye(3)
        return edits.EditReport(tuple("abc"), gained, change, 0 * gained, np.arange(80) // 16)

    def gain(rng):
        u = uniform(shared(rng, 1, 80, (3,)))[0]
        return edits.success_change(report(rng, 0.8, u), report(rng, 0.6, u))

    assert_covers(lambda rng: report(rng, 0.8, rng.random((80, 3))).success_mean, 0.8)
    assert_covers(gain, 0.2)


def test_judges_and_parts():
    def balanced(rng):
        there = rng.random(100) < 0.3
        right = rng.random(100) < np.where(there, 0.7, 0.9)
        said = np.where(right, there, ~there).astype(int)
        return Readings(("a",), said[:, None], there.astype(int), np.arange(100) // 20).balanced()[
            "a"
        ]

    def iou(rng):
        either = rng.integers(20, 100, (60, 2))
        both = rng.binomial(either, 0.7)
        return parts.part_iou(torch.from_numpy(np.stack([both, either], 1)))[0]

    assert_covers(balanced, 0.8)
    assert_covers(iou, 0.7)


# ------------------------------------------------------------------------------------- loss models

Found = namedtuple("Found", "statistic")


def pearson(a, b):
    return Found(np.corrcoef(a, b)[0, 1])


def ranked(a, b):
    return pearson(a.argsort().argsort(), b.argsort().argsort())


@pytest.fixture
def quick_measures(monkeypatch):
    """SciPy's are slow, and do not differ where there are no ties."""
    monkeypatch.setattr(scores, "MEASURES", {"Pearson": pearson, "Spearman": ranked})


def test_correlations_over_images(quick_measures):
    def found(rng):
        common = shared(rng, 3, 150, (2,), between=2.0)
        loss = 0.6 * common[..., 0] + 0.8 * common[..., 1]
        given = [torch.from_numpy(side) for side in (common[..., 0], loss)]
        return scores.image_correlations(*given, n=60)

    assert_all_cover(found, {"Pearson": 0.6, "Spearman": None})


def test_correlations_over_attributes(quick_measures):
    effects = np.array([1.0, 0.7, 0.5, 0.35, 0.25, 0.15, 0.1, 0.05])
    predicted = torch.tensor([[1.1, 0.3, 0.6, 0.4, 0.1, 0.2, 0.15, 0.05]]).repeat(3, 1)

    def found(rng):
        labels = rng.random((400, 8)) < 0.4
        losses = labels @ effects + shared(rng, 3, 400, between=2.0)
        bias = TrueBias(
            NAMES[:8], torch.from_numpy(labels), torch.from_numpy(losses).float(), torch.empty(0)
        )
        return scores.bias_correlations(predicted, bias, "loss", 50)

    assert_all_cover(found, {"Pearson": None, "Spearman": None})


def test_accuracy_of_comparisons():
    def found(rng):
        right, agree, known = (
            torch.from_numpy(uniform(shared(rng, 3, 120, between=2.0)) < p) for p in (0.8, 0.7, 0.5)
        )
        return scores.sign_accuracy(right, agree, known)

    expected = {"sign_accuracy": 0.8, "confident_share": 0.7, "all_accuracy": 0.8}
    assert_all_cover(found, expected)


def test_true_losses_of_sentences():
    def found(rng):
        losses = np.exp(shared(rng, 3, 32, (1,), between=2.0) / 2).transpose(0, 2, 1)
        return truth.mean_losses(torch.from_numpy(losses))[0]

    assert_covers(found, np.exp(1 / 8), 400)


def test_familiarity_of_words():
    def found(rng):
        inside = torch.from_numpy(shared(rng, 3, 40, between=2.0) + 1)
        outside = torch.from_numpy(shared(rng, 3, 30, between=2.0))
        return ood.aurocs(inside, {"x": outside})["x"]

    # 1 - Φ(-1 / √2): how often one normal variable is above another, whose mean is 1 lower
    assert_covers(found, float(torch.special.ndtr(torch.tensor(0.5**0.5))))
