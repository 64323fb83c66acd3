"""Probabilities taken for logits, and the reverse: how one sees which a target returns.

Probabilities taken for logits show nowhere but in f(x) = sigmoid(p), from .5 to .731. A target
that does not say what it returns is refused if its last operation, views aside, is a sigmoid or a
softmax: autograd's graph tells. Where the graph does not tell (compiled, scripted, 1 - p), it is
refused if all that it returns lies in [0, 1], for the images, for black, white and noise, and for
pictures a hundred times too strong, which a logit would follow far out. Several outputs must also
sum to 1, or else vary by more than a tenth, like a single one: an untrained network behind a layer
norm answers .3 to everything, and means it.
"""

import re

import torch
from torch import Tensor

from visiondx.core.errors import InputError

STRONG = 100.0  # times white
VARIES = 0.1  # at least, if values in [0, 1] are to be taken for probabilities
ROUNDING = 1e-4  # beyond [0, 1]
VIEW = re.compile(
    r"(View|UnsafeView|ReshapeAlias|Alias|Squeeze|Unsqueeze|Select|Slice|Expand|ToCopy|Clone|"
    r"Permute|Transpose|T|Index|Clamp|ClampMin|ClampMax)Backward\d+"
)
LOGITS = re.compile(r"(Addmm|Mm|Mv|Bmm|Baddbmm|Convolution|LogSoftmax)Backward\d+")  # no bounds
BOUNDED = {"Sigmoid": "a sigmoid", "Hardsigmoid": "a sigmoid", "Softmax": "a softmax"}


def check_probabilities(target, out: Tensor) -> None:
    """Raise InputError if declared probabilities (B, ...) lie beyond [0, 1] or do not sum to 1."""
    if out.min() < -1e-3 or out.max() > 1 + 1e-3:
        raise InputError(
            f"The target is declared to return probabilities but returned values from "
            f"{out.min():.3g} to {out.max():.3g}: leave out probabilities=True for logits."
        )
    total = out.sum(1) if _exclusive(target, out) else torch.ones(1)
    if (total - 1).abs().max() > 2e-2:
        raise InputError(
            f"The target is declared to return probabilities but they sum to {total.min():.3g} to "
            f"{total.max():.3g} an image, not to 1: return the logits, without probabilities=True."
        )


def _exclusive(target, out: Tensor) -> bool:
    """Whether the columns of its output exclude each other, so that probabilities sum to 1."""
    return target.task != "keypoints" and out.ndim > 1 and out.shape[1] > 1


def check_logits(target, out: Tensor, again: Tensor, images: Tensor) -> None:
    """Raise InputError if what nobody declared as probabilities looks like them.

    Args:
        out: returned for the images, with its graph. again: for these and for ``pictures``.
    """
    last = _last_operation(out)
    if last == "LogSigmoidBackward0":
        raise InputError("The target ends in a log-sigmoid: return the logit that it is made of.")
    name = BOUNDED.get(last.removesuffix("Backward0"))
    if name is None and not LOGITS.fullmatch(last):
        name = _bounded(target, again, images)
    if name is None:
        return
    if name == "a sigmoid" and _exclusive(target, out):
        raise InputError(
            f"The target ends in {name}, {out.shape[1]} answers each for itself, but a "
            f"{target.task} target needs logits: return what comes before it."
        )
    raise InputError(
        f"The target seems to end in {name}, so its answers in [0, 1] would be taken for logits: "
        "set probabilities=True in Target(module, …), or False if they are logits all the same."
    )


def _last_operation(out: Tensor) -> str:
    """Its name in autograd's graph, views aside: "SigmoidBackward0"; "" if there is none."""
    node = out.grad_fn
    while node is not None and VIEW.fullmatch(node.name()) and node.next_functions:
        node = node.next_functions[0][0]
    return "" if node is None else node.name()


def _bounded(target, again: Tensor, images: Tensor) -> str | None:
    """What it seems to end in, if nothing brings it out of [0, 1]."""
    if not _inside(again):
        return None
    strong = torch.cat([images[:1] * 0 - 1, images[:1] * 0 + 1, 2 * pictures(images)[2:4] - 1])
    try:
        values = torch.cat([again, target.raw(STRONG * strong)])
    except Exception:  # nobody promised to take these
        return None
    if not _inside(values):
        return None
    if _exclusive(target, values) and ((values.sum(1) - 1).abs() < 1e-2).all():
        return "a softmax"
    return "a sigmoid" if values.max() - values.min() > VARIES else None


def _inside(values: Tensor) -> bool:
    """Whether all lie in [0, 1]; not so for NaN."""
    return bool(((values >= -ROUNDING) & (values <= 1 + ROUNDING)).all())


def pictures(images: Tensor) -> Tensor:
    """Black, white, two of noise and two negatives, (≤ 6, 3, H, W) in [0, 1], all unlike."""
    noise = torch.rand(2, *images.shape[1:], generator=torch.Generator().manual_seed(0)).to(images)
    black = torch.zeros_like(images[:1])
    return torch.cat([black, 1 - black, noise, 1 - images[:2]])
