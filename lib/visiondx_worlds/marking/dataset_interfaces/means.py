"""Shares of images, averaged over shifts, with intervals over other images of the same shifts.

A filter keeps most of the shifts that are easy, so that a share of all images that it keeps would
say which shifts they are of. Here each shift counts alike.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from visiondx.core.errors import InputError
from visiondx.core.stats import Estimate, interval, proportion

DRAWS = 1000
NOTHING = Estimate(np.nan, np.nan, np.nan, 0)


def mean_share(values: ArrayLike, groups: ArrayLike) -> Estimate:
    """The mean over groups of the share of true values.

    The interval is put together of the groups' own, Wilson's (Zou and Donner, 2008: the distances
    of value and end add as errors do), so that a few groups in which all or none are true are not
    taken for certain.

    Args:
        values: (N,) bool. groups: (N,) of any values that compare, such as the shift of each.

    Returns:
        n is N. NaN of no values.

    Raises:
        InputError: values that are not (N,) bool, or another number of groups.
    """
    values, group = _checked(groups, values)
    if not len(values):
        return NOTHING
    own = [proportion(values[group == g]) for g in range(group.max() + 1)]
    share, low, high = (
        np.array([getattr(e, end) for e in own]) for end in ("value", "low", "high")
    )
    mean = float(share.mean())
    below, above = (float(np.linalg.norm(end - share)) / len(own) for end in (low, high))
    return Estimate(mean, max(mean - below, 0.0), min(mean + above, 1.0), len(values))


def mean_gain(
    kept: ArrayLike, right: ArrayLike, groups: ArrayLike, draws: int = DRAWS, seed: int = 0
) -> Estimate:
    """The mean over groups of what filtering adds to precision: right of the kept - right of all.

    A group of which nothing is kept says nothing and does not count.

    Args:
        kept, right: (N,) bool. groups: as of ``mean_share``.

    Raises:
        InputError: see ``mean_share``.
    """
    kept, right = np.asarray(kept), np.asarray(right)
    _checked(groups, kept)
    right, group = _checked(groups, right)
    # counts of (kept, right) as 2 kept + right, in every group
    kind = 2 * kept.astype(int) + right
    counts = np.array([np.bincount(kind[group == g], minlength=4) for g in np.unique(group)])
    counts = counts[counts[:, 2:].any(1)] if len(counts) else counts
    if not len(counts):
        return NOTHING
    source = np.random.default_rng(seed)
    drawn = np.stack([source.multinomial(own.sum(), own / own.sum(), draws) for own in counts], 1)
    with np.errstate(invalid="ignore"):  # a draw of which nothing is kept is left out
        values = _gain(drawn).mean(1)
    n = int(counts.sum())
    return interval(float(_gain(counts).mean()), values, n, n)


def _gain(counts: np.ndarray) -> np.ndarray:
    """(…, 4) counts of neither, right, kept, both -> right of the kept - right of all."""
    return counts[..., 3] / counts[..., 2:].sum(-1) - (
        counts[..., 1] + counts[..., 3]
    ) / counts.sum(-1)


def _checked(groups: ArrayLike, values: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """The values, and the groups by number."""
    values, groups = np.asarray(values), np.asarray(groups)
    if values.ndim != 1 or values.dtype != bool or len(groups) != len(values):
        raise InputError(
            f"Shares are of (N,) bool with one group each, got {values.shape} {values.dtype} and "
            f"{len(groups)} groups."
        )
    return values, np.unique(groups, return_inverse=True)[1]
