"""Which rows of a search are computed, and which have left it."""

import torch

from test_zoom_search import run


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


def test_a_step_that_rounding_hides_is_made_once_alpha_has_grown():
    plain = {"images": 4, "channels": (0,), "starts": (4.0,), "epsilon": 9.0, "eta": 1e-7}
    still, _, _ = run({0: 1.0}, **plain)
    grown, _, _ = run({0: 1.0}, **plain, growth=10.0)
    assert (still.trajectory_w == 4).all()
    assert (grown.trajectory_w[1] == 4).all()
    assert (grown.trajectory_w[8] != 4).all()
