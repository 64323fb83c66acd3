"""A residual discriminator that trains fast on a CPU.

As StyleGAN2's (equalised learning rate, leaky ReLU, minibatch standard deviation), with two cheaper
parts: 2 x 2 pixels are folded into channels before the first layer, so that nothing is convolved
at full resolution, and average pooling replaces the filtered stride.
"""

import math
from collections.abc import Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visiondx.models.stylegan2 import GAIN, LEAK, FullyConnectedLayer


class EqualConv(nn.Module):
    """Convolution with equalised learning rate, same size, optionally with a leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, activate: bool = True) -> None:
        super().__init__()
        weight = torch.randn(outputs, inputs, kernel, kernel)
        self.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last))
        self.bias = nn.Parameter(torch.zeros(outputs)) if activate else None
        self.gain = 1 / math.sqrt(inputs * kernel**2)
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        x = F.conv2d(x, self.weight * self.gain, bias, padding=self.weight.shape[-1] // 2)
        return F.leaky_relu(x, LEAK) * GAIN if self.activate else x


class Block(nn.Module):
    """Two convolutions and a halving, with a linear skip, summed at unit variance."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv0 = EqualConv(inputs, inputs, 3)
        self.conv1 = EqualConv(inputs, outputs, 3)
        self.skip = EqualConv(inputs, outputs, 1, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        main = F.avg_pool2d(self.conv1(self.conv0(x)), 2)
        return (main + self.skip(F.avg_pool2d(x, 2))) * math.sqrt(0.5)


def minibatch_std(x: Tensor, group: int) -> Tensor:
    """Append one channel: the standard deviation over groups of samples, averaged over the rest."""
    batch, channels, height, width = x.shape
    group = math.gcd(group, batch)
    y = x.float().reshape(group, batch // group, channels, height, width)
    y = (y.var(dim=0, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3))  # (B / group,)
    y = y.repeat(group).reshape(batch, 1, 1, 1).expand(-1, -1, height, width)
    return torch.cat([x, y.to(x.dtype)], dim=1)


class Discriminator(nn.Module):
    """Images (B, 3, H, W) in [-1, 1] -> logits (B,), high for renders.

    Args:
        channels: resolution after folding -> width, e.g. ``{32: 48, 16: 96, 8: 128, 4: 128}``
            for 64-pixel images; the smallest resolution must be 4.
        group: batch samples that share one standard deviation.
    """

    def __init__(self, channels: Mapping[int, int], group: int = 4) -> None:
        super().__init__()
        widths = [channels[r] for r in sorted(channels, reverse=True)]
        self.group = group
        self.fromrgb = EqualConv(12, widths[0], 1)
        self.blocks = nn.Sequential(*[Block(a, b) for a, b in pairwise(widths)])
        self.conv = EqualConv(widths[-1] + 1, widths[-1], 3)
        self.fc = FullyConnectedLayer(widths[-1] * 16, widths[-1], activate=True)
        self.out = FullyConnectedLayer(widths[-1], 1)

    def forward(self, images: Tensor) -> Tensor:
        x = F.pixel_unshuffle(images, 2).contiguous(memory_format=torch.channels_last)
        x = self.blocks(self.fromrgb(x))
        x = self.conv(minibatch_std(x, self.group))
        return self.out(self.fc(x.flatten(1))).squeeze(1).float()
