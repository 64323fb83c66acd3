"""Activation maximisation on targets whose maximiser is known, and what keeps images smooth."""

import math

import pytest
import torch
from torch import Tensor, nn

from diffexplainer_standins import SIDE, flat, hooks, tiny, weight_image
from painter_standins import lcm_painter
from visiondx.core.errors import InputError
from visiondx.core.seeds import step_seed
from visiondx.diffexplainer.baselines import (
    DecayBlur,
    FeatureAttack,
    GeneratorPrior,
    VariationJitter,
    decay_and_blur,
    feature_attack,
    generator_prior,
    variation_and_jitter,
)
from visiondx.diffexplainer.objectives import Objectives
from visiondx.diffexplainer.regularisers import gaussian_blur, roll, total_variation
from visiondx.models.denoising import Noise
from visiondx.models.target import Target
from visiondx.search.descent import Descent

AIMS = ["1:0", "dog", "-1:2"]
PLAIN = VariationJitter(steps=20, eta=0.1, weight=0, jitter=0)


def test_blur_by_hand():
    image = torch.zeros(1, 1, 9, 9, dtype=torch.double)
    image[..., 4, 4] = 1
    taps = torch.tensor([math.exp(-(x**2) / 0.5) for x in range(-2, 3)], dtype=torch.double)
    taps = taps / taps.sum()
    expected = torch.zeros(9, 9, dtype=torch.double)
    expected[2:7, 2:7] = taps.outer(taps)
    assert torch.allclose(gaussian_blur(image, 0.5)[0, 0], expected)
    even = torch.full((1, 2, 3, 4), 0.3)
    assert torch.allclose(gaussian_blur(even, 2.0), even)  # edges, and narrower than the kernel
    edge = torch.tensor([1.0, 0, 0, 0, 0, 0], dtype=torch.double).expand(1, 1, 6, 6)
    side = gaussian_blur(edge, 0.5)[0, 0, 3, 0]
    assert side.item() == pytest.approx(taps[2:].sum().item())  # what lies left of it, repeated


def test_total_variation_by_hand():
    image = torch.tensor([[1.0, 3.0], [0.0, 0.5]]).view(1, 1, 2, 2)
    images = torch.cat([image, image * 2, torch.ones(1, 1, 2, 2)])
    expected = (4 + 0.25 + 1 + 6.25) / 4
    assert total_variation(images).tolist() == pytest.approx([expected, 4 * expected, 0])


def test_each_image_is_rolled_by_its_own_shift():
    images = torch.rand(3, 2, 5, 4)
    shifts = torch.tensor([[0, 0], [2, -1], [-3, 5]])
    expected = [torch.roll(i, s.tolist(), (1, 2)) for i, s in zip(images, shifts, strict=True)]
    assert torch.equal(roll(images, shifts), torch.stack(expected))


def test_a_unit_step_has_length_eta_in_every_row():
    moments = torch.zeros(2, 2, 2, 2)
    gradient = torch.tensor([[[3.0, 0], [0, 4]], [[0, 0], [0, 0]]])
    moved = Descent(eta=0.5, update="unit").move(torch.zeros(2, 2, 2), gradient, moments, 0)
    assert torch.allclose(moved, torch.tensor([[[-0.3, 0], [0, -0.4]], [[0, 0], [0, 0]]]))
    scalars = Descent(eta=0.5, update="unit").move(
        torch.zeros(2), torch.tensor([2.0, -9]), moments, 0
    )
    assert scalars.tolist() == [-0.5, 0.5]


def test_a_linear_unit_is_maximal_at_the_corner_of_its_weights():
    target = flat()
    found = variation_and_jitter(target, AIMS, 2, SIDE, PLAIN)
    assert found.images.shape == (3, 2, 3, SIDE, SIDE)
    assert found.loss.shape == (3, 2)
    corner = (weight_image(target, 0) > 0).float().expand(2, -1, -1, -1)
    assert torch.allclose(found.images[0], corner)
    corner = (weight_image(target, 2) < 0).float().expand(2, -1, -1, -1)
    assert torch.allclose(found.images[2], corner)
    loss, _ = Objectives(target, AIMS, SIDE)(found.images)
    assert torch.allclose(found.loss, loss.detach(), atol=1e-6)
    assert found.names == tuple(AIMS)
    assert found.settings["steps"] == 20
    assert found.seed == 0


