"""Small networks that answer in maps: a keypoint detector and a part segmentation for 64 px."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visiondx_worlds.models.classifier import ResidualBlock


def way_down(width: int, deepest: int) -> tuple[nn.Sequential, nn.ModuleList]:
    """The stem, and the blocks of a U-net's three levels: width, 2 width and `deepest` channels."""
    stem = nn.Sequential(nn.Conv2d(3, width, 5, 2, 2, bias=False), nn.BatchNorm2d(width), nn.ReLU())
    blocks = [
        ResidualBlock(width, width, 1),
        ResidualBlock(width, 2 * width, 2),
        ResidualBlock(2 * width, deepest, 2),
    ]
    return stem, nn.ModuleList(blocks)


def way_up(width: int, deepest: int) -> tuple[nn.ModuleList, nn.ModuleList]:
    """What changes the channels on the way back, and the blocks of its two levels."""
    across = [nn.Conv2d(deepest, 2 * width, 1), nn.Conv2d(2 * width, width, 1)]
    up = [ResidualBlock(2 * width, 2 * width, 1), ResidualBlock(width, width, 1)]
    return nn.ModuleList(across), nn.ModuleList(up)


class UNet(nn.Module):
    """Images (B, 3, H, W) -> maps (B, outputs, H / 2, W / 2), or (B, outputs, H, W) if ``full``.

    A U-net (Ronneberger et al., 2015) of residual blocks: a 5x5 stride-2 stem, three levels (32,
    16 and 8 px of a 64 px image), and the way back with the levels' sums. ``full`` adds a thin last
    level that sees the image itself. H and W must be multiples of 8.
    """

    def __init__(self, outputs: int, width: int, full: bool):
        super().__init__()
        self.stem, self.down = way_down(width, 3 * width)
        self.middle = ResidualBlock(3 * width, 3 * width, 1)
        self.across, self.up = way_up(width, 3 * width)
        self.image = None
        last = width
        if full:
            last = width // 2
            self.image = nn.Conv2d(3, last, 3, 1, 1)
            self.wide = nn.Conv2d(width, last, 1)
            self.last = ResidualBlock(last, last, 1)
        self.head = nn.Conv2d(last, outputs, 1)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        levels = []
        for block in self.down:
            x = block(x)
            levels.append(x)
        x = self.middle(x)
        for across, block, level in zip(self.across, self.up, levels[-2::-1], strict=True):
            x = block(double(across(x)) + level)
        if self.image is not None:
            x = self.last(torch.relu(double(self.wide(x)) + self.image(images)))
        return self.head(x)


def double(x: Tensor) -> Tensor:
    """Maps (B, C, H, W) at twice their height and width."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def build_keypoint_net(points: int, width: int = 24) -> UNet:
    """Images (B, 3, 64, 64) -> heat-map logits (B, points, 32, 32); 0.27 M parameters at width 24.

    Returned in train mode, as every new module is.
    """
    return UNet(points, width, full=False)


def build_part_net(parts: int, width: int = 24) -> UNet:
    """Images (B, 3, 64, 64) -> logits (B, parts, 64, 64); 0.27 M parameters at width 24.

    Returned in train mode, as every new module is.
    """
    return UNet(parts, width, full=True)
