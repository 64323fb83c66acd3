import numpy as np
import pandas as pd
import pytest
import torch

from visiondx.core.errors import InputError
from visiondx.models.target import Target
from visiondx.show import plots
from visiondx.zoom.agreement import mean_spearman, spearman
from visiondx.zoom.sensitivity import Sensitivity
from visiondx_worlds.marking.zoom.truth import Interventions, named, true_sensitivity
from zoom_standins import GridClassifier, GridWorld, prompt


def of(change, names="abc", source="search"):
    change = torch.tensor(change)
    return Sensitivity(tuple(names), change, change > 0.5, source)


def test_equation_11_by_hand(tmp_path):
    found = of([[0.2, 0.6, 0.0], [0.4, 1.0, 0.0]])
    assert np.allclose(found.raw, [0.3, 0.8, 0.0])
    assert np.allclose(found.share, [0.3 / 1.1, 0.8 / 1.1, 0])
    assert found.rank == ("b", "a", "c")
    assert [found.place(name) for name in "abc"] == [2, 1, 3]
    found.save(tmp_path)
    table = pd.read_csv(tmp_path / "sensitivity.csv")
    assert table["attribute"].tolist() == ["b", "a", "c"]
    assert np.allclose(table["h"], [0.8, 0.3, 0])  # raw h is stored, not the share
    assert np.allclose(table["flip_rate"], [1, 0, 0])
    assert (table["n"] == 2).all()
    assert (table["low"] <= table["h"]).all()
    assert (table["h"] <= table["high"]).all()


def test_apart_compares_attributes_in_the_same_images():
    """By hand: intervals of h overlap by far, yet b is 0.1 behind a in every single image."""
    found = of([[0.1 + 0.2 * i, 0.2 * i, 0.0] for i in range(5)])
    assert found.h[1].high > found.h[0].low
    assert found.apart
    gaps = [(gap.value, gap.low, gap.high) for gap in found.behind]
    assert np.allclose(gaps[:2], [(0, 0, 0), (0.1, 0.1, 0.1)])
    assert gaps[2][0] == pytest.approx(0.5)
    assert found.to_frame()["behind_low"].tolist() == [gap.low for gap in found.behind]
    assert found.of(["c", "b", "a"]).behind[2].value == 0  # the first, wherever it stands


def test_apart_needs_every_other_attribute_behind():
    swing = torch.tensor([0.3, -0.2] * 25)  # a is ahead by 0.05 on average, in half the images
    base = torch.full((50,), 0.4)
    close = of(torch.stack((base + swing, base, base * 0), 1).tolist())
    assert close.rank[0] == "a"
    assert close.behind[1].low < 0 < close.behind[2].low
    assert not close.apart
    assert close.of(["a", "c"]).apart
    assert close.of(["a"]).apart
    assert not of([[0.0, 0.0, 0.0]] * 4).apart  # nothing moved, nothing won
    assert not of([[0.3, 0.3, 0.1]] * 4).apart  # a tie is not a win
    assert np.allclose(of([[0.0, 0.0, 0.0]] * 4).share, 0)
    assert of([[0.0, 0.0, 0.0]] * 4).place("a") == 3


def test_part_and_other_names():
    found = of([[0.2, 0.6, 0.1], [0.4, 1.0, 0.1]])
    part = found.of(["c", "a"])
    assert np.allclose(part.raw, [0.1, 0.3])
    assert part.renamed(["x", "y"]).rank == ("y", "x")
    with pytest.raises(InputError, match="shape"):
        of([[0.1, 0.2]])


def test_true_sensitivity_is_what_the_renderer_says():
    """logit = 4 cell_0 + 1 cell_3; switching a cell moves it from -0.5 to 0.5."""
    world, target = GridWorld(), Target(GridClassifier({0: 4.0, 3: 1.0}))
    truth = true_sensitivity(world, target, ["bright", "dark"], n=50, seed=1, batch=16)
    other = world.sample(50, 1)[:, 3] - 0.5
    expected = (torch.sigmoid(2 + other) - torch.sigmoid(-2 + other)).mean()
    assert truth.raw[0] == pytest.approx(float(expected), abs=1e-5)
    assert truth.rank == ("bright", "dark")
    assert truth.source == "intervention"
    assert truth.flipped[:, 0].all()
    blind = true_sensitivity(world, Target(GridClassifier({7: 4.0})), ["bright"], 8)
    assert blind.raw[0] == 0
    with pytest.raises(InputError, match="bright, dark"):
        true_sensitivity(world, target, ["hat"])


def test_targets_that_see_the_same_images_share_one_draw_of_them():
    source = torch.Generator().manual_seed(2)
    measured, true = (
        Sensitivity(
            ("a", "b", "c", "d"), torch.rand(12, 4, generator=source), torch.zeros(12, 4) > 0, "x"
        )
        for _ in range(2)
    )
    one, two = (mean_spearman([(measured, true)] * k) for k in (1, 2))
    assert (one.low, one.high) == (two.low, two.high)
    assert one.low < one.value < one.high


