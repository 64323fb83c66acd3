"""Marks for painters: the worlds themselves paint right, and what is left out is found missing."""

import numpy as np
import pytest
import torch

from visiondx_worlds.models.judges import Judges
from visiondx_worlds.quality.painted import (
    BASE,
    Painted,
    paint_attributes,
    paint_scenes,
    scene_prompts,
    spread,
)
from visiondx_worlds.worlds import animals, scenes


class WorldPainter:
    """Paints what `rows`, {prompt: attributes of a seed}, says."""

    def __init__(self, world, rows) -> None:
        self.world, self.rows = world, rows

    def generate(self, prompts, seeds):
        parts = [self.rows(text, seed) for text in prompts for seed in seeds]
        images = self.world.render(type(parts[0]).cat(parts))
        return images.unflatten(0, (len(prompts), len(seeds)))


def test_shares_by_hand() -> None:
    nan = np.nan
    right = {
        "class": np.array([[1.0, 0], [1, 1], [1, 1]]),
        "shift": np.array([[nan, nan], [0.0, 1], [1, 1]]),
    }
    painted = Painted(("a", "b", "c"), (0, 1), torch.zeros(3, 2, 3, 8, 8), right)
    assert painted.share("class").value == pytest.approx(5 / 6)
    assert painted.share("shift").value == pytest.approx(3 / 4)  # only of what was asked for
    assert painted.share("class", rows=[0]).value == pytest.approx(1 / 2)
    # the first prompt asks for a class alone
    assert painted.share("class", "shift").value == pytest.approx((1 / 2 + 1 / 2 + 1) / 3)


def test_the_world_paints_scenes_right_and_one_without_shifts_is_found_out() -> None:
    judges = Judges.load("scenes")
    known = {text: (kind, shift) for kind, shift, text in scene_prompts()}
    assert len(known) == 12 * 24
    assert known["a photo of a dog in the snow"] == ("dog", "snow")

    def rows(text, seed, shifted=True):
        kind, shift = known[text]
        row = scenes.shift(scenes.sample(1, seed, given={"class": kind}), BASE)
        return scenes.shift(row, shift) if shifted else row

    painted = paint_scenes(WorldPainter(scenes, rows), judges, scene_prompts(), [100])
    assert painted.images.shape == (288, 1, 3, 64, 64)
    assert painted.share("class").value > 0.9
    assert painted.share("shift").value > 0.9
    assert np.isnan(painted.right["shift"]).sum() == 12
    plain = WorldPainter(scenes, lambda text, seed: rows(text, seed, shifted=False))
    found = paint_scenes(plain, judges, scene_prompts()[:48], [100])
    assert found.share("class").value > 0.9
    assert found.share("shift").value < 0.05
    assert found.share("class", "shift").value < 0.1


def test_attributes_are_asked_for_and_asked_away() -> None:
    judges = Judges.load("animals")
    asked = {
        animals.prompt(n, there): (n, there) for n in animals.binary for there in (True, False)
    }

    def rows(text, seed, lie=None):
        name, there = asked[text]
        return animals.sample(1, seed, given={name: there if lie is None else lie})

    true = paint_attributes(WorldPainter(animals, rows), judges, animals, [100, 101])
    assert true.share("cat").value == 1
    assert np.mean([true.share(name).value for name in animals.binary]) > 0.9
    always = WorldPainter(animals, lambda text, seed: rows(text, seed, lie=True))
    found = paint_attributes(always, judges, animals, [100, 101])
    assert found.share("cat").value == pytest.approx(0.5)


def test_spread_by_hand() -> None:
    def values(images):
        return images[:, 0, 0, :2].numpy()

    true, painted = torch.zeros(2, 4, 3, 2, 2)
    true[:, 0, 0, 0] = torch.tensor([0.0, 1, 2, 3])
    true[:, 0, 0, 1] = torch.tensor([0.0, 1, 2, 3])
    painted[:, 0, 0, 0] = torch.tensor([0.0, 0.5, 1, 1.5])  # half as wide
    painted[:, 0, 0, 1] = torch.tensor([0.0, 5, 10, 15])  # wider: counts as 1
    assert spread(values, painted, true).value == pytest.approx((0.5 + 1) / 2)
