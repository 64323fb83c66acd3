"""Points and parts drawn on pictures, as tensors that ``plots.image_grid`` takes."""

import torch
import torch.nn.functional as F
from matplotlib import colormaps
from torch import Tensor

from visiondx.core.errors import InputError

BEFORE, AFTER = (0.15, 0.55, 1.0), (1.0, 0.15, 0.2)  # blue: the original; red: the edited
SCALE = 4  # drawn pixels a pixel
SIDE = 128  # larger pictures are made so small before what is found in them is drawn
RADIUS = 3.0  # of a point, in drawn pixels
OPACITY = 0.6  # of a part's tint


def draw_points(
    images: Tensor,
    points: Tensor,
    others: Tensor | None = None,
    scale: int = SCALE,
) -> Tensor:
    """Images (B, 3, H, W) enlarged, with their points as dots: (B, 3, scale H, scale W).

    Args:
        points: (B, K, 2), x and y in [0, 1] of the picture; red. others: (B, K, 2) of another
            picture, drawn below in blue.

    Raises:
        InputError: shapes that do not fit.
    """
    large = enlarged(images, scale)
    for some, colour in ((others, BEFORE), (points, AFTER)):
        if some is None:
            continue
        if some.ndim != 3 or len(some) != len(images) or some.shape[2] != 2:
            raise InputError(
                f"{len(images)} images need points ({len(images)}, K, 2), got {tuple(some.shape)}."
            )
        height, width = large.shape[2:]
        x = torch.arange(width, device=large.device) + 0.5 - some[..., :1] * width  # (B, K, W)
        y = torch.arange(height, device=large.device) + 0.5 - some[..., 1:] * height
        away = (x.square()[:, :, None] + y.square()[..., None]).amin(1).sqrt()  # (B, H, W)
        for reach, ink in ((RADIUS + 1, (0.0, 0.0, 0.0)), (RADIUS, colour)):
            cover = (reach + 0.5 - away).clamp(0, 1)[:, None]
            large = torch.lerp(large, large.new_tensor(ink)[:, None, None], cover)
    return large


def draw_parts(images: Tensor, labels: Tensor, parts: int) -> Tensor:
    """Images (B, 3, H, W) tinted by their label maps (B, H, W); the background, 0, is left alone.

    Raises:
        InputError: shapes that differ.
    """
    if labels.shape != (len(images), *images.shape[2:]):
        raise InputError(
            f"Label maps must have the images' shape {(len(images), *images.shape[2:])}, got "
            f"{tuple(labels.shape)}."
        )
    tint = images.new_tensor(part_colours(parts))[labels].permute(0, 3, 1, 2)
    cover = OPACITY * (labels > 0).to(images)[:, None]
    return torch.lerp(images, tint, cover.expand_as(images))


def draw_masks(images: Tensor, masks: Tensor) -> Tensor:
    """Images (B, 3, H, W) with their masks (B, H, W), in [0, 1] or bool, in red; the rest darker.

    Raises:
        InputError: shapes that differ.
    """
    if masks.shape != (len(images), *images.shape[2:]):
        raise InputError(
            f"Masks must have the images' shape {(len(images), *images.shape[2:])}, got "
            f"{tuple(masks.shape)}."
        )
    inside = torch.lerp(images, images.new_tensor(AFTER)[:, None, None].expand_as(images), 0.45)
    return torch.lerp(0.45 * images, inside, masks.to(images)[:, None].expand_as(images))


@torch.no_grad()
def draw_answers(target, images: Tensor, originals: Tensor | None = None) -> Tensor:
    """Images (B, 3, H, W), enlarged, with what a target finds in them.

    It is shown them as they are; drawn, they are of ``SIDE`` pixels or less, times ``SCALE``.
    Points are red, above the blue ones of the originals (B, 3, H, W) where given; parts are tints.

    Args:
        target: a keypoint detector or a segmentation network.
    """
    shrink = SIDE / max(images.shape[2:])
    small = images
    if shrink < 1:
        small = F.interpolate(images, scale_factor=shrink, mode="bilinear", antialias=True)
    if target.task == "segmentation":
        parts = target.parts(images)
        labels = F.interpolate(parts, small.shape[2:], mode="bilinear").argmax(1)
        return enlarged(draw_parts(small, labels, parts.shape[1]))
    others = None if originals is None else target.keypoints(originals)
    return draw_points(small, target.keypoints(images), others)


def part_colours(parts: int) -> list[tuple[float, float, float]]:
    """A colour for each of up to 21 parts, ten strong ones first; the background is grey.

    Raises:
        InputError: more parts.
    """
    colours = colormaps["tab20"].colors
    if parts > 1 + len(colours):
        raise InputError(f"There are colours for {1 + len(colours)} parts, not for {parts}.")
    return [(0.5, 0.5, 0.5), *colours[::2], *colours[1::2]][:parts]


def enlarged(images: Tensor, scale: int = SCALE) -> Tensor:
    """Images (B, 3, H, W) with each pixel as a square: (B, 3, scale H, scale W).

    Raises:
        InputError: no such images.
    """
    if images.ndim != 4 or images.shape[1] != 3 or scale < 1:
        raise InputError(f"enlarged needs images (B, 3, H, W), got {tuple(images.shape)}.")
    return F.interpolate(images, scale_factor=float(scale), mode="nearest")
