"""Training the two judges of a world on renders, each with its own seed and augmentation."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visiondx.core.augment import augment
from visiondx.core.loop import Trainer, cosine, set_learning_rate, update_average
from visiondx.core.memory import keep_memory
from visiondx.core.precision import fast_autocast
from visiondx.core.seeds import step_seed
from visiondx_worlds.models.judges import ARCHITECTURES, Judges
from visiondx_worlds.training.pool import Pool


@dataclass(frozen=True)
class JudgesConfig:
    """Settings of one judge's training; about 11 minutes on one CPU core for each judge."""

    steps: int = 2600
    batch: int = 96
    lr: float = 2e-3
    warmup: int = 60
    weight_decay: float = 0.02
    pool: int = 40_000
    average: float = 0.995
    # how strongly each judge's renders are augmented: one of the ways in which the two differ
    augmentation: tuple[float, float] = (1.0, 0.6)


def judge_loss(judges: Judges, logits: Tensor, binary: Tensor, groups: dict[str, Tensor]) -> Tensor:
    """Mean binary cross-entropy over attributes plus a tenth of the groups' cross-entropies.

    A group's label -1 (not visible) is left out.
    """
    parts = judges.split(logits.float())
    loss = F.binary_cross_entropy_with_logits(parts["binary"], binary.float())
    for name, label in groups.items():
        loss = loss + 0.1 * F.cross_entropy(parts[name], label, ignore_index=-1)
    return loss


def group_sizes(world: object) -> dict[str, int]:
    """Number of values of each multi-way attribute, read from many rows."""
    groups = world.groups(world.sample(4096, 0))
    return {name: int(label.max()) + 1 for name, label in groups.items()}


def train_judges(
    world: object,
    config: JudgesConfig,
    directory: str | Path,
    *,
    seed: int = 0,
    device: str = "cpu",
    time_limit: float | None = None,
) -> Judges | None:
    """Train both judges, one after the other, or go on where `directory` ends.

    Returns None when `time_limit` (seconds, for each judge) ran out: call again to go on.
    Raises InputError if `directory` holds a training with other settings.
    """
    keep_memory()
    judges = Judges(world.binary, group_sizes(world))
    done = True
    for index, kind in enumerate(ARCHITECTURES):
        done &= _train_one(
            world,
            judges,
            kind,
            config,
            Path(directory) / kind,
            seed=seed + 1000 * index,  # far from the seeds that are reported on
            augmentation=config.augmentation[index],
            device=device,
            time_limit=time_limit,
        )
    return judges.to(device) if done else None


def _train_one(
    world: object,
    judges: Judges,
    kind: str,
    config: JudgesConfig,
    directory: Path,
    *,
    seed: int,
    augmentation: float,
    device: str,
    time_limit: float | None,
) -> bool:
    pool = Pool(world, config.pool, seed)
    groups = world.groups(pool.attributes)
    torch.manual_seed(seed)
    average = judges.nets[kind].to(device)
    for part in average.modules():  # the nets differ by seed too, not only by architecture
        if isinstance(part, nn.Conv2d | nn.Linear):
            part.reset_parameters()
    net = copy.deepcopy(average).requires_grad_(True).train()
    adam = torch.optim.AdamW(net.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    modules = {"net": net, "average": average}
    trainer = Trainer(f"judge {kind}", modules, {"adam": adam}, directory, config, seed=seed)

    def step(i: int) -> dict[str, float]:
        set_learning_rate(adam, config.lr * cosine(i, config.steps, warmup=config.warmup))
        source = torch.Generator().manual_seed(step_seed(seed, i))
        rows = pool.pick(config.batch, source)
        images = augment(pool.render(rows).to(device), source, augmentation)
        with fast_autocast(device):
            _, logits = net(images)
        truth = {name: label[rows].to(device) for name, label in groups.items()}
        loss = judge_loss(judges, logits, pool.labels[rows].to(device), truth)
        trainer.descend(adam, {"attributes": loss})
        update_average(average, net, config.average, i)
        return {"attributes": loss.item()}

    return trainer.run(step, config.steps, time_limit=time_limit)


@torch.no_grad()
def judge_accuracy(judges: Judges, world: object, n: int, seed: int) -> dict[str, Tensor]:
    """How well the judges read n held-out renders.

    Returns:
        "single" (2, n, A) bool: each judge right; "agree" (n, A) bool: they agree;
        "right" (n, A) bool: the common reading is right (False where they disagree).
    """
    attributes = world.sample(n, seed)
    truth = world.labels(attributes)
    single = (judges.probabilities(world.render(attributes)) > 0.5) == truth
    # about a yes or no, two judges agree if both are right or both are wrong
    return {"single": single, "agree": single[0] == single[1], "right": single.all(0)}


@torch.no_grad()
def group_accuracy(
    judges: Judges, world: object, n: int, seed: int, **sample: object
) -> dict[str, dict[str, Tensor]]:
    """How well the judges read the multi-way attributes of n held-out renders.

    Args:
        sample: further arguments of ``world.sample``, such as ``given`` or ``distribution``.

    Returns:
        group -> "truth" (n,) int64, -1 where it cannot be seen; "said" (2, n) int64: each judge's
        answer; "single" (2, n), "agree" (n,) and "right" (n,) bool as in `judge_accuracy`, except
        that two judges may agree and both be wrong. Rows whose truth is -1 say nothing of a judge
        (they are False in "single" and "right"): leave them out, by ``truth >= 0``.
    """
    attributes = world.sample(n, seed, **sample)
    answers = judges.answers(world.render(attributes))
    found = {}
    for name, truth in world.groups(attributes).items():
        said = answers[name]
        single = said == truth
        found[name] = {
            "truth": truth,
            "said": said,
            "single": single,
            "agree": said[0] == said[1],
            "right": single.all(0),
        }
    return found
