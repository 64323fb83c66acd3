"""Weights of edits that no gradient chose: a grid of each attribute alone, random ones together."""

from collections.abc import Sequence

import torch
from torch import Tensor

from visiondx.core.errors import InputError


def grid_weights(attributes: Sequence[str], epsilon: float, points: int = 8) -> dict[str, Tensor]:
    """Every attribute alone at a grid of weights within ±epsilon, 0 left out.

    Returns:
        attribute -> (points, N) weights.

    Raises:
        InputError: points is odd or below 2.
    """
    if points < 2 or points % 2:
        raise InputError(f"points must be even, half on each side of 0, got {points}.")
    half = torch.arange(1, points // 2 + 1) * (2 * epsilon / points)
    line = torch.cat([-half.flip(0), half])
    return {a: line[:, None] * torch.eye(len(attributes))[i] for i, a in enumerate(attributes)}


def random_weights(attributes: Sequence[str], epsilon: float, draws: int, seed: int) -> Tensor:
    """All attributes together, uniform within ±epsilon: (draws, N)."""
    source = torch.Generator().manual_seed(seed)
    return (2 * torch.rand(draws, len(attributes), generator=source) - 1) * epsilon
