"""A target by its name or file, with a name for every class."""

import torch

from visiondx.core.errors import InputError, reason
from visiondx.diffexplainer.layers import try_images
from visiondx.models.outputs import ABSENT
from visiondx.models.target import Target


def open_target(spec: str, resolution: int = 64, device: str | torch.device = "cpu") -> Target:
    """As ``Target.load``, but a bare module of K > 2 outputs has classes, "class 0" and so on.

    Args:
        resolution: of the images on which a bare module is tried.

    Raises:
        InputError: see ``Target.load``; a target that fails on such images.
    """
    target = Target.load(spec).to(device)
    if target.labels != ABSENT or target.class_index is not None or target.config:
        return target
    images = try_images(target, 1, resolution)
    try:
        with torch.no_grad():
            out = target.raw(images)
    except Exception as error:
        raise InputError(
            f"{spec} failed on images of shape {tuple(images.shape)} ({reason(error)}): let it "
            "return a Target with the size that it expects."
        ) from error
    if not isinstance(out, torch.Tensor) or out.ndim != 2 or out.shape[1] < 3:
        return target  # one logit or two; what is neither is refused where it is asked
    scale = [part.flatten().tolist() for part in (target.mean, target.std)]
    mean, std = scale if target.normalise else (None, None)
    labels = [f"class {k}" for k in range(out.shape[1])]
    made = Target(target.module, "multiclass", labels, target.size, mean, std, target.probabilities)
    made.home = target.home
    return made.to(device)
