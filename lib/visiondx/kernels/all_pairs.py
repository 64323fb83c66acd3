r"""The logistic ranking loss over all n² pairs, forward and backward in O(n) memory.

LLM2Loss (Ardeshir, 2023), Eqs. 2-4: with scores h and losses L of n images, the binary
cross-entropy between σ(h_i - h_j) and 1[L_i > L_j], averaged over pairs. The pairs (i, j) and
(j, i) have the same term, so that the mean over both is the one over P = {(i, j): L_i > L_j}:

    loss = 1/|P| sum_P softplus(h_j - h_i),
    d loss / d h_i = 1/|P| (sum_{j: L_j > L_i} σ(h_i - h_j) - sum_{j: L_j < L_i} σ(h_j - h_i)).

Ties and the diagonal are left out. The paper's indicator is 0 there, which says of two equal
losses both that i's is not the larger and that j's is not: softplus(d) + softplus(-d) carries no
order, only a pull to equal scores, and the diagonal is the constant log 2.

Shapes: h (E, n), one row a member of an ensemble; losses (n,) or (E, n); result (E,), 0 where no
two losses differ. float32 or float64; half types are computed in float32. It reads 8 n bytes and
writes 4 n in float32; a pair costs five flops and, on average, a fraction of a logarithm.

CPU: sorted by loss, the partners of i are the first `below[i]` images: a triangle, walked in tiles
that stay in cache, half of the n² terms. Within a tile e^(h_j - h_i) is an outer product of two
vectors. The gradient is formed with the value, while a tile is in cache, and backward only scales
it. GPU: `visiondx.kernels.all_pairs_triton`.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from visiondx.core.errors import InputError
from visiondx.kernels.all_pairs_triton import TritonAllPairs
from visiondx.kernels.dispatch import attempt, choose

REACH = 80.0  # e^80 is still a float32
ROWS = 128  # of a tile
TILE = 2**17  # pairs of a tile, all members together: 0.5 MB in float32


def all_pairs_loss(h: Tensor, losses: Tensor, *, backend: str | None = None) -> Tensor:
    """LLM2Loss Eqs. 2-4 over all pairs with L_i > L_j: (E,), differentiable in h.

    Args:
        h: (E, n) scores, any strides. losses: (n,) for all members, or (E, n); finite constants.
        backend: "reference" holds (E, n, n); None chooses by device, always in O(n) memory.

    Raises:
        InputError: shapes that do not fit, integers, or losses that need a gradient.
    """
    if h.ndim != 2 or losses.shape not in {h.shape, h.shape[1:]}:
        raise InputError(
            "all_pairs_loss needs scores (E, n) and losses (n,) or (E, n), "
            f"got {tuple(h.shape)} and {tuple(losses.shape)}."
        )
    if not h.is_floating_point() or not losses.is_floating_point():
        raise InputError(
            "all_pairs_loss needs floating-point scores and losses, "
            f"got {h.dtype} and {losses.dtype}: convert them."
        )
    if losses.requires_grad:
        raise InputError("The losses are a constant: pass losses.detach().")
    obstacle = "float64 is not supported" if h.dtype == torch.float64 else ""
    chosen = choose("all_pairs_loss", h, backend, obstacle)
    if backend == "reference":
        return _broadcast(_promote(h), losses)
    if chosen != "triton":  # the tiles run on every device, and never hold n² terms
        return _Tiles.apply(h, losses)
    if backend == "triton":  # insisted on: let a failure show
        return _triton(h, losses)
    return attempt("all_pairs_loss", lambda: _triton(h, losses), lambda: _Tiles.apply(h, losses))


def _promote(h: Tensor) -> Tensor:
    return h if h.dtype == torch.float64 else h.float()


def _sorted(losses: Tensor) -> tuple[Tensor, Tensor]:
    """The order of the images by loss, and for each in that order how many have less; both int64.

    Of i and j, i has the larger loss where below_i > below_j, and none where they are equal.
    """
    ordered, order = losses.contiguous().sort(dim=-1)
    return order, torch.searchsorted(ordered, ordered)


def _broadcast(h: Tensor, losses: Tensor) -> Tensor:
    """The equation, written down; autograd does the rest."""
    worse = losses[..., :, None] > losses[..., None, :]
    d = h[:, :, None] - h[:, None, :]
    terms = F.binary_cross_entropy_with_logits(d, torch.ones_like(d), reduction="none")
    return (terms * worse).sum((1, 2)) / worse.sum((-2, -1)).clamp_min(1)


def _triton(h: Tensor, losses: Tensor) -> Tensor:
    order, below = _sorted(losses)
    place = torch.empty_like(below).scatter_(-1, order, below)  # back in the images' own order
    return TritonAllPairs.apply(h, place.int(), below.sum(-1).clamp_min(1))


def _cells(least: int, most: int, columns: int) -> Iterator[tuple[slice, bool]]:
    """Tiles of the columns of some rows, and whether one holds cells that are not below them all:
    the first ``least`` columns are partners of every row, none beyond ``most`` of any.
    """
    for begin, end in ((0, least), (least, most)):
        for first in range(begin, end, columns):
            yield slice(first, min(first + columns, end)), begin > 0 or least == 0


class _Tiles(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h: Tensor, losses: Tensor) -> Tensor:
        members, n = h.shape
        order, below = _sorted(losses)
        order, below = order.expand(members, n), below.view(-1, n)
        scores = _promote(h).gather(1, order)
        pairs = below.sum(1).clamp_min(1)
        value = scores.new_zeros(members, dtype=torch.float64)
        gradient = torch.zeros_like(scores) if ctx.needs_input_grad[0] else None
        least, most = below.amin(0).tolist(), below.amax(0).tolist()  # neither ever falls
        columns = max(ROWS, TILE // (ROWS * members))
        tile = _Near(scores) if _spread(scores) < REACH else _Far(scores)
        for start in range(0, n, ROWS):
            rows = slice(start, min(start + ROWS, n))
            for cells, ragged in _cells(least[start], most[rows.stop - 1], columns):
                outside = None
                if ragged:
                    j = torch.arange(cells.start, cells.stop, device=h.device)
                    outside = j >= below[:, rows, None]
                slope = tile(rows, cells, outside, value)
                if gradient is not None:
                    gradient[:, rows] -= slope.sum(2)
                    gradient[:, cells] += slope.sum(1)
        if gradient is not None:
            gradient /= pairs[:, None]
            # neither an input nor an output: no version to guard
            ctx.gradient = torch.empty_like(gradient).scatter_(1, order, gradient)
        ctx.dtype = h.dtype
        return (value / pairs).to(scores.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        return (ctx.gradient * grad[:, None]).to(ctx.dtype), None


def _spread(scores: Tensor) -> float:
    """The largest difference between two scores of one member; NaN if any is."""
    return float((scores.amax(1) - scores.amin(1)).max())


class _Near:
    """Tiles of scores whose differences an exponential can hold: e^d is an outer product.

    softplus(d) = log(1 + e^d) and σ(d) = e^d / (1 + e^d), without an exponential a pair; the
    logarithm is taken of products of as many terms as cannot overflow.
    """

    def __init__(self, scores: Tensor) -> None:
        middle = (scores.amax(1, keepdim=True) + scores.amin(1, keepdim=True)) / 2
        self.up, self.down = (scores - middle).exp(), (middle - scores).exp()
        self.folds = int(math.log2(REACH / (_spread(scores) + math.log(2))))

    def __call__(self, rows: slice, cells: slice, outside: Tensor | None, value: Tensor) -> Tensor:
        """σ(h_j - h_i) (E, rows, cells), 0 outside; the sums of the loss are added to ``value``."""
        e = self.down[:, rows, None] * self.up[:, None, cells]
        if outside is not None:
            e.masked_fill_(outside, 0)
        factor = 1 + e
        e /= factor
        product = factor.flatten(1)
        for _ in range(self.folds):
            if product.shape[1] % 2:
                break
            first, second = product.chunk(2, 1)
            product = first * second
        value += product.log().sum(1)
        return e


class _Far:
    """The same for any scores."""

    def __init__(self, scores: Tensor) -> None:
        self.scores = scores

    def __call__(self, rows: slice, cells: slice, outside: Tensor | None, value: Tensor) -> Tensor:
        d = self.scores[:, None, cells] - self.scores[:, rows, None]
        if outside is not None:
            d.masked_fill_(outside, -torch.inf)
        value += F.softplus(d).sum((1, 2))
        return d.sigmoid_()
