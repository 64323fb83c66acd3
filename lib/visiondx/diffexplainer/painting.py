"""Searched tokens into pictures: with a gradient, a few at once; without one, as many as wished."""

from __future__ import annotations

import torch
from torch import Tensor

from visiondx.core.seeds import step_seed
from visiondx.diffexplainer.prompts import SoftPrompt
from visiondx.models.denoising import Noise
from visiondx.models.painter import Painter, paint_pairs


def noise_of(painter: Painter, count: int, seed: int) -> Noise:
    """`count` noises, each with a seed that follows from `seed`."""
    return painter.noise([step_seed(seed, k) for k in range(count)])


def paint(
    painter: Painter, prompt: SoftPrompt, soft: Tensor, noise: Noise, through: int | None = None
) -> Tensor:
    """Searched tokens (R, k, d) and B noises -> images (R, B, 3, H, W), differentiable."""
    count = len(noise)
    condition = prompt.encode(painter, soft).repeat_interleave(count, 0)
    each = noise[torch.arange(count).repeat(len(soft)).to(noise.start.device)]
    return painter(condition, each, through=through).unflatten(0, (-1, count))


@torch.no_grad()
def painted(painter: Painter, prompt: SoftPrompt, soft: Tensor, noise: Noise, batch: int) -> Tensor:
    """The same without a gradient, on the CPU, at most `batch` pictures at once."""
    condition = prompt.encode(painter, soft.to(painter.device))
    return paint_pairs(painter, condition, noise, batch)
