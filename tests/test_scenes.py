"""The scenes world: every shift switches what it names and nothing else."""

import pytest
import torch

from visiondx.core.errors import InputError
from visiondx_worlds.worlds import scenes
from visiondx_worlds.worlds.scenes import FACTORS, SHIFTS
from visiondx_worlds.worlds.scenes_shapes import Layer, by_group, polygon, rounded
from world_checks import slopes

TABLE1 = (
    "grass beach forest water road rocks snow rain fog|bright sunlight|dusk night|studio lighting"
    "|blue green red yellow orange person flower|oil painting|pencil sketch|embroidery"
)
BACKGROUNDS = ("grass", "beach", "forest", "water", "road", "rocks", "snow")
COLOURS = ("blue", "green", "red", "yellow", "orange")


@pytest.fixture(scope="module")
def base():
    """Two plain photos of each class, nothing in front."""
    a = scenes.shift(scenes.sample(24, 11), "base")
    a = a.replace(**{"class": torch.arange(24) % 12, "occluder": 0.0})
    return a, scenes.render(a), scenes.masks(a)


def test_twelve_classes_half_animate_and_all_23_shifts():
    assert len(scenes.classes) == 12
    assert len([c for c in scenes.classes if "animal" in above(c)]) == 6
    assert sorted(k for members in scenes.superclasses.values() for k in members) == sorted(
        scenes.classes
    )
    assert len(scenes.states) >= 5
    words = TABLE1.replace("|", " ").split()
    assert " ".join(scenes.shifts).split() == words
    assert len(scenes.shifts) == 23
    assert list(scenes.grammar.words["table1"]) == ["base", *scenes.shifts]
    assert scenes.grammar.table1("rocks", "dog") == "A photo of a dog in the rocks"
    assert scenes.latent_dim <= 64


def above(kind):
    return next(name for name, members in scenes.superclasses.items() if kind in members)


@pytest.mark.parametrize("name", scenes.shifts)
def test_a_shift_keeps_the_object_and_changes_the_picture(base, name):
    a, image, masks = base
    shifted = scenes.shift(a, name)
    factor, value = SHIFTS[name]
    assert (shifted[factor] == value).all()
    others = [i for i, column in enumerate(a.names) if column != factor]
    assert torch.equal(shifted.values[:, others], a.values[:, others])
    labels = scenes.labels(shifted)[:, [scenes.binary.index(s) for s in scenes.shifts]]
    assert (labels.sum(1) == 1).all()
    assert labels[:, scenes.shifts.index(name)].all()
    assert torch.equal(scenes.masks(shifted)["object"], masks["object"])

    change = (scenes.render(shifted) - image).abs().amax(1)
    thing = masks["object"] + masks["state"]
    outside, inside = thing < 1e-3, masks["object"] > 0.999
    if name in COLOURS:
        assert change[outside].max() < 2e-3
        assert ((change > 0.1) & (masks["object"] > 0.9)).flatten(1).sum(1).min() > 60
    elif name in BACKGROUNDS:
        assert change[inside].max() < 4e-3
        assert ((change > 0.05) & outside).flatten(1).sum(1).min() > 1500
    elif name in ("person", "flower"):
        beside = scenes.masks(shifted)["beside"]
        assert beside.flatten(1).sum(1).min() > 40
        assert change[beside < 1e-3].max() < 4e-3
        assert ((change > 0.05) & (beside > 0.9)).flatten(1).sum(1).min() > 30
    else:
        # weather, light and style: everywhere, the object included
        assert (change > 0.03).flatten(1).sum(1).min() > 1000
        assert (change * (masks["object"] > 0.9)).flatten(1).amax(1).min() > 0.04


@pytest.mark.parametrize("kind", scenes.states)
def test_a_state_is_large_and_only_its_own(base, kind):
    a = scenes.shift(scenes.sample(12, 4, given={"class": kind}), "base").replace(occluder=0.0)
    name = scenes.states[kind]
    on, off = scenes.switch(a, name, True), scenes.switch(a, name, False)
    column = scenes.binary.index(name)
    assert scenes.labels(on)[:, column].all()
    assert not scenes.labels(off)[:, column].any()
    assert (on["class"] == off["class"]).all()
    change = (scenes.render(on) - scenes.render(off)).abs().amax(1)
    assert (change > 0.1).flatten(1).sum(1).min() >= 40
    added = scenes.masks(on)["state"].flatten(1).sum(1)
    if name in ("harness", "tank", "food", "steam"):
        assert added.min() > 25
    else:  # the object's own form changes
        assert added.max() == 0
    assert scenes.masks(off)["state"].max() < 1e-6


