"""The truth that keypoint detectors and segmentation networks are trained on, for any world."""

import torch
from torch import Tensor

from visiondx_worlds.worlds.base import Attributes

BACKGROUND = "background"
# of ``faces.keypoints``, in its order; left and right are the picture's
FACE_POINTS = (
    *(f"jaw {i}" for i in range(1, 8)),
    *(
        f"{side} {name}"
        for side in ("left", "right")
        for name in ("brow inside", "brow outside", "eye inside", "pupil", "eye outside")
    ),
    *("nose tip", "nose left", "nose right"),
    *("mouth left", "mouth right", "upper lip", "lower lip"),
    *("left ear lobe", "right ear lobe"),
)


def part_names(world) -> tuple[str, ...]:
    """The background and the parts of ``world.masks``, in the order of ``coverage``."""
    return (BACKGROUND, *world.masks(world.sample(1, 0)))


def coverage(world, attributes: Attributes) -> Tensor:
    """Visible share of each part in each pixel: (B, P, H, W), rows over P summing to 1.

    The background, which comes first, is what no part covers.
    """
    chunk = world.chunk  # of a renderer that goes through the cache of one core
    parts = torch.cat(
        [torch.stack([*world.masks(some).values()], 1) for some in attributes.split(chunk)]
    )
    return torch.cat((1 - parts.sum(1, keepdim=True), parts), 1).clamp(0, 1)
