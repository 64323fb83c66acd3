"""What each kind of ensemble minimises: scores (E, b) and y (E, b) or (b,) -> (E,)."""

import torch.nn.functional as F
from torch import Tensor

from visiondx.core.losses import pair_target, ranking_loss, regression_loss
from visiondx.kernels.all_pairs import all_pairs_loss
from visiondx.llm2loss.fit import Criterion


def criteria(kind: str, pairs: str) -> tuple[Criterion, Criterion]:
    """The loss of a batch and that of the validation split, member by member.

    Args:
        kind: "regressor", "classifier" or "ranker". pairs: "all" of a batch, or "sampled", each
            image in one pair; the ranker is validated on all pairs either way.
    """
    if kind == "regressor":
        return (_squared, _squared)
    if kind == "classifier":
        return (_crossed, _crossed)
    return (all_pairs_loss if pairs == "all" else _sampled), all_pairs_loss


def _squared(h: Tensor, y: Tensor) -> Tensor:
    return regression_loss(h, y).mean(1)


def _crossed(h: Tensor, y: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(h, y.expand_as(h), reduction="none").mean(1)


def _sampled(h: Tensor, y: Tensor) -> Tensor:
    """Disjoint pairs: the batch comes in random order, so its halves make them."""
    half = h.shape[1] // 2
    (h_i, h_j), (y_i, y_j) = (t[:, : 2 * half].split(half, 1) for t in (h, y))
    return ranking_loss(h_i, h_j, pair_target(y_i, y_j)).mean(1)
