"""Estimated against true drops and slopes, by hand."""

import numpy as np
import pytest

from visiondx.core.errors import InputError
from visiondx.dataset_interfaces.answers import Answers
from visiondx.dataset_interfaces.measure import measure
from visiondx.models import registry
from visiondx_worlds.marking.dataset_interfaces.impact import (
    compare,
    mean_abs_error,
    paired,
    pearson,
    skill,
    spearman,
    sweep,
)

# estimated and true drops of four shifts
DROPS = np.array([[0.1, 0.0], [0.1, 0.2], [0.4, 0.3], [0.2, 0.1]])


def test_marks_by_hand():
    # deviations: estimated -.1 -.1 .2 0, true -.15 .05 .15 -.05
    product, squares = 0.015 - 0.005 + 0.03, (0.06, 0.05)
    assert pearson(DROPS) == pytest.approx(product / np.sqrt(squares[0] * squares[1]))
    # ranks 1.5 1.5 4 3 and 1 3 4 2: deviations -1 -1 1.5 .5 and -1.5 .5 1.5 -.5
    assert spearman(DROPS) == pytest.approx((1.5 - 0.5 + 2.25 - 0.25) / np.sqrt(4.5 * 5))
    assert mean_abs_error(DROPS) == pytest.approx(0.1)
    assert skill(DROPS) == pytest.approx(1 - 0.1 / 0.1)  # the mean is .15: off by .15 .05 .15 .05
    assert skill(DROPS[:, [1, 1]]) == 1
    assert np.isnan(pearson(np.array([[0.1, 0.0], [0.1, 0.2], [0.1, 0.3]])))
    assert np.isnan(skill(np.array([[0.1, 0.2], [0.3, 0.2]])))


def figures(right, shifts, models=("x", "y", "z")):
    """right: (M, 1 + S) how many of ten are, in each of two classes."""
    count, groups = len(models), len(shifts)
    values = np.array(right)[:, :, None, None] > np.arange(10)
    values = np.broadcast_to(values, (count, groups, 2, 10)).reshape(count, -1)
    shift, klass, _ = np.indices((groups, 2, 10)).reshape(3, -1)
    drawn = np.full((groups, 2), 10)
    return measure(Answers(models, shifts, ("a", "b"), values, shift, klass, drawn), draws=30)


SHIFTS = ("base", "fog", "rain", "snow", "dusk")
TRUE = [[8, 8, 6, 5, 7], [9, 8, 7, 6, 8], [10, 9, 9, 7, 10]]
SAID = [[8, 7, 7, 4, 6], [9, 8, 8, 5, 7], [10, 9, 9, 6, 8]]


def test_drops_and_slopes_are_compared_shift_by_shift():
    estimated, true = figures(SAID, SHIFTS), figures(TRUE, SHIFTS)
    drops = paired(estimated, true, "impact")
    # means of 27 - (24, 24, 15, 21) and 27 - (25, 22, 18, 25) tenths over three models
    np.testing.assert_allclose(drops * 30, [[3, 2], [3, 5], [12, 9], [6, 2]], atol=1e-4)
    found = compare(estimated, true, draws=200)
    assert found["impact.mean_abs_error"].value == pytest.approx((1 + 2 + 3 + 4) / 120, abs=1e-6)
    assert found["impact.pearson"].value == pytest.approx(np.corrcoef(drops.T)[0, 1])
    assert found["impact.spearman"].value == pytest.approx(spearman(drops))
    off = np.abs(np.array([2, 5, 9, 2]) - 4.5).mean()
    assert found["impact.skill"].value == pytest.approx(1 - 2.5 / off, abs=1e-5)
    slopes = paired(estimated, true, "slope")
    np.testing.assert_allclose(slopes, [[1, 0.5], [1, 1.5], [1, 1], [1, 1.5]], atol=1e-5)
    assert found["impact.pearson"].n == 4
    assert found["impact.pearson"].low <= found["impact.pearson"].value
    pair = [figures(rows[:2], SHIFTS, ("x", "y")) for rows in (SAID, TRUE)]
    assert set(found) - set(compare(*pair, draws=50)) == {"slope.pearson"}  # two make no slope
    same = compare(true, true, draws=50)
    assert (same["impact.skill"].value, same["slope.pearson"].value) == (1, pytest.approx(1))


def test_shifts_are_matched_by_name_and_those_that_one_lacks_left_out():
    order = (0, 4, 2, 1, 3)
    shuffled = figures([[row[k] for k in order] for row in TRUE], tuple(SHIFTS[k] for k in order))
    estimated = figures(SAID, SHIFTS)
    np.testing.assert_allclose(
        paired(estimated, shuffled, "impact"),
        paired(estimated, figures(TRUE, SHIFTS), "impact"),
        atol=1e-6,
    )
    fewer = figures([row[:4] for row in TRUE], SHIFTS[:4])
    assert len(paired(estimated, fewer, "impact")) == 3
    with pytest.raises(InputError, match="Of 2 shifts both an estimated and a true impact"):
        compare(estimated, figures([row[:3] for row in TRUE], SHIFTS[:3]))
    with pytest.raises(InputError, match="of other models, or in another order, see w"):
        compare(estimated, figures(TRUE, SHIFTS, ("x", "y", "w")))


def test_the_sweep_is_of_sixteen_embedded_models():
    names = sweep()
    assert len(set(names)) == 16
    assert set(names) <= set(registry.offered("targets", "multiclass", "scenes"))
