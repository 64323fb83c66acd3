"""The softmax over a vocabulary times its embeddings, against float64 on every backend."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from visiondx.core.errors import InputError
from visiondx.kernels import dispatch, vocabulary, vocabulary_triton
from visiondx.kernels.vocabulary import mix

pytestmark = pytest.mark.usefixtures("gpu")
BACKENDS = [
    "reference",
    "fused",
    pytest.param("triton", marks=pytest.mark.skipif(dispatch.triton is None, reason="no triton")),
]
EVERY = pytest.mark.parametrize("backend", BACKENDS)


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    """Several tiles of a small vocabulary, and several stretches of several tiles."""
    monkeypatch.setattr(vocabulary, "TILE", 100)
    monkeypatch.setattr(vocabulary_triton, "STRETCHES", 2)


def usual(logits, embeddings, noise=None, temperature=1.0):
    """Exponentials over their sum in float64, with autograd's gradient."""
    scores = logits.double() if noise is None else logits.double() + noise.double()
    odds = ((scores - scores.detach().amax(1, keepdim=True)) / temperature).exp()
    return (odds[:, :, None] * embeddings.double()).sum(1) / odds.sum(1, keepdim=True)


def gumbel(*shape):
    return -torch.empty(shape).exponential_().log()


def agree(logits, embeddings, noise=None, temperature=1.0, backend=None, rtol=1e-4, atol=1e-5):
    """Value, and the gradients of both inputs."""
    ours = mix(logits, embeddings, noise, temperature=temperature, backend=backend)
    theirs = usual(logits, embeddings, noise, temperature)
    assert ours.dtype == embeddings.dtype
    torch.testing.assert_close(ours.double(), theirs, rtol=rtol, atol=atol)
    leaves, upstream = [logits, embeddings], torch.randn(ours.shape)
    got = torch.autograd.grad(ours, leaves, upstream.to(ours.dtype))
    want = torch.autograd.grad(theirs, leaves, upstream.to(ours.dtype).double())
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


@EVERY
@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize(("rows", "words", "width"), [(1, 7, 3), (5, 131, 20), (17, 70, 130)])
def test_equals_the_equation_with_its_gradients(rows, words, width, noisy, backend):
    logits = (3 * torch.randn(rows, words)).requires_grad_()
    embeddings = torch.randn(words, width, requires_grad=True)
    agree(logits, embeddings, gumbel(rows, words) if noisy else None, 0.7, backend)


@EVERY
def test_more_rows_than_a_tile(backend, monkeypatch):
    monkeypatch.setattr(vocabulary_triton, "ROWS", 16)
    logits, embeddings = torch.randn(35, 40), torch.randn(40, 6)
    agree(logits.requires_grad_(), embeddings.requires_grad_(), None, 1.0, backend)


@EVERY
def test_values_by_hand(backend):
    """Odds of 3 to 1; at T = 2 of √3 to 1; noise of log 3 for the other word evens them."""
    logits = torch.tensor([[math.log(3), 0.0]], requires_grad=True)
    embeddings = torch.tensor([[4.0, 0.0], [0.0, 8.0]])
    y = mix(logits, embeddings, backend=backend)
    torch.testing.assert_close(y, torch.tensor([[3.0, 2.0]]))
    # p (r·E - r·y) with r = (1, 0): 3/4 (4 - 3) and 1/4 (0 - 3)
    (slope,) = torch.autograd.grad(y[0, 0], logits)
    torch.testing.assert_close(slope, torch.tensor([[0.75, -0.75]]))
    warm = mix(logits, embeddings, temperature=2, backend=backend)
    odds = math.sqrt(3)
    torch.testing.assert_close(warm, torch.tensor([[4 * odds, 8.0]]) / (1 + odds))
    even = mix(logits, embeddings, torch.tensor([[0.0, math.log(3)]]), backend=backend)
    torch.testing.assert_close(even, torch.tensor([[2.0, 4.0]]))


@EVERY
def test_a_low_temperature_takes_the_likeliest_word(backend):
    logits, embeddings = torch.randn(3, 120), torch.randn(120, 4)
    logits[range(3), [0, 61, 119]] = 9.0
    y = mix(logits, embeddings, temperature=1e-3, backend=backend)
    torch.testing.assert_close(y, embeddings[[0, 61, 119]])


