"""How often DiffExplainer's verdicts on features agree with the truth (section 4.2, Fig. 6).

A verdict is that of Eq. 6: a feature is spurious where E_z[r] < delta. One delta serves all classes
of all classifiers: the best on some classes is what is marked on the others. A feature without a
verdict agrees with nothing; one whose truth is undecided is left out, and counted.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from visiondx.core.errors import InputError
from visiondx.core.stats import Estimate, bootstrap, proportion
from visiondx.diffexplainer.spurious import CORE, SPURIOUS, UNKNOWN, Features
from visiondx_worlds.marking.diffexplainer.truth import (
    BIASED,
    MEDIUM,
    UNBIASED,
    UNDECIDED,
    FeatureTruth,
)

GROUPS = (UNBIASED, MEDIUM, BIASED)
RIGHT, WRONG, NO_VERDICT, NO_TRUTH = "right", "wrong", "no verdict", "no truth"


def judged(found: Features, truth: FeatureTruth, classifier: str) -> pd.DataFrame:
    """A row a feature: classifier, class, kind, strength, group, feature, label and r.

    r is E_z[r], NaN where there is no verdict; the label is the true one.

    Raises:
        InputError: a feature that was explained, but has no true label.
    """
    known = truth.to_frame().set_index(["class", "feature"])
    rows = []
    for c, name in enumerate(found.classes):
        for k, verdict in enumerate(found.verdicts[c]):
            at = (name, int(found.features[c, k]))
            if at not in known.index:
                raise InputError(
                    f"Feature {at[1]} of {name} has no true label: rank the features for the truth "
                    "on the images on which they were ranked for the explanation."
                )
            true = known.loc[at, ["kind", "strength", "group", "label"]].to_dict()
            r = np.nan if verdict == UNKNOWN else float(found.mean_r[c, k])
            rows.append({"classifier": classifier, "class": name, "feature": at[1], **true, "r": r})
    return pd.DataFrame(rows)


def verdicts(table: pd.DataFrame, delta: float) -> pd.Series:
    """ "core", "spurious" or "unknown" for each row of `judged` (Eq. 6)."""
    said = pd.Series(np.where(table["r"] < delta, SPURIOUS, CORE), table.index)
    return said.where(table["r"].notna(), UNKNOWN)


def outcomes(table: pd.DataFrame, delta: float) -> pd.Series:
    """What became of each row: RIGHT, WRONG, NO_VERDICT, or NO_TRUTH where that is undecided."""
    said = verdicts(table, delta)
    found = pd.Series(np.where(said == table["label"], RIGHT, WRONG), table.index)
    found = found.where(said != UNKNOWN, NO_VERDICT)
    return found.where(table["label"] != UNDECIDED, NO_TRUTH)


def decided(table: pd.DataFrame) -> pd.DataFrame:
    """The rows whose truth is core or spurious."""
    return table[table["label"] != UNDECIDED]


def balanced_accuracy(table: pd.DataFrame, delta: float) -> float:
    """The mean of two shares: of truly core features called core, of spurious ones spurious.

    NaN where there is none of either.
    """
    return _balanced(_told(decided(table), delta))


def balanced(table: pd.DataFrame, delta: float) -> Estimate | None:
    """`balanced_accuracy` with its interval over other classes; None where it is NaN."""
    clear = decided(table)
    if set(clear["label"]) != {CORE, SPURIOUS}:
        return None
    return bootstrap(_told(clear, delta), _balanced, groups=_units(clear))


def shares(table: pd.DataFrame, delta: float, by: Sequence[str]) -> dict[tuple, Estimate]:
    """The share of verdicts that are right, for each value of some columns of `judged`.

    Returns:
        {the columns' values: share of the features whose truth is decided}, its interval over other
        classes; in the order of GROUPS, where the first column is the group.
    """
    clear = decided(table)
    right, units = _told(clear, delta)[:, 1], _units(clear)
    found = {}
    for values, rows in clear.reset_index(drop=True).groupby(list(by), sort=False):
        found[values] = bootstrap(right[rows.index], groups=units[rows.index])
    if by[0] != "group":
        return found
    return dict(sorted(found.items(), key=lambda each: GROUPS.index(each[0][0])))


def _told(clear: pd.DataFrame, delta: float) -> np.ndarray:
    """(N, 2): whether truly spurious, whether told right."""
    right = verdicts(clear, delta) == clear["label"]
    return np.stack([clear["label"] == SPURIOUS, right], 1).astype(float)


def _units(clear: pd.DataFrame) -> np.ndarray:
    """(N,): what is drawn together, a classifier's class with all of its features."""
    return (clear["classifier"] + "/" + clear["class"]).to_numpy()


def _balanced(rows: np.ndarray) -> float:
    """From (N, 2): whether truly spurious, whether told right."""
    spurious, right = rows[:, 0] > 0.5, rows[:, 1]
    if spurious.all() or not spurious.any():
        return np.nan
    return float(right[spurious].mean() + right[~spurious].mean()) / 2


def thresholds(table: pd.DataFrame) -> np.ndarray:
    """Every delta that tells the features apart differently: halfway between two values of r."""
    values = np.unique([*table["r"].dropna(), 0.0, 1.0])
    return (values[1:] + values[:-1]) / 2


def roc(table: pd.DataFrame) -> pd.DataFrame:
    """delta, and the shares of truly spurious and truly core features that it calls spurious.

    Of features with a verdict. From "nothing is spurious" to "everything is".

    Raises:
        InputError: no spurious feature, or no core one.
    """
    table = _both(decided(table).dropna(subset="r"), "the ROC")
    r, spurious = table["r"].to_numpy(), (table["label"] == SPURIOUS).to_numpy()
    deltas = np.array([0.0, *thresholds(table), 1.0 + 1e-9])
    called = r[None] < deltas[:, None]
    return pd.DataFrame(
        {
            "delta": deltas,
            "spurious": called[:, spurious].mean(1),
            "core": called[:, ~spurious].mean(1),
        }
    )


def auroc(table: pd.DataFrame) -> float:
    """The area under `roc`: how often r is lower of a spurious feature than of a core one."""
    curve = roc(table)
    return float(np.trapezoid(curve["spurious"], curve["core"]))


def choose_delta(table: pd.DataFrame) -> float:
    """The delta of the best balanced accuracy; of several, the middle one.

    Raises:
        InputError: no spurious feature, or no core one.
    """
    table = _both(decided(table), "choosing delta")
    tried = thresholds(table)
    score = np.array([balanced_accuracy(table, delta) for delta in tried])
    best = tried[score >= score.max() - 1e-12]
    return float(best[(len(best) - 1) // 2])


def _both(table: pd.DataFrame, what: str) -> pd.DataFrame:
    missing = [name for name in (CORE, SPURIOUS) if name not in set(table["label"])]
    if missing:
        raise InputError(
            f"Of {len(table)} features none is truly {missing[0]}, so {what} has nothing to tell "
            "apart: take more classes, some tied to places and some not."
        )
    return table


@dataclass(frozen=True)
class Agreement:
    """What the verdicts of one delta are worth on the classes that did not choose it.

    Intervals are over other classes: a classifier's class is drawn with all of its features.

    chosen_on: balanced accuracy on the classes that chose delta. auroc: on the others, as all that
        follows; NaN where too few features have a verdict. groups: {"unbiased", "medium" or
        "biased": share of features that agree}.
    kinds: the same of {(group, "animate" or "inanimate")}. null_false_alarms: the share of the
        control's features called spurious, None without a control. undecided: features without a
        clear truth; unknown: those without a verdict, of the rest.
    """

    delta: float
    chosen_on: float
    balanced_accuracy: Estimate
    auroc: float
    groups: dict[str, Estimate]
    kinds: dict[tuple[str, str], Estimate]
    null_false_alarms: Estimate | None
    undecided: int
    unknown: int

    def to_frame(self) -> pd.DataFrame:
        """A row a group and kind of classes: the share of its features that agree."""
        rows = [(group, "all", e) for group, e in self.groups.items()]
        rows += [(group, kind, e) for (group, kind), e in self.kinds.items()]
        return pd.DataFrame([{"group": g, "kind": k, **e.as_dict()} for g, k, e in rows])


def agreement(
    table: pd.DataFrame, validation: Collection[str], null: pd.DataFrame | None = None
) -> Agreement:
    """Choose delta on the classes in `validation`, and mark the verdicts on all others.

    Args:
        table: `judged`, of one classifier or several together. null: of a control, whose classes
            are tied to nothing; it has no part in the choice.

    Raises:
        InputError: either half has no spurious feature, or no core one.
    """
    chooses = table["class"].isin(list(validation))
    chosen, held = table[chooses], table[~chooses]
    delta = choose_delta(chosen)
    clear = _both(decided(held), "marking the other classes")
    said = set(clear.dropna(subset="r")["label"])
    return Agreement(
        delta,
        balanced_accuracy(chosen, delta),
        bootstrap(_told(clear, delta), _balanced, groups=_units(clear)),
        auroc(held) if said == {CORE, SPURIOUS} else np.nan,
        {group: e for (group,), e in shares(held, delta, ["group"]).items()},
        shares(held, delta, ["group", "kind"]),
        None if null is None else false_alarms(null, delta),
        int((held["label"] == UNDECIDED).sum()),
        int(clear["r"].isna().sum()),
    )


def false_alarms(null: pd.DataFrame, delta: float) -> Estimate:
    """The share of a control's features that delta calls spurious: all of them wrongly.

    With Wilson's interval, for none in 60 is not never.
    """
    return proportion((verdicts(null, delta) == SPURIOUS).to_numpy())
