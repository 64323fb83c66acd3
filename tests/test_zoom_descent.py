"""Which rows of a search are computed, and which have left it."""

import pytest
import torch
from tqdm.auto import tqdm

from test_zoom_search import run
from visiondx.zoom.descent import SearchSettings, descend


def test_a_row_that_no_longer_moves_is_not_computed_again():
    """Steps far beyond the bound: every row of cell 0 is at it after one, the others never move."""
    settings = {"steps": 6, "eta": 1e4, "gamma": 0.0, "hard": True}
    found, generator, target = run({0: 20.0}, **settings)
    assert generator.synthesized == 5 + 5 * 3 + 5  # originals, all at 0, and cell 0 at the bound
    assert (found.trajectory_w[1:, :, 0].abs() == 4).all()
    assert (found.trajectory_w[:, :, 1:] == 0).all()
    assert (found.trajectory_p[1:] == found.trajectory_p[1]).all()
    with torch.no_grad():
        assert torch.allclose(target(found.images(range(5), 0)), found.trajectory_p[-1, :, 0])
    _, generator, _ = run({0: 20.0}, **settings, update="adam")
    assert generator.synthesized == 5 + 5 * 3 * 7  # its moments may move a row again


class Balance:
    """L = growth^t w - c w: no slope where both are equal, and at a bound the side that pulls."""

    def __init__(self, settings, c):
        self.settings, self.c, self.p = settings, c, torch.full_like(c, 0.1)

    def evaluate(self, w, edit, step, place):
        gradient = self.settings.growth**step - self.c
        return self.p, gradient if step < self.settings.steps else None

    def index(self, rows):
        return Balance(self.settings, self.c[rows])


@pytest.mark.parametrize("update", ["gradient", "sign"])
def test_a_row_that_stands_still_moves_once_alpha_has_grown(update):
    """At alpha = 1 the first row's terms balance, the second is pressed against its bound, and the
    third is so under the term that grows, for good."""
    settings = SearchSettings(
        steps=4, eta=1.0, epsilon=2.0, growth=2.0, update=update, starts=(0.0,)
    )
    objective = Balance(settings, torch.tensor([1.0, 3.0, 0.0]))
    start = torch.tensor([0.5, 2.0, -2.0])
    with tqdm(disable=True) as bar:
        w, _ = descend(objective, start, lambda w, rows: w, str, bar)
    # gradients 0, 1, 3, 7 of the first and -2, -1, 1, 5 of the second
    by_hand = {
        "gradient": [[0.5, 0.5, -0.5, -2.0, -2.0], [2.0, 2.0, 2.0, 1.0, -2.0]],
        "sign": [[0.5, 0.5, -0.5, -1.5, -2.0], [2.0, 2.0, 2.0, 1.0, 0.0]],
    }
    assert w[:, :2].T.tolist() == by_hand[update]
    assert (w[:, 2] == -2).all()


def test_a_step_that_rounding_hides_is_made_once_alpha_has_grown():
    plain = {"images": 4, "channels": (0,), "starts": (4.0,), "epsilon": 9.0, "eta": 1e-7}
    still, _, _ = run({0: 1.0}, **plain)
    grown, _, _ = run({0: 1.0}, **plain, growth=10.0)
    assert (still.trajectory_w == 4).all()
    assert (grown.trajectory_w[1] == 4).all()
    assert (grown.trajectory_w[8] != 4).all()
