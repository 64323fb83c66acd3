"""Training the other targets of ZOOM: a keypoint detector and a part-segmentation network.

The paper's detector is an HR-Net on the 98 points of WFLW; here a small U-net learns the points, or
the visible parts, that a world knows of its own pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from visiondx.core.augment import grain, soften, tint
from visiondx.core.errors import InputError
from visiondx.core.loop import Trainer, cosine, set_learning_rate
from visiondx.core.losses import part_loss
from visiondx.core.memory import keep_memory
from visiondx.core.precision import fast_autocast
from visiondx.core.seeds import step_seed
from visiondx.core.stats import Estimate, bootstrap
from visiondx.models.outputs import extent, overlap
from visiondx.models.stylegan2 import normalize_2nd_moment
from visiondx.models.target import Target
from visiondx_worlds.models.unet import build_keypoint_net, build_part_net
from visiondx_worlds.worlds.base import Attributes
from visiondx_worlds.worlds.parts import coverage

NETS = {"keypoints": build_keypoint_net, "segmentation": build_part_net}


@dataclass(frozen=True)
class PartsConfig:
    """Settings of one network; the default steps take three to five minutes on one CPU core."""

    name: str  # such as "face-keypoints"
    task: str  # "keypoints" or "segmentation"
    labels: tuple[str, ...]  # of the points or parts
    steps: int = 600
    batch: int = 64
    lr: float = 3e-3
    width: int = 24
    sigma: float = 1.0  # deviation of a point's Gaussian, in pixels of the heat map
    augmentation: float = 0.5  # of what leaves every pixel where it is

    def __post_init__(self):
        if self.task not in NETS:
            raise InputError(f"task must be one of {', '.join(NETS)}, got {self.task!r}.")


def gaussian_maps(points: Tensor, size: tuple[int, int], sigma: float) -> Tensor:
    """What heat maps should be: (B, K, h, w), each a Gaussian around its point, summing to 1.

    Args:
        points: (B, K, 2) in [0, 1] of the picture. sigma: in pixels of the heat map.
    """
    one_way = []
    for coordinate, n in zip(points.unbind(2), (size[1], size[0]), strict=True):
        away = torch.arange(n, device=points.device) + 0.5 - coordinate[..., None] * n
        one_way.append((-0.5 * (away / sigma).square()).softmax(2))
    x, y = one_way
    return y[..., None] * x[:, :, None]


def heatmap_loss(heatmaps: Tensor, points: Tensor, sigma: float = 1.0) -> Tensor:
    """Cross-entropy of the heat maps' softmax under Gaussians around the true points; scalar.

    Its minimum is a softmax that equals the Gaussian, whose mean position is the point.

    Args:
        heatmaps: logits (B, K, h, w). points: (B, K, 2) in [0, 1]. sigma: in heat-map pixels.
    """
    goal = gaussian_maps(points, heatmaps.shape[2:], sigma)
    return -(goal * heatmaps.flatten(2).log_softmax(2).view_as(goal)).sum((2, 3)).mean()


def train_parts(
    world,
    config: PartsConfig,
    directory: str | Path,
    *,
    seed: int = 0,
    device: str = "cpu",
    time_limit: float | None = None,
) -> nn.Module | None:
    """Train one network on renders made on demand, every one seen once, or go on.

    Points: ``heatmap_loss``. Parts: the cross-entropy under each pixel's coverage, so that an edge
    pixel is half one and half the other.

    Args:
        world: ``sample``, ``render``, and ``keypoints`` or ``masks``, such as ``worlds.faces``.

    Returns:
        The module in eval mode, or None when `time_limit` (seconds) ran out.
    """
    keep_memory()
    torch.manual_seed(seed)
    net = NETS[config.task](len(config.labels), config.width).to(device)
    net = net.to(memory_format=torch.channels_last)
    adam = torch.optim.Adam(net.parameters(), lr=config.lr)
    trainer = Trainer(config.name, {"net": net}, {"adam": adam}, directory, config, seed=seed)

    def step(i: int) -> dict[str, float]:
        set_learning_rate(adam, config.lr * cosine(i, config.steps, warmup=20))
        source = torch.Generator().manual_seed(step_seed(seed, i))
        attributes = world.sample(config.batch, step_seed(seed, i))
        with torch.no_grad():
            images = world.render(attributes).to(device)
            for change in (soften, tint, grain):
                images = change(images, source, config.augmentation)
            truth = _truth(world, attributes, config.task).to(device)
        images = images.clamp(0, 1).contiguous(memory_format=torch.channels_last)
        with fast_autocast(device):
            maps = net(images)
        maps = maps.float().contiguous()
        if config.task == "keypoints":
            loss = heatmap_loss(maps, truth, config.sigma)
        else:
            loss = part_loss(maps, truth).mean()
        trainer.descend(adam, {config.task: loss})
        return {config.task: loss.item()}

    done = trainer.run(step, config.steps, time_limit=time_limit)
    return net.eval().requires_grad_(False) if done else None


def _truth(world, attributes, task: str) -> Tensor:
    """Points (B, K, 2), or coverage (B, P, H, W)."""
    return world.keypoints(attributes) if task == "keypoints" else coverage(world, attributes)


def pictures(
    world, n: int, seed: int, generator=None, batch: int = 128
) -> Iterator[tuple[Tensor, Attributes]]:
    """Fresh images (B, 3, H, W) with the attributes of what they show, a batch at a time.

    Args:
        generator: a ``StyleGenerator`` whose images to take in place of renders. It learned to
            draw the scene that its z stands for (``training.generator``), and strays from it a
            little: the truth is nearly that scene's.
    """
    scenes = world.sample(n, seed)
    if generator is not None:
        z = torch.randn(n, generator.network.z_dim, generator=torch.Generator().manual_seed(seed))
        scenes = world.from_normal(normalize_2nd_moment(z)[:, : world.latent_dim])
        styles = generator.sample_styles(n, seed)  # of the same z
    for first in range(0, n, batch):
        some = scenes[first : first + batch]
        if generator is None:
            yield world.render(some), some
        else:
            yield generator.synthesize(styles[first : first + batch]), some


@torch.no_grad()
def point_errors(target: Target, world, n: int, seed: int, generator=None) -> Tensor:
    """(n, K): distance of each point from the truth, in sizes of the face.

    The size is the longer side of the box around the true points, see ``models.outputs.extent``.
    The images are those of ``pictures``.
    """
    found = []
    for images, attributes in pictures(world, n, seed, generator):
        true = world.keypoints(attributes).to(images)
        found.append((target.keypoints(images) - true).norm(dim=2) / extent(true)[:, None])
    return torch.cat(found).cpu()


@torch.no_grad()
def part_overlaps(target: Target, world, n: int, seed: int, generator=None) -> Tensor:
    """(n, 2, P): pixels of intersection and union with the truth, of the images of ``pictures``."""
    found = []
    for images, attributes in pictures(world, n, seed, generator):
        true = coverage(world, attributes).argmax(1).to(images.device)
        labels = target.parts(images).argmax(1)
        found.append(torch.stack(overlap(labels, true, len(target.labels)), 1))
    return torch.cat(found).cpu()


def part_iou(overlaps: Tensor) -> tuple[Estimate, np.ndarray]:
    """Mean IoU over parts, and each part's (P,), from ``part_overlaps``.

    Of each part, over the pixels of all images together. Parts that are nowhere are left out. The
    interval resamples images.
    """
    parts = overlaps.shape[2]

    def each(rows: np.ndarray) -> np.ndarray:
        both, either = rows.sum(0).reshape(2, parts)
        return both / np.where(either > 0, either, np.nan)

    rows = overlaps.flatten(1).double().numpy()
    mean = bootstrap(rows, lambda rows: np.nanmean(each(rows)))
    return mean, each(rows)
