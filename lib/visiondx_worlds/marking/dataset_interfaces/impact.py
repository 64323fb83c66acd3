"""What a benchmark says that shifts cost, against what they truly cost, over the shifts."""

from __future__ import annotations

import numpy as np

from visiondx.core.errors import InputError
from visiondx.core.stats import Estimate, bootstrap, ranks
from visiondx.dataset_interfaces.robustness import Robustness
from visiondx_worlds.training.scene_classifiers import SWEEP

FEWEST = 3  # shifts


def sweep() -> tuple[str, ...]:
    """Names of the embedded scene classifiers that differ in everything; no twins, none robust."""
    return tuple(config.name for config in SWEEP)


def compare(
    estimated: Robustness, true: Robustness, *, draws: int = 1000, seed: int = 0
) -> dict[str, Estimate]:
    """How well drops and slopes are told, over the shifts that both know.

    With d the true absolute impacts and e the estimated ones: ``impact.pearson`` and
    ``impact.spearman`` of both; ``impact.mean_abs_error``, mean |e - d|; ``impact.skill``, 1 - that
    over mean |d - mean d|, the error of saying the mean drop of every shift; ``slope.pearson`` of
    the slopes, left out where fewer than three shifts have both. Intervals are over other draws of
    the shifts.

    The truth is that of the same classes where it was measured with ``counted=estimated.counted``.

    Args:
        estimated, true: of the same models.

    Raises:
        InputError: other models, or fewer than three shifts that both know.
    """
    if estimated.models != true.models:
        strange = sorted({*estimated.models} ^ {*true.models}) or list(true.models)
        raise InputError(
            f"The truth is of other models, or in another order, see {strange[0]}: measure the "
            "same."
        )
    values = paired(estimated, true, "impact")
    found = {
        "impact.pearson": pearson,
        "impact.spearman": spearman,
        "impact.mean_abs_error": mean_abs_error,
        "impact.skill": skill,
    }
    marks = {name: bootstrap(values, f, draws, seed) for name, f in found.items()}
    slopes = _both(estimated, true, "slope")
    if len(slopes) >= FEWEST:
        marks["slope.pearson"] = bootstrap(slopes, pearson, draws, seed)
    return marks


def paired(estimated: Robustness, true: Robustness, what: str) -> np.ndarray:
    """(S, 2), estimated and true "impact" or "slope" of each shift that both know.

    Raises:
        InputError: fewer than three.
    """
    found = _both(estimated, true, what)
    if len(found) < FEWEST:
        raise InputError(
            f"Of {len(found)} shifts both an estimated and a true {what} are known: a comparison "
            f"takes {FEWEST}."
        )
    return found


def _both(estimated: Robustness, true: Robustness, what: str) -> np.ndarray:
    """(S, 2) of the shifts that both know."""
    one, other = getattr(estimated, what)[:, 0], getattr(true, what)[:, 0]
    shared = [
        (one[s], other[true.shifts.index(name)])
        for s, name in enumerate(estimated.shifts)
        if name in true.shifts
    ]
    return np.array([row for row in shared if np.isfinite(row).all()]).reshape(-1, 2)


def pearson(values: np.ndarray) -> float:
    """Of two columns (S, 2); NaN where one is constant."""
    x, y = (values - values.mean(0)).T
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale > 1e-12 else np.nan


def spearman(values: np.ndarray) -> float:
    """Pearson's of the ranks; equal values share theirs."""
    return pearson(ranks(values.T).T)


def mean_abs_error(values: np.ndarray) -> float:
    """Mean |estimated - true| of (S, 2)."""
    return float(np.abs(values[:, 0] - values[:, 1]).mean())


def skill(values: np.ndarray) -> float:
    """1 - the error over that of saying the mean true drop of each; NaN where all are alike."""
    true = values[:, 1]
    simple = float(np.abs(true - true.mean()).mean())
    return 1 - mean_abs_error(values) / simple if simple > 1e-12 else np.nan