@EVERY
@pytest.mark.parametrize("level", [-1e4, 1e4])
def test_far_from_zero_neither_overflows_nor_vanishes(level, backend):
    """The running maximum rises with every tile, or falls."""
    logits = level + torch.linspace(-300, 300, 120).repeat(2, 1)
    logits[1] = logits[1].flip(0)
    embeddings = torch.randn(120, 4, requires_grad=True)
    agree(logits.requires_grad_(), embeddings, None, 1.5, backend)


@EVERY
def test_banned_words(backend):
    """By a logit or a noise of -inf; a first tile without a word; a row without any."""
    logits, noise = torch.randn(3, 120), gumbel(3, 120)
    logits[0, :100], noise[1, 60:] = -torch.inf, -torch.inf
    logits.requires_grad_()
    embeddings = torch.randn(120, 4, requires_grad=True)
    y = mix(logits, embeddings, noise, backend=backend)
    alone = usual(logits[:1, 100:], embeddings[100:], noise[:1, 100:])
    torch.testing.assert_close(y[:1].double(), alone, rtol=1e-5, atol=1e-6)
    alone = usual(logits[1:2, :60], embeddings[:60], noise[1:2, :60])
    torch.testing.assert_close(y[1:2].double(), alone, rtol=1e-5, atol=1e-6)
    (slope,) = torch.autograd.grad(y.square().sum(), logits)
    assert slope[0, :100].abs().max() == slope[1, 60:].abs().max() == 0
    assert (slope[0, 100:] != 0).all()
    nothing = mix(torch.full((1, 120), -torch.inf), embeddings, backend=backend)
    assert nothing.isnan().all()


@EVERY
def test_half_embeddings_under_float32_logits(backend):
    """As an optimiser holds them; the reference is of the rounded embeddings."""
    logits = torch.randn(3, 90, requires_grad=True)
    embeddings = torch.randn(90, 20).bfloat16().requires_grad_()
    agree(logits, embeddings, gumbel(3, 90), 0.9, backend, rtol=0.02, atol=0.02)
    (ours,) = torch.autograd.grad(mix(logits, embeddings, backend=backend).float().sum(), logits)
    (theirs,) = torch.autograd.grad(usual(logits, embeddings).sum(), logits)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)  # nothing is rounded on the way


@EVERY
def test_bf16_throughout(backend):
    logits = torch.randn(3, 90).bfloat16().requires_grad_()
    embeddings = torch.randn(90, 20).bfloat16().requires_grad_()
    agree(logits, embeddings, None, 1.0, backend, rtol=0.02, atol=0.02)


@EVERY
def test_strided_inputs(backend):
    logits = torch.randn(140, 6).T[::2, ::2].requires_grad_()
    embeddings = torch.randn(9, 140).T[::2].requires_grad_()
    noise = gumbel(1, 70).expand(3, 70)
    assert not logits.is_contiguous()
    assert not embeddings.is_contiguous()
    agree(logits, embeddings, noise, 1.0, backend)
    one = torch.randn(1, 70, requires_grad=True)
    agree(one.expand(3, 70), embeddings, noise, 1.0, backend)


@EVERY
def test_only_what_is_asked_for_has_a_gradient(backend):
    logits, embeddings = torch.randn(2, 60), torch.randn(60, 5)
    assert not mix(logits, embeddings, backend=backend).requires_grad
    asked = embeddings.clone().requires_grad_()
    mix(logits, asked, backend=backend).sum().backward()
    torch.testing.assert_close(asked.grad[:, 0], logits.softmax(1).sum(0))
    asked = logits.clone().requires_grad_()
    mix(asked, embeddings, backend=backend).sum().backward()
    assert embeddings.grad is None
    assert asked.grad.abs().max() > 0


@pytest.mark.parametrize("backend", ["reference", "fused"])
def test_finite_differences(backend):
    logits = torch.randn(2, 9, dtype=torch.float64, requires_grad=True)
    embeddings = torch.randn(9, 3, dtype=torch.float64, requires_grad=True)
    noise = gumbel(2, 9).double()

    def value(logits, embeddings):
        return mix(logits, embeddings, noise, temperature=0.8, backend=backend)

    assert torch.autograd.gradcheck(value, (logits, embeddings))


