"""Do two sensitivities order their attributes alike? Rank correlations, and their ceiling."""

from collections.abc import Sequence

import numpy as np

from visiondx.core.errors import InputError
from visiondx.core.stats import Estimate, ranks, redraw
from visiondx.zoom.sensitivity import Sensitivity


def spearman(
    measured: Sensitivity, true: Sensitivity, draws: int = 1000, seed: int = 0
) -> Estimate:
    """Rank correlation of two sensitivities over their attributes; n is how many these are.

    The interval resamples the images of both sides.

    Raises:
        InputError: other attributes, or fewer than three.
    """
    _check_alike(measured, true)
    (value,), drawn = _resampled(measured, true, draws, np.random.default_rng(seed))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(float(value), float(low), float(high), len(true.attributes))


def mean_spearman(
    pairs: Sequence[tuple[Sensitivity, Sensitivity]], draws: int = 1000, seed: int = 0
) -> Estimate:
    """``spearman`` of (measured, true) of several targets, its mean; n is how many these are.

    The interval resamples the targets, and the images of both sides, which all targets see.

    Raises:
        InputError: no pairs; else as ``spearman``.
    """
    rng = np.random.default_rng([seed, 1])  # of the targets
    found = []
    for measured, true in pairs:
        _check_alike(measured, true)
        found.append(_resampled(measured, true, draws, np.random.default_rng(seed)))
    return _mean_over_targets([value for (value,), _ in found], [d for _, d in found], rng)


def split_half(parts: Sequence[Sensitivity], draws: int = 1000, seed: int = 0) -> Estimate:
    """How well a sensitivity agrees with itself: a ceiling for what can agree with it.

    The rank correlation of h over one half of the images with h over the other, averaged over
    random halves and over targets; n is how many targets these are. The Spearman-Brown formula,
    which would raise it to what all images give, is not applied.

    Args:
        parts: one for each target. draws: random halves.

    The interval resamples the targets, and takes one pair of halves of each.

    Raises:
        InputError: no parts, fewer than three attributes or fewer than four images.
    """
    rng = np.random.default_rng(seed)
    drawn = []
    for part in parts:
        images, n = part.change.shape
        if n < 3 or images < 4:
            raise InputError(
                "Halves need three or more attributes and four or more images, got "
                f"{n} and {images}."
            )
        change = part.change.double().numpy()
        one = rng.permuted(np.tile(np.arange(images) < images // 2, (draws, 1)), axis=1)
        halves = [(side @ change) / side.sum(1, keepdims=True) for side in (one, ~one)]
        drawn.append(_correlation(*(ranks(h) for h in halves)))
    return _mean_over_targets([float(d.mean()) for d in drawn], drawn, rng)


def _check_alike(measured: Sensitivity, true: Sensitivity) -> None:
    if measured.attributes != true.attributes or len(true.attributes) < 3:
        raise InputError(
            "A rank correlation needs the same three or more attributes on both sides, got "
            f"{list(measured.attributes)} and {list(true.attributes)}."
        )


def _resampled(
    measured: Sensitivity, true: Sensitivity, draws: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The rank correlation (1,), and those of resampled images (draws,)."""
    sides = [side.change.double().numpy() for side in (measured, true)]
    resampled = [side[rng.integers(len(side), size=(draws, len(side)))].mean(1) for side in sides]
    drawn = _correlation(*(ranks(h) for h in resampled))
    return _correlation(*(ranks(side.mean(0, keepdims=True)) for side in sides)), drawn


def _mean_over_targets(
    values: Sequence[float], drawn: Sequence[np.ndarray], rng: np.random.Generator
) -> Estimate:
    """Mean of the targets' values; its interval draws targets anew for each draw of the images."""
    if not values:
        raise InputError("A mean over targets needs one target or more, got none.")
    low, high = np.quantile(redraw(drawn, rng), [0.025, 0.975])
    return Estimate(float(np.mean(values)), float(low), float(high), len(values))


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson correlation of each row (R, N); 0 where a side is constant."""
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    scale = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return (a * b).sum(1) / np.where(scale > 0, scale, 1)
