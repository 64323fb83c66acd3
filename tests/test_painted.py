"""Marks for painters: the worlds themselves paint right, and what is left out is found missing."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from visiondx_worlds.models.judges import Judges
from visiondx_worlds.quality.painted import (
    BASE,
    Painted,
    diversity,
    object_values,
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
        f"a portrait of {animals.prompt(n, there)}": (n, there)
        for n in animals.binary
        for there in (True, False)
    }

    def rows(text, seed, lie=None):
        name, there = asked[text]
        return animals.sample(1, seed, given={name: there if lie is None else lie})

    true = paint_attributes(WorldPainter(animals, rows), judges, animals, [100, 101])
    assert true.share("cat").value == 1
    assert np.mean([true.share(name).value for name in animals.binary]) > 0.9
    always = WorldPainter(animals, lambda text, seed: rows(text, seed, lie=True))
    found = paint_attributes(always, judges, animals, [100, 101], names=["cat"])
    assert list(found.right) == ["cat"]
    assert found.share("cat").value == pytest.approx(0.5)


def test_spread_by_hand() -> None:
    nan = np.nan
    true = np.array([0.0, 1, 2, 3])[:, None, None] * np.ones((4, 2, 3))
    true[..., 2] = 1.0  # never differs in the world: left out
    painted = np.full((4, 2, 3), nan)  # nothing is seen of the second prompt
    painted[:, 0, 0] = [0, 0.5, 1, 1.5]  # half as wide
    painted[:, 0, 1] = [0, 15, nan, nan]  # wider: counts as 1
    painted[:, 0, 2] = [0, 9, 0, 9]
    assert spread(painted, true).value == pytest.approx((0.5 + 1 + 0 + 0) / 4)


class Dark:
    """Takes the dark pixels for the thing."""

    def __call__(self, images, words):
        masks = images.mean(1) < 0.5
        return SimpleNamespace(masks=masks[:, None])


def test_values_of_an_object_by_hand() -> None:
    images = torch.ones(1, 3, 3, 5, 5)
    images[0, 0, :, 2, 1:4] = torch.tensor([0.2, 0.0, 0.4])[:, None]  # a bar of three pixels
    for k in range(5):
        images[0, 1, :, k, k] = 0.0  # a slant
    values = object_values(Dark(), images, ["bar"])
    assert values.shape == (3, 1, 9)
    bar, slant, none = values[:, 0]
    assert bar[:3] == pytest.approx([3 / 25, 0.5, 0.5])
    assert bar[3] == pytest.approx(np.log(np.sqrt(2 / 3 / 16) / 1e-3))  # flat: the least height
    assert bar[4:] == pytest.approx([0, 0, 0.2, 0.0, 0.4], abs=1e-6)
    assert slant[3:6] == pytest.approx([0, 1, 0], abs=1e-9)
    assert np.isnan(none).all()
    lean = torch.ones(1, 1, 3, 5, 5)
    lean[0, 0, :, 2, [0, 1, 4]] = 0.0
    assert object_values(Dark(), lean, ["bar"])[0, 0, 5] > 0.3
    assert diversity(Dark(), images, images, ["bar"]).value == pytest.approx(1)
