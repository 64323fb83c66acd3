"""Every reported number carries a bootstrap interval and its n.

One convention. A figure speaks about the targets that it names, and its interval about other
draws of what it was measured on: images (or sentences, trainings, runs of a clock) are resampled.
Targets are not, for two to five of them say next to nothing about others of their kind. Targets
that see the same images share every draw of them (``crossed``). Images of several seeds are
independent draws like those of one; only rows that truly hang together, such as one pair of
sentences put to several targets, are clusters, which are drawn whole (``groups``).

What an interval holds, 95 times in 100, is where the figure lies on average over other samples of
the same size. That is the truth for a mean; a rank correlation is lower where images are few.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from visiondx.core.errors import InputError

LEVEL = 0.95  # of intervals
VECTORISED = (np.mean, np.median, np.std, np.min, np.max)


@dataclass(frozen=True)
class Estimate:
    """A statistic, its bootstrap interval [low, high], and the number of values."""

    value: float
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, float | int]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}] (n={self.n})"


def bootstrap(
    values: ArrayLike,
    statistic: Callable = np.mean,
    n: int = 1000,
    seed: int = 0,
    level: float = LEVEL,
    groups: ArrayLike | None = None,
) -> Estimate:
    """Bootstrap (Efron, 1979) of ``statistic`` over the first axis of ``values``; see ``interval``.

    Args:
        values: (N,) or (N, columns); a row is the unit that is resampled.
        statistic: ``f(resample) -> number``; a resample has the shape of ``values``, so rows with
            columns allow correlations and ratios. NumPy's own mean, median, ... run vectorised.
        n: number of resamples. level: of the interval, in (0, 1).
        groups: (N,) cluster of each row, or None. Clusters are drawn, all rows of each; no seeds.

    Raises:
        InputError: empty or non-finite values, a wrong ``groups`` length, ``n`` or ``level``.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim not in (1, 2) or len(values) == 0:
        raise InputError(
            f"bootstrap needs values of shape (N,) or (N, columns) with N >= 1, got {values.shape}."
        )
    if not np.isfinite(values).all():
        raise InputError(
            f"bootstrap got {int((~np.isfinite(values)).sum())} NaN or infinite values: drop them."
        )
    if n < 1 or not 0 < level < 1:
        raise InputError(f"bootstrap needs n >= 1 and 0 < level < 1, got n={n}, level={level}.")
    rng, units = np.random.default_rng(seed), len(values)
    if groups is None:
        rows = rng.integers(units, size=(n, units))
        draws = _each(statistic, [values[r] for r in np.array_split(rows, _blocks(rows))])
    else:
        units, resamples = _clusters(values, np.asarray(groups), n, rng)
        draws = _each(statistic, resamples)
    return interval(float(statistic(values)), draws, units, len(values), level)


def crossed(
    statistic: Callable, sizes: Sequence[int], draws: int = 1000, seed: int = 0
) -> dict[str, Estimate]:
    """Means over targets that see the same images, of statistics of each; see ``interval``.

    A draw of the images is one for all targets. What was measured on several samples, say the
    generator's images and the renderer's, or words inside and words outside, has a draw of each.

    Draws hold images twice, so that ranks are noisier there and their correlations lower: all are
    moved so that their mean is the figure, but no further than a single target's go.

    Args:
        statistic: ``f(*counts) -> {name: (S, R)}`` for S targets; ``counts[k]`` (R, N_k) is how
            often each of R draws has each of the N_k rows of sample k. Where all are 1, it is the
            figure itself.
        sizes: N_k of each sample.

    Returns:
        an Estimate of each name, its n that of the first sample.

    Raises:
        InputError: an empty sample.
    """
    if not sizes or min(sizes) < 1:
        raise InputError(f"crossed needs samples of one row or more, got sizes {list(sizes)}.")
    rng = np.random.default_rng(seed)
    counts = [rng.multinomial(size, np.full(size, 1 / size), draws) for size in sizes]
    measured = statistic(*(np.ones((1, size), dtype=np.int64) for size in sizes))
    found = {}
    for name, each in statistic(*counts).items():
        value, drawn = float(np.mean(measured[name])), np.mean(each, axis=0)
        moved = drawn - np.nanmean(drawn) + value
        moved = moved.clip(min(value, np.nanmin(each)), max(value, np.nanmax(each)))
        found[name] = interval(value, moved, min(sizes), sizes[0])
    return found


def jackknife(statistic: Callable, group: np.ndarray, n: int) -> Estimate:
    """Grouped jackknife (Tukey, 1958): groups of rows are left out in turn.

    For a statistic that resampled rows would spoil, for they stand there twice. The interval is
    Student's, with one degree of freedom less than there are groups.

    Args:
        statistic: ``f(kept) -> number``, kept (N,) bool says which rows count.
        group: (N,) 0 .. G - 1, at random and of much the same sizes.
    """
    from scipy.special import stdtrit

    value, count = float(statistic(group >= 0)), int(group.max()) + 1
    without = np.array([statistic(group != g) for g in range(count)])
    error = np.sqrt((count - 1) * without.var()) * stdtrit(count - 1, (1 + LEVEL) / 2)
    return Estimate(value, value - float(error), value + float(error), n)


