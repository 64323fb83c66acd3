"""The papers' losses against hand-worked values."""

import math

import pytest
import torch

from visiondx.core.errors import InputError
from visiondx.core.losses import (
    attr_loss,
    pair_probability,
    pair_target,
    ranking_loss,
    regression_loss,
    struct_loss,
    target_loss,
)
from visiondx.kernels.all_pairs import all_pairs_loss
from visiondx.kernels.ssim import SSIMReference


def test_target_loss_by_hand():
    f, flipped = torch.tensor([0.25, 0.9]), torch.tensor([0.8, 0.1])
    expected = torch.tensor(
        [
            -(0.8 * math.log(0.25) + 0.2 * math.log(0.75)),
            -(0.1 * math.log(0.9) + 0.9 * math.log(0.1)),
        ]
    )
    torch.testing.assert_close(target_loss(f.logit(), flipped), expected)
    hard = torch.tensor([-math.log(0.25), -math.log(0.1)])
    torch.testing.assert_close(target_loss(f.logit(), flipped, hard=True), hard)


def test_target_loss_keeps_its_gradient_where_the_target_saturates():
    logit = torch.tensor([80.0, -80.0], requires_grad=True)
    loss = target_loss(logit, torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(loss, torch.tensor([80.0, 80.0]))
    (gradient,) = torch.autograd.grad(loss.sum(), logit)
    torch.testing.assert_close(gradient, torch.tensor([1.0, -1.0]))  # f(x_hat) - p_cls


def test_target_loss_refuses_logits_and_other_shapes():
    with pytest.raises(InputError, match="probabilities"):
        target_loss(torch.zeros(2), torch.tensor([3.0, 0.5]))
    with pytest.raises(InputError, match="probabilities"):
        target_loss(torch.zeros(2), torch.tensor([math.nan, 0.5]))
    with pytest.raises(InputError, match=r"\(2, 1\)"):
        target_loss(torch.zeros(2, 1), torch.zeros(2))


def test_struct_loss_is_zero_for_the_same_image_and_grows():
    x = torch.rand(3, 3, 24, 24)
    reference = SSIMReference(x)
    torch.testing.assert_close(struct_loss(x, reference), torch.zeros(3), rtol=0, atol=1e-5)
    little, much = (struct_loss((x + e * torch.randn_like(x)).clamp(0, 1), reference)
                    for e in (0.05, 0.3))  # fmt: skip
    assert (little < much).all()
    black, white = torch.zeros(1, 3, 16, 16), torch.ones(1, 3, 16, 16)
    by_hand = torch.tensor([1 - 1e-4 / (1 + 1e-4)])
    torch.testing.assert_close(struct_loss(white, SSIMReference(black)), by_hand, atol=1e-3, rtol=0)


def test_attr_loss_by_hand_and_its_minimum():
    p = torch.tensor([[0.5, 0.25, 0.25]])
    q = torch.tensor([[0.25, 0.25, 0.5]])
    expected = -(0.5 * math.log(0.25) + 0.25 * math.log(0.25) + 0.25 * math.log(0.5))
    torch.testing.assert_close(attr_loss(q.log() + 7, p), torch.tensor([expected]))
    logits = p.log().clone().requires_grad_()
    loss = attr_loss(logits, p)
    torch.testing.assert_close(loss, -(p * p.log()).sum(1))  # the entropy of p
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    torch.testing.assert_close(gradient, torch.zeros_like(p), rtol=0, atol=1e-6)
    with pytest.raises(InputError, match="prompts"):
        attr_loss(logits, p[:, :2])


def test_regression_loss_by_hand_for_every_member():
    predicted = torch.tensor([[1.0, 2.0], [0.0, -1.0]])
    expected = torch.tensor([[0.25, 1.0], [0.25, 4.0]])
    torch.testing.assert_close(regression_loss(predicted, torch.tensor([0.5, 1.0])), expected)
    with pytest.raises(InputError, match=r"\(2, 2\) and \(3,\)"):
        regression_loss(predicted, torch.zeros(3))


def test_ranking_loss_is_the_cross_entropy_of_its_two_parts():
    h_i, h_j = torch.tensor([2.0, 2.0, 0.0]), torch.tensor([1.0, 1.0, 0.0])
    target = pair_target(torch.tensor([5.0, 1.0, 3.0]), torch.tensor([1.0, 5.0, 3.0]))
    assert target.tolist() == [1, 0, 0]  # equal losses: i's is not the larger
    p = 1 / (1 + math.exp(-1))
    torch.testing.assert_close(pair_probability(h_i, h_j), torch.tensor([p, p, 0.5]))
    expected = torch.tensor([-math.log(p), -math.log(1 - p), math.log(2)])
    torch.testing.assert_close(ranking_loss(h_i, h_j, target), expected)
    with pytest.raises(InputError, match="one shape"):
        ranking_loss(h_i, h_j[:2], target)


def test_ranking_loss_over_all_pairs_is_what_the_kernel_averages():
    h, losses = torch.randn(6), torch.rand(6)
    i, j = torch.meshgrid(torch.arange(6), torch.arange(6), indexing="ij")
    i, j = i[i != j], j[i != j]
    terms = ranking_loss(h[i], h[j], pair_target(losses[i], losses[j]))
    torch.testing.assert_close(all_pairs_loss(h[None], losses), terms.mean()[None])


def test_ranking_loss_keeps_its_gradient_where_a_pair_is_far_apart():
    h_i = torch.tensor([90.0], requires_grad=True)
    loss = ranking_loss(h_i, torch.tensor([-90.0]), torch.tensor([0.0]))
    torch.testing.assert_close(loss, torch.tensor([180.0]))
    assert torch.autograd.grad(loss.sum(), h_i)[0].item() == 1
