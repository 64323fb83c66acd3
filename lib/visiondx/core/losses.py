"""The papers' losses, one function for each numbered equation; each gives one value an image.

ZOOM (Luo et al., CVPR 2023), section 3.3; LLM2Loss (Ardeshir, 2023), section 3.1, whose Eqs. 2-4
give one value a pair of images.
"""

import torch.nn.functional as F
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.kernels.ssim import SSIMReference


def target_loss(logit: Tensor, flipped: Tensor, hard: bool = False) -> Tensor:
    """ZOOM Eq. 5: L_target = L_CE(f(x_hat), p_cls), p_cls = 1 - f(x); (B,).

    Computed from the logit, so that a saturated target keeps its gradient f(x_hat) - p_cls.

    Args:
        logit: (B,) log-odds of f(x_hat).
        flipped: (B,) probabilities p_cls; a constant of the search.
        hard: round p_cls to the label 0 or 1, as the authors' code does.

    Raises:
        InputError: shapes differ, or p_cls is outside [0, 1] (logits by mistake, or NaN).
    """
    if logit.shape != flipped.shape or logit.ndim != 1:
        raise InputError(
            "target_loss needs logit and flipped of one shape (B,), "
            f"got {tuple(logit.shape)} and {tuple(flipped.shape)}."
        )
    if not bool(((flipped >= 0) & (flipped <= 1)).all()):
        raise InputError("target_loss needs flipped = 1 - f(x) in [0, 1]: pass probabilities.")
    label = (flipped > 0.5).to(logit.dtype) if hard else flipped
    return F.binary_cross_entropy_with_logits(logit, label, reduction="none")


def keypoint_loss(points: Tensor, random: Tensor) -> Tensor:
    """ZOOM Eq. 6: L_target = L_MSE(f(x_hat), p_kp), p_kp a set of random points; (B,).

    The mean over points and coordinates.

    Args:
        points: (B, K, 2) of x_hat. random: (B, K, 2), a constant of the search.

    Raises:
        InputError: shapes differ.
    """
    if points.shape != random.shape or points.ndim != 3:
        raise InputError(
            "keypoint_loss needs points and random points of one shape (B, K, 2), "
            f"got {tuple(points.shape)} and {tuple(random.shape)}."
        )
    return (points - random).square().mean((1, 2))


def part_loss(logits: Tensor, goal: Tensor) -> Tensor:
    """Eq. 5 at every pixel: the cross-entropy of f(x_hat) under a goal, mean over pixels; (B,).

    ZOOM has no loss for segmentation networks; this is its analogue.

    Args:
        logits: (B, P, h, w) of x_hat.
        goal: (B, P, h, w), each pixel's a distribution over parts; a constant of the search.

    Raises:
        InputError: shapes differ.
    """
    if logits.shape != goal.shape or logits.ndim != 4:
        raise InputError(
            "part_loss needs logits and goal of one shape (B, P, h, w), "
            f"got {tuple(logits.shape)} and {tuple(goal.shape)}."
        )
    return -(goal * logits.log_softmax(1)).sum(1).mean((1, 2))


def struct_loss(x_hat: Tensor, reference: SSIMReference) -> Tensor:
    """ZOOM Eq. 7: L_struct = L_SSIM(x_hat, x) = 1 - SSIM(x_hat, x); (B,), in [0, 2].

    Args:
        x_hat: (B, 3, H, W) in [0, 1]. reference: the statistics of x, row by row.
    """
    return 1 - reference.ssim(x_hat)


def attr_loss(logits_hat: Tensor, probabilities: Tensor) -> Tensor:
    """ZOOM Eq. 8: L_attr = L_CE(CLIP(x_hat), CLIP(x)); (B,).

    The cross-entropy of CLIP's zero-shot distribution over n prompts for x_hat under the one for
    x; its minimum, the entropy of the latter, is where both agree.

    Args:
        logits_hat: (B, n) scaled similarities of x_hat with the prompts.
        probabilities: (B, n) softmax of those of x; a constant of the search.

    Raises:
        InputError: shapes differ.
    """
    if logits_hat.shape != probabilities.shape or logits_hat.ndim != 2:
        raise InputError(
            "attr_loss needs logits and probabilities of one shape (B, prompts), "
            f"got {tuple(logits_hat.shape)} and {tuple(probabilities.shape)}."
        )
    return -(probabilities * logits_hat.log_softmax(1)).sum(1)


def regression_loss(predicted: Tensor, loss: Tensor) -> Tensor:
    """LLM2Loss Eq. 1: (h(CLIP(x)) - L(f(x)))², whose mean is the MSE; (..., n).

    Args:
        predicted: (..., n) h of each image, one row a member of an ensemble.
        loss: (..., n) or (n,) of the black box; constants.

    Raises:
        InputError: shapes that do not fit.
    """
    if predicted.shape[-1:] != loss.shape[-1:] or predicted.ndim < loss.ndim:
        raise InputError(
            "regression_loss needs predictions (..., n) and a loss for each of n images, "
            f"got {tuple(predicted.shape)} and {tuple(loss.shape)}."
        )
    return (predicted - loss).square()


def ranking_loss(h_i: Tensor, h_j: Tensor, target: Tensor) -> Tensor:
    """LLM2Loss Eq. 2: BCE(ŷ_ij, y_ij) with ŷ_ij of Eq. 3 and y_ij of Eq. 4; the shape of h_i.

    Computed from the scores, so that a pair far apart keeps its gradient. Over all pairs of n
    images see ``kernels.all_pairs``.

    Args:
        h_i, h_j: scores of the two images of each pair. target: y_ij, a constant.

    Raises:
        InputError: shapes differ.
    """
    _check_pairs("ranking_loss", h_i, h_j, target)
    return F.binary_cross_entropy_with_logits(h_i - h_j, target, reduction="none")


def pair_probability(h_i: Tensor, h_j: Tensor) -> Tensor:
    """LLM2Loss Eq. 3: ŷ_ij = σ(h_i - h_j), that image i has the larger loss; the shape of h_i.

    Raises:
        InputError: shapes differ.
    """
    _check_pairs("pair_probability", h_i, h_j)
    return (h_i - h_j).sigmoid()


def pair_target(loss_i: Tensor, loss_j: Tensor) -> Tensor:
    """LLM2Loss Eq. 4: y_ij = 1[L_i > L_j], 0 where both are equal; the shape and type of loss_i.

    Raises:
        InputError: shapes differ.
    """
    _check_pairs("pair_target", loss_i, loss_j)
    return (loss_i > loss_j).to(loss_i.dtype)


def _check_pairs(name: str, *tensors: Tensor) -> None:
    if len({tensor.shape for tensor in tensors}) != 1:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors)
        raise InputError(f"{name} needs tensors of one shape, one value a pair, got {shapes}.")
