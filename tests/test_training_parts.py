"""The keypoint detector and the part segmentation: what they are taught, and that they learn it."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from visiondx.core.errors import InputError
from visiondx.core.loop import read_log
from visiondx.models.stylegan2 import normalize_2nd_moment
from visiondx.models.target import Target
from visiondx_worlds.models.embedded_targets import save_target
from visiondx_worlds.models.unet import build_keypoint_net, build_part_net
from visiondx_worlds.training.parts import (
    PartsConfig,
    gaussian_maps,
    heatmap_loss,
    part_iou,
    part_overlaps,
    pictures,
    point_errors,
    train_parts,
)
from visiondx_worlds.worlds import faces
from visiondx_worlds.worlds.parts import BACKGROUND, FACE_POINTS, coverage, part_names

SHORT = PartsConfig(
    "face-keypoints", "keypoints", FACE_POINTS, steps=40, batch=12, width=8, lr=1e-2
)
PARTS = replace(SHORT, name="face-parts", task="segmentation", labels=part_names(faces))


def test_gaussians_by_hand() -> None:
    points = torch.tensor([[[0.625, 0.5]]])  # the middle of column 2 of 4, between rows 0 and 1
    maps = gaussian_maps(points, (2, 4), sigma=0.5)
    row = torch.exp(-0.5 * (torch.tensor([-2.0, -1.0, 0.0, 1.0]) / 0.5) ** 2)
    expected = 0.5 * (row / row.sum()).expand(2, 4)
    torch.testing.assert_close(maps[0, 0], expected)


def test_heatmap_loss_by_hand() -> None:
    points = torch.tensor([[[0.5, 0.5]]])  # between two pixels: a half each
    logits = torch.tensor([0.0, math.log(3)]).view(1, 1, 1, 2)
    expected = -0.5 * math.log(0.25) - 0.5 * math.log(0.75)
    assert heatmap_loss(logits, points).item() == pytest.approx(expected)
    goal = gaussian_maps(points, (8, 8), 1.0)
    best = heatmap_loss(goal.log(), points)
    assert best.item() == pytest.approx(-(goal * goal.log()).sum().item(), abs=1e-5)
    assert heatmap_loss(goal.log() + 0.1 * torch.randn_like(goal), points) > best


def test_coverage_is_a_distribution_over_parts() -> None:
    attributes = faces.sample(40, 1, given={"hat": torch.arange(40) % 2 == 0})
    names, shares = part_names(faces), coverage(faces, attributes)
    assert names[0] == BACKGROUND
    assert shares.shape == (40, len(names), 64, 64)
    torch.testing.assert_close(shares.sum(1), torch.ones(40, 64, 64), atol=1e-4, rtol=0)
    masks = faces.masks(attributes)
    torch.testing.assert_close(shares[:, names.index("hat")], masks["hat"], atol=1e-5, rtol=0)
    hats = shares[:, names.index("hat")].mean((1, 2))
    assert hats[::2].min() > 0.03
    assert hats[1::2].max() < 0.01
    assert shares[:, 0, 0, 0].mean() > 0.9  # a corner


def test_points_have_the_names_of_where_they_are() -> None:
    points = faces.keypoints(faces.sample(30, 2)).mean(0)
    at = dict(zip(FACE_POINTS, points.tolist(), strict=True))
    for name in ("brow inside", "brow outside", "eye inside", "pupil", "eye outside", "ear lobe"):
        assert at[f"left {name}"][0] < at["nose tip"][0] < at[f"right {name}"][0]
    for side in ("left", "right"):
        middle = at["nose tip"][0]
        away = [abs(at[f"{side} {n}"][0] - middle) for n in ("eye inside", "pupil", "eye outside")]
        assert away == sorted(away)
        assert abs(at[f"{side} brow inside"][0] - middle) < abs(
            at[f"{side} brow outside"][0] - middle
        )
        assert at[f"{side} brow outside"][1] < at[f"{side} pupil"][1] < at["nose tip"][1]
    assert at["nose left"][0] < at["nose tip"][0] < at["nose right"][0]
    assert at["mouth left"][0] < at["upper lip"][0] < at["mouth right"][0]
    assert at["nose tip"][1] < at["upper lip"][1] < at["lower lip"][1] < at["jaw 4"][1]
    assert at["jaw 1"][0] > at["jaw 7"][0]


class Still:
    """A world of one picture, whose points and parts are known."""

    chunk = 32
    sample = faces.sample
    points = torch.tensor([[0.25, 0.25], [0.75, 0.25]])  # 0.5 apart

    def render(self, attributes) -> Tensor:
        return torch.zeros(len(attributes), 3, 4, 4)

    def keypoints(self, attributes) -> Tensor:
        return self.points.repeat(len(attributes), 1, 1)

    def masks(self, attributes) -> dict[str, Tensor]:
        mask = torch.zeros(len(attributes), 4, 4)
        mask[:, :2] = 1.0  # the upper half
        return {"sky": mask}


class Says(nn.Module):
    def __init__(self, maps: Tensor):
        super().__init__()
        self.maps = maps
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.maps.expand(len(images), -1, -1, -1)


def test_errors_by_hand() -> None:
    said = torch.tensor([[[0.25, 0.25], [0.75, 0.375]]])  # the second 0.125 too low
    target = Target(Says(gaussian_maps(said, (64, 64), 1.0).log()), "keypoints", ("a", "b"))
    errors = point_errors(target, Still(), 5, seed=0)
    torch.testing.assert_close(errors, torch.tensor([[0.0, 0.25]]).expand(5, 2), atol=1e-3, rtol=0)
    maps = torch.zeros(1, 2, 4, 4)
    maps[:, 1, :3] = 1.0  # says sky in three of four rows, and it is two
    found = part_overlaps(Target(Says(maps), "segmentation", ("ground", "sky")), Still(), 3, seed=0)
    assert found.tolist() == [[[4, 8], [8, 12]]] * 3
    mean, each = part_iou(torch.cat((found, torch.zeros(3, 2, 1)), 2))
    assert each.tolist()[:2] == pytest.approx([4 / 8, 8 / 12])
    assert mean.value == pytest.approx((4 / 8 + 8 / 12) / 2)  # the third part is nowhere
    assert mean.n == 3


def test_generated_images_go_with_the_scenes_of_their_z() -> None:
    class Draws:
        """A generator that has learned its lesson by heart."""

        network = SimpleNamespace(z_dim=64)

        def sample_styles(self, n: int, seed: int) -> Tensor:
            z = torch.randn(n, 64, generator=torch.Generator().manual_seed(seed))
            return normalize_2nd_moment(z)[:, : faces.latent_dim]

        def synthesize(self, styles: Tensor) -> Tensor:
            return faces.render(faces.from_normal(styles))

    (images, attributes), (rest, _) = pictures(faces, 5, 3, Draws(), batch=3)
    torch.testing.assert_close(images, faces.render(attributes))
    assert (len(images), len(rest)) == (3, 2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[nn.Module, nn.Module, object]:
    folder = tmp_path_factory.mktemp("parts")
    assert train_parts(faces, SHORT, folder / "a", time_limit=0) is None  # one step, a checkpoint
    points = train_parts(faces, SHORT, folder / "a")
    parts = train_parts(faces, PARTS, folder / "b")
    return points, parts, folder


def test_both_learn_in_a_few_steps(trained) -> None:
    points, parts, folder = trained
    assert not points.training
    target = Target(points, "keypoints", FACE_POINTS)
    untaught = Target(build_keypoint_net(26, 8).eval(), "keypoints", FACE_POINTS)
    errors, before = (point_errors(t, faces, 16, 100).mean() for t in (target, untaught))
    assert errors < 0.5 * before
    target.check(faces.render(faces.sample(2, 1)))
    target = Target(parts, "segmentation", PARTS.labels)
    target.check(faces.render(faces.sample(2, 1)))
    both, either = part_overlaps(target, faces, 16, 100).sum(0)
    assert (both / either)[0] > 0.6  # the background comes first
    for name in "ab":
        log = read_log(folder / name)
        assert log.iloc[-1, 1] < 0.7 * log.iloc[0, 1]


def test_an_interrupted_training_goes_on(tmp_path) -> None:
    config = replace(PARTS, steps=3, batch=4)
    assert train_parts(faces, config, tmp_path / "a", time_limit=0) is None
    resumed = train_parts(faces, config, tmp_path / "a")
    whole = train_parts(faces, config, tmp_path / "b")
    for one, other in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(InputError, match="another lr"):
        train_parts(faces, replace(config, lr=1.0), tmp_path / "a")


def test_they_are_kept_and_loaded(trained, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("VISIONDX_DATA", str(tmp_path))
    (tmp_path / "weights").mkdir()
    images = faces.render(faces.sample(3, 5))
    for module, config in zip(trained[:2], (SHORT, PARTS), strict=True):
        target = Target(module, config.task, config.labels)
        about = {"notebook": "train/12_keypoints_and_segmentation.ipynb", "seed": 0, "quality": {}}
        save_target(config.name, target, width=config.width, **about)
        loaded = Target.load(config.name)
        assert (loaded.task, loaded.labels) == (config.task, config.labels)
        torch.testing.assert_close(loaded(images), target(images), atol=0.02, rtol=0)


def test_networks_are_small() -> None:
    images = torch.rand(2, 3, 64, 64)
    for build, labels, side in ((build_keypoint_net, 26, 32), (build_part_net, 15, 64)):
        net = build(labels)
        assert net(images).shape == (2, labels, side, side)
        assert 200_000 < sum(p.numel() for p in net.parameters()) < 400_000


def test_other_tasks_are_refused() -> None:
    with pytest.raises(InputError, match="'binary'"):
        PartsConfig("young", "binary", ("a", "b"))