def interval(value: float, draws: np.ndarray, units: int, n: int, level: float = LEVEL) -> Estimate:
    """The interval of a value, from what it is in resamples of its ``units`` rows or clusters.

    Percentiles of the draws, whose tails reach as much further as Student's t does (Hesterberg,
    2015, the expanded percentile interval), for the spread within a few rows is too small. The
    value is never outside. NaN draws (the correlation of a constant resample) do not count.

    Args:
        draws: (R,). n: what the Estimate gives as the number of values.
    """
    from scipy.special import ndtr, stdtrit  # slow to import, and not every run needs it

    draws = np.asarray(draws, dtype=np.float64)
    draws = draws[np.isfinite(draws)]
    if not len(draws):
        return Estimate(value, np.nan, np.nan, n)
    tail = (1 - level) / 2
    if units > 1:
        tail = float(ndtr(stdtrit(units - 1, tail) * np.sqrt(units / (units - 1))))
    # of R draws, a new one lies below the k-th smallest with probability k / (R + 1)
    low, high = np.quantile(draws, [tail, 1 - tail], method="weibull")
    return Estimate(value, float(min(low, value)), float(max(high, value)), n)


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1 along the last axis of (..., N); equal values share the mean of theirs.

    Each is compared with each: for few values in many rows. scipy.stats, which has the same for
    long ones, takes a second to import.
    """
    other, one = values[..., None, :], values[..., :, None]
    return ((other < one).sum(-1) + (other <= one).sum(-1) + 1) / 2


def proportion(values: ArrayLike) -> Estimate:
    """The share of true values, with Wilson's score interval (Wilson, 1927).

    For shares near 0 or 1: where none of 30 values is true, every resample says 0, [0, 0], and
    Wilson says [0, 0.11]. Of no values nothing is known: 0, [0, 1], n = 0.

    Args:
        values: (N,) bool.

    Raises:
        InputError: values that are not (N,) bool.
    """
    values = np.asarray(values)
    if values.ndim != 1 or values.dtype != bool:
        raise InputError(
            f"proportion needs values (N,) of bool, got {values.shape} {values.dtype}."
        )
    n = len(values)
    if not n:
        return Estimate(0.0, 0.0, 1.0, 0)
    share, z = float(values.mean()), NormalDist().inv_cdf((1 + LEVEL) / 2)
    centre, half = share + z**2 / (2 * n), z * sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)
    low, high = ((centre + side) / (1 + z**2 / n) for side in (-half, half))
    # exactly, where rounding would miss it
    return Estimate(share, low if share > 0 else 0.0, high if share < 1 else 1.0, n)


def difference(one: ArrayLike, other: ArrayLike) -> np.ndarray:
    """(..., 3) one - other with the interval that those of independent samples leave.

    Arms add up as squares: of proportions with Wilson's intervals it is Newcombe's (1998, method
    10), which has a width where all or none are true.

    Args:
        one, other: (..., 3), value, low and high; NaN stays.
    """
    one, other = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
    value = one[..., 0] - other[..., 0]
    below = np.hypot(one[..., 0] - one[..., 1], other[..., 2] - other[..., 0])
    above = np.hypot(one[..., 2] - one[..., 0], other[..., 0] - other[..., 1])
    return np.stack([value, value - below, value + above], -1)


def _blocks(rows: np.ndarray) -> int:
    """Split resamples so that one block holds about four million indices (32 MB)."""
    return max(1, rows.size // 4_000_000)


def _each(statistic: Callable, blocks: Iterable[np.ndarray]) -> np.ndarray:
    """``statistic`` of every resample; a block is (resamples, N[, columns])."""
    draws = []
    for block in blocks:
        if block.ndim == 2 and statistic in VECTORISED:
            draws.append(statistic(block, axis=1))
        else:
            draws.append([statistic(resample) for resample in block])
    return np.concatenate(draws)


def _clusters(
    values: np.ndarray, groups: np.ndarray, n: int, rng: np.random.Generator
) -> tuple[int, Iterator[np.ndarray]]:
    """How many clusters there are, and n resamples of them, all rows of each; sizes may differ."""
    if groups.shape != (len(values),):
        raise InputError(f"groups must have shape ({len(values)},), one a row, got {groups.shape}.")
    _, member = np.unique(groups, return_inverse=True)
    size = np.bincount(member)
    order = np.argsort(member, kind="stable")  # rows of cluster g: order[start[g] : start[g + 1]]
    start = np.cumsum(size) - size

    def resamples() -> Iterator[np.ndarray]:
        for drawn in rng.integers(len(size), size=(n, len(size))):
            lengths = size[drawn]
            shift = start[drawn] - (np.cumsum(lengths) - lengths)
            yield values[order[np.arange(lengths.sum()) + np.repeat(shift, lengths)]][None]

    return len(size), resamples()
