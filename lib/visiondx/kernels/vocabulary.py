r"""A softmax over a vocabulary times its embedding matrix, without writing the probabilities.

DiffExplainer (Pennisi et al., 2024), section 4.4, with the Gumbel-softmax of Jang et al. (2017):
for logits a (N, V), noise g, a temperature T and embeddings E (V, d),

    p_nv = exp((a_nv + g_nv) / T) / sum_w exp((a_nw + g_nw) / T),    y_n = sum_v p_nv E_v    (N, d)

    dL/da_nv = p_nv (r_n · E_v - r_n · y_n) / T,    dL/dE_v = sum_n p_nv r_n    with r = dL/dy.

Forward walks over tiles of the vocabulary with the row's running maximum and sum (the online
softmax of Milakov and Gimelshein, 2018), and rescales what it has when the maximum rises. Backward
forms p again, tile by tile, from the row's maximum and sum, all that is kept beside y. They are
kept apart: among logits of some thousands their log-sum-exp would be off by a ten-thousandth.

Shapes: V = 49,408 and d = 768 are Stable Diffusion 1's, N from 1 to 64. A word whose logit or noise
is -inf is banned: probability and gradient 0. A shorter vocabulary is fewer columns and rows. The
noise is read, not made: its 4 N V bytes are a twelfth of E's at N = 64.

In float32, forward reads 4 V (d + N) bytes and 4 N V more with noise, and takes 2 N V d flops and
N V exponentials; backward reads as much, writes 4 N V, and takes as many again; the gradient of E,
formed only if asked for, adds 4 V d bytes and 2 N V d flops. softmax and a matrix product write and
read 4 N V bytes some eight times more. Half types are computed in float32.

CPU: a tile is one matrix product and holds 1 MB of probabilities, which stay in cache. GPU:
`visiondx.kernels.vocabulary_triton`.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from visiondx.core.errors import InputError
from visiondx.kernels.dispatch import attempt, choose
from visiondx.kernels.vocabulary_triton import TritonMix

TILE = 2**18  # probabilities of a tile, all rows together: 1 MB in float32


def mix(
    logits: Tensor,
    embeddings: Tensor,
    noise: Tensor | None = None,
    *,
    temperature: float = 1.0,
    backend: str | None = None,
) -> Tensor:
    """softmax((logits + noise) / temperature) @ embeddings: (N, d) in the embeddings' dtype.

    Differentiable in logits and embeddings; the noise is a constant. A row whose words are all
    banned is NaN, as softmax's is.

    Args:
        logits: (N, V), any strides. embeddings: (V, d), any strides; their dtypes may differ.
        noise: (N, V), or None. Gumbel(0, 1) noise makes a row a draw of the Gumbel-softmax.
        temperature: above 0; towards 0 a row of p becomes one-hot.
        backend: "reference" holds (N, V); None chooses by device, always in tiles.

    Raises:
        InputError: shapes that do not fit, integers, a temperature that is not above 0, or noise
            that needs a gradient.
    """
    _check(logits, embeddings, noise, temperature)
    double = torch.float64 in (logits.dtype, embeddings.dtype)
    obstacle = "float64 is not supported" if double else ""
    chosen = choose("vocabulary.mix", logits, backend, obstacle)
    arguments = (logits, embeddings, noise, float(temperature))
    if backend == "reference":
        return _written_out(*arguments)
    if chosen != "triton":  # the tiles run on every device, and never hold N V probabilities
        return _Tiles.apply(*arguments)
    if backend == "triton":  # insisted on: let a failure show
        return TritonMix.apply(*arguments)
    return attempt(
        "vocabulary.mix",
        lambda: TritonMix.apply(*arguments),
        lambda: _Tiles.apply(*arguments),
    )


def _check(logits: Tensor, embeddings: Tensor, noise: Tensor | None, temperature: float) -> None:
    if logits.ndim != 2 or embeddings.ndim != 2 or logits.shape[1] != embeddings.shape[0]:
        raise InputError(
            "mix needs logits (N, V) and embeddings (V, d), "
            f"got {tuple(logits.shape)} and {tuple(embeddings.shape)}."
        )
    if not logits.is_floating_point() or not embeddings.is_floating_point():
        raise InputError(
            "mix needs floating-point logits and embeddings, "
            f"got {logits.dtype} and {embeddings.dtype}: convert them."
        )
    if 0 in (*logits.shape, *embeddings.shape):
        raise InputError(
            f"There is nothing to mix in logits {tuple(logits.shape)} and embeddings "
            f"{tuple(embeddings.shape)}: every size must be at least 1."
        )
    if not 0 < temperature < math.inf:
        raise InputError(f"The temperature must be a number above 0, got {temperature}.")
    if noise is not None:
        if noise.shape != logits.shape:
            raise InputError(
                f"noise must have the logits' shape {tuple(logits.shape)}, "
                f"got {tuple(noise.shape)}."
            )
        if noise.requires_grad:
            raise InputError("The noise is a constant: pass noise.detach().")


def _wide(logits: Tensor, embeddings: Tensor) -> torch.dtype:
    double = torch.float64 in (logits.dtype, embeddings.dtype)
    return torch.float64 if double else torch.float32


def _written_out(
    logits: Tensor, embeddings: Tensor, noise: Tensor | None, temperature: float
) -> Tensor:
    """The equation; autograd does the rest."""
    wide = _wide(logits, embeddings)
    scores = logits.to(wide) if noise is None else logits.to(wide) + noise.to(wide)
    return ((scores / temperature).softmax(1) @ embeddings.to(wide)).to(embeddings.dtype)


class _Tiles(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, logits: Tensor, embeddings: Tensor, noise: Tensor | None, temperature: float
    ) -> Tensor:
        wide = _wide(logits, embeddings)
        rows, vocabulary = logits.shape
        top = logits.new_full((rows, 1), -math.inf, dtype=wide)
        total = torch.zeros_like(top)
        y = total.expand(-1, embeddings.shape[1])
        for part in _parts(rows, vocabulary):
            scores = _scores(logits, noise, temperature, part, wide)
            higher = torch.maximum(top, scores.amax(1, keepdim=True))
            base = higher.masked_fill(higher == -math.inf, 0)  # only banned words so far
            p, decay = scores.sub_(base).exp_(), (top - base).exp()
            total = total * decay + p.sum(1, keepdim=True)
            y = torch.addmm(y * decay, p, embeddings[part].to(wide))
            top = higher
        y = y / total
        ctx.save_for_backward(logits, embeddings, noise, y, base, total)
        ctx.temperature = temperature
        return y.to(embeddings.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        logits, embeddings, noise, y, base, total = ctx.saved_tensors
        of_logits, of_embeddings = ctx.needs_input_grad[:2]
        to_logits = torch.empty_like(logits) if of_logits else None
        to_embeddings = torch.empty_like(embeddings) if of_embeddings else None
        r = grad.to(y.dtype) / total  # so that p need not be divided
        along = (r * y).sum(1, keepdim=True)
        for part in _parts(*logits.shape):
            p = _scores(logits, noise, ctx.temperature, part, y.dtype).sub_(base).exp_()
            if of_embeddings:
                to_embeddings[part] = p.T @ r
            if of_logits:
                slope = torch.addmm(-along, r, embeddings[part].to(y.dtype).T)
                to_logits[:, part] = slope.mul_(p).div_(ctx.temperature)
        return to_logits, to_embeddings, None, None


def _parts(rows: int, vocabulary: int) -> Iterator[slice]:
    words = max(1, TILE // rows)
    for start in range(0, vocabulary, words):
        yield slice(start, min(start + words, vocabulary))


def _scores(
    logits: Tensor, noise: Tensor | None, temperature: float, part: slice, wide: torch.dtype
) -> Tensor:
    """(N, part), a tensor of its own."""
    scores = logits[:, part].to(wide, copy=True)
    if noise is not None:
        scores += noise[:, part]
    return scores.div_(temperature)
