"""What every world promises; and faces: what is drawn is what the attributes say."""

import math

import pytest
import torch

from visiondx.core.errors import InputError
from visiondx_worlds.worlds import animals, faces, scenes
from visiondx_worlds.worlds.base import amount, category, pieces, uniform
from visiondx_worlds.worlds.faces_draw import _geometry, _head
from visiondx_worlds.worlds.sdf import Canvas, ellipse, hsv, pick, segment, warmth
from world_checks import slopes

WORLDS = (faces, animals, scenes)
PORTRAITS = (faces, animals)


def each(worlds):
    return pytest.mark.parametrize("world", worlds, ids=lambda world: world.name)


def each_name(names):
    """Parametrise over pairs of a world and a name."""
    pairs = [(world, name) for world, own in names.items() for name in own]
    ids = [f"{world.name}-{name}" for world, name in pairs]
    return pytest.mark.parametrize(("world", "name"), pairs, ids=ids)


@each(WORLDS)
def test_same_seed_same_attributes_and_image_bit_for_bit(world):
    one, two = world.sample(40, 3), world.sample(40, 3)
    assert torch.equal(one.values, two.values)
    assert torch.equal(world.render(one), world.render(two))
    assert not torch.equal(one.values, world.sample(40, 4).values)


@each(WORLDS)
def test_render_does_not_depend_on_the_batch_or_on_its_order(world):
    a = world.sample(48, 1)
    whole = world.render(a)
    assert whole.shape == (48, 3, 64, 64)
    assert whole.min() >= 0
    assert whole.max() <= 1
    atol = 1e-5 if world is scenes else 1e-6
    back = torch.arange(47, -1, -1)
    assert torch.allclose(world.render(a[back])[back], whole, atol=atol)
    for rows in (slice(20, 23), slice(33, 35)):
        assert torch.allclose(world.render(a[rows]), whole[rows], atol=atol)


@each_name({world: world.binary for world in WORLDS})
def test_switch_sets_the_label_and_keeps_rows_that_agree(world, name):
    a = world.sample(64, 5)
    column = world.binary.index(name)
    on, off = world.switch(a, name, True), world.switch(a, name, False)
    assert world.labels(on)[:, column].all()
    assert not world.labels(off)[:, column].any()
    already = world.labels(a)[:, column]
    assert torch.equal(on.values[already], a.values[already])
    assert torch.equal(off.values[~already], a.values[~already])
    want = torch.arange(64) % 2 == 0  # one value per image
    assert torch.equal(world.labels(world.switch(a, name, want))[:, column], want)


@each_name({world: world.binary for world in PORTRAITS})
def test_switch_shows(world, name):
    """In every image, enough pixels change by a twentieth (faces) or a tenth of full scale."""
    a = world.sample(64, 5)
    on, off = world.switch(a, name, True), world.switch(a, name, False)
    step, least = {"faces": (0.05, 12), "animals": (0.1, 20)}[world.name]
    if name == "cat":
        least = 150  # the species shows whatever else is there
    difference = (world.render(on) - world.render(off)).abs().amax(1)
    changed = (difference > step).flatten(1).sum(1)
    assert changed.min() >= least, f"{name}: {changed.min()} pixels"


@each(WORLDS)
def test_wrong_requests_are_refused(world):
    with pytest.raises(InputError, match="monocle"):
        world.switch(world.sample(4, 0), "monocle", True)
    with pytest.raises(InputError, match="n is 0"):
        world.sample(0, 0)
    with pytest.raises(InputError, match="u must be"):
        world.from_normal(torch.zeros(2, 3))


@each(PORTRAITS)
def test_a_gap_separates_present_from_absent(world):
    a = world.sample(4000, 7)
    amounts = [name for name in world.binary if name in world.names]
    assert len(amounts) >= 8
    for name in amounts:
        assert not ((a[name] > 0.03) & (a[name] < 0.97)).any(), name


@each_name(
    {
        faces: ("smiling", "eyeglasses", "bangs", "hat", "scale", "light_gain"),
        animals: ("cat", "slit_pupils", "long_muzzle", "tongue", "pointed_ears", "scale", "yaw"),
    }
)
def test_gradient_of_the_renderer(world, name):
    a = world.sample(2, 11).replace(**{name: 0.4 if name in world.binary else 0.97})
    gradient, finite = slopes(world, a, name)
    assert finite.abs().min() > 1e-3
    assert torch.allclose(gradient, finite, rtol=1e-3, atol=1e-3)


@each(PORTRAITS)
def test_keypoints_follow_the_pose(world):
    a = world.sample(16, 1).replace(tilt=0.0, shift_x=0.0, shift_y=0.0, scale=1.0)
    points = world.keypoints(a)
    assert points.shape == (16, {"faces": 26, "animals": 17}[world.name], 2)
    moved = world.keypoints(a.replace(shift_x=0.1))
    assert torch.allclose(moved - points, torch.tensor([0.05, 0.0]).expand_as(points), atol=1e-6)
    # a quarter turn about the centre takes (x, y) to (1 - y, x)
    turned = world.keypoints(a.replace(tilt=torch.pi / 2))
    assert torch.allclose(turned, torch.stack([1 - points[..., 1], points[..., 0]], -1), atol=1e-5)


