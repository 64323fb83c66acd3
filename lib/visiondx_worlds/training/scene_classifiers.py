"""The classifiers of `scenes`: a sweep that differs in everything, a robust one, two twins.

They are what Dataset Interfaces' experiments measure under shift, as its section 5 does with many
ImageNet models. All learn from `scenes-train`, where classes are tied to places, and from one pool
of renders; a smaller training set is the pool's first rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.core.augment import augment
from visiondx.core.errors import InputError
from visiondx.core.loop import Trainer, adamw, cosine, set_learning_rate
from visiondx.core.memory import keep_memory
from visiondx.core.precision import fast_autocast
from visiondx.core.seeds import step_seed
from visiondx.models.target import Target
from visiondx_worlds.models.embedded_targets import save_target
from visiondx_worlds.models.scene_classifier import MEAN, STD, build_scene_classifier
from visiondx_worlds.training.adversarial import pgd
from visiondx_worlds.worlds import scenes
from visiondx_worlds.worlds.distributions import Distribution

POOL = 24_000  # renders that all of them share
POOL_SEED = 0


@dataclass(frozen=True)
class SceneClassifierConfig:
    """Settings of one classifier; family, width and depth as in `build_scene_classifier`."""

    family: str
    width: int
    depth: int
    images: int = POOL  # how many of the pool's rows it learns from
    augmentation: float = 0.5  # see `core.augment`; 0 is none
    steps: int = 800
    batch: int = 64
    lr: float = 2e-3
    warmup: int = 50
    weight_decay: float = 0.05
    epsilon: float = 0.0  # above 0: trained on images attacked by so much
    attack_steps: int = 2
    seed: int = 0  # of weights, batches and augmentation; a twin has another

    @property
    def name(self) -> str:
        """Such as "scenes-resnet-w16-d2" or "scenes-resnet-w16-d1-n1500-plain"."""
        parts = ["scenes", self.family, f"w{self.width}", f"d{self.depth}"]
        if self.images != POOL:
            parts.append(f"n{self.images}")
        if self.augmentation != 0.5:
            parts.append("plain" if self.augmentation == 0 else "strong")
        if self.epsilon:
            parts.append("robust")
        if self.seed:
            parts.append("twin")
        return "-".join(parts)


_Config = SceneClassifierConfig
SWEEP = (
    _Config("resnet", 24, 1, augmentation=1.0, steps=900),
    _Config("resnet", 16, 2, steps=900),
    _Config("resnet", 16, 1),
    _Config("resnet", 16, 1, images=6_000, augmentation=0.0, steps=600),
    _Config("resnet", 16, 1, images=1_500, steps=500),
    _Config("resnet", 8, 2, steps=600),
    _Config("resnet", 8, 1, images=6_000, augmentation=0.0, steps=900),
    _Config("convnext", 24, 1, steps=1600, lr=4e-3),
    _Config("convnext", 16, 2, steps=1600, lr=4e-3),
    _Config("convnext", 16, 1, augmentation=0.0, steps=1600, lr=4e-3),
    _Config("convnext", 16, 2, images=6_000, augmentation=1.0, steps=1600, lr=4e-3),
    _Config("convnext", 16, 1, images=6_000, steps=1600, lr=4e-3),
    _Config("vit", 64, 4),
    _Config("vit", 64, 2, augmentation=0.0, steps=700),
    _Config("vit", 32, 4, steps=1600),
    _Config("vit", 64, 2, images=6_000, augmentation=1.0, steps=1600),
)
# its like in the sweep is SWEEP[1]; attacked images take twice as long to learn
ROBUST = replace(SWEEP[1], epsilon=4 / 255, steps=2 * SWEEP[1].steps)
TWINS = (replace(SWEEP[1], seed=1), replace(SWEEP[8], seed=1))
RECIPES = (*SWEEP, ROBUST, *TWINS)


@dataclass(frozen=True)
class SceneImages:
    """Renders kept as bytes, with their classes."""

    pixels: Tensor  # (N, 3, 64, 64) uint8
    classes: Tensor  # (N,) int64

    def __len__(self) -> int:
        return len(self.pixels)

    def pictures(self, rows: Tensor | slice = slice(None)) -> Tensor:
        """(len(rows), 3, 64, 64) float32 in [0, 1]."""
        return self.pixels[rows].float() / 255

    @classmethod
    def draw(
        cls, count: int, seed: int, distribution: str | Distribution = "scenes-train"
    ) -> SceneImages:
        """`count` scenes of a distribution, or of one of ``data/worlds`` by name; 12 KB each."""
        attributes = scenes.sample(count, seed, distribution=distribution)
        rows = torch.arange(count).split(1024)
        parts = [
            (scenes.render(attributes[part]) * 255).round().byte()
            for part in tqdm(rows, desc="renders", mininterval=1.0)
        ]
        return cls(torch.cat(parts), scenes.groups(attributes)["class"])


def train_scene_classifier(
    pool: SceneImages,
    config: SceneClassifierConfig,
    directory: str | Path,
    *,
    labels: Sequence[str] = scenes.classes,
    device: str = "cpu",
    time_limit: float | None = None,
) -> Target | None:
    """Train one classifier (AdamW, cross-entropy), or go on.

    With ``config.epsilon`` each batch is first attacked by `pgd` in eval mode, as in Madry et al.
    2018, but with two steps instead of their seven or more.

    Args:
        labels: of the pool's classes, where these are not the scenes'.

    Returns:
        the target in eval mode, or None when `time_limit` (seconds) ran out.

    Raises:
        InputError: the pool has fewer images than the config asks for.
    """
    if config.images > len(pool):
        raise InputError(
            f"{config.name} learns from {config.images} images, the pool has {len(pool)}: "
            "draw a larger pool or ask for fewer images."
        )
    keep_memory()
    torch.manual_seed(config.seed)
    net = build_scene_classifier(config.family, config.width, config.depth, len(labels))
    target = Target(net, task="multiclass", labels=labels, mean=MEAN, std=STD).to(device)
    adam = adamw(net.parameters(), config.lr, config.weight_decay)
    trainer = Trainer(
        config.name, {"net": net}, {"adam": adam}, directory, config, seed=config.seed
    )

    def step(i: int) -> dict[str, float]:
        set_learning_rate(adam, config.lr * cosine(i, config.steps, warmup=config.warmup))
        source = torch.Generator().manual_seed(step_seed(config.seed, i))
        rows = torch.randint(config.images, (config.batch,), generator=source)
        images, classes = pool.pictures(rows).to(device), pool.classes[rows].to(device)
        if config.augmentation:
            images = augment(images, source, config.augmentation)
        images = images.contiguous(memory_format=torch.channels_last)
        with fast_autocast(device):
            if config.epsilon:
                net.eval()
                images = pgd(
                    target.logits, images, classes, config.epsilon, config.attack_steps, source
                )
                net.train()
            logits = target.logits(images)
        loss = F.cross_entropy(logits.float(), classes)
        trainer.descend(adam, {"class": loss})
        return {"class": loss.item()}

    done = trainer.run(step, config.steps, time_limit=time_limit)
    return target.eval().requires_grad_(False) if done else None


def save_scene_classifier(
    config: SceneClassifierConfig, target: Target, *, notebook: str, quality: dict
) -> None:
    """Keep a trained classifier as the embedded target ``config.name``, its recipe on its card."""
    recipe = asdict(config)
    seed = recipe.pop("seed")
    save_target(config.name, target, notebook=notebook, seed=seed, quality=quality, **recipe)


@torch.no_grad()
def answers(target: Target, images: SceneImages, batch: int = 250) -> Tensor:
    """(N,) int64: the class that the target gives the most probability."""
    rows = torch.arange(len(images)).split(batch)
    return torch.cat([target.logits(images.pictures(part)).argmax(1) for part in rows])


def accuracy_iqr(right: np.ndarray) -> float:
    """Interquartile range of the accuracies of several models: right is (images, models)."""
    low, high = np.quantile(right.mean(0), [0.25, 0.75])
    return float(high - low)
