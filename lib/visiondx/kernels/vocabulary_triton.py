"""The softmax over a vocabulary times its embedding matrix on the GPU.

Forward: a program owns up to 64 rows, 64 columns of the embeddings and one of up to 32 stretches
of the vocabulary, over which it walks with the online softmax; a second, small sum joins the
stretches by their maxima. Each embedding is read once for 64 rows; the logits are read again for
every 64 columns, from the cache. Backward: a program owns 32 words, so nothing is added to another
program's result: no atomics, and the same bits each time. Equations in
`visiondx.kernels.vocabulary`.

Half embeddings are multiplied as TF32, which holds them exactly and the probabilities better than
half types do; float32 ones in full.
"""

import math

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from visiondx.kernels.dispatch import jit, tl

ROWS, WORDS, WIDTH = 64, 32, 64  # of a tile, rows and width at most: within 64 KB of shared memory
STRETCHES = 32  # at most


@jit
def _scores(
    logits, noise, n, v, rows, vocabulary, sln, slv, snn, snv, scale, NOISE: tl.constexpr
):  # fmt: skip
    """(a + g) / T of a tile; n and v broadcast against each other, -inf outside."""
    inside = (n < rows) & (v < vocabulary)
    at = n.to(tl.int64)
    scores = tl.load(logits + at * sln + v * slv, mask=inside, other=-float("inf")).to(tl.float32)
    if NOISE:
        scores += tl.load(noise + at * snn + v * snv, mask=inside, other=0.0).to(tl.float32)
    return scores * scale


