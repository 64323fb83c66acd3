"""Accuracy under shifts, measured from what models answered (section 6 and appendix A.5).

Accuracy is that of each class, averaged over the classes with at least five images left after
filtering; the base's is over *the same* classes, so these need five in the base as well. A shift's
absolute impact is base - shift, averaged over models, and its ID/OOD slope that of the best-fit
line of the shift's accuracy on the base's, over models.

Intervals of accuracies and impacts are over other draws of the images of each class, which all
models share; those of slopes over other draws of the models.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from tqdm.auto import tqdm

from visiondx.core.errors import InputError
from visiondx.core.stats import bootstrap, interval, proportion
from visiondx.dataset_interfaces.answers import Answers
from visiondx.dataset_interfaces.robustness import FEWEST, LEAST, Robustness


def measure(
    answers: Answers,
    *,
    least: int = LEAST,
    draws: int = 1000,
    seed: int = 0,
    counted: np.ndarray | None = None,
) -> Robustness:
    """Accuracies, impacts and slopes of what models answered.

    Args:
        least: images that a class must have, under the shift and in the base, to count there.
        draws, seed: of the intervals.
        counted: (S, C) bool, the classes of each shift instead, such as those of another
            measurement that this one is compared with.

    Raises:
        InputError: an impossible `least`, no class that counts under any shift, or one that was
            asked for and has no image.
    """
    if least < 1 or draws < 1:
        raise InputError(f"least and draws must be 1 or more, got {least} and {draws}.")
    images = answers.counts()
    enough = images >= least
    some = (images[1:] > 0) & (images[0] > 0)
    if counted is None:
        counted = enough[1:] & enough[0]
    elif counted.shape != images[1:].shape or (counted & ~some).any():
        raise InputError("counted must be (S, C) of classes that have images under the shift.")
    if not counted.any():
        raise InputError(
            f"No class has {least} images left under any shift and in the base: make more images, "
            "or filter less."
        )
    models, shifts = len(answers.models), len(answers.shifts) - 1
    rows = _cells(answers)
    needed = np.flatnonzero(counted.any(0) | enough[0])
    of_base = {c: _draws(answers, rows[0, c], draws, (seed, 0, c)) for c in needed.tolist()}
    found = {name: np.full((models, shifts, 3), np.nan) for name in ("accuracy", "base", "drop")}
    impact, slope = np.full((shifts, 3), np.nan), np.full((shifts, 3), np.nan)
    for s in tqdm(range(shifts), desc="intervals", leave=False, mininterval=1.0):
        own = np.flatnonzero(counted[s]).tolist()
        if not own:
            continue
        right = [rows[1 + s, c] for c in own], [rows[0, c] for c in own]
        under = _mean(_draws(answers, rows[1 + s, c], draws, (seed, 1 + s, c)) for c in own)
        base = _mean(of_base[c] for c in own)
        drop = base[0] - under[0], base[1] - under[1]
        n = sum(map(len, right[0]))
        for m in range(models):
            found["accuracy"][m, s] = _share(under, m, answers.right[m], right[0])
            found["base"][m, s] = _share(base, m, answers.right[m], right[1])
            found["drop"][m, s] = _ends(drop[0][m], drop[1][:, m], n)
        impact[s] = _ends(drop[0].mean(), drop[1].mean(1), n)
        slope[s] = _slope_ends(base[0], under[0], draws, seed)
    whole = np.flatnonzero(enough[0]).tolist() or needed.tolist()
    every = _mean(of_base[c] for c in whole)
    right = [rows[0, c] for c in whole]
    own = np.array([_share(every, m, answers.right[m], right) for m in range(models)])
    names = (answers.models, answers.shifts[1:], answers.classes)
    return Robustness(
        *names, found["accuracy"], found["base"], found["drop"], impact, slope, own, counted,
        images, answers.drawn, least, draws, seed,
    )  # fmt: skip


def fit_slope(points: np.ndarray) -> float:
    """Slope of the least-squares line of the second column (M, 2) on the first; NaN of none."""
    x, y = (points - points.mean(0)).T
    spread = float(x @ x)
    return float(x @ y) / spread if spread > 1e-12 else np.nan


def _cells(answers: Answers) -> dict[tuple[int, int], np.ndarray]:
    """The images of each shift and class."""
    classes = len(answers.classes)
    cell = answers.shift * classes + answers.klass
    order = np.argsort(cell, kind="stable")
    ends = np.searchsorted(cell[order], np.arange(answers.drawn.size + 1))
    return {divmod(k, classes): order[ends[k] : ends[k + 1]] for k in range(answers.drawn.size)}


def _draws(
    answers: Answers, rows: np.ndarray, draws: int, seed: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """A class's accuracy (M,), and in draws of its images (R, M).

    n images drawn from n have a spread that is too small by (n - 1) / n; Rao and Wu (1988) stretch
    them, which matters where five images are all that a class has.
    """
    right = answers.right[:, rows].T
    n, value = len(rows), right.mean(0)
    often = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), draws)
    drawn = often.astype(np.float32) @ right.astype(np.float32) / np.float32(n)
    stretch, mean = np.float32(np.sqrt(n / (n - 1)) if n > 1 else 1), value.astype(np.float32)
    return value, mean + stretch * (drawn - mean)


def _mean(parts: Iterable) -> tuple[np.ndarray, np.ndarray]:
    """The mean over classes of accuracies and of their draws."""
    value, drawn, count = 0.0, 0.0, 0
    for one, many in parts:
        value, drawn, count = value + one, drawn + many, count + 1
    return value / count, drawn / count


def _ends(value: float, drawn: np.ndarray, n: int) -> tuple[float, float, float]:
    found = interval(float(value), drawn, n, n)
    return found.value, found.low, found.high


def _share(
    found: tuple[np.ndarray, np.ndarray], m: int, right: np.ndarray, rows: list[np.ndarray]
) -> tuple[float, float, float]:
    """An accuracy with its interval; where all are right, or none, no draw differs: Wilson's."""
    value, n = float(found[0][m]), sum(map(len, rows))
    if 0 < value < 1:
        return _ends(value, found[1][:, m].clip(0, 1), n)
    share = proportion(right[np.concatenate(rows)])
    return value, share.low, share.high


def _slope_ends(base: np.ndarray, under: np.ndarray, draws: int, seed: int) -> tuple:
    points = np.stack([base, under], 1)
    if len(points) < FEWEST or not np.isfinite(fit_slope(points)):
        return (np.nan,) * 3
    found = bootstrap(points, fit_slope, draws, seed)
    return found.value, found.low, found.high
