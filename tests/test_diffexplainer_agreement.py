"""Agreement of verdicts with the truth, on tables small enough to work out by hand."""

import numpy as np
import pandas as pd
import pytest
import torch

from visiondx.core.errors import InputError
from visiondx.diffexplainer.spurious import Features
from visiondx_worlds.marking.diffexplainer.agreement import (
    agreement,
    auroc,
    balanced,
    balanced_accuracy,
    choose_delta,
    decided,
    false_alarms,
    judged,
    outcomes,
    roc,
    shares,
    verdicts,
)
from visiondx_worlds.marking.diffexplainer.truth import FeatureTruth

NAN = float("nan")


def table(*rows: tuple[str, str, str, float]) -> pd.DataFrame:
    """Rows of (class, group, label, r); dogs and cats are animate."""
    found = pd.DataFrame(rows, columns=["class", "group", "label", "r"])
    kinds = np.where(found["class"].isin(["dog", "cat"]), "animate", "inanimate")
    return found.assign(classifier="one", kind=kinds)


FOUR = table(
    ("dog", "medium", "core", 0.3),
    ("dog", "medium", "core", 0.1),
    ("dog", "medium", "core", 0.02),
    ("dog", "medium", "core", NAN),
    ("dog", "medium", "spurious", 0.04),
    ("dog", "medium", "spurious", 0.2),
    ("dog", "medium", "undecided", 0.9),
)


def test_verdicts_and_balanced_accuracy_by_hand() -> None:
    assert verdicts(FOUR, 0.05).tolist() == [
        *("core", "core", "spurious", "unknown", "spurious", "core", "core")
    ]
    # of four core features two are called so, of two spurious ones one
    assert balanced_accuracy(FOUR, 0.05) == pytest.approx((2 / 4 + 1 / 2) / 2)
    # a threshold belongs to the core, as in Eq. 6
    assert verdicts(FOUR, 0.1).tolist()[1] == "core"
    assert np.isnan(balanced_accuracy(FOUR[FOUR["label"] == "core"], 0.05))
    assert len(decided(FOUR)) == 6


def test_roc_by_hand() -> None:
    # spurious .04 and .2 against core .3, .1 and .02: of six pairs spurious is lower in three
    assert auroc(FOUR) == pytest.approx(3 / 6)
    curve = roc(FOUR)
    assert curve.iloc[0].tolist() == [0, 0, 0]
    assert curve.iloc[-1, 1:].tolist() == [1, 1]
    at = curve[np.isclose(curve["delta"], 0.15)].iloc[0]
    assert (at["spurious"], at["core"]) == (0.5, pytest.approx(2 / 3))
    parted = table(("dog", "medium", "core", 0.4), ("dog", "medium", "spurious", 0.1))
    assert auroc(parted) == 1
    same = table(("dog", "medium", "core", 0.4), ("dog", "medium", "spurious", 0.4))
    assert auroc(same) == 0.5


def test_the_chosen_delta_lies_halfway_between_what_it_parts() -> None:
    parted = table(
        ("dog", "medium", "core", 0.4),
        ("dog", "medium", "core", 0.3),
        ("cat", "medium", "spurious", 0.1),
        ("cat", "medium", "spurious", 0.0),
    )
    assert choose_delta(parted) == pytest.approx(0.2)
    assert balanced_accuracy(parted, 0.2) == 1
    with pytest.raises(InputError, match="none is truly spurious"):
        choose_delta(parted[:2])


HALVES = table(
    # these choose: .2 parts them
    ("cat", "medium", "core", 0.3),
    ("cat", "medium", "spurious", 0.1),
    # these are marked
    ("dog", "unbiased", "core", 0.5),
    ("dog", "unbiased", "core", 0.1),
    ("car", "biased", "spurious", 0.0),
    ("car", "biased", "spurious", 0.1),
    ("mug", "medium", "spurious", 0.1),
    ("mug", "medium", "core", NAN),
    ("mug", "medium", "undecided", 0.1),
)


