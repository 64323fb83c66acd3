"""Where a model computes."""

import torch
from torch import nn


def device_of(model: nn.Module) -> torch.device:
    """Where a model's parameters are; the CPU for one that has none."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))
