"""Training the classifiers to be diagnosed: balanced ones, and ones with a planted bias.

A planted bias is the paper's (ZOOM, section 4.3.1): 10,000 images (1, 1), 10,000 (0, 0) and only
100 each of (1, 0) and (0, 1), where the pair is (label, planted attribute).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visiondx.errors import InputError
from visiondx.models.classifier import build_classifier
from visiondx.training.augment import augment
from visiondx.training.loop import Trainer, cosine, set_learning_rate, step_seed
from visiondx.training.memory import keep_memory
from visiondx.worlds.base import Attributes


@dataclass(frozen=True)
class TargetConfig:
    """Settings of one target. `planted` None means balanced; counts are the paper's by default."""

    label: str
    planted: str | None = None
    aligned: int = 10_000  # images each of (1, 1) and (0, 0)
    conflicting: int = 100  # images each of (1, 0) and (0, 1)
    steps: int = 300
    batch: int = 128
    lr: float = 1e-3
    width: int = 16
    augmentation: float = 0.5

    @property
    def name(self) -> str:
        """Such as "young" or "young-biased-bangs"."""
        return self.label if self.planted is None else f"{self.label}-biased-{self.planted}"


def target_attributes(world: object, config: TargetConfig, seed: int) -> Attributes:
    """Attribute rows of the training set: balanced on the label, or with the planted pair."""
    for name in (config.label, config.planted):
        if name is not None and name not in world.binary:
            known = ", ".join(world.binary)
            raise InputError(f"Unknown attribute {name!r}: choose from {known}.")
    if config.planted is None:
        half = config.aligned
        on = torch.arange(2 * half) < half
        return world.sample(2 * half, seed, given={config.label: on})
    counts = [config.aligned, config.aligned, config.conflicting, config.conflicting]
    pair = torch.tensor([[1, 1], [0, 0], [1, 0], [0, 1]]).repeat_interleave(
        torch.tensor(counts), dim=0
    )
    given = {config.label: pair[:, 0] == 1, config.planted: pair[:, 1] == 1}
    return world.sample(len(pair), seed, given=given)


def train_target(
    world: object,
    config: TargetConfig,
    directory: str | Path,
    *,
    seed: int = 0,
    device: str = "cpu",
    time_limit: float | None = None,
) -> nn.Module | None:
    """Train one target on renders made on demand (Adam, as in the paper), or go on.

    Returns the module in eval mode, or None when `time_limit` (seconds) ran out.
    """
    keep_memory()
    attributes = target_attributes(world, config, seed)
    labels = world.labels(attributes)[:, world.binary.index(config.label)].float()
    torch.manual_seed(seed)
    net = build_classifier(config.width).to(device)
    adam = torch.optim.Adam(net.parameters(), lr=config.lr)
    trainer = Trainer(config.name, {"net": net}, {"adam": adam}, directory, config, seed=seed)

    def step(i: int) -> dict[str, float]:
        set_learning_rate(adam, config.lr * cosine(i, config.steps, warmup=20))
        source = torch.Generator().manual_seed(step_seed(seed, i))
        rows = torch.randint(len(attributes), (config.batch,), generator=source)
        with torch.no_grad():
            images = world.render(attributes[rows])
            images = augment(images.to(device), source, config.augmentation)
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device, torch.bfloat16):
            logits = net(images)[:, 0]
        loss = F.binary_cross_entropy_with_logits(logits.float(), labels[rows].to(device))
        trainer.descend(adam, {"label": loss})
        return {"label": loss.item()}

    done = trainer.run(step, config.steps, time_limit=time_limit)
    return net.eval().requires_grad_(False) if done else None


@torch.no_grad()
def balanced_accuracy(module: nn.Module, world: object, label: str, n: int, seed: int) -> Tensor:
    """(n,) bool: right on n fresh renders, half with the label and half without."""
    on = torch.arange(n) % 2 == 0
    attributes = world.sample(n, seed, given={label: on})
    logits = torch.cat([module(part).flatten() for part in world.render(attributes).split(128)])
    return (logits > 0) == on