def test_states_are_told_for_classes_that_have_one():
    groups = scenes.groups(scenes.sample(600, 0))
    stateful = torch.tensor([c in scenes.states for c in scenes.classes])[groups["class"]]
    assert ((groups["state"] == -1) == ~stateful).all()
    assert groups["superclass"].max() == len(scenes.superclasses) - 1


def test_masks_cover_the_picture_once():
    a = scenes.sample(64, 6)
    masks = scenes.masks(a)
    assert torch.allclose(masks["object"] + masks["context"], torch.ones(64, 64, 64))
    parts = masks["object"] + masks["state"] + masks["beside"] + masks["occluder"]
    assert parts.max() <= 1 + 1e-5
    bare = scenes.masks(a.replace(occluder=0.0))
    assert (masks["object"] <= bare["object"] + 1e-6).all()
    hidden = 1 - masks["object"].sum((1, 2)) / bare["object"].sum((1, 2))
    assert hidden[a["occluder"] > 0].mean() > 0.02
    assert hidden.max() < 0.6  # something of the object is always left


def test_objects_lie_in_the_picture_and_fill_a_third_to_four_fifths():
    a = scenes.sample(300, 2).replace(occluder=0.0)
    masks = scenes.masks(a)
    seen = (masks["object"] + masks["state"]) > 0.5
    widths = seen.any(1).float().sum(1) / 64
    assert widths.mean() > 0.40
    assert widths.min() > 0.2
    assert widths.max() < 0.85
    border = torch.cat([seen[:, 0], seen[:, -1], seen[:, :, 0], seen[:, :, -1]], 1).float().mean()
    assert border < 0.02


def test_a_pencil_sketch_is_grey_and_shows_no_colour():
    a = scenes.shift(scenes.sample(30, 8), "pencil sketch")
    image = scenes.render(a)
    assert torch.equal(image[:, 0], image[:, 1])
    colours = [scenes.binary.index(c) for c in COLOURS]
    assert not scenes.labels(a)[:, colours].any()
    assert (scenes.groups(a)["colour"] == -1).all()
    red = scenes.shift(a, "red")
    assert scenes.labels(red)[:, scenes.binary.index("red")].all()
    assert (red["style"] == 0).all()


def test_given_holds_classes_values_and_shifts():
    coin = torch.tensor([True, False] * 10)
    a = scenes.sample(20, 1, given={"class": "cat", "weather": "fog", "night": coin})
    assert (a["class"] == scenes.classes.index("cat")).all()
    assert scenes.labels(a)[:, scenes.binary.index("fog")].all()
    assert torch.equal(scenes.labels(a)[:, scenes.binary.index("night")], coin)
    kinds = torch.arange(20) % 12
    assert torch.equal(scenes.sample(20, 1, given={"class": kinds})["class"].long(), kinds)
    for wrong in ({"class": "unicorn"}, {"unicorn": True}):
        with pytest.raises(InputError, match="unicorn"):
            scenes.sample(2, 1, given=wrong)
    with pytest.raises(InputError, match="hail"):
        scenes.shift(a, "hail")


def test_base_is_none_of_the_shifts():
    a = scenes.shift(scenes.sample(50, 2), "base")
    assert all((a[factor] == 0).all() for factor in FACTORS)


@pytest.mark.parametrize("name", ["size", "tilt", "place_x", "light_gain", "horizon"])
def test_gradient_of_the_renderer(name):
    a = scenes.sample(4, 12, given={"class": "car", "style": "photo", "weather": "clear"})
    gradient, finite = slopes(scenes, a, name)
    assert gradient.abs().max() > 1e-2
    assert torch.allclose(gradient, finite, rtol=1e-3, atol=2e-3)


def test_groups_come_back_in_their_order():
    index = torch.tensor([2, 0, 2, 1, 0])
    values = torch.arange(5.0)
    (out,) = by_group(index, lambda kind, rows: (values[rows] * 10 + kind,))
    assert out.tolist() == [2.0, 10.0, 22.0, 31.0, 40.0]


def test_shapes_and_layers_by_hand():
    x, y = torch.tensor([[[0.0, 3.0]]]), torch.tensor([[[0.0, 0.0]]])
    square = polygon(x, y, (-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0))
    assert square.flatten().tolist() == pytest.approx([-1.0, 2.0])
    assert rounded(x, y, 0.0, 0.0, 1.0, 1.0, 0.5).flatten().tolist() == pytest.approx(
        [-1, 2], abs=1e-5
    )
    layer = Layer(torch.zeros(1, 1, 1), 0.1)
    edge, white = torch.zeros(1, 1, 1), torch.ones(1, 3, 1, 1)
    layer.paint(edge, white)  # on the edge: half covered
    layer.paint(edge, white * 0, state=True)
    assert layer.main.item() == pytest.approx(0.25)
    assert layer.state.item() == pytest.approx(0.5)
    assert layer.over(white).flatten().tolist() == pytest.approx([0.5] * 3)
