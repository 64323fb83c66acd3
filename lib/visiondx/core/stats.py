"""Every reported number carries a bootstrap interval and its n."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike

from visiondx.core.errors import InputError

VECTORISED = (np.mean, np.median, np.std, np.min, np.max)


@dataclass(frozen=True)
class Estimate:
    """A statistic, its percentile-bootstrap interval [low, high], and the number of values."""

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
    level: float = 0.95,
    groups: ArrayLike | None = None,
) -> Estimate:
    """Percentile bootstrap (Efron, 1979) of ``statistic`` over the first axis of ``values``.

    With ``groups`` the resampling is two-staged: first the groups (say, seeds), then the values
    within each drawn group, so that the interval also covers the spread between groups.

    Args:
        values: (N,) or (N, columns); a row is the unit that is resampled.
        statistic: ``f(resample) -> number``; a resample has the shape of ``values``, so rows with
            columns allow correlations and ratios. NumPy's own mean, median, ... run vectorised.
        n: number of resamples. level: of the interval, in (0, 1).
        groups: (N,) group of each row, or None.

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
    rng = np.random.default_rng(seed)
    if groups is None:
        rows = rng.integers(len(values), size=(n, len(values)))
        draws = _each(statistic, [values[r] for r in np.array_split(rows, _blocks(rows))])
    else:
        draws = _each(statistic, _clustered(values, np.asarray(groups), n, rng))
    draws = draws[np.isfinite(draws)]  # a correlation of a constant resample is NaN
    tail = (1 - level) / 2
    low, high = np.quantile(draws, [tail, 1 - tail]) if len(draws) else (np.nan, np.nan)
    return Estimate(float(statistic(values)), float(low), float(high), len(values))


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1 along the last axis of (..., N); equal values share the mean of theirs.

    Each is compared with each: for few values in many rows. scipy.stats, which has the same for
    long ones, takes a second to import.
    """
    other, one = values[..., None, :], values[..., :, None]
    return ((other < one).sum(-1) + (other <= one).sum(-1) + 1) / 2


def redraw(drawn: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """The mean over targets that see the same images, in draws of both: (draws,).

    Args:
        drawn: of each target, its statistic in draws of the images (draws,), the same draws for
            all. Each draw takes as many targets as there are, anew.
    """
    table = np.stack(drawn)  # (targets, draws)
    chosen = rng.integers(len(table), size=table.shape)
    return np.take_along_axis(table, chosen, 0).mean(0)


def _blocks(rows: np.ndarray) -> int:
    """Split resamples so that one block holds about four million indices (32 MB)."""
    return max(1, rows.size // 4_000_000)


def _each(statistic: Callable, blocks: list[np.ndarray]) -> np.ndarray:
    """``statistic`` of every resample; a block is (resamples, N[, columns])."""
    draws = []
    for block in blocks:
        if block.ndim == 2 and statistic in VECTORISED:
            draws.append(statistic(block, axis=1))
        else:
            draws.append([statistic(resample) for resample in block])
    return np.concatenate(draws)


def _clustered(
    values: np.ndarray, groups: np.ndarray, n: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """n resamples, groups first and rows within them second; sizes may differ between them."""
    if groups.shape != (len(values),):
        raise InputError(f"groups must have shape ({len(values)},), one a row, got {groups.shape}.")
    _, member = np.unique(groups, return_inverse=True)
    size = np.bincount(member)
    order = np.argsort(member, kind="stable")  # rows of group g: order[start[g] : start[g] + size]
    start = np.cumsum(size) - size
    blocks = []
    for drawn in rng.integers(len(size), size=(n, len(size))):
        lengths = size[drawn]
        within = (rng.random(lengths.sum()) * np.repeat(lengths, lengths)).astype(np.int64)
        blocks.append(values[order[np.repeat(start[drawn], lengths) + within]][None])
    return blocks
