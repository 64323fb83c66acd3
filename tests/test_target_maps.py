"""Targets that answer in maps: where a heat map's point is, what is measured, what is refused."""

import pytest
import torch
from torch import nn

from task_standins import PLACES, Shifter, painter, shifter
from visiondx.core.errors import InputError
from visiondx.models.outputs import displacement, extent, mean_iou, overlap, soft_argmax
from visiondx.models.target import Target
from visiondx_worlds.training.parts import gaussian_maps
from visiondx_worlds.worlds import faces
from zoom_standins import SIDE, cells


def test_soft_argmax_by_hand():
    weight = torch.tensor([[0.5, 0.25, 0.0, 0.0], [0.25, 0.0, 0.0, 0.0]])  # 2 rows, 4 columns
    point = soft_argmax((weight + 1e-30).log()[None, None])
    # x: 0.75 at 1/8 and 0.25 at 3/8; y: 0.75 at 1/4 and 0.25 at 3/4
    assert torch.allclose(point, torch.tensor([[[0.1875, 0.375]]]), atol=1e-6)
    shifted = soft_argmax((weight + 1e-30).log()[None, None] + 7.0)
    assert torch.allclose(point, shifted, atol=1e-6)


def test_soft_argmax_speaks_the_coordinates_of_the_world():
    points = faces.keypoints(faces.sample(6, 3))
    maps = gaussian_maps(points, (48, 32), 1.0)
    assert torch.allclose(maps.sum((2, 3)), torch.ones(6, 26), atol=1e-5)
    found = soft_argmax((maps + 1e-30).log())
    inside = ((points > 0.1) & (points < 0.9)).all(2)  # at the edge a Gaussian is cut
    assert inside.float().mean() > 0.8
    assert (found - points).abs()[inside].max() < 1e-3


def test_measures_by_hand():
    points = torch.tensor([[[0.1, 0.2], [0.5, 0.3], [0.3, 0.4]], [[0.5, 0.5]] * 3])
    assert torch.allclose(extent(points), torch.tensor([0.4, 0.01]))
    moved = points.clone()
    moved[0, 0] += torch.tensor([0.03, 0.04])
    found = displacement(moved, points, extent(points))
    assert torch.allclose(found, torch.tensor([0.05 / 3 / 0.4, 0.0]), atol=1e-6)
    one = torch.tensor([[[0, 0], [1, 1]]])
    other = torch.tensor([[[0, 1], [1, 1]]])
    both, either = overlap(one, other, 3)
    assert (both.tolist(), either.tolist()) == ([[1, 2, 0]], [[2, 3, 0]])
    assert mean_iou(one, other, 3).tolist() == pytest.approx([(1 / 2 + 2 / 3) / 2])  # 2 not there
    assert mean_iou(one, one, 3).tolist() == [1.0]
    stray = torch.tensor([[[0, 0], [1, 2]]])  # a part that the first does not have
    assert mean_iou(one, stray, 3).tolist() == pytest.approx([(1 + 1 / 2) / 2])
    assert mean_iou(stray, one, 3).tolist() == pytest.approx([(1 + 1 / 2 + 0) / 3])


IMAGES = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


class Fixed(nn.Module):
    """Returns ``make(images)``; in eval mode."""

    def __init__(self, make):
        super().__init__()
        self.make = make
        self.eval()

    def forward(self, images):
        return self.make(images)


@pytest.mark.parametrize("task", ["keypoints", "segmentation"])
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda x: x[:, :2], r"\(3, 3, h, w\).*returned \(3, 2, 16, 16\)"),
        (lambda x: x.mean((2, 3)), r"returned \(3, 3\)"),
        (lambda x: x[:, :, :0], r"returned \(3, 3, 0, 16\)"),
        (lambda x: [x], "list"),
        (lambda x: x.detach(), "no gradient"),
        (lambda x: x.round(), "no gradient"),
        (lambda x: x * float("nan"), "NaN or infinity for 3 of 3"),
        (lambda x: (x - x).sqrt(), "gradient is NaN"),
    ],
)
def test_unusable_maps_are_named(task, make, words):
    with pytest.raises(InputError, match=words):
        Target(Fixed(make), task, ("a", "b", "c")).check(IMAGES)


def test_usable_maps_pass_and_answer():
    target = shifter({0: 0.4})
    target.check(IMAGES)
    expected = torch.tensor(PLACES).repeat(3, 1, 1)
    expected[:, 0, 0] += 0.4 * cells(IMAGES)[:, 0]
    assert torch.allclose(target.keypoints(IMAGES), expected, atol=1e-4)
    assert torch.equal(target(IMAGES), target.keypoints(IMAGES))
    # heat maps that are weights, such as an HR-Net's, mean the same as their logarithms
    weights = Target(
        Fixed(lambda x: Shifter({0: 0.4})(x).exp()),
        "keypoints",
        ("a", "b", "c"),
        probabilities=True,
    )
    weights.check(IMAGES)
    assert torch.allclose(weights.keypoints(IMAGES), expected, atol=1e-2)
    parts = painter({0: 2.0})
    parts.check(IMAGES)
    assert torch.allclose(parts.parts(IMAGES).sum(1), torch.ones(3, SIDE, SIDE))
    assert torch.equal(parts(IMAGES), parts.parts(IMAGES))


def test_tasks_do_not_answer_for_each_other():
    with pytest.raises(InputError, match="needs a keypoints target"):
        painter({}).keypoints(IMAGES)
    with pytest.raises(InputError, match="needs a segmentation target"):
        shifter({}).parts(IMAGES)
    with pytest.raises(InputError, match="needs a binary target"):
        shifter({}).logit(IMAGES)
    with pytest.raises(InputError, match="two or more different labels"):
        Target(Shifter({}), "keypoints", ("a",))
