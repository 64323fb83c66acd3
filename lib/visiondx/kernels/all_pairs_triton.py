"""The logistic ranking loss over all pairs on the GPU: a program owns 64 images of one member.

It walks over all images in tiles of 128. A row's loss takes the images with a smaller loss, its
gradient those with a smaller and those with a larger one, so nothing is added to another program's
rows: no atomics, and the same bits each time, for twice the n² / 2 terms that are needed. One
exponential serves value and gradient. Equations in `visiondx.kernels.all_pairs`.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from visiondx.kernels.dispatch import jit, tl

ROWS, COLUMNS = 64, 128


@jit
def _kernel(
    h, place, value, gradient, n, sh, sn, place_stride,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, GRAD: tl.constexpr,
):  # fmt: skip
    member = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    score_i = tl.load(h + member * sh + i * sn, mask=i < n, other=0.0).to(tl.float32)[:, None]
    place_i = tl.load(place + member * place_stride + i, mask=i < n, other=-1)[:, None]
    total = tl.zeros((ROWS,), tl.float32)
    slope = tl.zeros((ROWS,), tl.float32)
    for start in range(0, n, COLUMNS):
        j = start + tl.arange(0, COLUMNS)
        score_j = tl.load(h + member * sh + j * sn, mask=j < n, other=0.0).to(tl.float32)[None, :]
        place_j = tl.load(place + member * place_stride + j, mask=j < n, other=-1)[None, :]
        inside = (i[:, None] < n) & (j[None, :] < n)
        worse, better = inside & (place_i > place_j), inside & (place_i < place_j)
        d = score_j - score_i
        e = tl.exp(-tl.abs(d))  # at most 1: neither overflows
        total += tl.sum(tl.where(worse, tl.maximum(d, 0.0) + tl.log(1 + e), 0.0), 1)
        if GRAD:
            larger, smaller = 1 / (1 + e), e / (1 + e)
            up = tl.where(d > 0, larger, smaller)  # sigmoid of d
            down = tl.where(d > 0, smaller, larger)  # and of -d
            slope += tl.sum(tl.where(better, down, 0.0) - tl.where(worse, up, 0.0), 1)
    tl.store(value + member * n + i, total, mask=i < n)
    if GRAD:
        tl.store(gradient + member * n + i, slope, mask=i < n)


class TritonAllPairs(torch.autograd.Function):
    """``apply(h, place, pairs)``: h (E, n) float32 or half, any strides; result (E,) float32.

    place: (n,) or (E, n) int32, how many images have a smaller loss. pairs: () or (E,), their
    number, at least 1.
    """

    @staticmethod
    def forward(ctx, h, place, pairs) -> Tensor:
        members, n = h.shape
        place = place.contiguous()
        value = torch.empty(members, n, dtype=torch.float32, device=h.device)
        needed = ctx.needs_input_grad[0]
        gradient = torch.empty_like(value) if needed else value
        with torch.cuda.device_of(h):
            _kernel[(members, -(-n // ROWS))](
                h, place, value, gradient, n, *h.stride(), n if place.ndim == 2 else 0,
                ROWS, COLUMNS, needed,
            )  # fmt: skip
        ctx.dtype = h.dtype
        if needed:  # neither an input nor an output: no version to guard
            ctx.gradient = gradient / pairs[..., None]
        return (value.double().sum(1) / pairs).float()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        return (ctx.gradient * grad[:, None]).to(ctx.dtype), None, None