def test_delta_is_chosen_on_one_half_and_marked_on_the_other() -> None:
    null = table(*[("dog", "unbiased", "core", r) for r in (0.1, 0.5, 0.6, NAN)])
    found = agreement(HALVES, ["cat"], null)
    assert found.delta == pytest.approx(0.2)
    assert found.chosen_on == 1
    # of three core features one, of three spurious ones all
    assert found.balanced_accuracy.value == pytest.approx((1 / 3 + 1) / 2)
    assert found.balanced_accuracy.n == 6
    assert found.balanced_accuracy.low < found.balanced_accuracy.value
    shares = {group: (e.value, e.n) for group, e in found.groups.items()}
    assert shares == {"unbiased": (0.5, 2), "medium": (0.5, 2), "biased": (1.0, 2)}
    assert found.kinds["unbiased", "animate"].value == 0.5
    assert set(found.kinds) == {
        *(("unbiased", "animate"), ("medium", "inanimate"), ("biased", "inanimate"))
    }
    assert (found.undecided, found.unknown) == (1, 1)
    # core .5 and .1 against spurious 0, .1 and .1
    assert found.auroc == pytest.approx((3 + 1 + 0.5 + 0.5) / 6)
    assert found.null_false_alarms.value == 0.25
    assert len(found.to_frame()) == 6
    # a class's features hang together: of one class, no interval can be wide
    assert (found.groups["unbiased"].low, found.groups["unbiased"].high) == (0.5, 0.5)


def test_shares_by_hand() -> None:
    found = shares(HALVES, 0.2, ["group", "kind"])
    assert {key: (e.value, e.n) for key, e in found.items()} == {
        ("unbiased", "animate"): (0.5, 2),
        ("medium", "animate"): (1, 2),  # the cat's
        ("medium", "inanimate"): (0.5, 2),  # spurious .1 is right, no verdict is not, undecided out
        ("biased", "inanimate"): (1, 2),
    }
    assert [group for group, _ in found] == ["unbiased", "medium", "medium", "biased"]
    # whatever the rows' index: those of one kind, cut out of a larger table
    inanimate = HALVES[HALVES["kind"] == "inanimate"]
    assert [e.value for e in shares(inanimate, 0.2, ["classifier"]).values()] == [0.75]
    of_mug = balanced(HALVES[HALVES["class"] == "mug"], 0.2)
    assert (of_mug.value, of_mug.n) == (0.5, 2)
    assert balanced(HALVES[HALVES["class"] == "car"], 0.2) is None


def test_outcomes_by_hand() -> None:
    assert outcomes(FOUR, 0.05).tolist() == [
        *("right", "right", "wrong", "no verdict", "right", "wrong", "no truth")
    ]


def test_without_a_verdict_there_is_no_area_but_a_mark() -> None:
    nothing = HALVES.assign(r=NAN)
    found = agreement(nothing, ["cat"])
    assert np.isnan(found.auroc)
    assert found.balanced_accuracy.value == 0
    assert (found.undecided, found.unknown) == (1, 6)


def test_none_in_sixty_is_not_never() -> None:
    null = table(*[("dog", "unbiased", "core", 0.5)] * 60)
    assert false_alarms(null, 0.2).value == 0
    assert 0.03 < false_alarms(null, 0.2).high < 0.1


def test_halves_that_tell_nothing_are_refused() -> None:
    with pytest.raises(InputError, match="choosing delta"):
        agreement(HALVES, ["dog"])
    with pytest.raises(InputError, match="marking the other classes"):
        agreement(HALVES, ["cat", "car", "mug"])


# ---------------------------------------------------------------- verdicts beside the truth


def test_features_meet_their_labels() -> None:
    rise = torch.tensor([[[2.0, 2.1], [0.0, 0.1]]])
    features, carries = torch.tensor([[7, 3]]), torch.ones(1, 2)
    truth = FeatureTruth(("dog",), (None,), features, carries, rise, rise.flip(1), 0)
    assert truth.labels == [["core", "spurious"]]
    r = torch.tensor([[[0.0, 0.2], [0.5, 0.7]]])
    order = features.flip(1)  # the explanation ranked them the other way round
    taken = torch.tensor([[[True, True], [False, False]]])
    about = (("dog",), ("dog",), (True,), order, carries, torch.zeros(1, 2, 2, 3, 4, 4))
    found = Features(*about, taken, r, None, 0.05)
    rows = judged(found, truth, "first")
    assert rows["feature"].tolist() == [3, 7]
    assert rows["label"].tolist() == ["spurious", "core"]
    assert rows["r"].tolist() == [pytest.approx(0.1), pytest.approx(NAN, nan_ok=True)]
    assert rows["kind"].tolist() == ["animate"] * 2
    assert set(rows["classifier"]) == {"first"}
    with pytest.raises(InputError, match="Feature 9 of dog has no true label"):
        judged(
            Features(("dog",), *about[1:3], order + 6, *about[4:], taken, r, None, 0.05), truth, ""
        )
