"""SSIM on the GPU: one 64 x 64 input tile a program, the window as two products with a band matrix.

A tile of the maps has 64 - window + 1 rows and columns, so a 64 px image is exactly one program
and reads each input once. Forward stores the tile's sum of SSIM and, when a gradient is needed,
its derivatives by F x, F x^2 and F xy; backward filters those with the transposed window.
The equations are in `visiondx.kernels.ssim`.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from visiondx.kernels.dispatch import jit, tl

TILE = 64  # input side of a tile


@jit
def _filter_tile(band, tile):
    half = tl.dot(band, tile, input_precision="ieee")  # tf32 would lose the variance
    return tl.dot(half, tl.trans(band), input_precision="ieee")


@jit
def _forward_kernel(
    x, y, mu_y, var_y, band, partial, d, channels, height, width, sb, sc, sh, sw, c1, c2,
    size, OUT: tl.constexpr, TILE: tl.constexpr, GRAD: tl.constexpr,
):  # fmt: skip
    plane = tl.program_id(0).to(tl.int64)
    local = tl.arange(0, TILE)
    row, column = tl.program_id(1) * OUT + local[:, None], tl.program_id(2) * OUT + local[None, :]
    inside = (row < height) & (column < width)
    at = (plane // channels) * sb + (plane % channels) * sc + row * sh + column * sw
    xs = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    ys = tl.load(y + plane * height * width + row * width + column, mask=inside, other=0.0)
    a = tl.load(band + local[:, None] * TILE + local[None, :])
    mu, xx, xy = _filter_tile(a, xs), _filter_tile(a, xs * xs), _filter_tile(a, xs * ys)
    h, w = height - TILE + OUT, width - TILE + OUT
    valid = (local[:, None] < OUT) & (local[None, :] < OUT) & (row < h) & (column < w)
    to = plane * h * w + row * w + column
    my = tl.load(mu_y + to, mask=valid, other=0.0)
    vy = tl.load(var_y + to, mask=valid, other=0.0)
    a1, a2 = 2 * mu * my + c1, 2 * (xy - mu * my) + c2
    b1, b2 = mu * mu + my * my + c1, xx - mu * mu + vy + c2
    inverse = 1 / (b1 * b2)
    s = a1 * a2 * inverse
    tile = tl.program_id(1) * tl.num_programs(2) + tl.program_id(2)
    tiles = tl.num_programs(1) * tl.num_programs(2)
    tl.store(partial + plane * tiles + tile, tl.sum(tl.where(valid, s, 0.0)))
    if GRAD:
        tl.store(d + to, 2 * (my * (a2 - a1) + mu * s * (b1 - b2)) * inverse, mask=valid)
        tl.store(d + size + to, -2 * s / b2, mask=valid)
        tl.store(d + 2 * size + to, 2 * a1 * inverse, mask=valid)


@jit
def _backward_kernel(
    x, y, d, band, grad, out, channels, height, width, sb, sc, sh, sw, scale,
    size, OUT: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    plane = tl.program_id(0).to(tl.int64)
    local = tl.arange(0, TILE)
    row, column = tl.program_id(1) * OUT + local[:, None], tl.program_id(2) * OUT + local[None, :]
    # F^T reads window - 1 pixels up and left; the window is symmetric, so the band is the same
    h, w = height - TILE + OUT, width - TILE + OUT
    i, j = row - (TILE - OUT), column - (TILE - OUT)
    valid = (i >= 0) & (i < h) & (j >= 0) & (j < w)
    at = plane * h * w + i * w + j
    a = tl.load(band + local[:, None] * TILE + local[None, :])
    g_mu = _filter_tile(a, tl.load(d + at, mask=valid, other=0.0))
    g_xx = _filter_tile(a, tl.load(d + size + at, mask=valid, other=0.0))
    g_xy = _filter_tile(a, tl.load(d + 2 * size + at, mask=valid, other=0.0))
    inside = (local[:, None] < OUT) & (local[None, :] < OUT) & (row < height) & (column < width)
    at = (plane // channels) * sb + (plane % channels) * sc + row * sh + column * sw
    xs = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    to = plane * height * width + row * width + column
    ys = tl.load(y + to, mask=inside, other=0.0)
    g = tl.load(grad + plane // channels) * scale * (g_mu + xs * g_xx + ys * g_xy)
    tl.store(out + to, g.to(out.dtype.element_ty), mask=inside)


class TritonSSIM(torch.autograd.Function):
    """SSIM (B,) of x (B, C, H, W; float32, bfloat16 or float16, any strides).

    Args of ``apply``: x, y, mu_y, var_y (contiguous float32), the band matrix of the window
    padded with zero rows to (TILE, TILE), C1, C2.
    """

    @staticmethod
    def forward(ctx, x, y, mu_y, var_y, band, c1, c2) -> Tensor:
        (batch, channels, height, width), (h, w) = x.shape, mu_y.shape[-2:]
        out = TILE - (height - h)
        grid = (batch * channels, -(-h // out), -(-w // out))
        partial = torch.empty(grid, dtype=torch.float32, device=x.device)
        needed = ctx.needs_input_grad[0]
        d = partial.new_empty(3, *mu_y.shape) if needed else partial
        with torch.cuda.device_of(x):
            _forward_kernel[grid](
                x, y, mu_y, var_y, band, partial, d, channels, height, width, *x.stride(),
                c1, c2, mu_y.numel(), out, TILE, needed, num_warps=8,
            )  # fmt: skip
        if needed:
            ctx.save_for_backward(x, y, d, band)
        return partial.view(batch, -1).sum(1) / (channels * h * w)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, y, d, band = ctx.saved_tensors
        batch, channels, height, width = x.shape
        out = TILE - (height - d.shape[-2])
        gradient = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        grid = (batch * channels, -(-height // out), -(-width // out))
        with torch.cuda.device_of(x):
            _backward_kernel[grid](
                x, y, d, band, grad.contiguous(), gradient, channels, height, width, *x.stride(),
                1 / d[0, 0].numel(), d[0].numel(), out, TILE, num_warps=8,
            )  # fmt: skip
        return gradient, None, None, None, None, None, None
