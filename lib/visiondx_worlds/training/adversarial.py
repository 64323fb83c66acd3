"""L-infinity attacks by projected gradient descent, to train against and to measure with."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from visiondx.models.target import Target

STEPS = 10  # of an attack that measures


def pgd(
    logits: Callable[[Tensor], Tensor],
    images: Tensor,
    classes: Tensor,
    epsilon: float,
    steps: int,
    source: torch.Generator,
) -> Tensor:
    """Images (B, 3, H, W) in [0, 1] moved by at most epsilon a pixel so that they are misread.

    Projected gradient descent (Madry et al. 2018, section 2.1): a random start in the ball, then
    `steps` times along the sign of the cross-entropy's gradient. One step is 2.5 epsilon / steps
    long, so that every point of the ball can be reached, wherever it starts.

    Args:
        logits: images -> (B, K), of a network in eval mode: a batch must not change batch norm.
        classes: (B,) int64, the truth.
        epsilon: in [0, 1]; 4/255 is four grey levels.
        source: a CPU generator, for the start.
    """
    start = torch.rand(images.shape, generator=source).to(images.device) * 2 - 1
    low, high = (images - epsilon).clamp_min(0), (images + epsilon).clamp_max(1)
    moved = (images + epsilon * start).clamp(0, 1)
    for _ in range(steps):
        with torch.enable_grad():
            moved.requires_grad_(True)
            loss = F.cross_entropy(logits(moved).float(), classes, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, moved)
        moved = moved.detach() + 2.5 * epsilon / steps * gradient.sign()
        moved = torch.clamp(moved, low, high)
    return moved.detach()


def survives(
    target: Target,
    images: Tensor,
    classes: Tensor,
    epsilon: float,
    *,
    seed: int = 0,
    batch: int = 128,
) -> Tensor:
    """(B,) bool: read rightly as it is, and still after `pgd`. epsilon 0 is plain accuracy."""
    source = torch.Generator().manual_seed(seed)
    right = []
    for part, truth in zip(images.split(batch), classes.split(batch), strict=True):
        with torch.no_grad():
            plain = target.logits(part).argmax(1) == truth
        moved = pgd(target.logits, part, truth, epsilon, STEPS, source)
        with torch.no_grad():
            right.append(plain & (target.logits(moved).argmax(1) == truth))
    return torch.cat(right)