class Made(TorchDispatchMode):
    """Sizes of the tensors that are allocated; a view shares its storage with what is known."""

    def __init__(self, *known):
        super().__init__()
        self.known, self.sizes = {t.untyped_storage().data_ptr() for t in known}, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for one in made if isinstance(made, tuple | list) else [made]:
            if torch.is_tensor(one) and one.untyped_storage().data_ptr() not in self.known:
                self.sizes.append(one.untyped_storage().nbytes() // one.element_size())
        return made


def test_the_probabilities_are_never_written(monkeypatch):
    monkeypatch.setattr(vocabulary, "TILE", 64)
    logits, embeddings, noise = torch.randn(4, 640), torch.randn(640, 8), gumbel(4, 640)
    logits.requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        with Made(logits, embeddings, noise) as made:
            y = mix(logits, embeddings, noise)
    assert max(made.sizes) == 4 * 16  # a tile of words
    inputs = {t.data_ptr() for t in (logits, embeddings, noise)}
    assert max(t.numel() for t in kept if t.data_ptr() not in inputs) == y.numel()
    with Made(logits, embeddings, noise) as made:
        y.sum().backward()
    large = [size for size in made.sizes if size > 4 * 16]
    assert set(large) == {4 * 640}  # the gradient itself
    with Made(logits, embeddings, noise) as made:
        mix(logits, embeddings, noise, backend="reference")
    assert max(made.sizes) == 4 * 640


def test_tiles_do_not_change_the_result(monkeypatch):
    logits, embeddings = torch.randn(3, 100, requires_grad=True), torch.randn(100, 7)
    found = []
    for tile in (300, 100, 1):
        monkeypatch.setattr(vocabulary, "TILE", tile)
        y = mix(logits, embeddings, backend="fused")
        found.append((y, torch.autograd.grad(y.square().sum(), logits)[0]))
    for y, slope in found[1:]:
        torch.testing.assert_close(y, found[0][0])
        torch.testing.assert_close(slope, found[0][1])


def test_a_failing_kernel_is_told_and_replaced(monkeypatch):
    def broken(*_):
        raise RuntimeError("out of shared memory")

    monkeypatch.setattr(dispatch, "_warned", set())
    monkeypatch.setattr(vocabulary, "choose", lambda *_: "triton")
    monkeypatch.setattr(vocabulary.TritonMix, "apply", broken)
    logits, embeddings = torch.randn(2, 60), torch.randn(60, 5)
    with pytest.warns(RuntimeWarning, match=r"vocabulary\.mix.*out of shared memory"):
        y = mix(logits, embeddings)
    torch.testing.assert_close(y.double(), usual(logits, embeddings))
    with pytest.raises(RuntimeError, match="out of shared memory"):
        mix(logits, embeddings, backend="triton")


@pytest.mark.parametrize(
    ("arguments", "temperature", "said"),
    [
        ((torch.rand(5), torch.rand(5, 2)), 1, r"\(N, V\)"),
        ((torch.rand(2, 5), torch.rand(4, 2)), 1, r"\(2, 5\) and \(4, 2\)"),
        ((torch.rand(2, 5), torch.ones(5, 2, dtype=int)), 1, "int64"),
        ((torch.rand(0, 5), torch.rand(5, 2)), 1, "at least 1"),
        ((torch.rand(2, 5), torch.rand(5, 2)), 0.0, "above 0, got 0.0"),
        ((torch.rand(2, 5), torch.rand(5, 2)), math.nan, "above 0, got nan"),
        ((torch.rand(2, 5), torch.rand(5, 2), torch.rand(1, 5)), 1, r"shape \(2, 5\)"),
        ((torch.rand(2, 5), torch.rand(5, 2), torch.rand(2, 5, requires_grad=True)), 1, "detach"),
    ],
)
def test_bad_input(arguments, temperature, said):
    with pytest.raises(InputError, match=said):
        mix(*arguments, temperature=temperature)


def test_triton_refuses_float64():
    with pytest.raises(InputError, match="float64"):
        mix(torch.rand(1, 4), torch.rand(4, 2).double(), backend="triton")
