"""A keypoint detector and a segmentation network that read the cells of ``zoom_standins``."""

import torch
import torch.nn.functional as F
from torch import nn

from visiondx.models.target import Target
from zoom_standins import SIDE, GridClassifier

PLACES = ((0.3, 0.3), (0.7, 0.3), (0.5, 0.7))  # box: 0.4 x 0.4


class Shifter(nn.Module):
    """Three points; each cell shifts the first one to the right by its weight."""

    def __init__(self, weights: dict[int, float], side: int = SIDE):
        super().__init__()
        self.reader, self.side = GridClassifier(weights), side
        self.eval()

    def forward(self, images):
        points = images.new_tensor(PLACES).repeat(len(images), 1, 1)
        shift = F.pad(self.reader(images)[:, None], (0, 1))  # (B, 2): x alone
        points = torch.cat((points[:, :1] + shift[:, None], points[:, 1:]), 1)
        line = (torch.arange(self.side).to(images) + 0.5) / self.side
        x, y = ((line - t[..., None]).square() for t in points.unbind(2))
        return -200.0 * (x[:, :, None] + y[..., None])  # Gaussians of deviation 0.05


class Painter(nn.Module):
    """Three parts: the background; what is brighter than a half, by each cell's weight; none."""

    def __init__(self, weights: dict[int, float]):
        super().__init__()
        gain = torch.zeros(16)
        for cell, value in weights.items():
            gain[cell] = value
        self.register_buffer("gain", gain.view(1, 1, 4, 4))
        self.eval()

    def forward(self, images):
        gain = F.interpolate(self.gain.to(images), images.shape[2:], mode="nearest")
        bright = gain * (images.mean(1, keepdim=True) - 0.5) + 0.02
        return torch.cat((torch.zeros_like(bright), bright, torch.full_like(bright, -3.0)), 1)


def shifter(weights, **settings):
    return Target(Shifter(weights), "keypoints", ("a", "b", "c"), **settings)


def painter(weights):
    return Target(Painter(weights), "segmentation", ("ground", "bright", "none"))
