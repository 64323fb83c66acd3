"""The features before the classifier, and those that carry a class (section 3.3)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.diffexplainer.layers import INPUT, last_linear, mean_activations
from visiondx.diffexplainer.objectives import class_number
from visiondx.models.target import Target


@dataclass(frozen=True)
class Head:
    """The last linear layer: logits are ``weight`` times its features, plus a bias."""

    layer: str  # the features, such as "fc.input"; as objectives, "fc.input:3"
    weight: Tensor  # (K, D)


def last_features(target: Target, resolution: int = 64) -> Head:
    """The features that the classifier is linear in.

    Raises:
        InputError: the target has no linear layer of one row an image.
    """
    name = last_linear(target, resolution)
    weight = target.module.get_submodule(name).weight
    return Head(name + INPUT, weight.detach())


def class_weights(target: Target, head: Head, wanted: str | int) -> Tensor:
    """The weights (D,) of the features in the logit of a class.

    Of a binary target with one logit, "absent" has the weights of "present" with a minus.

    Raises:
        InputError: no such class, or a head that has no row for it.
    """
    number, rows = class_number(target, wanted), len(head.weight)
    if target.task == "binary" and (target.class_index is not None or rows == 1):
        row = head.weight[target.class_index or 0]
        return row if number == 1 else -row
    if rows != len(target.labels):
        raise InputError(
            f"The last linear layer, {head.layer.removesuffix(INPUT)!r}, returns {rows} numbers "
            f"for {len(target.labels)} labels, so its rows are no classes: name the features "
            "yourself, as 'layer:channel'."
        )
    return head.weight[number]


def top_features(
    target: Target, images: Tensor, wanted: str | int, k: int = 5, batch: int = 64
) -> tuple[Tensor, Tensor]:
    """The k features that carry a class: largest mean activation x weight over its images.

    (Singla and Feizi, Salient ImageNet, 2022.)

    Args:
        images: (N, 3, H, W) of the class. wanted: its label or number. batch: images at once.

    Returns:
        The features (k,), columns of ``last_features``, the first the largest, and their mean
        activation x weight (k,).

    Raises:
        InputError: no such class, a k above the number of features, or see ``last_features``.
    """
    class_number(target, wanted)
    head = last_features(target, images.shape[-1])
    weight = class_weights(target, head, wanted).cpu()
    if not 1 <= k <= len(weight):
        raise InputError(f"k must be from 1 to {len(weight)}, the number of features, got {k}.")
    mean = mean_activations(target, images, head.layer, batch).double().mean(0)
    found = torch.topk(mean * weight.double(), k)
    return found.indices, found.values.to(images.dtype)