def test_interventions_are_drawn_once_for_all_targets():
    class Counting(GridWorld):
        drawn = 0

        def render(self, scenes, size=16):
            self.drawn += len(scenes)
            return super().render(scenes, size)

    world = Counting()
    shared = Interventions(world, 20, seed=1, batch=8)
    for weights in ({0: 4.0}, {3: -2.0}, {0: 1.0, 3: 1.0}):
        target = Target(GridClassifier(weights))
        alone = true_sensitivity(GridWorld(), target, ["dark", "bright"], 20, 1)
        found = shared.sensitivity(target, ["dark", "bright"])
        assert torch.allclose(found.change, alone.change, atol=1e-6)
        assert found.seed == 1
    assert world.drawn == 2 * 2 * 20
    with pytest.raises(InputError, match="2 or more"):
        Interventions(world, 1)


def test_prompts_are_recognised_by_the_worlds_grammar():
    world = GridWorld()
    assert named(world, ["A GRID with cell 3", prompt(0), prompt(5)]) == {
        "A GRID with cell 3": "dark",
        prompt(0): "bright",
    }
    assert named(world, ["brighter"], {"brighter": "bright", "x": "dark"}) == {"brighter": "bright"}


def test_spearman_by_hand():
    measured = of([[0.1, 0.5, 0.3]] * 5)
    assert spearman(measured, of([[0.2, 0.9, 0.4]] * 4)).value == pytest.approx(1)
    assert spearman(measured, of([[0.9, 0.2, 0.4]] * 4)).value == pytest.approx(-1)
    found = spearman(measured, of([[0.2, 0.4, 0.9]] * 4))  # ranks 1 3 2 and 1 2 3
    assert found.value == pytest.approx(0.5)
    assert (found.low, found.high, found.n) == (pytest.approx(0.5), pytest.approx(0.5), 3)
    with pytest.raises(InputError, match="same three"):
        spearman(measured, of([[0.1, 0.5, 0.3]], names="abd"))


def test_spearman_interval_covers_noise():
    noisy = torch.rand(6, 3, generator=torch.Generator().manual_seed(0)).tolist()
    found = spearman(of(noisy), of([[0.1, 0.5, 0.9]] * 4))
    assert found.low < found.high


def test_histogram_shows_shares_in_order_with_the_truth():
    found = of([[0.2, 0.6, 0.0], [0.4, 1.0, 0.0]])
    figure = found.plot(truth=of([[0.2, 0.6]], names="ab"), title="costs $5 or $6")
    (axis,) = figure.axes
    widths = [bar.get_width() for bar in axis.patches]
    assert np.allclose(widths, [0.8 / 1.1, 0.3 / 1.1, 0])
    assert [label.get_text() for label in axis.get_yticklabels()] == ["b", "a", "c"]
    points = axis.lines[-1].get_xydata() if axis.lines else None
    assert np.allclose(points, [[0.75, 0], [0.25, 1]])
    figure.canvas.draw()  # dollars are text


def test_image_grid_and_strip():
    images = torch.rand(5, 3, 8, 8)
    figure = plots.image_grid(images, list("abcde"), columns=3, rows=["first", "<second>"])
    assert len(figure.axes) == 6
    assert [axis.get_title() for axis in figure.axes] == [*"abcde", ""]
    assert figure.axes[3].get_ylabel() == "<second>"
    strip = plots.counterfactual_strip(images[0], images[1:3], [0.9, 0.6, 0.2], ("old", "young"))
    assert [a.get_title() for a in strip.axes] == ["0.90 young", "0.60 young", "0.20 old"]
    with pytest.raises(InputError, match="4 titles"):
        plots.image_grid(images, list("abcd"))
    with pytest.raises(InputError, match="row names"):
        plots.image_grid(images, columns=3, rows=["one"])
    cornered = plots.image_grid(images, columns=3, corners=[f"$0.{i}" for i in range(5)])
    texts = [text.get_text() for axis in cornered.axes for text in axis.texts]
    assert texts == [rf"\$0.{i}" for i in range(5)]
    with pytest.raises(InputError, match="2 corners for 5 images"):
        plots.image_grid(images, corners=["a", "b"])
    with pytest.raises(InputError, match="3 probabilities"):
        plots.counterfactual_strip(images[0], images[1:3], [0.9])


def test_matrix_shows_its_numbers():
    frame = pd.DataFrame([[0.5, -0.25], [0.0, 1.0]], index=["a", "b"], columns=["a", "b"])
    figure = plots.matrix(frame, "title", "edited", "judged")
    shown = [text.get_text() for text in figure.axes[0].texts]
    assert shown == ["0.50", "-0.25", "0.00", "1.00"]
