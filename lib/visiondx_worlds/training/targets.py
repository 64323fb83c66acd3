"""Training the classifiers to be diagnosed: balanced ones, and ones with a planted bias.

A planted bias is the paper's (ZOOM, section 4.3.1): 10,000 images (1, 1), 10,000 (0, 0) and only
100 each of (1, 0) and (0, 1), where the pair is (label, planted attribute).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visiondx.core.augment import augment
from visiondx.core.errors import InputError
from visiondx.core.loop import Trainer, cosine, set_learning_rate
from visiondx.core.memory import keep_memory
from visiondx.core.precision import fast_autocast
from visiondx.core.seeds import step_seed
from visiondx.zoom.counterfactual_training.bank import Renders
from visiondx_worlds.models.classifier import build_classifier
from visiondx_worlds.training.pool import Pool
from visiondx_worlds.worlds.base import Attributes


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
    _check_names(world, (config.label, config.planted))
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


def target_rows(pool: Pool, config: TargetConfig, seed: int) -> Tensor:
    """The same from renders that are there already: rows of the pool, each once.

    All four counts shrink alike where the pool has fewer images of a kind than the config asks for.

    Raises:
        InputError: an unknown attribute, or a pool without images of one of the kinds.
    """
    pair = [name for name in (config.label, config.planted) if name is not None]
    _check_names(pool.world, pair)
    values = pool.labels[:, [pool.world.binary.index(name) for name in pair]]
    kinds = [(1,), (0,)] if len(pair) == 1 else [(1, 1), (0, 0), (1, 0), (0, 1)]
    wanted = [config.aligned, config.aligned, config.conflicting, config.conflicting]
    source = torch.Generator().manual_seed(seed)
    found = []
    for kind in kinds:
        rows = (values == torch.tensor(kind).bool()).all(1).nonzero()[:, 0]
        found.append(rows[torch.randperm(len(rows), generator=source)])
    share = min(1.0, *(len(rows) / n for rows, n in zip(found, wanted, strict=False)))
    if not share:
        raise InputError(f"The pool lacks images of a kind of {config.name}: make it larger.")
    return torch.cat([rows[: math.ceil(share * n)] for rows, n in zip(found, wanted, strict=False)])


def _check_names(world: object, names: Sequence[str | None]) -> None:
    for name in names:
        if name is not None and name not in world.binary:
            known = ", ".join(world.binary)
            raise InputError(f"Unknown attribute {name!r}: choose from {known}.")


def train_target(
    world: object,
    config: TargetConfig,
    directory: str | Path,
    *,
    pool: Pool | None = None,
    seed: int = 0,
    device: str = "cpu",
    time_limit: float | None = None,
) -> nn.Module | None:
    """Train one target (Adam, as in the paper), or go on.

    Args:
        pool: renders of the world to learn from; None has them made on demand.

    Returns the module in eval mode, or None when `time_limit` (seconds) ran out.
    """
    keep_memory()
    column = world.binary.index(config.label)
    if pool is None:
        attributes = target_attributes(world, config, seed)
        labels = world.labels(attributes)[:, column].float()
    else:
        kept = target_rows(pool, config, seed)
        labels = pool.labels[kept, column].float()
    torch.manual_seed(seed)
    net = build_classifier(config.width).to(device)
    adam = torch.optim.Adam(net.parameters(), lr=config.lr)
    trainer = Trainer(config.name, {"net": net}, {"adam": adam}, directory, config, seed=seed)

    def step(i: int) -> dict[str, float]:
        set_learning_rate(adam, config.lr * cosine(i, config.steps, warmup=20))
        source = torch.Generator().manual_seed(step_seed(seed, i))
        rows = torch.randint(len(labels), (config.batch,), generator=source)
        with torch.no_grad():
            made = pool.render(kept[rows]) if pool else world.render(attributes[rows])
            images = augment(made.to(device), source, config.augmentation)
        images = images.contiguous(memory_format=torch.channels_last)
        with fast_autocast(device):
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


def regular_renders(world, config: TargetConfig, n: int = 6000, seed: int = 0) -> Renders:
    """n images of a target's own training set, drawn without replacement.

    Args:
        seed: that of the regular training.
    """
    attributes = target_attributes(world, config, seed)
    source = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(attributes), generator=source)[:n]
    return Renders.draw(world, attributes[rows], config.label)