# ---------------------------------------------------------------- faces


def test_a_gap_separates_young_from_old():
    age = faces.sample(4000, 7)["age"]
    assert not ((age > 30) & (age < 45)).any()


def test_bald_heads_have_no_bangs_no_long_hair_no_hair_colour():
    a = faces.switch(faces.sample(200, 2), "bald", True)
    labels = faces.labels(a)
    for name in ("bangs", "long_hair", "blond_hair", "black_hair"):
        assert not labels[:, faces.binary.index(name)].any()
    assert (faces.groups(a)["hair_colour"] == -1).all()


def test_six_skin_tones_and_six_age_ranges_all_occur():
    groups = faces.groups(faces.sample(2000, 0))
    assert groups["skin_tone"].unique().tolist() == list(range(6))
    assert groups["age_range"].unique().tolist() == list(range(6))


def test_quantiles_by_hand():
    u = torch.tensor([-10.0, 0.0, 10.0])
    assert torch.allclose(uniform(2, 4)(u), torch.tensor([2.0, 3.0, 4.0]), atol=1e-4)
    assert category((0.2, 0.6, 0.2))(u).tolist() == [0.0, 1.0, 2.0]
    # median of a share of 0.25 lies at 0.5 / 0.75 of the absent range
    assert amount(0.25, (0.0, 0.3), (0.7, 1.0))(u)[1].item() == pytest.approx(0.2, abs=1e-6)
    # the median of two equal pieces is where the second begins
    assert pieces((0.5, 0.5), ((0.0, 1.0), (5.0, 6.0)))(u)[1].item() in (1.0, 5.0)
    share = amount(0.25, (0.0, 0.3), (0.7, 1.0))(torch.randn(20_000)).gt(0.5).float().mean()
    assert share.item() == pytest.approx(0.25, abs=0.02)


def test_keypoints_lie_on_the_face():
    a = faces.sample(8, 1).replace(tilt=0.0, shift_x=0.0, shift_y=0.0, scale=1.0)
    points = faces.keypoints(a)
    # the seven jaw points lie on the outline, where the head's distance is zero
    xy = points[:, :7] * 2 - 1
    distance = _head(xy[..., 0][:, :, None], xy[..., 1][:, :, None], _geometry(a))
    assert distance.abs().max() < 0.01
    # eye centres (after 7 jaw points and 2 brow points: left eye 9-11, right eye 14-16)
    masks = faces.masks(a.replace(eyeglasses=0.0))["eyes"]
    pixel = (points[:, [10, 15]] * 64).long()
    eye = masks[torch.arange(8)[:, None], pixel[..., 1], pixel[..., 0]]
    assert eye.min() > 0.5


def test_masks_are_what_is_visible():
    a = faces.switch(faces.sample(16, 3), "hat", True)
    masks = faces.masks(a)
    assert sum(masks.values()).max() <= 1 + 1e-5
    assert masks["hat"].flatten(1).sum(1).min() > 50
    bare = faces.masks(faces.switch(a, "hat", False))
    assert bare["hat"].max() < 0.06
    assert (bare["hair"].sum((1, 2)) + bare["face"].sum((1, 2))).mean() > (
        masks["hair"].sum((1, 2)) + masks["face"].sum((1, 2))
    ).mean()


def test_shapes_by_hand():
    x, y = torch.tensor([[[3.0]]]), torch.tensor([[[4.0]]])
    assert segment(x, y, 0.0, 0.0, 0.0, 1.0, 0.5).item() == pytest.approx(
        math.sqrt(9 + 9) - 0.5, abs=1e-5
    )
    assert ellipse(x, y, 0.0, 0.0, 2.0, 2.0).item() == pytest.approx(3.0, abs=1e-3)
    red = hsv(torch.tensor([0.0]), 1.0, 0.8).flatten().tolist()
    assert red == pytest.approx([0.8, 0.0, 0.0], abs=1e-6)
    nested = (((0.0, 0.1, 0.2), (0.3, 0.4, 0.5)), ((0.6, 0.7, 0.8), (0.9, 1.0, 0.9)))
    picked = pick(nested, torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))
    assert picked.shape == (2, 3, 1, 1)
    assert picked.flatten().tolist() == pytest.approx([0.6, 0.7, 0.8, 0.3, 0.4, 0.5])
    assert warmth(torch.tensor([0.25])).flatten().tolist() == [1.25, 1.0, 0.75]
    canvas = Canvas(torch.zeros(1, 3, 1, 1), torch.tensor([[[0.1]]]), keep_parts=True)
    canvas.paint(torch.zeros(1, 1, 1), torch.ones(1, 3, 1, 1), "a")  # on the edge: half covered
    canvas.paint(torch.zeros(1, 1, 1), torch.zeros(1, 3, 1, 1), "b")
    assert canvas.image.flatten().tolist() == pytest.approx([0.25] * 3)
    assert canvas.parts["a"].item() == pytest.approx(0.25)
    assert canvas.parts["b"].item() == pytest.approx(0.5)
