"""The loss over all pairs against the equation in float64, on every backend; its bad inputs."""

import math

import pytest
import torch
import torch.nn.functional as F

from visiondx.core.errors import InputError
from visiondx.kernels import all_pairs, dispatch
from visiondx.kernels.all_pairs import all_pairs_loss

pytestmark = pytest.mark.usefixtures("gpu")
BACKENDS = [
    "reference",
    "fused",
    pytest.param("triton", marks=pytest.mark.skipif(dispatch.triton is None, reason="no triton")),
]


def usual(h, losses):
    """A loop over members and pairs that were picked: no formula is shared with the kernels."""
    found = []
    for row, of_row in zip(h.double(), losses.expand(h.shape), strict=True):
        i, j = (of_row[:, None] > of_row[None, :]).nonzero().unbind(1)
        terms = F.binary_cross_entropy((row[i] - row[j]).sigmoid(), torch.ones_like(row[i]))
        found.append(terms if len(i) else row.sum() * 0)
    return torch.stack(found)


def usual_logits(h, losses):
    """``usual`` where a probability would be 0."""
    d = h.double()[:, :, None] - h.double()[:, None, :]
    worse = losses[:, :, None] > losses[:, None, :]
    return (F.softplus(-d) * worse).sum((1, 2)) / worse.sum((1, 2))


def case(members, n, shared, ties):
    h, losses = 2 * torch.randn(members, n), torch.rand(n if shared else (members, n))
    return h, (4 * losses).round() if ties else losses


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(
    ("members", "n", "shared"), [(3, 7, False), (2, 131, True), (5, 64, False)]
)
def test_equals_the_equation_with_its_gradient(members, n, shared, ties, backend):
    h, losses = case(members, n, shared, ties)
    h.requires_grad_()
    ours, theirs = all_pairs_loss(h, losses, backend=backend), usual(h, losses)
    assert ours.shape == (members,)
    torch.testing.assert_close(ours.double(), theirs, rtol=2e-6, atol=1e-6)
    upstream = torch.randn(members)
    (got,) = torch.autograd.grad(ours, h, upstream)
    (want,) = torch.autograd.grad(theirs, h, upstream.double())
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("backend", BACKENDS)
def test_values_by_hand(backend):
    """Three images, L = 0 < 1 < 2: the pairs are (1, 0), (2, 0) and (2, 1)."""
    h = torch.tensor([[1.0, 0.0, 3.0]], requires_grad=True)
    loss = all_pairs_loss(h, torch.tensor([0.0, 1.0, 2.0]), backend=backend)
    terms = [math.log1p(math.exp(d)) for d in (1.0, -2.0, -3.0)]
    torch.testing.assert_close(loss, torch.tensor([sum(terms) / 3]))
    s = [1 / (1 + math.exp(-d)) for d in (1.0, -2.0, -3.0)]
    by_hand = torch.tensor([[s[0] + s[1], s[2] - s[0], -s[1] - s[2]]]) / 3
    torch.testing.assert_close(torch.autograd.grad(loss.sum(), h)[0], by_hand)


@pytest.mark.parametrize("backend", BACKENDS)
def test_ties_and_the_diagonal_say_nothing(backend):
    h = torch.tensor([[5.0, -2.0, 0.5, 1.0]], requires_grad=True)
    tied = torch.tensor([1.0, 1.0, 1.0, 2.0])  # only the last outranks: three pairs
    expected = F.softplus(h[0, :3] - h[0, 3]).mean()[None]
    torch.testing.assert_close(all_pairs_loss(h, tied, backend=backend), expected)
    nothing = all_pairs_loss(h, torch.ones(4), backend=backend)
    assert nothing.tolist() == [0]
    assert torch.autograd.grad(nothing.sum(), h)[0].abs().max() == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_scores_far_apart_neither_overflow_nor_vanish(backend):
    h = torch.tensor([[3000.0, -3000.0], [-3000.0, 3000.0]], requires_grad=True)
    loss = all_pairs_loss(h, torch.tensor([0.0, 1.0]), backend=backend)
    torch.testing.assert_close(loss, torch.tensor([6000.0, 0.0]))
    gradient = torch.autograd.grad(loss.sum(), h)[0]
    torch.testing.assert_close(gradient, torch.tensor([[1.0, -1.0], [0.0, 0.0]]))


