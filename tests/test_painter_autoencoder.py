"""The painter's autoencoder: its loss by hand, resuming, normalised latents, and the gate."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import nn

from standins import ToyWorld
from visiondx.core.errors import InputError
from visiondx.core.loop import read_log
from visiondx_worlds.models.tiny_encoder import new_encoder
from visiondx_worlds.models.tokenizer import Tokenizer
from visiondx_worlds.quality.painter import Head, gate, reconstruction_heads
from visiondx_worlds.training import painter_autoencoder
from visiondx_worlds.training.painter_autoencoder import (
    AutoencoderConfig,
    Features,
    feature_distance,
    loss_terms,
    new_autoencoder,
    normalise_latents,
    reconstruct,
    render_block,
    train_autoencoder,
)
from visiondx_worlds.worlds import animals, faces

TINY = AutoencoderConfig(
    steps=4,
    batch=4,
    warmup=1,
    settle=3,
    widths=(8, 8, 8),
    latent_channels=4,
    block=8,
    measured=8,
)


@pytest.fixture(scope="module")
def encoder():
    return new_encoder(Tokenizer.load())


def test_the_worlds_take_turns_in_a_block_and_a_seed_draws_it_again() -> None:
    block = render_block(8, seed=3)
    assert block.shape == (8, 3, 64, 64)
    assert block.dtype == torch.uint8
    assert torch.equal(block, render_block(8, seed=3))
    assert not torch.equal(block, render_block(8, seed=4))
    # rows 2 and 3 of each four: a face and an animal
    for row, (index, world) in enumerate(((1, faces), (2, animals)), start=2):
        drawn = world.render(world.sample(2, painter_autoencoder.step_seed(3, index)))
        assert torch.equal(block[row::4], (drawn * 255).round().byte())


def test_loss_terms_by_hand() -> None:
    images = torch.zeros(1, 3, 4, 4)
    made = torch.full((1, 3, 4, 4), 0.5)
    made[:, 1] = -1.0
    mean = torch.tensor([2.0, 0.0]).view(1, 2, 1, 1)
    log_variance = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1)
    latents = DiagonalGaussianDistribution(torch.cat([mean, log_variance], 1))
    config = replace(TINY, squares=2.0, kl=0.1)
    terms = loss_terms(images, made, latents, None, config)
    assert set(terms) == {"absolute", "squares", "kl"}
    assert terms["absolute"].item() == pytest.approx((0.5 + 1 + 0.5) / 3)
    assert terms["squares"].item() == pytest.approx(2 * (0.25 + 1 + 0.25) / 3)
    # KL(N(m, v) || N(0, 1)) = (m^2 + v - 1 - log v) / 2: 2 and (e - 2) / 2, their mean
    assert terms["kl"].item() == pytest.approx(0.1 * (2 + (np.e - 2) / 2) / 2)


def test_the_perceptual_term_sees_features_and_its_gradient_is_right(encoder) -> None:
    one, two = torch.tensor([[3.0], [4.0]]).view(1, 2, 1, 1), torch.tensor([[1.0], [0.0]])
    unit = [nn.functional.normalize(one, dim=1)]
    # (0.6 - 1)^2 + 0.8^2
    assert feature_distance(unit, [two.view(1, 2, 1, 1)]).item() == pytest.approx(0.8)
    features = Features(encoder)
    images = render_block(4, seed=0)[:2].float() / 127.5 - 1
    found = features(images / 2 + 0.5)
    assert [f.shape[-1] for f in found] == [64, 32, 16, 8]
    torch.testing.assert_close(found[2].norm(dim=1), torch.ones(2, 16, 16))
    latents = DiagonalGaussianDistribution(torch.zeros(2, 8, 16, 16))
    same = loss_terms(images, images, latents, features, TINY)
    assert all(term.item() == 0 for term in same.values())
    made = (images * 0.9).requires_grad_()
    term = loss_terms(images, made, latents, features, TINY)["perceptual"]
    (gradient,) = torch.autograd.grad(term, made)
    step = gradient * (0.02 / gradient.norm())  # the way that changes most, above the rounding
    ends = [
        loss_terms(images, made.detach() + sign * step, latents, features, TINY)["perceptual"]
        for sign in (1, -1)
    ]
    assert (gradient * step).sum().item() == pytest.approx((ends[0] - ends[1]).item() / 2, rel=0.03)
    assert all(p.grad is None for p in encoder.parameters())


def test_a_killed_training_goes_on_to_the_same_result(tmp_path, encoder) -> None:
    whole = train_autoencoder(TINY, tmp_path / "whole", encoder, seed=1)
    # a step, then a checkpoint; again from it: the third step is in the second block
    while (resumed := train_autoencoder(TINY, tmp_path / "cut", encoder, seed=1, time_limit=0)) is (
        None
    ):
        pass
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    log = read_log(tmp_path / "whole")
    assert {"absolute", "squares", "kl", "perceptual"} <= set(log.columns)
    with pytest.raises(InputError, match="another lr"):
        train_autoencoder(replace(TINY, lr=1e-4), tmp_path / "cut", encoder, seed=1)
    other = train_autoencoder(TINY, tmp_path / "other", encoder, seed=2)
    assert not torch.equal(other.decoder.conv_in.weight, whole.decoder.conv_in.weight)


def test_normalised_latents_have_unit_deviation_and_the_same_pictures(tmp_path) -> None:
    torch.manual_seed(0)
    net = new_autoencoder(TINY).eval().requires_grad_(False)
    with torch.no_grad():
        net.quant_conv.bias[:4] += torch.tensor([3.0, 0, -1, 0.5])
    images = render_block(16, seed=0)
    before = net.encode(images[:4].float() / 127.5 - 1).latent_dist
    drawn, pictures = before.sample(torch.Generator().manual_seed(5)), None
    pictures = net.decode(drawn).sample
    normalise_latents(net, images, batch=8)
    latents = net.encode(images.float() / 127.5 - 1).latent_dist
    values = latents.mean.transpose(0, 1).flatten(1)
    torch.testing.assert_close(values.mean(1), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(values.std(1), torch.ones(4), atol=1e-4, rtol=0)
    # the noise is scaled with the mean: the same draw is the same picture
    after = net.encode(images[:4].float() / 127.5 - 1).latent_dist
    again = net.decode(after.sample(torch.Generator().manual_seed(5))).sample
    torch.testing.assert_close(again, pictures, atol=1e-4, rtol=1e-4)
    net.save_pretrained(tmp_path)
    loaded = AutoencoderKL.from_pretrained(tmp_path)
    assert loaded.config.scaling_factor == 1.0
    shown = images[:4].float() / 255
    assert torch.equal(reconstruct(loaded.eval(), shown), reconstruct(net, shown))
    assert reconstruct(net, shown).shape == (4, 3, 64, 64)


class _Judges:
    """Two judges of ToyWorld that see the colour (mean of red above blue) and guess no ring.

    The second needs more red than the first, so that they disagree about a faint one.
    """

    binary = ("red", "ring", "square", "stripe")

    def answers(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        centre = images[:, :, 28:36, 28:36].mean((2, 3))
        excess = centre[:, 0] - centre[:, 2]
        red = torch.stack([excess > 0, excess > 0.4])
        rest = torch.zeros(2, len(images), 3, dtype=torch.bool)
        return {"binary": torch.cat([red[..., None], rest], 2), "side": red.long()}


class _World(ToyWorld):
    name = "toy"

    def groups(self, attributes) -> dict[str, torch.Tensor]:
        # two rows whose side cannot be seen
        side = attributes["red"].long()
        return {"side": torch.where(torch.arange(len(side)) < 2, -1, side)}


def test_the_gate_is_zero_for_identical_and_counts_what_is_lost() -> None:
    world = _World()
    attributes = world.sample(64, 0)
    attributes.values[:, 4:] = 0  # the shape in the middle
    attributes.values[:, 1] = 0  # no ring anywhere: its head says nothing
    heads = reconstruction_heads(_Judges(), world, attributes, lambda images: images, batch=24)
    assert list(heads) == ["red", "square", "stripe", "which side"]
    assert all(e.value == 0 and e.low == 0 and e.high == 0 for e in gate(heads).values())
    assert heads["red"].accuracy()[0].value == 1
    assert heads["square"].accuracy()[0].value == 0.5  # always no: right on one side only
    assert (heads["which side"].truth[:2] == -1).all()
    # faded colours: the second judge says no, the two disagree, and every red one is lost
    faded = reconstruction_heads(_Judges(), world, attributes, lambda x: 0.5 + (x - 0.5) * 0.4)
    lost = gate(faded)
    assert next(iter(lost)) in ("red", "which side")
    assert lost["red"].value == 0.5  # of the two sides, one wholly
    seen = attributes["red"][2:]
    assert lost["which side"].value == pytest.approx(seen.mean().item())
    assert lost["which side"].n == 62


def test_a_head_by_hand() -> None:
    right = np.array([[1, 1], [1, 0], [1, 1], [0, 1]], dtype=float)
    plain = Head(right, np.array([2, 0, 1, -1]), binary=False)
    assert [e.value for e in plain.accuracy()] == [1, pytest.approx(2 / 3)]
    assert plain.lost().value == pytest.approx(1 / 3)
    fair = Head(right, np.array([1, 0, 0, 0]), binary=True)
    # renders: 1 where there, 2/3 where not; reconstructions: 1 and 2/3
    assert fair.lost().value == 0
    assert fair.accuracy()[0].value == pytest.approx((1 + 2 / 3) / 2)


def test_a_block_holds_whole_batches() -> None:
    with pytest.raises(InputError, match="block is 10 and batch 4"):
        replace(TINY, block=10)
