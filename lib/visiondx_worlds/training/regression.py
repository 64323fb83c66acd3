"""The generator's first lesson: to draw the render of its own z."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from visiondx_worlds.worlds.base import Attributes, World


def presence(
    world: World,
    attributes: Attributes,
    images: Tensor,
    render: Callable[[Attributes], Tensor],
) -> Tensor:
    """Where one attribute of each image shows: (B, H, W), each summing to 1.

    The world draws every image again with one binary attribute, chosen at random, switched; the
    pixels that change are what a viewer tells the attribute by. A nose is 40 pixels of 4,096 and
    a plain pixel loss finds it last.
    """
    rows = torch.arange(len(attributes))
    chosen = torch.randint(len(world.binary), (len(attributes),))
    want = world.labels(attributes)
    want[rows, chosen] = ~want[rows, chosen]
    switched = attributes.values.clone()
    for index in chosen.unique().tolist():
        mine = (chosen == index).to(switched.device)
        part = world.switch(attributes[mine], world.binary[index], want[mine, index])
        switched[mine] = part.values
    change = (render(Attributes(switched, attributes.names)) - images).abs().mean(dim=1)
    return change / change.sum(dim=(1, 2), keepdim=True).clamp_min(1e-3)


def regression_terms(images: Tensor, target: Tensor, seen: Tensor) -> dict[str, Tensor]:
    """What the warm-up minimises; images and target (B, 3, H, W) in [-1, 1], seen as `presence`.

    pixel: L1, pixels near edges weighted up to 5 times, because what tells attributes apart is
    small and thin. coarse: L1 at half and quarter size, for placement. gradient: L1 between
    horizontal and vertical differences, for sharpness. square: the squared error, weighted the
    same; L1's gradient is as large for a faint edge as for a moustache that is missing. attribute:
    L1 and squared error where one attribute of each image shows.
    """
    with torch.no_grad():
        mean = F.avg_pool2d(target, 5, stride=1, padding=2, count_include_pad=False)
        detail = (target - mean).abs().mean(dim=1, keepdim=True)
        weight = 1 + 4 * (detail * 5).clamp(max=1)
    error = images - target
    half = F.avg_pool2d(error, 2)
    gradient = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    either = error.abs() + error.square()
    return {
        "pixel": (error.abs() * weight).mean(),
        "coarse": half.abs().mean() + F.avg_pool2d(half, 2).abs().mean(),
        "gradient": gradient,
        "square": (error.square() * weight).mean(),
        "attribute": (either.mean(dim=1) * seen).sum(dim=(1, 2)).mean(),
    }
