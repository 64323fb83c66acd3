"""What keeps a maximising image smooth: Gaussian blur, total variation, jitter."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Images (B, C, H, W) blurred by a Gaussian of ``sigma`` pixels, cut off at 3 sigma.

    The edge is repeated outwards, so that an even image stays as it is.
    """
    radius = max(1, math.ceil(3 * sigma))
    x = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    taps = torch.exp(-(x**2) / (2 * sigma**2))
    taps = taps / taps.sum()
    padded = F.pad(images, (radius,) * 4, mode="replicate")
    kernel = taps.expand(images.shape[1], 1, 1, -1)
    rows = F.conv2d(padded, kernel, groups=images.shape[1])
    return F.conv2d(rows, kernel.transpose(2, 3), groups=images.shape[1])


def total_variation(images: Tensor) -> Tensor:
    """Squared differences of neighbours across and down, summed, a value: (B, C, H, W) -> (B,).

    (Mahendran and Vedaldi, 2015, with β = 2.)
    """
    across = (images[..., 1:] - images[..., :-1]).square().flatten(1).sum(1)
    down = (images[..., 1:, :] - images[..., :-1, :]).square().flatten(1).sum(1)
    return (across + down) / images[0].numel()


def roll(images: Tensor, shifts: Tensor) -> Tensor:
    """Each image (B, C, H, W) rolled down and to the right by its own whole ``shifts`` (B, 2)."""
    height, width = images.shape[2:]
    y = (torch.arange(height, device=images.device) - shifts[:, :1]) % height
    x = (torch.arange(width, device=images.device) - shifts[:, 1:]) % width
    image = torch.arange(len(images), device=images.device)[:, None, None]
    return images.movedim(1, 3)[image, y[:, :, None], x[:, None]].movedim(3, 1)
