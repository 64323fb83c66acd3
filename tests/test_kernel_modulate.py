"""The modulated convolution against its definition, in float64, on every backend."""

import math

import pytest
import torch
import torch.nn.functional as F

from visiondx.core.errors import InputError
from visiondx.kernels.dispatch import triton
from visiondx.kernels.modulate import demodulate_bias_act, demodulation, modulated_conv2d

pytestmark = pytest.mark.usefixtures("gpu")
BACKENDS = [
    "reference",
    "fused",
    pytest.param("triton", marks=pytest.mark.skipif(triton is None, reason="no triton")),
]


def grouped(x, weight, style, demodulate):
    """Karras et al. (2020): one weight an image, a group an image."""
    batch, inputs, height, width = x.shape
    each = weight[None] * style[:, None, :, None, None]
    if demodulate:
        each = each * (each.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    flat = x.reshape(1, batch * inputs, height, width)
    y = F.conv2d(flat, each.flatten(0, 1), padding=weight.shape[-1] // 2, groups=batch)
    return y.view(batch, -1, height, width)


def case(noise_batch=1, dtype=torch.float32, memory_format=torch.contiguous_format):
    """Odd sizes: x (3, 5, 7, 9) and its partners, leaves that require a gradient."""
    torch.manual_seed(3)
    x = torch.randn(3, 5, 7, 9).to(dtype).to(memory_format=memory_format).requires_grad_()
    dcoef = (torch.rand(3, 5) + 0.5).requires_grad_()
    noise = None if noise_batch is None else torch.randn(noise_batch, 1, 7, 9)
    strength = torch.tensor(0.3, requires_grad=True)
    bias = torch.randn(5, requires_grad=True)
    return x, dcoef, noise, strength, bias


def written_out(x, dcoef, noise, strength, bias, clamp=None):
    """The epilogue in float64, element by element as the paper's code does it."""
    y = x.double() * dcoef.double()[:, :, None, None] + bias.double()[None, :, None, None]
    if noise is not None:
        y = y + strength.double() * noise.double()
    y = torch.where(y > 0, y, 0.2 * y) * math.sqrt(2)
    return y if clamp is None else y.clamp(-clamp, clamp)


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("kernel", [1, 3])
def test_scaled_activations_equal_the_grouped_convolution(demodulate, kernel):
    torch.manual_seed(0)
    inputs = [torch.randn(s, dtype=torch.float64) for s in [(3, 4, 5, 7), (6, 4, kernel, kernel)]]
    inputs.append(torch.rand(3, 4, dtype=torch.float64) + 0.1)
    leaves = [t.requires_grad_() for t in inputs]
    ours, theirs = modulated_conv2d(*leaves, demodulate), grouped(*leaves, demodulate)
    torch.testing.assert_close(ours, theirs)
    upstream = torch.randn_like(ours)
    for a, b in zip(
        torch.autograd.grad(ours, leaves, upstream),
        torch.autograd.grad(theirs, leaves, upstream),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_demodulation_by_hand():
    weight = torch.tensor([[[[1.0, 2.0]], [[2.0, 0.0]]]])  # energies 5 and 4
    style = torch.tensor([[1.0, 1.0], [2.0, 0.0]])  # 5 + 4 = 9 and 4 * 5 = 20
    expected = torch.tensor([[1 / 3], [1 / math.sqrt(20)]])
    torch.testing.assert_close(demodulation(weight, style), expected)


def test_demodulation_stays_float32_for_half_inputs():
    weight, style = torch.full((1, 1, 1, 1), 3e-4), torch.tensor([[1.0]])
    half = demodulation(weight.half(), style.half())  # the square would be 0 in float16
    assert half.dtype == torch.float32
    assert abs(float(half) - 1 / math.sqrt(9e-8 + 1e-8)) < 5


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("noise_batch", [None, 1, 3])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("clamp", [None, 1.0])
def test_epilogue_and_its_gradients(backend, noise_batch, memory_format, clamp):
    arguments = case(noise_batch, memory_format=memory_format)
    ours = demodulate_bias_act(*arguments, clamp=clamp, backend=backend)
    expected = written_out(*arguments, clamp=clamp)
    torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-6)
    if clamp is not None:
        assert 0 < (expected.abs() == clamp).float().mean() < 1
    x, dcoef, noise, strength, bias = arguments
    leaves = [x, dcoef, bias] if noise is None else [x, dcoef, bias, strength]
    upstream = torch.randn_like(ours)
    got = torch.autograd.grad(ours, leaves, upstream)
    want = torch.autograd.grad(expected, leaves, upstream.double())
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_epilogue_in_bf16(backend):
    arguments = case(1, torch.bfloat16, torch.channels_last)
    ours = demodulate_bias_act(*arguments, backend=backend)
    assert ours.dtype == torch.bfloat16
    assert ours.stride() == arguments[0].stride()
    torch.testing.assert_close(ours.double(), written_out(*arguments), rtol=0.03, atol=0.03)
    grad_x, grad_d = torch.autograd.grad(ours.float().sum(), arguments[:2])
    want = torch.autograd.grad(written_out(*arguments).sum(), arguments[:2])
    assert grad_x.dtype == torch.bfloat16
    torch.testing.assert_close(grad_x, want[0], rtol=0.03, atol=0.03)
    torch.testing.assert_close(grad_d, want[1], rtol=0.03, atol=0.2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_epilogue_of_a_strided_view(backend):
    x, dcoef, noise, strength, bias = case(1)
    view = torch.randn(5, 3, 18, 7).transpose(0, 1)[..., ::2, :].transpose(2, 3)
    assert view.shape == x.shape
    view.requires_grad_()
    ours = demodulate_bias_act(view, dcoef, noise, strength, bias, backend=backend)
    expected = written_out(view, dcoef, noise, strength, bias)
    torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-6)
    (got,) = torch.autograd.grad(ours.square().sum(), view)
    (want,) = torch.autograd.grad(expected.square().sum(), view)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_finite_differences():
    arguments = [t.double().detach() if t is not None else None for t in case(3)]
    x, dcoef, noise, strength, bias = arguments

    def epilogue(x, dcoef, bias):
        return demodulate_bias_act(x, dcoef, noise, float(strength), bias, backend="fused")

    leaves = (x[:, :, :2, :2], dcoef, bias)
    noise = noise[:, :, :2, :2]
    assert torch.autograd.gradcheck(epilogue, [t.clone().requires_grad_() for t in leaves])


def test_bad_shapes_are_named():
    x, dcoef, noise, strength, bias = case()
    with pytest.raises(InputError, match=r"\(3, 4\)"):
        demodulate_bias_act(x, dcoef[:, :4], noise, strength, bias)
    with pytest.raises(InputError, match="noise must be"):
        demodulate_bias_act(x, dcoef, noise[..., :3], strength, bias)
    with pytest.raises(InputError, match="detach"):
        demodulate_bias_act(x, dcoef, noise.clone().requires_grad_(), strength, bias)
    with pytest.raises(InputError, match="positive"):
        demodulate_bias_act(x, dcoef, noise, strength, bias, slope=0.0)
    with pytest.raises(InputError, match="style"):
        modulated_conv2d(x, torch.randn(4, 5, 3, 3), torch.randn(2, 5))
    with pytest.raises(InputError, match="Unknown backend"):
        demodulate_bias_act(x, dcoef, noise, strength, bias, backend="cuda")
