"""Training the face recogniser of LLM2Loss: cross-entropy on an uneven set of photographs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.core.augment import augment
from visiondx.core.loop import Trainer, cosine, set_learning_rate
from visiondx.core.memory import keep_memory
from visiondx.core.seeds import step_seed
from visiondx.models.target import Target
from visiondx_worlds.models.recogniser import recogniser_target
from visiondx_worlds.worlds.people import Album, People

_ALBUMS = 710_000  # photographs for training are drawn apart from every other draw


def album_seed(seed: int) -> int:
    """The seed of the photographs that the recogniser of this training seed learns from."""
    return step_seed(_ALBUMS, seed)


@dataclass(frozen=True)
class RecogniserConfig:
    """Settings of one recogniser; the defaults take four minutes on one CPU core."""

    images: int = 14_000
    steps: int = 800
    batch: int = 128
    lr: float = 3e-3
    width: int = 16
    dim: int = 64
    weight_decay: float = 0.05
    augmentation: float = 0.5


@dataclass(frozen=True)
class Photographs:
    """An album, rendered and kept as bytes."""

    pixels: Tensor  # (N, 3, 64, 64) uint8
    answers: Tensor  # (N,) int64

    @classmethod
    def take(cls, people: People, album: Album) -> Photographs:
        """Render an album, each photograph as blurred as it says."""
        rows = torch.arange(len(album)).split(256)
        parts = [
            (blurred(people.world.render(album.attributes[part]), album.blur[part]) * 255)
            .round()
            .byte()
            for part in tqdm(rows, desc="photographs", mininterval=1.0)
        ]
        return cls(torch.cat(parts), album.answers)

    def pictures(self, rows: Tensor | slice = slice(None)) -> Tensor:
        """(len(rows), 3, 64, 64) float32 in [0, 1]."""
        return self.pixels[rows].float() / 255


def blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """Images (B, 3, H, W), each convolved with its own Gaussian of deviation sigma (B,) pixels.

    A sigma of 0 leaves its image as it is.
    """
    at = torch.arange(-4, 5, dtype=images.dtype)
    kernel = (-0.5 * (at / sigma.clamp_min(1e-3)[:, None]).square()).softmax(1)  # (B, 9)
    count, channels, height, width = images.shape
    weight = kernel.repeat_interleave(channels, 0)[:, None]  # (B C, 1, 9)
    flat = F.pad(images, (4, 4, 4, 4), mode="replicate").flatten(0, 1)[None]
    flat = F.conv2d(flat, weight[..., None, :], groups=count * channels)
    flat = F.conv2d(flat, weight[..., :, None], groups=count * channels)
    return flat.view(count, channels, height, width)


def train_recogniser(
    people: People,
    photographs: Photographs,
    config: RecogniserConfig,
    directory: str | Path,
    *,
    seed: int = 0,
    device: str = "cpu",
    time_limit: float | None = None,
) -> Target | None:
    """Train one recogniser (AdamW, categorical cross-entropy), or go on.

    Returns:
        the target in eval mode, or None when `time_limit` (seconds) ran out.
    """
    keep_memory()
    torch.manual_seed(seed)
    target = recogniser_target(len(people), config.width, config.dim).to(device)
    net = target.module.to(memory_format=torch.channels_last)
    adam = torch.optim.AdamW(net.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    trainer = Trainer(
        f"recogniser-{seed}", {"net": net}, {"adam": adam}, directory, config, seed=seed
    )

    def step(i: int) -> dict[str, float]:
        set_learning_rate(adam, config.lr * cosine(i, config.steps, warmup=50))
        source = torch.Generator().manual_seed(step_seed(seed, i))
        rows = torch.randint(len(photographs.answers), (config.batch,), generator=source)
        images = augment(photographs.pictures(rows).to(device), source, config.augmentation)
        images = images.contiguous(memory_format=torch.channels_last)
        loss = F.cross_entropy(target.logits(images), photographs.answers[rows].to(device))
        trainer.descend(adam, {"person": loss})
        return {"person": loss.item()}

    done = trainer.run(step, config.steps, time_limit=time_limit)
    return target.eval().requires_grad_(False) if done else None
