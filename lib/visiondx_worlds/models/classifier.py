"""The small residual network that the embedded binary targets share."""

import torch
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm (He et al., 2016); the first may halve the image."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.skip = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.skip = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.norm1(self.conv1(x)))
        # A 1x1 convolution with a stride sees every other pixel only. Written as that: with few
        # channels, last in memory, oneDNN's backward of the other form writes past its buffer on
        # CPUs without AVX-512.
        step = self.conv1.stride[0]
        return torch.relu(self.norm2(self.conv2(out)) + self.skip(x[:, :, ::step, ::step]))


def build_classifier(width: int = 16) -> nn.Sequential:
    """Images (B, 3, 64, 64) -> one logit (B, 1); 0.3 M parameters at width 16.

    A 5x5 stride-2 stem and four residual blocks (32, 16, 8 and 4 px), then global average pooling.
    Returned in train mode, as every new module is.
    """
    return nn.Sequential(
        nn.Conv2d(3, width, 5, 2, 2, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        ResidualBlock(width, width, 1),
        ResidualBlock(width, 2 * width, 2),
        ResidualBlock(2 * width, 4 * width, 2),
        ResidualBlock(4 * width, 8 * width, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8 * width, 1),
    )
