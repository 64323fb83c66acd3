"""Where a benchmark is wrong, and why: its parts swapped for the truth, one after another.

    clip = against(answers, truth, images.kept)
    judged = against(answers, truth, seen["both"])         # a judge in the place of the filter
    marks({"as it is": clip, "judges' filter": judged})    # a row of impact.* each
    blame({"filter": clip, "token": judged, …})            # a row a shift

Every swap is held against the truth of the same classes, for each leaves others out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from visiondx.core.errors import InputError
from visiondx.core.stats import Estimate, difference
from visiondx.dataset_interfaces.answers import Answers
from visiondx.dataset_interfaces.measure import measure
from visiondx.dataset_interfaces.robustness import LEAST, Robustness, said
from visiondx_worlds.marking.dataset_interfaces.impact import (
    compare,
    mean_abs_error,
    pearson,
    skill,
)


@dataclass(frozen=True)
class Swap:
    """What is measured with one part or other swapped for the truth, and the truth itself.

    estimated, true: of the same models, shifts and classes.
    """

    estimated: Robustness
    true: Robustness

    @property
    def errors(self) -> np.ndarray:
        """(S, 3): of each shift estimated - true absolute impact, low and high; NaN where none is.

        The images of both are drawn apart, see ``stats.difference``.
        """
        return difference(self.estimated.impact, self.true.impact)

    @property
    def points(self) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Names, true and estimated absolute impacts (S, 3) of the shifts that both know."""
        one, other = self.estimated.impact, self.true.impact
        rows = np.flatnonzero(np.isfinite(one).all(1) & np.isfinite(other).all(1))
        return [said(self.estimated.shifts[s]) for s in rows], other[rows], one[rows]


def against(
    answers: Answers,
    truth: Answers,
    passed: np.ndarray | None = None,
    *,
    least: int = LEAST,
    seed: int = 0,
) -> Swap:
    """Measure models on some images, and on the truth of the same shifts and classes.

    Args:
        answers, truth: of the same models, shifts and classes.
        passed: (N,) bool, the images that count, of those that were answered; None for all.
        least, seed: see ``measure``.

    Raises:
        InputError: answers of other models, shifts or classes; not one `passed` an image; and see
            ``measure``.
    """
    for what in ("models", "shifts", "classes"):
        one, other = getattr(answers, what), getattr(truth, what)
        if one != other:
            odd = sorted({*one} ^ {*other}) or list(one)
            raise InputError(
                f"The truth has other {what}, or in another order, see {odd[0]}: give the same."
            )
    estimated = measure(only(answers, passed), least=least, seed=seed)
    return Swap(estimated, measure(truth, least=least, seed=seed, counted=estimated.counted))


def only(answers: Answers, passed: np.ndarray | None) -> Answers:
    """Answers to the images that passed (N,) bool; what was drawn stays. None: to all.

    Raises:
        InputError: not one value an image that was answered.
    """
    if passed is None:
        return answers
    rows = np.asarray(passed)
    if rows.dtype != bool or rows.shape != answers.shift.shape:
        raise InputError(
            f"passed must be ({len(answers.shift)},) bool, one an image that was answered, got "
            f"{rows.shape} {rows.dtype}."
        )
    return replace(
        answers,
        right=answers.right[:, rows],
        shift=answers.shift[rows],
        klass=answers.klass[rows],
    )


def marks(swaps: Mapping[str, Swap], seed: int = 0) -> dict[str, dict[str, Estimate]]:
    """``impact.compare`` of each, by its name.

    Raises:
        InputError: see ``compare``, with the name of the swap.
    """
    found = {}
    for name, swap in swaps.items():
        try:
            found[name] = compare(swap.estimated, swap.true, seed=seed)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
    return found


def by_model(swap: Swap) -> pd.DataFrame:
    """A row a classifier, the best on the base first: how well its own drops are told.

    Returns:
        indexed by model: base, true_base (accuracy), drop, true_drop (their means over shifts),
        pearson, mean_abs_error, skill (see ``impact.compare``).
    """
    both = np.stack([swap.estimated.drop[:, :, 0], swap.true.drop[:, :, 0]], 2)
    rows = {}
    for m, model in enumerate(swap.estimated.models):
        values = both[m][np.isfinite(both[m]).all(1)]
        rows[model] = {
            "base": swap.estimated.own[m, 0],
            "true_base": swap.true.own[m, 0],
            "drop": values[:, 0].mean(),
            "true_drop": values[:, 1].mean(),
            "pearson": pearson(values),
            "mean_abs_error": mean_abs_error(values),
            "skill": skill(values),
        }
    found = pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")
    return found.sort_values("base", ascending=False, kind="stable")


def blame(chain: Mapping[str, Swap]) -> pd.DataFrame:
    """A row a shift, the largest error first: what each part adds to the error.

    Args:
        chain: {part: what is measured with all parts before it swapped}, the first as the
            benchmark is. A part's share of the error is that error less the next one's, and the
            last part's is all that is left: together they are the first error.

    Returns:
        indexed by shift: estimated, true (absolute impact), error, low, high, a column a part, and
        blame: the part that adds most in the error's direction, "" where the error's interval holds
        0 or a part is unknown.

    Raises:
        InputError: no part, or swaps of other shifts.
    """
    swaps = list(chain.values())
    if not swaps or any(swap.estimated.shifts != swaps[0].estimated.shifts for swap in swaps):
        raise InputError("blame takes one swap or more, all of the same shifts.")
    first = swaps[0]
    errors = np.stack([swap.errors[:, 0] for swap in swaps] + [np.zeros(len(first.errors))], 1)
    parts = pd.DataFrame(errors[:, :-1] - errors[:, 1:], columns=list(chain))
    value, low, high = first.errors.T
    found = pd.DataFrame(
        {
            "shift": [said(name) for name in first.estimated.shifts],
            "estimated": first.estimated.impact[:, 0],
            "true": first.true.impact[:, 0],
            "error": value,
            "low": low,
            "high": high,
        }
    ).join(parts)
    clear = ((low > 0) | (high < 0)) & parts.notna().all(axis=1)
    most = parts.mul(np.sign(value), axis=0).loc[clear].idxmax(axis=1)
    found["blame"] = most.reindex(found.index).fillna("")
    order = np.argsort(-np.nan_to_num(np.abs(value), nan=-1.0), kind="stable")
    return found.iloc[order].set_index("shift")
