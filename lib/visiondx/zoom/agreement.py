"""Do two sensitivities order their attributes alike? Rank correlations, and their ceiling.

Intervals are about new images, of the measurement and of the truth, for these very targets.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from visiondx.core.errors import InputError
from visiondx.core.stats import Estimate, crossed, jackknife, ranks
from visiondx.zoom.sensitivity import Sensitivity

GROUPS = 20  # of images, left out in turn
NEEDED = "A mean over targets needs one target or more, and the same images of all."


def spearman(
    measured: Sensitivity, true: Sensitivity, draws: int = 1000, seed: int = 0
) -> Estimate:
    """Rank correlation of two sensitivities over their attributes; n is how many these are.

    The interval resamples the images of both sides.

    Raises:
        InputError: other attributes, or fewer than three.
    """
    found = mean_spearman([(measured, true)], draws, seed)
    return replace(found, n=len(true.attributes))


def mean_spearman(
    pairs: Sequence[tuple[Sensitivity, Sensitivity]], draws: int = 1000, seed: int = 0
) -> Estimate:
    """``spearman`` of (measured, true) of several targets, its mean; n is how many these are.

    The interval resamples the images of both sides, which all targets see.

    Raises:
        InputError: no pairs, targets that see other images; else as ``spearman``.
    """
    _check(pairs)
    sides = [[side.change.double().numpy() for side in target] for target in pairs]

    def each(one: np.ndarray, other: np.ndarray) -> dict[str, list[np.ndarray]]:
        return {"mean": [rank_correlation(one @ h, other @ true) for h, true in sides]}

    found = crossed(each, [len(side) for side in sides[0]], draws, seed)
    return replace(found["mean"], n=len(pairs))


def split_half(parts: Sequence[Sensitivity], draws: int = 200) -> Estimate:
    """How well a sensitivity agrees with itself: a ceiling for what can agree with it.

    The rank correlation of h over one half of the images with h over the other, averaged over
    random halves and over targets; n is how many targets these are. The Spearman-Brown formula,
    which would raise it to what all images give, is not applied.

    Args:
        parts: one for each target, of the same images. draws: random halves.

    The interval leaves out images, a group at a time (``stats.jackknife``): a resample holds some
    of them twice, and would put one into both halves.

    Raises:
        InputError: no parts, targets that saw other images, fewer than three attributes or fewer
            than four images.
    """
    shapes = {part.change.shape[0] for part in parts}
    if len(shapes) != 1:
        raise InputError(NEEDED)
    for part in parts:
        images, n = part.change.shape
        if n < 3 or images < 4:
            raise InputError(
                "Halves need three or more attributes and four or more images, got "
                f"{n} and {images}."
            )
    rng = np.random.default_rng(0)
    one = rng.permuted(np.tile(np.arange(images) < images // 2, (draws, 1)), axis=1)
    changes = [part.change.double().numpy() for part in parts]

    def agreement(kept: np.ndarray) -> float:
        halves = [side & kept for side in (one, ~one)]
        halves = [side / np.maximum(side.sum(1, keepdims=True), 1) for side in halves]
        return float(np.mean([rank_correlation(*(side @ x for side in halves)) for x in changes]))

    group = rng.permutation(images) % min(GROUPS, images)
    found = jackknife(agreement, group, n=len(parts))
    return replace(found, low=max(found.low, -1.0), high=min(found.high, 1.0))


def rank_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's, of each row (R, N) of a with its row of b, or with the one row b; (R,).

    0 where a side is constant.
    """
    a, b = (side - side.mean(1, keepdims=True) for side in (ranks(a), ranks(b)))
    scale = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return (a * b).sum(1) / np.where(scale > 0, scale, 1)


def _check(pairs: Sequence[tuple[Sensitivity, Sensitivity]]) -> None:
    for measured, true in pairs:
        if measured.attributes != true.attributes or len(true.attributes) < 3:
            raise InputError(
                "A rank correlation needs the same three or more attributes on both sides, got "
                f"{list(measured.attributes)} and {list(true.attributes)}."
            )
    if len({tuple(len(side.change) for side in target) for target in pairs}) != 1:
        raise InputError(NEEDED)