def test_total_variation_evens_the_image_out():
    target, strong = flat(), VariationJitter(steps=80, eta=0.01, weight=1e4, jitter=0)
    found = variation_and_jitter(target, ["1:0"], 1, SIDE, strong)
    rough = variation_and_jitter(target, ["1:0"], 1, SIDE, PLAIN)
    assert total_variation(rough.images[0]) > 0.2
    assert total_variation(found.images[0]) < 1e-3


def test_under_jitter_a_linear_unit_has_one_colour():
    """Rolled everywhere alike, each pixel meets all weights of its channel: their sum decides."""
    target, wild = flat(), VariationJitter(steps=120, eta=0.05, weight=0, jitter=SIDE * 50)
    weight = weight_image(target, 0)
    with torch.no_grad():  # sums that are well away from 0, of weights of both signs
        target.module[1].weight[0] += (
            (weight.sum((1, 2), keepdim=True).sign() * 0.05).expand(weight.shape).flatten()
        )
    weight = weight_image(target, 0)
    assert ((weight > 0).flatten(1).any(1) & (weight < 0).flatten(1).any(1)).all()
    found = variation_and_jitter(target, ["1:0"], 1, SIDE, wild).images[0, 0]
    expected = (weight.sum((1, 2)) > 0).float()
    assert torch.allclose(found.mean((1, 2)), expected, atol=0.15)


def test_decay_alone_ends_where_the_series_does():
    """v <- (1 - d) v + eta u, T times, for the unit vector u along a linear unit's weights."""
    target, steps, d, eta = flat(), 7, 0.1, 0.01
    gentle = DecayBlur(steps=steps, eta=eta, decay=d, sigma=1.0, every=100)
    start = DecayBlur(steps=1, eta=1e-9, decay=0.0, sigma=1.0, every=100)
    v = decay_and_blur(target, AIMS, 2, SIDE, start).images[0] - 0.5
    found = decay_and_blur(target, AIMS, 2, SIDE, gentle).images[0] - 0.5
    w = weight_image(target, 0)
    left = (1 - d) ** steps
    assert torch.allclose(found, left * v + eta * w / w.norm() * (1 - left) / d, atol=1e-6)


def test_the_image_is_blurred_at_every_so_many_steps():
    target = flat()
    still = {"eta": 1e-9, "decay": 0.0, "sigma": 0.7}
    start = decay_and_blur(target, AIMS, 1, SIDE, DecayBlur(1, every=9, **still)).images
    found = decay_and_blur(target, AIMS, 1, SIDE, DecayBlur(7, every=3, **still)).images
    expected = gaussian_blur(gaussian_blur(start.flatten(0, 1), 0.7), 0.7)
    assert torch.allclose(found.flatten(0, 1), expected, atol=1e-6)


def test_an_attack_ends_on_the_ball_along_the_weights():
    target, images = flat(), 0.4 + 0.2 * torch.rand(3, 2, 3, SIDE, SIDE)
    found = feature_attack(target, AIMS, images, FeatureAttack(steps=12, eta=0.1, radius=0.5))
    w = weight_image(target, 0)
    assert torch.allclose(found.images[0], images[0] + 0.5 * w / w.norm(), atol=1e-5)
    change = (found.images - images).flatten(2).norm(dim=2)
    assert change.max() <= 0.5 + 1e-5
    assert change.min() > 0.49
    wide = feature_attack(target, AIMS, images, FeatureAttack(steps=9, eta=1e4, radius=1e5))
    assert wide.images.min() >= 0
    assert wide.images.max() <= 1
    assert torch.allclose(wide.images[0], (w > 0).float().expand(2, -1, -1, -1), atol=1e-5)
    assert (wide.images[1] - images[1]).flatten(1).norm(dim=1).max() > 1


class Codes(nn.Module):
    """A painter whose pictures are its noise, darker or brighter than grey, whatever the words."""

    size = SIDE

    def noise(self, seeds: list[int]) -> Noise:
        return Noise.draw(seeds, (3, SIDE, SIDE), 1)

    def tokens(self, texts: list[str]) -> Tensor:
        return torch.zeros(len(texts), 4)

    def encode(self, ids: Tensor) -> Tensor:
        return ids

    def forward(self, condition: Tensor, noise: Noise) -> Tensor:
        assert len(condition) == len(noise.start) == noise.steps.shape[1]
        return 0.5 + 0.01 * noise.start


