"""The epilogue of a modulated convolution on the GPU: one pass forward, one pass backward.

A program owns one image and CHANNELS channels and walks over their pixels, so that the sums over
pixels that the gradients of dcoef, bias and strength need stay in registers: no atomics, and the
same bits each time. Tiles are long in pixels for contiguous x and long in channels for
channels_last, so both read whole cache lines. Equations in `visiondx.kernels.modulate`.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from visiondx.kernels.dispatch import jit, tl


@jit
def _forward_kernel(
    x, dcoef, noise, strength, bias, z, outputs, pixels, sb, so, sp, noise_b, noise_p,
    slope, gain, limit, CHANNELS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0).to(tl.int64)
    o = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    d = tl.load(dcoef + b * outputs + o, mask=o < outputs, other=0.0)[:, None]
    offset = tl.load(bias + o, mask=o < outputs, other=0.0)[:, None]
    amount = tl.load(strength)
    p = tl.program_id(2) * PIXELS + tl.arange(0, PIXELS)
    inside = (o[:, None] < outputs) & (p[None, :] < pixels)
    at = b * sb + o[:, None] * so + p[None, :] * sp
    drawn = tl.load(noise + b * noise_b + p * noise_p, mask=p < pixels, other=0.0)[None, :]
    y = tl.load(x + at, mask=inside, other=0.0).to(tl.float32) * d + amount * drawn + offset
    y = tl.where(y > 0, y, y * slope) * gain
    y = tl.minimum(tl.maximum(y, -limit), limit)
    tl.store(z + at, y.to(z.dtype.element_ty), mask=inside)


@jit
def _backward_kernel(
    grad, x, dcoef, noise, z, grad_x, sums, outputs, size, pixels, sb, so, sp, noise_b, noise_p,
    slope, gain, limit, CHANNELS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0).to(tl.int64)
    o = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    d = tl.load(dcoef + b * outputs + o, mask=o < outputs, other=0.0)[:, None]
    sum_d = tl.zeros((CHANNELS,), tl.float32)
    sum_bias = tl.zeros((CHANNELS,), tl.float32)
    sum_noise = tl.zeros((CHANNELS,), tl.float32)
    for start in range(0, pixels, PIXELS):
        p = start + tl.arange(0, PIXELS)
        inside = (o[:, None] < outputs) & (p[None, :] < pixels)
        at = b * sb + o[:, None] * so + p[None, :] * sp
        g = tl.load(grad + at, mask=inside, other=0.0).to(tl.float32) * gain
        out = tl.load(z + at, mask=inside, other=0.0).to(tl.float32)
        g = tl.where(out > 0, g, g * slope)
        g = tl.where(tl.abs(out) < limit, g, 0.0)
        drawn = tl.load(noise + b * noise_b + p * noise_p, mask=p < pixels, other=0.0)[None, :]
        sum_d += tl.sum(g * tl.load(x + at, mask=inside, other=0.0).to(tl.float32), 1)
        sum_bias += tl.sum(g, 1)
        sum_noise += tl.sum(g * drawn, 1)
        tl.store(grad_x + at, (g * d).to(grad_x.dtype.element_ty), mask=inside)
    tl.store(sums + b * outputs + o, sum_d, mask=o < outputs)
    tl.store(sums + size + b * outputs + o, sum_bias, mask=o < outputs)
    tl.store(sums + 2 * size + b * outputs + o, sum_noise, mask=o < outputs)


class TritonEpilogue(torch.autograd.Function):
    """``apply(x, dcoef, noise, strength, bias, slope, gain, limit)``; x float32 or half.

    Shapes as in `visiondx.kernels.modulate.demodulate_bias_act`; noise may be (1, 1, 1, 1).
    """

    @staticmethod
    def forward(ctx, x, dcoef, noise, strength, bias, slope, gain, limit) -> Tensor:
        x = x if _walkable(x) else x.contiguous()
        z = torch.empty_like(x)
        batch, outputs = dcoef.shape
        pixels = x.shape[2] * x.shape[3]
        d, flat = dcoef.float().contiguous(), noise.float().contiguous()
        channels, block = _tile(x)
        grid = (batch, -(-outputs // channels), -(-pixels // block))
        with torch.cuda.device_of(x):
            _forward_kernel[grid](
                x, d, flat, strength.float(), bias.float().contiguous(), z, outputs, pixels,
                *_walk(x), *_noise_walk(flat, pixels), slope, gain, limit, channels, block,
            )  # fmt: skip
        ctx.save_for_backward(x, d, flat, z)
        ctx.settings = slope, gain, limit
        ctx.dtypes = dcoef.dtype, strength.dtype, bias.dtype
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, d, flat, z = ctx.saved_tensors
        batch, outputs = d.shape
        pixels = x.shape[2] * x.shape[3]
        if grad.stride() != x.stride():
            grad = torch.empty_like(x).copy_(grad)
        grad_x = torch.empty_like(x)
        sums = torch.empty(3, batch, outputs, dtype=torch.float32, device=x.device)
        channels, block = _tile(x)
        with torch.cuda.device_of(x):
            _backward_kernel[(batch, -(-outputs // channels))](
                grad, x, d, flat, z, grad_x, sums, outputs, batch * outputs, pixels, *_walk(x),
                *_noise_walk(flat, pixels), *ctx.settings, channels, block,
            )  # fmt: skip
        dcoef, strength, bias = ctx.dtypes
        grad_d, grad_bias, grad_strength = sums[0], sums[1].sum(0), sums[2].sum()
        return (
            grad_x, grad_d.to(dcoef), None, grad_strength.to(strength), grad_bias.to(bias),
            None, None, None,
        )  # fmt: skip


def _walkable(x: Tensor) -> bool:
    """Dense, with the pixels of a channel evenly spaced: contiguous or channels_last."""
    return x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)


def _walk(x: Tensor) -> tuple[int, int, int]:
    """Strides of image, channel and pixel."""
    if x.is_contiguous():  # strides of size-1 dimensions are arbitrary: compute, do not read
        pixels = x.shape[2] * x.shape[3]
        return x.shape[1] * pixels, pixels, 1
    return x.shape[1] * x.shape[2] * x.shape[3], 1, x.shape[1]


def _noise_walk(noise: Tensor, pixels: int) -> tuple[int, int]:
    """Strides of image and pixel; 0 where one noise serves all."""
    each = noise.shape[2] * noise.shape[3]
    return each if noise.shape[0] > 1 else 0, 1 if each == pixels else 0


def _tile(x: Tensor) -> tuple[int, int]:
    """Channels and pixels of a tile."""
    return (2, 512) if x.is_contiguous() else (32, 32)