@jit
def _forward_kernel(
    logits, noise, embeddings, sums, totals, tops, rows, vocabulary, width, stretch,
    sln, slv, snn, snv, sev, sed, scale,
    ROWS: tl.constexpr, WORDS: tl.constexpr, WIDTH: tl.constexpr, NOISE: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    part = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    n = tl.program_id(2) * ROWS + tl.arange(0, ROWS)
    top = tl.full((ROWS,), -float("inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    sum_ = tl.zeros((ROWS, WIDTH), tl.float32)
    for start in range(0, stretch, WORDS):
        v = part * stretch + start + tl.arange(0, WORDS)
        scores = _scores(
            logits, noise, n[:, None], v[None, :], rows, vocabulary, sln, slv, snn, snv, scale,
            NOISE,
        )  # fmt: skip
        higher = tl.maximum(top, tl.max(scores, 1))
        base = tl.where(higher == -float("inf"), 0.0, higher)  # only banned words so far
        p = tl.exp(scores - base[:, None])
        decay = tl.exp(top - base)
        total = total * decay + tl.sum(p, 1)
        inside = (v < vocabulary)[:, None] & (d < width)[None, :]
        at = v[:, None] * sev + d[None, :] * sed
        e = tl.load(embeddings + at, mask=inside, other=0.0).to(tl.float32)
        sum_ = sum_ * decay[:, None] + tl.dot(p, e, input_precision=PRECISION)
        top = higher
    place = part * rows + n
    tl.store(
        sums + place[:, None] * width + d[None, :], sum_,
        mask=(n < rows)[:, None] & (d < width)[None, :],
    )  # fmt: skip
    if tl.program_id(1) == 0:
        tl.store(totals + place, total, mask=n < rows)
        tl.store(tops + place, top, mask=n < rows)


@jit
def _logits_kernel(
    logits, noise, embeddings, r, along, bases, totals, gradient, rows, vocabulary, width,
    sln, slv, snn, snv, sev, sed, srn, srd, sgn, sgv, scale,
    ROWS: tl.constexpr, WORDS: tl.constexpr, WIDTH: tl.constexpr, NOISE: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    v = tl.program_id(0).to(tl.int64) * WORDS + tl.arange(0, WORDS)
    n = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    slope = tl.zeros((ROWS, WORDS), tl.float32)
    for start in range(0, width, WIDTH):
        d = start + tl.arange(0, WIDTH)
        inside = (n < rows)[:, None] & (d < width)[None, :]
        at = n.to(tl.int64)[:, None] * srn + d[None, :] * srd
        up = tl.load(r + at, mask=inside, other=0.0).to(tl.float32)
        inside = (d < width)[:, None] & (v < vocabulary)[None, :]
        at = d[:, None] * sed + v[None, :] * sev
        e = tl.load(embeddings + at, mask=inside, other=0.0).to(tl.float32)
        slope += tl.dot(up, e, input_precision=PRECISION)
    scores = _scores(
        logits, noise, n[:, None], v[None, :], rows, vocabulary, sln, slv, snn, snv, scale, NOISE
    )  # fmt: skip
    base = tl.load(bases + n, mask=n < rows, other=0.0)[:, None]
    total = tl.load(totals + n, mask=n < rows, other=1.0)[:, None]
    middle = tl.load(along + n, mask=n < rows, other=0.0)[:, None]
    slope = tl.exp(scores - base) / total * (slope - middle) * scale
    at = n.to(tl.int64)[:, None] * sgn + v[None, :] * sgv
    inside = (n < rows)[:, None] & (v < vocabulary)[None, :]
    tl.store(gradient + at, slope.to(gradient.dtype.element_ty), mask=inside)


@jit
def _embeddings_kernel(
    logits, noise, r, bases, totals, gradient, rows, vocabulary, width,
    sln, slv, snn, snv, srn, srd, sgv, sgd, scale,
    ROWS: tl.constexpr, WORDS: tl.constexpr, WIDTH: tl.constexpr, NOISE: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    v = tl.program_id(0).to(tl.int64) * WORDS + tl.arange(0, WORDS)
    d = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    sum_ = tl.zeros((WORDS, WIDTH), tl.float32)
    for start in range(0, rows, ROWS):
        n = start + tl.arange(0, ROWS)
        scores = _scores(
            logits, noise, n[None, :], v[:, None], rows, vocabulary, sln, slv, snn, snv, scale,
            NOISE,
        )  # fmt: skip
        base = tl.load(bases + n, mask=n < rows, other=0.0)[None, :]
        p = tl.exp(scores - base) / tl.load(totals + n, mask=n < rows, other=1.0)[None, :]
        inside = (n < rows)[:, None] & (d < width)[None, :]
        at = n.to(tl.int64)[:, None] * srn + d[None, :] * srd
        up = tl.load(r + at, mask=inside, other=0.0).to(tl.float32)
        sum_ += tl.dot(p, up, input_precision=PRECISION)
    at = v[:, None] * sgv + d[None, :] * sgd
    inside = (v < vocabulary)[:, None] & (d < width)[None, :]
    tl.store(gradient + at, sum_.to(gradient.dtype.element_ty), mask=inside)


class TritonMix(torch.autograd.Function):
    """``apply(logits, embeddings, noise, temperature)``; float32 or half, any strides.

    Shapes as in `visiondx.kernels.vocabulary.mix`.
    """

    @staticmethod
    def forward(ctx, logits, embeddings, noise, temperature) -> Tensor:
        rows, vocabulary = logits.shape
        width = embeddings.shape[1]
        stretch = WORDS * -(-vocabulary // (WORDS * STRETCHES))
        parts = -(-vocabulary // stretch)
        sums, totals, tops = (
            torch.empty(shape, dtype=torch.float32, device=logits.device)
            for shape in [(parts, rows, width), (parts, rows), (parts, rows)]
        )
        drawn, scale, tile = _common(logits, embeddings, noise, temperature)
        grid = (parts, -(-width // tile[2]), -(-rows // tile[0]))
        with torch.cuda.device_of(logits):
            _forward_kernel[grid](
                logits, drawn, embeddings, sums, totals, tops, rows, vocabulary, width, stretch,
                *logits.stride(), *drawn.stride(), *embeddings.stride(), scale, *tile,
            )  # fmt: skip
        top = tops.amax(0)
        base = top.masked_fill(top == -math.inf, 0)
        weight = (tops - base).exp()
        total = (totals * weight).sum(0)
        y = sums.mul_(weight[:, :, None]).sum(0) / total[:, None]
        ctx.save_for_backward(logits, embeddings, noise, y, base, total)
        ctx.temperature = temperature
        return y.to(embeddings.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, r: Tensor):
        logits, embeddings, noise, y, base, total = ctx.saved_tensors
        rows, vocabulary = logits.shape
        width = embeddings.shape[1]
        drawn, scale, tile = _common(logits, embeddings, noise, ctx.temperature)
        steps = (*logits.stride(), *drawn.stride())
        of_logits = of_embeddings = None
        with torch.cuda.device_of(logits):
            if ctx.needs_input_grad[0]:
                of_logits = torch.empty_like(logits)
                along = (r.float() * y).sum(1)
                grid = (-(-vocabulary // WORDS), -(-rows // tile[0]))
                _logits_kernel[grid](
                    logits, drawn, embeddings, r, along, base, total, of_logits, rows,
                    vocabulary, width, *steps, *embeddings.stride(), *r.stride(),
                    *of_logits.stride(), scale, *tile,
                )  # fmt: skip
            if ctx.needs_input_grad[1]:
                of_embeddings = torch.empty_like(embeddings)
                grid = (-(-vocabulary // WORDS), -(-width // tile[2]))
                _embeddings_kernel[grid](
                    logits, drawn, r, base, total, of_embeddings, rows, vocabulary, width,
                    *steps, *r.stride(), *of_embeddings.stride(), scale, *tile,
                )  # fmt: skip
        return of_logits, of_embeddings, None, None


def _common(logits: Tensor, embeddings: Tensor, noise: Tensor | None, temperature: float):
    """A tensor in the place of the noise, 1 / T, and the kernels' constants in their order."""
    rows = min(ROWS, _power_of_two(len(logits)))
    width = min(WIDTH, _power_of_two(embeddings.shape[1]))
    precision = "ieee" if embeddings.dtype == torch.float32 else "tf32"
    tile = (rows, WORDS, width, noise is not None, precision)
    return logits if noise is None else noise, 1 / temperature, tile


def _power_of_two(size: int) -> int:
    """The least from 16 that holds ``size``: a matrix unit takes no smaller side."""
    return max(16, 1 << (size - 1).bit_length())
