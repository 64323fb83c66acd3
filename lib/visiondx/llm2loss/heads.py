"""The heads of an ensemble, stacked: one matrix of weights, a row a member.

LLM2Loss, section 4: linear, or a 2-layer MLP with a ReLU. Since a member is a row, choosing
members, averaging over steps, Adam and early stopping are operations on the rows of one matrix.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from visiondx.core.errors import InputError

HEADS = ("linear", "mlp")


def sizes(head: str, dim: int, hidden: int) -> list[int]:
    """How many weights each part of a row has: linear (w, b); MLP (W1, b1, w2, b2).

    Raises:
        InputError: no such head.
    """
    if head not in HEADS:
        raise InputError(f"No head {head!r}: choose from {', '.join(HEADS)}.")
    return [dim, 1] if head == "linear" else [dim * hidden, hidden, hidden, 1]


def initial(head: str, dim: int, hidden: int, seeds: Sequence[int]) -> Tensor:
    """Random weights (E, P), as ``torch.nn.Linear`` draws them; a member depends on its seed only.

    Args:
        dim: of the embeddings. hidden: units of the MLP. seeds: E of them.
    """
    parts = sizes(head, dim, hidden)
    fans = [dim, dim] if head == "linear" else [dim, dim, hidden, hidden]
    bounds = torch.cat([torch.full((n,), fan**-0.5) for n, fan in zip(parts, fans, strict=True)])
    drawn = [torch.rand(sum(parts), generator=torch.Generator().manual_seed(s)) for s in seeds]
    return (2 * torch.stack(drawn) - 1) * bounds


def scores(weights: Tensor, x: Tensor, head: str, hidden: int) -> Tensor:
    """h of every member: (E, n), differentiable in the weights (E, P).

    Args:
        x: (n, D) for all members, or (E, n, D).
    """
    parts = weights.split(sizes(head, x.shape[-1], hidden), 1)
    x = x.expand(len(weights), *x.shape[-2:])
    if head == "mlp":
        w1, b1, *parts = parts
        x = torch.baddbmm(b1[:, None], x, w1.view(len(w1), x.shape[-1], hidden)).relu()
    w, b = parts
    # a row times a matrix: its gradient, too, is one; the other way round takes five times as long
    return torch.bmm(w[:, None], x.transpose(1, 2)).squeeze(1) + b
