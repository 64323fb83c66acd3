"""The image tower of the embedded CLIP: a BatchNorm conv net for 64 px, registered with timm.

Moustaches, earrings and lashes are 2-4 px here, so the stem keeps the full 64 x 64 and the first
residual stage works at 32 x 32. Where something is matters as much as that it is there (a moustache
is not a beard), so the last grid is flattened, not averaged.
"""

import torch
from timm.models import register_model
from torch import Tensor, nn
from torch.nn import functional as F


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Residual(nn.Module):
    """(B, C, H, W) -> (B, C, H, W): two 3 x 3 convolutions added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv(channels, channels)
        self.second = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm.weight)  # the block starts as the identity

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm(self.second(self.first(x))))


class Tower(nn.Module):
    """(B, 3, 64, 64) normalised images -> (B, num_classes) features, not yet of unit norm.

    Args:
        num_classes: width of the output; open_clip passes its `embed_dim`.
        stem: channels at 64 x 64.
        widths: channels at 32, 16 and 8 px, each stage one strided convolution and one `Residual`.
    """

    hidden_width = 256

    def __init__(
        self, num_classes: int = 128, stem: int = 24, widths: tuple[int, ...] = (48, 80, 112)
    ) -> None:
        super().__init__()
        self.stem = _conv(3, stem)
        self.stages = nn.Sequential()
        for before, width in zip((stem, *widths), widths, strict=False):
            self.stages.append(nn.Sequential(_conv(before, width, stride=2), Residual(width)))
        self.pool = nn.AvgPool2d(2)  # 8 x 8 -> the 4 x 4 grid that the head reads
        self.hidden = nn.Sequential(nn.Linear(widths[-1] * 16, self.hidden_width), nn.ReLU())
        self.head = nn.Linear(self.hidden_width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        return self.head(self.hidden(self.pool(self.stages(self.stem(x))).flatten(1)))


@register_model
def visiondx_tower(
    pretrained: bool = False, num_classes: int = 128, global_pool: str = "grid", **_: object
) -> Tower:
    """timm's entry point, called by open_clip's `TimmModel` (which passes its pool and configs)."""
    if pretrained or global_pool != "grid":
        raise ValueError("visiondx_tower has no timm weights and one pooling: global_pool='grid'.")
    return Tower(num_classes)
