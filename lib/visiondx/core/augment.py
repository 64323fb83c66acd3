"""Image augmentation that makes encoder and judges read generated pictures as well as renders.

What a small GAN does to a picture - it is softer or ringing, its colours drift, its parts sit a
pixel off, its noise is correlated - is done to the renders, lightly enough that every attribute
stays visible.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def _uniform(low: float, high: float, shape: tuple[int, ...], source: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=source) * (high - low) + low


def move(images: Tensor, source: torch.Generator, amount: float = 1.0) -> Tensor:
    """Shift by up to 3 px in 64, turn by up to 5 degrees, scale by up to 6 %, per image."""
    count = len(images)
    angle = _uniform(-5, 5, (count,), source) * amount * math.pi / 180
    scale = 1 + _uniform(-0.06, 0.06, (count,), source) * amount
    shift = _uniform(-3 / 32, 3 / 32, (count, 2), source) * amount
    cos, sin = angle.cos() * scale, angle.sin() * scale
    affine = torch.stack(
        [torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], 1
    ).to(images.device)
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def soften(images: Tensor, source: torch.Generator, amount: float) -> Tensor:
    """x + a (blur(x) - x): blurred for a in (0, 1], sharpened with ringing for a in [-0.5, 0)."""
    kernel = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=images.device) / 16
    weight = (kernel[:, None] * kernel)[None, None].expand(images.shape[1], 1, 5, 5)
    padded = F.pad(images, (2, 2, 2, 2), mode="replicate")
    blurred = F.conv2d(padded, weight, groups=images.shape[1])
    a = _uniform(-0.5, 1.0, (len(images), 1, 1, 1), source) * amount
    return torch.lerp(images, blurred, a.to(images.device).expand_as(images))


def tint(images: Tensor, source: torch.Generator, amount: float) -> Tensor:
    """Contrast by up to 15 %, brightness by up to 0.08, each channel by a further 0.03."""
    shape = (len(images), 1, 1, 1)
    contrast = 1 + _uniform(-0.15, 0.15, shape, source) * amount
    brightness = _uniform(-0.08, 0.08, shape, source) * amount
    colour = _uniform(-0.03, 0.03, (len(images), images.shape[1], 1, 1), source) * amount
    offset = (0.5 + brightness + colour).to(images.device)
    return (images - 0.5) * contrast.to(images.device) + offset


def grain(images: Tensor, source: torch.Generator, amount: float) -> Tensor:
    """Noise of up to 0.03 per pixel and up to 0.03 in soft blobs of 4 px."""
    count, channels, height, width = images.shape
    fine, blobs = _uniform(0, 0.03, (2, count, 1, 1, 1), source) * amount
    noise = torch.randn(images.shape, generator=source) * fine
    coarse = torch.randn(count, channels, height // 4, width // 4, generator=source)
    noise += F.interpolate(coarse, (height, width), mode="bilinear") * blobs
    return images + noise.to(images.device)


def augment(images: Tensor, source: torch.Generator, amount: float = 1.0) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> the same, each image changed differently; no gradients.

    Args:
        source: a CPU generator; the same state gives the same changes on every device.
        amount: scales every change; 0 returns the images (up to resampling).
    """
    with torch.no_grad():
        for change in (move, soften, tint, grain):
            images = change(images, source, amount)
        return images.clamp_(0, 1)