@pytest.mark.parametrize("spread", [1e-6, 3.0, 20.0, 60.0, 79.9, 80.1, 400.0])
def test_every_spread_of_scores(spread):
    h, losses = torch.rand(2, 150), torch.rand(2, 150)
    h = spread * (h - h.amin(1, keepdim=True)) / (h.amax(1, keepdim=True) - h.amin(1, keepdim=True))
    h = (h + 1000 * spread).requires_grad_() if spread > 1 else h.requires_grad_()
    ours, theirs = all_pairs_loss(h, losses, backend="fused"), usual_logits(h, losses)
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-6)
    (got,) = torch.autograd.grad(ours.sum(), h)
    (want,) = torch.autograd.grad(theirs.sum(), h)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("backend", BACKENDS)
def test_bf16_and_strided_inputs(backend):
    wide = torch.randn(3, 90, dtype=torch.bfloat16)
    losses = torch.rand(3, 90)
    views = [(wide[:, ::2], losses[:, ::2]), (wide.T.contiguous().T, losses.T.contiguous().T),
             (wide[:1].expand(3, -1), losses[:1].expand(3, -1))]  # fmt: skip
    for h, of in views:
        leaf = h.detach().requires_grad_()
        ours, theirs = all_pairs_loss(leaf, of, backend=backend), usual(leaf, of)
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), theirs, rtol=2e-6, atol=1e-6)
        (got,) = torch.autograd.grad(ours.sum(), leaf)
        (want,) = torch.autograd.grad(theirs.sum(), leaf)
        assert got.dtype == torch.bfloat16
        torch.testing.assert_close(got, want, rtol=0.02, atol=1e-5)


@pytest.mark.parametrize("backend", ["reference", "fused"])
def test_finite_differences(backend):
    h, losses = torch.randn(2, 9, dtype=torch.float64), torch.rand(2, 9)
    assert torch.autograd.gradcheck(
        lambda h: all_pairs_loss(h, losses, backend=backend), h.requires_grad_()
    )


@pytest.mark.parametrize("sizes", [(3, 12), (16, 1), (1, 1)])
def test_tiles_do_not_change_the_result(monkeypatch, sizes):
    h, losses = torch.randn(2, 50), torch.rand(2, 50).mul(20).round()
    h.requires_grad_()
    whole = all_pairs_loss(h, losses, backend="fused")
    (gradient,) = torch.autograd.grad(whole.sum(), h)
    monkeypatch.setattr(all_pairs, "ROWS", sizes[0])
    monkeypatch.setattr(all_pairs, "TILE", sizes[1])
    parts = all_pairs_loss(h, losses, backend="fused")
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(torch.autograd.grad(parts.sum(), h)[0], gradient)


def test_members_do_not_mix():
    h, losses = torch.randn(4, 30), torch.rand(4, 30)
    alone = [all_pairs_loss(h[i : i + 1], losses[i]) for i in range(4)]
    torch.testing.assert_close(all_pairs_loss(h, losses), torch.cat(alone))


def test_what_is_kept_for_backward_is_of_size_n():
    h, losses = torch.randn(2, 600, requires_grad=True), torch.rand(600)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, id):
        loss = all_pairs_loss(h, losses)
    assert sum(kept) == 0
    assert loss.grad_fn.gradient.shape == h.shape


@pytest.mark.parametrize(
    ("h", "losses", "said"),
    [
        (torch.rand(5), torch.rand(5), r"\(E, n\)"),
        (torch.rand(2, 5), torch.rand(4), r"\(2, 5\) and \(4,\)"),
        (torch.rand(2, 5), torch.arange(5), "int64"),
        (torch.rand(2, 5), torch.rand(5, requires_grad=True), "detach"),
    ],
)
def test_bad_input(h, losses, said):
    with pytest.raises(InputError, match=said):
        all_pairs_loss(h, losses)


def test_triton_refuses_float64():
    with pytest.raises(InputError, match="float64"):
        all_pairs_loss(torch.rand(1, 4).double(), torch.rand(4), backend="triton")