def test_a_generator_prior_ends_on_the_sphere_along_the_weights():
    """max of a·z with |z| = sqrt(D): z = sqrt(D) a / |a|."""
    target = flat()
    few = GeneratorPrior(steps=300, eta=0.15)
    found = generator_prior(target, AIMS[:1], Codes(), 2, few)
    a = weight_image(target, 0)
    expected = 0.5 + 0.01 * math.sqrt(a.numel()) * a / a.norm()
    assert torch.allclose(found.images[0], expected.expand(2, -1, -1, -1), atol=2e-3)


def test_a_painter_climbs_from_seeded_noise_whatever_the_batch(tmp_path):
    painter = lcm_painter(tmp_path)
    target, few = tiny(), GeneratorPrior(steps=8, eta=0.5, words="a dog")
    noise = painter.noise([step_seed(3, row) for row in range(4)])
    with torch.no_grad():
        words = painter.encode(painter.tokens(["a dog"])).expand(4, -1, -1)
        start = noise.start / noise.start.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        codes = start * math.sqrt(noise.start[0].numel())
        before = painter(words, Noise(codes, noise.steps)).unflatten(0, (2, 2))
        loss, _ = Objectives(target, ["fc:0", "cat"], painter.size)(before)
    found = generator_prior(target, ["fc:0", "cat"], painter, 2, few, seed=3)
    assert (found.loss < loss).all()
    assert found.images.shape == (2, 2, 3, painter.size, painter.size)
    parts = generator_prior(target, ["fc:0", "cat"], painter, 2, few, seed=3, batch=3)
    assert torch.allclose(found.images, parts.images, atol=1e-3)
    assert hooks(target) == 0
    assert all(p.requires_grad for p in target.parameters())


@pytest.mark.parametrize("method", [decay_and_blur, variation_and_jitter])
def test_the_batch_does_not_change_a_row_and_the_seed_does(method):
    settings = {decay_and_blur: DecayBlur, variation_and_jitter: VariationJitter}[method](steps=5)
    target = tiny()
    whole = method(target, ["conv:1", "cat"], 3, 6, settings, seed=1)
    parts = method(target, ["conv:1", "cat"], 3, 6, settings, seed=1, batch=2)
    assert torch.allclose(whole.images, parts.images, atol=1e-4)
    assert torch.equal(whole.images, method(target, ["conv:1", "cat"], 3, 6, settings, 1).images)
    other = method(target, ["conv:1", "cat"], 3, 6, settings, seed=2)
    assert (whole.images - other.images).abs().max() > 0.01
    assert len({round(float(x), 5) for x in whole.loss[0]}) == 3  # starts differ


def test_a_nan_names_step_aim_and_start():
    class Bad(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.passes = nn.Linear(48, 3), 0

        def forward(self, x):
            self.passes += 1
            z = self.fc(x.flatten(1))
            row = torch.arange(len(x))[:, None]
            return z + torch.where((row == 3) & (self.passes > 3), float("nan"), 0.0)

    target = Target(Bad().eval(), "multiclass", ("cat", "dog", "fox"))
    with pytest.raises(FloatingPointError, match=r"at step 1 for 'dog', start 1"):
        variation_and_jitter(target, ["cat", "dog"], 2, SIDE)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: DecayBlur(decay=1.0), "decay must be in"),
        (lambda: DecayBlur(sigma=0.0), "sigma above 0"),
        (lambda: DecayBlur(eta=0.0), "eta must be above 0"),
        (lambda: VariationJitter(weight=-1.0), "weight and jitter"),
        (lambda: VariationJitter(steps=0), "steps must be 1 or more"),
        (lambda: GeneratorPrior(eta=0.0), "eta must be above 0"),
        (lambda: FeatureAttack(radius=0.0), "radius must be above 0"),
        (lambda: decay_and_blur(flat(), ["dgo"], 1, SIDE), "the nearest is 'dog'"),
        (lambda: decay_and_blur(flat(), ["dog"], 0, SIDE), "starts and resolution"),
        (lambda: decay_and_blur(flat(), ["dog"], 1, SIDE, seed=-1), "seed must be"),
        (lambda: feature_attack(flat(), ["dog"], torch.rand(2, 1, 3, 4, 4)), r"\(1, S, 3, H, H\)"),
        (lambda: feature_attack(flat(), ["dog"], 2 * torch.ones(1, 1, 3, 4, 4)), r"in \[0, 1\]"),
    ],
)
def test_bad_input_is_refused(make, said):
    with pytest.raises(InputError, match=said):
        make()
