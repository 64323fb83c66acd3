"""The faces world: what is drawn is what the attributes say."""

import math

import pytest
import torch

from visiondx.errors import InputError
from visiondx.worlds import faces
from visiondx.worlds.base import amount, category, pieces, uniform
from visiondx.worlds.faces_draw import _geometry, _head
from visiondx.worlds.sdf import Canvas, ellipse, hsv, segment


def test_same_seed_same_attributes_and_image():
    one, two = faces.sample(6, 3), faces.sample(6, 3)
    assert torch.equal(one.values, two.values)
    assert torch.equal(faces.render(one), faces.render(two))
    assert not torch.equal(one.values, faces.sample(6, 4).values)


def test_render_does_not_depend_on_the_batch():
    a = faces.sample(40, 1)
    whole = faces.render(a)
    assert whole.shape == (40, 3, 64, 64)
    assert whole.min() >= 0
    assert whole.max() <= 1
    assert torch.allclose(whole[33:35], faces.render(a[33:35]), atol=1e-6)


@pytest.mark.parametrize("name", faces.binary)
def test_switch_sets_the_label_and_shows(name):
    a = faces.sample(64, 5)
    column = faces.binary.index(name)
    on, off = faces.switch(a, name, True), faces.switch(a, name, False)
    assert faces.labels(on)[:, column].all()
    assert not faces.labels(off)[:, column].any()
    already = faces.labels(a)[:, column]
    assert torch.equal(on.values[already], a.values[already])
    # at least 12 pixels change by a twentieth of full scale, in every image
    difference = (faces.render(on) - faces.render(off)).abs().amax(1)
    changed = (difference > 0.05).flatten(1).sum(1)
    assert changed.min() >= 12, f"{name}: {changed.min()} pixels"


def test_switch_takes_one_value_per_image_and_refuses_unknown_names():
    a = faces.sample(4, 0)
    want = torch.tensor([True, False, True, False])
    hat = faces.labels(faces.switch(a, "hat", want))[:, faces.binary.index("hat")]
    assert torch.equal(hat, want)
    with pytest.raises(InputError, match="monocle"):
        faces.switch(a, "monocle", True)
    with pytest.raises(InputError, match="n is 0"):
        faces.sample(0, 0)


def test_a_gap_separates_present_from_absent():
    a = faces.sample(4000, 7)
    for name in ("eyeglasses", "hat", "bangs", "beard", "bald", "smiling", "big_lips"):
        assert not ((a[name] > 0.03) & (a[name] < 0.97)).any()
    assert not ((a["age"] > 30) & (a["age"] < 45)).any()


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


@pytest.mark.parametrize("name", ["smiling", "eyeglasses", "bangs", "hat", "scale", "light_gain"])
def test_gradient_of_the_renderer(name):
    a = faces.sample(2, 11)
    a = type(a)(a.values.double(), a.names)
    a = a.replace(**{name: a[name] * 0 + (0.4 if name in faces.binary else 0.97)})
    weight = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    column = a.column(name)

    def value(v):
        return (faces.draw(type(a)(v, a.names), 64) * weight).sum(dim=(1, 2, 3))

    v = a.values.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(value(v).sum(), v)
    step = torch.zeros_like(a.values)
    step[:, column] = 1e-6
    finite = (value(a.values + step) - value(a.values - step)) / 2e-6
    assert finite.abs().min() > 1e-3
    assert torch.allclose(gradient[:, column], finite, rtol=1e-3, atol=1e-3)


def test_keypoints_follow_the_pose_and_lie_on_the_face():
    a = faces.sample(8, 1).replace(tilt=0.0, shift_x=0.0, shift_y=0.0, scale=1.0)
    points = faces.keypoints(a)
    assert points.shape == (8, 26, 2)
    moved = faces.keypoints(a.replace(shift_x=0.1))
    assert torch.allclose(moved - points, torch.tensor([0.05, 0.0]).expand(8, 26, 2), atol=1e-6)
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
    canvas = Canvas(torch.zeros(1, 3, 1, 1), torch.tensor([[[0.1]]]), keep_parts=True)
    canvas.paint(torch.zeros(1, 1, 1), torch.ones(1, 3, 1, 1), "a")  # on the edge: half covered
    canvas.paint(torch.zeros(1, 1, 1), torch.zeros(1, 3, 1, 1), "b")
    assert canvas.image.flatten().tolist() == pytest.approx([0.25] * 3)
    assert canvas.parts["a"].item() == pytest.approx(0.25)
    assert canvas.parts["b"].item() == pytest.approx(0.5)
