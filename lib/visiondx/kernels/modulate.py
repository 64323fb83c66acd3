r"""StyleGAN2's modulated convolution as scale, convolve, demodulate, and the epilogue fused.

Karras et al. (2020), section 2.2: with weight w (O, I, k, k) and style s (B, I), the weights
w' = s_i w, w'' = w' / sqrt(sum_{i,k} w'^2 + 1e-8) differ for each image. Instead of a grouped
convolution with B O filters:

    y = conv(s x, w),    d_o = rsqrt(sum_i s_i^2 sum_k w_oik^2 + 1e-8)                  (B, O)
    z = clamp(gain lrelu(d y + strength noise + bias))

The second line is the epilogue. As written it is five passes over (B, O, H, W), each reading
and writing. Since gain > 0 goes through a leaky ReLU, it is folded into d, strength and bias; since
slope > 0 the sign of z tells the branch in backward, which needs only y and z.

CPU: three passes, two of them in place. GPU (`visiondx.kernels.modulate_triton`): one forward
(8 bytes, 8 flops an element in float32) and one backward (16 bytes).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.kernels.dispatch import attempt, choose
from visiondx.kernels.modulate_triton import TritonEpilogue

EPSILON = 1e-8


def demodulation(weight: Tensor, style: Tensor) -> Tensor:
    """d (B, O) of weight (O, I, k, k) and style (B, I), in float32 at least.

    Raises:
        InputError: shapes do not fit.
    """
    _check_convolution(weight, style)
    energy = _at_least_float32(weight).square().sum((2, 3))
    return (_at_least_float32(style).square() @ energy.T + EPSILON).rsqrt()


def modulated_conv2d(
    x: Tensor, weight: Tensor, style: Tensor, demodulate: bool = True, padding: int | None = None
) -> Tensor:
    """Modulated convolution of x (B, I, H, W), any memory format: (B, O, H', W') in x's dtype.

    Args:
        weight: (O, I, k, k). style: (B, I). padding: k // 2 if None.

    Raises:
        InputError: shapes do not fit.
    """
    _check_convolution(weight, style)
    if x.ndim != 4 or x.shape[:2] != style.shape:
        raise InputError(
            f"modulated_conv2d needs x of shape ({style.shape[0]}, {style.shape[1]}, H, W) for "
            f"this style, got {tuple(x.shape)}."
        )
    padding = weight.shape[-1] // 2 if padding is None else padding
    y = F.conv2d(x * style.to(x.dtype)[:, :, None, None], weight.to(x.dtype), padding=padding)
    if demodulate:
        y = y * demodulation(weight, style).to(y.dtype)[:, :, None, None]
    return y


def demodulate_bias_act(
    x: Tensor,
    dcoef: Tensor,
    noise: Tensor | None,
    strength: Tensor | float,
    bias: Tensor,
    slope: float = 0.2,
    gain: float = math.sqrt(2),
    clamp: float | None = None,
    *,
    backend: str | None = None,
) -> Tensor:
    """clamp(gain lrelu(dcoef x + strength noise + bias)); shape, dtype and strides of x.

    Differentiable in x, dcoef, strength and bias; the noise is a constant.

    Args:
        x: (B, O, H, W) output of the convolution. dcoef: (B, O). bias: (O,).
        noise: (B or 1, 1, H, W), or None; strength: a number or a scalar tensor.
        clamp: bound of the absolute value, or None.

    Raises:
        InputError: shapes do not fit, slope or gain not positive, or noise with a gradient.
    """
    if x.ndim != 4 or dcoef.shape != x.shape[:2] or bias.shape != x.shape[1:2]:
        raise InputError(
            "demodulate_bias_act needs x (B, O, H, W), dcoef (B, O) and bias (O,), got "
            f"{tuple(x.shape)}, {tuple(dcoef.shape)} and {tuple(bias.shape)}."
        )
    if slope <= 0 or gain <= 0 or (clamp is not None and clamp <= 0):
        raise InputError(
            f"slope, gain and clamp must be positive, got {slope}, {gain} and {clamp}."
        )
    if noise is not None:
        if noise.shape not in {(len(x), 1, *x.shape[2:]), (1, 1, *x.shape[2:])}:
            raise InputError(
                f"noise must be (B or 1, 1, H, W) for x {tuple(x.shape)}, got {tuple(noise.shape)}."
            )
        if noise.requires_grad:
            raise InputError("The noise is a constant: pass noise.detach().")
    obstacle = "float64 is not supported" if x.dtype == torch.float64 else ""
    chosen = choose("demodulate_bias_act", x, backend, obstacle)
    limit = math.inf if clamp is None else clamp
    wide = torch.promote_types(x.dtype, torch.float32)
    strength = torch.as_tensor(strength, dtype=wide, device=x.device).reshape(())
    if noise is None:  # a scalar zero broadcasts, and costs one pass over one number
        noise = x.new_zeros(1, 1, 1, 1)
    arguments = (x, dcoef, noise, strength, bias, slope, gain, limit)
    if chosen == "reference":
        return _reference(*arguments)
    if chosen == "fused":
        return _composed(*arguments)
    if backend == "triton":  # insisted on: let a failure show
        return TritonEpilogue.apply(*arguments)
    return attempt(
        "demodulate_bias_act",
        lambda: TritonEpilogue.apply(*arguments),
        lambda: _reference(*arguments),
    )


def _reference(x, dcoef, noise, strength, bias, slope, gain, limit) -> Tensor:
    y = _at_least_float32(x) * dcoef[:, :, None, None] + strength * noise + bias[:, None, None]
    return (F.leaky_relu(y, slope) * gain).clamp(-limit, limit).to(x.dtype)


def _composed(x, dcoef, noise, strength, bias, slope, gain, limit) -> Tensor:
    """Three in-place passes; a hand-written backward measured no faster than autograd's."""
    scale = (dcoef * gain).to(x.dtype)[:, :, None, None]
    shift = (bias * gain)[:, None, None]
    if noise.numel() > 1:
        shift = shift + noise * (strength * gain)
        if x.is_contiguous(memory_format=torch.channels_last):
            # a sum over two memory formats takes ten times as long
            shift = shift.contiguous(memory_format=torch.channels_last)
    z = (x * scale).add_(shift.to(x.dtype))  # addcmul's backward takes one more pass
    z = F.leaky_relu_(z, slope)
    return z if limit == math.inf else z.clamp(-limit, limit)


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _check_convolution(weight: Tensor, style: Tensor) -> None:
    if weight.ndim != 4 or style.ndim != 2 or weight.shape[1] != style.shape[1]:
        raise InputError(
            "A modulated convolution needs weight (O, I, k, k) and style (B, I), "
            f"got {tuple(weight.shape)} and {tuple(style.shape)}."
        )
