"""The figures of the animals and scenes judges, each worked out by hand for a small case."""

import numpy as np
import pytest
import torch

from standins import ToyAttributes, ToyWorld
from visiondx.core.errors import InputError
from visiondx_worlds.models.judges import Judges
from visiondx_worlds.quality.worlds import (
    Readings,
    class_probe,
    group_readings,
    scene_judge_figures,
    shift_readings,
)
from visiondx_worlds.worlds import animals, scenes

KINDS = ("grid", "pooled")


def readings(said, truth) -> Readings:
    return Readings(KINDS, np.array(said), np.array(truth), np.array([7] * 3 + [8] * 3))


# grid is right on 4 of the 5 that can be seen, pooled on 3; they disagree on 3
BY_HAND = readings([[0, 0], [1, 2], [2, 2], [1, 0], [0, 1], [1, 1]], [0, 1, -1, 1, 1, 1])


def test_rows_that_cannot_be_seen_count_nowhere():
    accuracy = BY_HAND.accuracy()
    assert (accuracy["grid"].value, accuracy["grid"].n) == (pytest.approx(4 / 5), 5)
    assert accuracy["pooled"].value == pytest.approx(3 / 5)
    assert accuracy["pooled"].low < 0.6 < accuracy["pooled"].high
    assert (BY_HAND.abstention().value, BY_HAND.abstention().n) == (pytest.approx(3 / 5), 5)
    with pytest.raises(InputError, match="shows the attribute"):
        readings([[0, 0]] * 6, [-1] * 6)


def test_balanced_accuracy_of_each_judge():
    # there in four of six: grid finds 3 of 4 and 1 of 2, pooled always says yes
    found = readings([[1, 1], [1, 1], [1, 1], [0, 1], [0, 1], [1, 1]], [1, 1, 1, 1, 0, 0])
    assert found.balanced()["grid"].value == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert found.balanced()["pooled"].value == pytest.approx(0.5)


def test_scene_figures_take_the_worst_judge_and_the_worst_shift():
    perfect = readings([[1, 1]] * 3 + [[0, 0]] * 3, [1, 1, 1, 0, 0, 0])
    one_off = readings([[1, 1]] * 3 + [[0, 0], [0, 0], [0, 1]], [1, 1, 1, 0, 0, 0])
    figures = scene_judge_figures(
        {"class": BY_HAND, "state": perfect}, {"fog": perfect, "dusk": one_off}
    )
    assert figures["scenes.judge_class_accuracy"].value == pytest.approx(3 / 5)
    assert figures["scenes.judge_class_accuracy.grid"].value == pytest.approx(4 / 5)
    assert figures["scenes.judge_state_accuracy"].value == 1
    assert figures["scenes.judge_shift_accuracy_min"].value == pytest.approx((1 + 2 / 3) / 2)
    assert figures["scenes.judge_shift_accuracy.dusk.grid"].value == 1
    assert figures["scenes.judge_class_abstention"].value == pytest.approx(3 / 5)


def constant(world, sizes: dict[str, int], says: dict[str, tuple[int, int]]) -> Judges:
    """Judges that never look: of each group (or binary name) grid and pooled say two numbers."""
    judges = Judges(world.binary, sizes)
    for k, net in enumerate(judges.nets.values()):
        net.head.weight.zero_()
        net.head.bias.fill_(-3)
        parts = judges.split(net.head.bias[None])
        for name, said in says.items():
            if name in world.binary:
                parts["binary"][0, judges.column(name)] = 3.0 if said[k] else -3.0
            else:
                parts[name][0, said[k]] = 3
    return judges


SIZES = {name: int(label.max()) + 1 for name, label in scenes.groups(scenes.sample(512, 0)).items()}


def test_groups_of_scenes_are_read_on_each_seed():
    judges = constant(scenes, SIZES, {"class": (3, 4), "state": (1, 1), "colour": (0, 0)})
    found = group_readings(judges, scenes, 40, [5, 6])
    assert set(found) == set(SIZES)
    truth = [scenes.groups(scenes.sample(40, seed)) for seed in (5, 6)]
    kind = torch.cat([t["class"] for t in truth]).numpy()
    assert found["class"].truth.tolist() == kind.tolist()
    assert found["class"].accuracy()["grid"].value == pytest.approx((kind == 3).mean())
    assert found["class"].accuracy()["pooled"].value == pytest.approx((kind == 4).mean())
    assert found["class"].abstention().value == 1
    # a state counts only in classes that have one
    state = torch.cat([t["state"] for t in truth]).numpy()
    assert 20 < found["state"].seen.sum() < 70
    assert found["state"].accuracy()["grid"].value == pytest.approx((state[state >= 0] == 1).mean())
    held = group_readings(judges, scenes, 20, [5], given={"class": "fish"})
    assert held["class"].accuracy()["grid"].value == 1
    assert held["class"].accuracy()["pooled"].value == 0


def test_breeds_are_a_group_like_any_other():
    sizes = {name: int(v.max()) + 1 for name, v in animals.groups(animals.sample(999, 0)).items()}
    assert sizes["breed"] == 11
    found = group_readings(constant(animals, sizes, {"breed": (0, 0)}), animals, 48, [5])
    mixed = (animals.groups(animals.sample(48, 5))["breed"] == 0).double().mean().item()
    assert found["breed"].accuracy()["pooled"].value == pytest.approx(mixed)
    assert found["breed"].abstention().value == 0


class SeesDark:
    """Judges of one shift: grid calls a dark picture night, pooled says yes to everything."""

    nets: tuple = KINDS

    def column(self, name):
        return scenes.binary.index(name)

    def answers(self, images):
        dark = (images.mean((1, 2, 3)) < 0.35)[:, None].expand(-1, len(scenes.binary))
        return {"binary": torch.stack([dark, torch.ones_like(dark)])}


def test_every_other_render_has_the_shift_and_both_sides_weigh_alike():
    found = shift_readings(SeesDark(), scenes, ["night", "grass"], 60, [5, 6])
    assert found["night"].truth.tolist() == [1, 0] * 60
    assert found["night"].seeds.tolist() == [5] * 60 + [6] * 60
    night = found["night"].balanced()
    assert night["grid"].value > 0.8
    assert night["pooled"].value == pytest.approx(0.5)
    assert found["grass"].balanced()["grid"].value < 0.65
    with pytest.raises(InputError, match="'sleet'"):
        shift_readings(Judges(("night",), {}), scenes, ["sleet"], 4, [5])


class Coloured(ToyWorld):
    """Three classes: blue, red, and red in a ring; `shuffled` ties them to nothing."""

    shuffled = False

    def groups(self, attributes: ToyAttributes) -> dict[str, torch.Tensor]:
        kind = (attributes["red"] * (1 + attributes["ring"])).long()
        return {"class": kind.roll(7) if self.shuffled else kind}


def test_class_probe_finds_what_pixels_say_and_nothing_else():
    right = class_probe(Coloured(), train=240, test=160, seed=0)
    assert right.shape == (160,)
    assert right.mean() > 0.9
    world = Coloured()
    world.shuffled = True
    assert class_probe(world, train=240, test=160, seed=0).mean() < 0.65  # half are blue
