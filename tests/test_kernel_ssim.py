"""SSIM against pytorch-msssim in float64, on every backend; its gradient; its bad inputs."""

import warnings

import pytest
import pytorch_msssim
import torch

from visiondx.core.errors import InputError
from visiondx.kernels import dispatch
from visiondx.kernels.ssim import SSIMReference, ssim

pytestmark = pytest.mark.usefixtures("gpu")
BACKENDS = [
    "reference",
    "fused",
    pytest.param("triton", marks=pytest.mark.skipif(dispatch.triton is None, reason="no triton")),
]


def pair(*shape):
    torch.manual_seed(5)
    y = torch.rand(shape)
    return (y + 0.3 * torch.randn(shape)).clamp(0, 1), y


def usual(x, y):
    return pytorch_msssim.ssim(x.double(), y.double(), data_range=1, size_average=False)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(3, 3, 64, 64), (2, 1, 11, 13), (1, 2, 57, 43), (2, 3, 70, 12)])
def test_equals_pytorch_msssim_with_its_gradient(shape, backend):
    x, y = pair(*shape)
    x.requires_grad_()
    ours, theirs = ssim(x, y, backend=backend), usual(x, y)
    assert ours.shape == (shape[0],)
    torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=2e-6)
    upstream = torch.randn(shape[0])
    (got,) = torch.autograd.grad(ours, x, upstream)
    (want,) = torch.autograd.grad(theirs, x, upstream.double())
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5 * float(want.abs().max()))


@pytest.mark.parametrize("backend", BACKENDS)
def test_bf16_and_strided_inputs(backend):
    x, y = pair(2, 3, 33, 29)
    x = x.bfloat16()
    strided = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2).flip(0)[..., ::1]
    wide = torch.zeros(2, 3, 66, 29, dtype=torch.bfloat16)
    wide[:, :, ::2] = x
    for view, partner in [(strided, y.flip(0)), (wide[:, :, ::2], y)]:
        leaf = view.detach().requires_grad_()
        ours = ssim(leaf, partner, backend=backend)
        theirs = usual(leaf, partner)
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=2e-6)
        (got,) = torch.autograd.grad(ours.sum(), leaf)
        (want,) = torch.autograd.grad(theirs.sum(), leaf)
        assert got.dtype == torch.bfloat16
        torch.testing.assert_close(got, want, rtol=0.01, atol=1e-5)


@pytest.mark.parametrize("backend", ["reference", "fused"])
def test_finite_differences(backend):
    x, y = (t.double() for t in pair(2, 2, 13, 15))
    assert torch.autograd.gradcheck(lambda x: ssim(x, y, backend=backend), x.requires_grad_())


@pytest.mark.parametrize("window_size", [3, 7])
def test_other_windows_and_ranges(window_size):
    x, y = (255 * t for t in pair(2, 3, 40, 36))
    reference = SSIMReference(y, window_size=window_size, sigma=0.9, data_range=255)
    theirs = pytorch_msssim.ssim(
        x, y, data_range=255, size_average=False, win_size=window_size, win_sigma=0.9
    )
    for backend in ("reference", "fused", "triton") if dispatch.triton else ("reference", "fused"):
        torch.testing.assert_close(reference.ssim(x, backend=backend), theirs, rtol=0, atol=1e-5)


def test_values_by_hand():
    """Constant images: the structure is 1 and the luminance (2ab + C1) / (a^2 + b^2 + C1)."""
    x, y = torch.full((2, 3, 16, 16), 0.2), torch.full((2, 3, 16, 16), 0.6)
    y[1] = 0.2
    expected = torch.tensor([(0.24 + 1e-4) / (0.4 + 1e-4), 1.0])
    torch.testing.assert_close(ssim(x, y), expected, rtol=0, atol=1e-4)


def test_rows_by_index_share_statistics():
    x, y = pair(5, 3, 20, 20)
    reference = SSIMReference(y)
    rows = torch.tensor([4, 0, 0, 3])
    some = reference.index(rows)
    assert len(some) == 4
    torch.testing.assert_close(some.ssim(x[:4]), ssim(x[:4], y[rows]))
    torch.testing.assert_close(some.mu, reference.mu[rows], rtol=0, atol=0)
    torch.testing.assert_close(reference.ssim(x), ssim(x, y))  # the original is as it was


def test_chunks_do_not_change_the_result(monkeypatch):
    x, y = pair(5, 3, 24, 24)
    x.requires_grad_()
    whole = ssim(x, y, backend="fused")
    (gradient,) = torch.autograd.grad(whole.sum(), x)
    monkeypatch.setattr("visiondx.kernels.ssim.CHUNK", 2 * 3 * 24 * 24 * 4)
    parts = ssim(x, y, backend="fused")
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(torch.autograd.grad(parts.sum(), x)[0], gradient)


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (torch.rand(1, 3, 10, 64), torch.rand(1, 3, 10, 64), "at least 11 x 11"),
        (torch.rand(2, 3, 16, 16), torch.rand(3, 3, 16, 16), r"index\(i\)"),
        (torch.rand(3, 16, 16), torch.rand(3, 16, 16), r"\(B, C, H, W\)"),
        (torch.rand(1, 3, 16, 16), torch.ones(1, 3, 16, 16, dtype=torch.uint8), "uint8"),
        (torch.rand(1, 3, 16, 16).double(), torch.rand(1, 3, 16, 16), "float64"),
        (torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16, requires_grad=True), "detach"),
    ],
)
def test_bad_input(x, y, said):
    with pytest.raises(InputError, match=said):
        ssim(x, y)


def test_bad_settings():
    with pytest.raises(InputError, match="odd"):
        SSIMReference(torch.rand(1, 3, 16, 16), window_size=10)
    with pytest.raises(InputError, match="positive"):
        SSIMReference(torch.rand(1, 3, 16, 16), sigma=0)


def test_a_missing_kernel_is_told_once(monkeypatch):
    monkeypatch.setattr(dispatch, "_warned", set())
    elsewhere = torch.empty(1, device="meta")
    with pytest.warns(RuntimeWarning, match="ssim: there is no kernel for meta"):
        assert dispatch.choose("ssim", elsewhere) == "reference"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert dispatch.choose("ssim", elsewhere) == "reference"
        assert dispatch.choose("ssim", torch.empty(1, device="cpu")) == "fused"


def test_a_failing_kernel_is_told_and_replaced(monkeypatch):
    monkeypatch.setattr(dispatch, "_warned", set())

    def broken():
        raise RuntimeError("no such architecture")

    with pytest.warns(RuntimeWarning, match="no such architecture"):
        assert dispatch.attempt("ssim", broken, lambda: "reference") == "reference"


def test_triton_refuses_what_it_cannot_do():
    x = torch.rand(1, 1, 40, 40)
    with pytest.raises(InputError, match="float64"):
        ssim(x.double(), x.double(), backend="triton")
    with pytest.raises(InputError, match="window"):
        SSIMReference(x, window_size=35).ssim(x, backend="triton")
