"""The lesson in being steered: what moves styles, and what it teaches a tiny generator."""

import dataclasses

import pytest
import torch

from test_training_generator import TINY, Disc
from visiondx.core.errors import InputError
from visiondx_worlds.training.generator import train_generator
from visiondx_worlds.training.steering import (
    SteeringConfig,
    mean_differences,
    moves,
    shown,
    teach_steering,
)

LESSON = SteeringConfig(
    images=8 * 12,
    batch=8,
    moved=5,
    channels=(4, 30),
    reach=(0.5, 1.5),
    weights=(1.0, 3.0),
    samples=500,
    lr=5e-3,
    ema=0.5,
    bf16=False,
)


@pytest.fixture(scope="module")
def early(tmp_path_factory):
    return train_generator(Disc(), TINY, tmp_path_factory.mktemp("early"), seed=3)


def test_mean_differences_are_those_of_the_two_sides(early):
    found = mean_differences(early, Disc(), 400, seed=1)
    z = torch.randn(400, TINY.z_dim, generator=torch.Generator().manual_seed(1))
    styles = early.styles(early.w(z))
    red = z[:, 2] > 0  # the third latent of the disc's world, whatever z is normalised to
    by_hand = (styles[red].mean(0) - styles[~red].mean(0)) / early.style_std.clamp_min(1e-12)
    used = early.editable & (early.style_std > 0)
    assert torch.allclose(found[0, used], by_hand[used], atol=1e-4)
    assert (found[0, ~early.editable] == 0).all()


def test_moves_keep_the_strongest_channels_and_have_the_length_asked_for():
    differences = torch.zeros(2, 40)
    differences[0, :30] = torch.linspace(-1, 2, 30) / 2.85  # of length 2
    differences[1, 5] = 4.0
    quiet = dataclasses.replace(LESSON, noise=0.0)
    chosen = torch.tensor([0] * 50 + [1] * 50)
    sign = torch.tensor([1.0, -1.0] * 50)
    found = moves(differences, chosen, sign, quiet)
    length = found.norm(dim=1)
    assert ((length[:50] >= 1.0) & (length[:50] <= 3.0)).all()  # half of 2 to one and a half of it
    assert length[:50].std() > 0.3
    assert (length[50:] <= 3.0).all()  # never more than the largest w
    assert ((length[50:] - 3.0).abs() < 1e-5).float().mean() > 0.5
    assert set((found[:50] != 0).sum(1).tolist()) <= {4, 29, 30}
    four = found[:50][(found[:50] != 0).sum(1) == 4]
    assert len(four)
    assert (four[:, 26:30] != 0).all()  # the four largest
    assert (found[50:, 5].sign() == sign[50:]).all()
    noisy = moves(differences, chosen, sign, LESSON)
    assert (noisy[:, 30:] == 0).all()  # what has no difference stays out
    assert torch.nn.functional.cosine_similarity(noisy[0:2], noisy[2:4]).max() < 0.999


def test_moved_styles_learn_the_switched_render_and_unmoved_ones_stay(early, tmp_path):
    world, lesson = Disc(), dataclasses.replace(LESSON, images=8 * 150)
    taught = teach_steering(early, world, lesson, tmp_path, seed=0)
    z = torch.randn(128, TINY.z_dim, generator=torch.Generator().manual_seed(9))
    styles = early.styles(early.w(z))
    assert torch.equal(taught.styles(taught.w(z)), styles)  # the style space is the same
    d = torch.nn.functional.normalize(mean_differences(early, world, 500, 0)[0], dim=0)
    moved = styles + 2.0 * d * early.style_std
    want = world.render(world.switch(shown(world, z), "red", True), early.resolution)

    def error(generator):
        return (generator.synthesize(moved) - want).abs().mean().item()

    assert error(taught) < 0.75 * error(early)

    drift = (taught.synthesize(styles) - early.synthesize(styles)).abs().mean().item()
    assert drift < 0.5 * error(early)


def test_interrupted_and_resumed_equals_uninterrupted(early, tmp_path):
    whole = teach_steering(early, Disc(), LESSON, tmp_path / "a", seed=3)
    calls = 0
    while (
        part := teach_steering(early, Disc(), LESSON, tmp_path / "b", seed=3, time_limit=0)
    ) is None:
        calls += 1
    assert calls == 11
    assert part.fingerprint == whole.fingerprint
    with pytest.raises(InputError, match="lr"):
        teach_steering(early, Disc(), dataclasses.replace(LESSON, lr=1e-4), tmp_path / "a", seed=3)


def test_a_batch_without_moved_or_unmoved_styles_is_refused():
    with pytest.raises(InputError, match="moved = 16 of a batch of 16"):
        SteeringConfig(moved=16)
    with pytest.raises(InputError, match=r"share of blend must be in \[0, 1\]"):
        SteeringConfig(blend=(0.5, 1.5))


def test_a_blend_lies_between_old_and_taught_weights_block_by_block(early, tmp_path):
    shares = (0.25, 0.0, 1.0)
    whole, part = (
        teach_steering(early, Disc(), dataclasses.replace(LESSON, blend=b), tmp_path / str(len(b)))
        for b in ((), shares)
    )
    for share, size in zip(shares, (4, 8, 16), strict=True):
        name = f"network.synthesis.b{size}.conv1.weight"
        old, mixed, taught = (g.get_parameter(name) for g in (early, part, whole))
        assert torch.allclose(mixed, old.lerp(taught, share), atol=1e-6)
        assert (taught - old).abs().max() > 1e-3


def test_a_blend_of_another_number_of_blocks_is_refused(early, tmp_path):
    with pytest.raises(InputError, match="2 shares and the generator 3 blocks, from 4 px to 16"):
        teach_steering(early, Disc(), dataclasses.replace(LESSON, blend=(1.0, 1.0)), tmp_path)
