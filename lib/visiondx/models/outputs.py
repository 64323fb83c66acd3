"""What a target's module may return for each task, and what is read from it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from visiondx.core.errors import InputError

TASKS = ("binary", "multiclass", "keypoints", "segmentation")
ABSENT = ("absent", "present")
TINY = 1e-6  # probabilities are kept so far from 0 and 1
SHAPES = {"keypoints": "(B, K, h, w), a heat map a point", "segmentation": "(B, P, h, w)"}


def check_task(task: str) -> None:
    """Raise InputError for a task that is none of ``TASKS``."""
    if task not in TASKS:
        raise InputError(f"Task {task!r} is not supported: choose one of {', '.join(TASKS)}.")


def check_labels(task: str, labels: Sequence[str]) -> None:
    """Raise InputError unless these labels suit the task."""
    if task == "binary" and len(labels) != 2:
        raise InputError(f"A binary target needs two labels, got {list(labels)}.")
    if len(labels) < 2 or len(set(labels)) < len(labels):
        raise InputError(f"A {task} target needs two or more different labels, got {list(labels)}.")


def class_labels(task: str, index: int, labels: Sequence[str]) -> Sequence[str]:
    """The two labels of a class against the rest, unless others are given.

    Raises:
        InputError: a class below 0 or not whole, or another task than binary.
    """
    if task != "binary" or isinstance(index, bool) or not isinstance(index, int) or index < 0:
        raise InputError(
            f"class_index must be a class of a binary target, 0 or more, got {index!r} for a "
            f"{task} one."
        )
    return (f"not class {index}", f"class {index}") if labels == ABSENT else labels


def adapt(
    out: object,
    images: Tensor,
    task: str,
    labels: Sequence[str],
    probabilities: bool = False,
    class_index: int | None = None,
) -> Tensor:
    """A module's raw output as logits of one shape a task.

    Args:
        out: what the module returned for images (B, 3, H, W).
        probabilities: it ends in a sigmoid or softmax, or its heat maps are weights in [0, 1].
        class_index: of a binary task, the column k of (B, K) that is taken against all others.

    Returns:
        binary: log-odds (B,); of a class k, z_k - logsumexp of the other z. multiclass: (B, K).
        keypoints: heat maps (B, K, h, w), whose softmax over the pixels says where the point is.
        segmentation: (B, P, h, w).

    Raises:
        InputError: no tensor, or of another shape; it names the right one.
    """
    if not isinstance(out, Tensor):
        raise InputError(
            f"The target must return one tensor, it returned a {type(out).__name__}: "
            "return the logits alone."
        )
    if not out.is_floating_point():
        raise InputError(
            f"The target returned {out.dtype}, which has no gradient: return logits, without "
            "argmax or rounding."
        )
    n, shape, given = len(images), tuple(out.shape), tuple(images.shape)
    if task == "multiclass" and shape != (n, len(labels)):
        raise InputError(
            f"A target with {len(labels)} labels must return shape ({n}, {len(labels)}) for images "
            f"of shape {given}, it returned {shape}: return one logit a label, and name every "
            "label."
        )
    if task in SHAPES and (len(shape) != 4 or shape[:2] != (n, len(labels)) or not out.numel()):
        raise InputError(
            f"A {task} target with {len(labels)} labels must return shape {SHAPES[task]}, here "
            f"({n}, {len(labels)}, h, w), for images of shape {given}, it returned {shape}: "
            "return one map of logits a label, and name every label."
        )
    if task != "binary":
        return out.clamp_min(TINY).log() if probabilities else out
    if class_index is not None:
        return _against_rest(out, n, class_index, probabilities)
    if shape not in ((n,), (n, 1), (n, 2)):
        raise InputError(
            f"A binary target must return shape ({n},), ({n}, 1) or ({n}, 2) for images of "
            f"shape {given}, it returned {shape}: " + _one_logit(shape, n)
        )
    two = len(shape) == 2 and shape[1] == 2
    if not probabilities:
        return out[:, 1] - out[:, 0] if two else out.reshape(n)
    return torch.logit(out[:, 1] if two else out.reshape(n), eps=TINY)


def _one_logit(shape: tuple[int, ...], n: int) -> str:
    if len(shape) != 2 or shape[0] != n:
        return "return one logit an image."
    return (
        "return one logit an image, or ask about one of the classes with class_index=k "
        "(--class k on the command line)."
    )


def _against_rest(out: Tensor, n: int, k: int, probabilities: bool) -> Tensor:
    """Log-odds (B,) of class k of (B, K): z_k - log Σ exp(z_j), j ≠ k, or logit(p_k)."""
    shape = tuple(out.shape)
    if len(shape) != 2 or shape[0] != n or shape[1] < 2:
        raise InputError(
            f"Class {k} was asked for, but the target returned {shape}, not ({n}, K) for K "
            "classes: leave the class out."
        )
    if not k < shape[1]:
        raise InputError(
            f"Class {k} was asked for, but the target returned {shape}: choose one from 0 to "
            f"{shape[1] - 1}."
        )
    if probabilities:
        return torch.logit(out[:, k], eps=TINY)
    return out[:, k] - torch.cat((out[:, :k], out[:, k + 1 :]), 1).logsumexp(1)


def answers(logits: Tensor, task: str) -> Tensor:
    """f(x) from what ``adapt`` returns.

    Returns:
        binary: probabilities (B,) of "present". multiclass: (B, K), rows summing to 1.
        keypoints: points (B, K, 2), see ``soft_argmax``. segmentation: (B, P, h, w), each
        pixel's summing to 1.
    """
    if task == "binary":
        return torch.sigmoid(logits)
    return soft_argmax(logits) if task == "keypoints" else logits.softmax(1)


def sensitive(logits: Tensor, task: str) -> Tensor:
    """A number for each answer that changes when the answer does, to try the gradient on.

    Logits that are all shifted alike are no other answer, and have no gradient here.
    """
    if task == "binary":
        return logits
    return soft_argmax(logits) if task == "keypoints" else logits.amax(1) - logits.mean(1)


def soft_argmax(heatmaps: Tensor) -> Tensor:
    """Where heat maps are, differentiably: the mean position under their softmax.

    (Sun et al., Integral Human Pose Regression, 2018.)

    Args:
        heatmaps: logits (B, K, h, w).

    Returns:
        (B, K, 2), x and y in [0, 1] of the picture: the coordinates of ``faces.keypoints``, in
        which pixel j of w has its middle at (j + 0.5) / w.
    """
    weight = heatmaps.flatten(2).softmax(2).view_as(heatmaps)
    x, y = ((torch.arange(n).to(weight) + 0.5) / n for n in heatmaps.shape[:1:-1])
    return torch.stack([(weight.sum(2) * x).sum(2), (weight.sum(3) * y).sum(2)], 2)


def extent(points: Tensor) -> Tensor:
    """Size of a face: the longer side of the box around its points, (B, K, 2) -> (B,).

    At least 0.01, for points that all fall together.
    """
    return (points.amax(1) - points.amin(1)).amax(1).clamp_min(0.01)


def displacement(points: Tensor, others: Tensor, size: Tensor) -> Tensor:
    """How far points lie from others, (B, K, 2) each: (B,), the mean over points, in sizes (B,)."""
    return (points - others).norm(dim=2).mean(1) / size


def overlap(labels: Tensor, others: Tensor, parts: int) -> tuple[Tensor, Tensor]:
    """Pixels (B, parts) of the intersection and of the union of two label maps (B, h, w)."""
    every = torch.arange(parts, device=labels.device)[:, None, None]
    one, other = labels[:, None] == every, others[:, None] == every
    return (one & other).sum((2, 3)), (one | other).sum((2, 3))


def mean_iou(labels: Tensor, others: Tensor, parts: int) -> Tensor:
    """Intersection over union of two label maps (B, h, w), the mean over the first's parts: (B,).

    Parts that only the other map has take pixels from these; on their own they would count as 0
    for a single stray pixel.
    """
    both, either = overlap(labels, others, parts)
    seen = (
        (labels[:, None] == torch.arange(parts, device=labels.device)[:, None, None]).any(3).any(2)
    )
    return (both / either.clamp_min(1) * seen).sum(1) / seen.sum(1)
