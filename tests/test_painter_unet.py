"""The painter's UNet: weights and times by hand, the pool, captions left empty, and resuming."""

import pytest
import torch

from visiondx_worlds.models.painter_text import text_model, text_tokenizer
from visiondx_worlds.models.tiny_encoder import load_encoder
from visiondx_worlds.models.tokenizer import Tokenizer
from visiondx_worlds.training import painter_pool
from visiondx_worlds.training.painter_autoencoder import AutoencoderConfig, new_autoencoder
from visiondx_worlds.training.painter_pool import LatentPool
from visiondx_worlds.training.painter_unet import (
    TIMES,
    Reader,
    UNetConfig,
    new_scheduler,
    new_unet,
    snr_weights,
    spread_times,
    train_unet,
)
from visiondx_worlds.worlds import scenes

TINY = UNetConfig(steps=4, batch=4, warmup=1, settle=2, widths=(8, 16), heads=2, pool=16)


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    config = AutoencoderConfig(widths=(8, 8, 8), latent_channels=4)
    return new_autoencoder(config).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def words():
    return text_model(load_encoder()), text_tokenizer(Tokenizer.load())


def test_weights_by_hand() -> None:
    # SNR 0, 1, 5 and 9
    found = snr_weights(torch.tensor([0.0, 0.5, 5 / 6, 0.9]), gamma=5)
    torch.testing.assert_close(found, torch.tensor([1.0, 1.0, 1.0, 0.6]))


def test_times_are_spread_evenly_over_a_batch() -> None:
    found = spread_times(8, torch.Generator().manual_seed(0))
    assert found.sort().values.div(TIMES / 8, rounding_mode="floor").tolist() == list(range(8))
    assert found.tolist() != sorted(found.tolist())


def test_at_the_last_time_nothing_of_the_latents_is_left() -> None:
    scheduler = new_scheduler()
    assert scheduler.alphas_cumprod[-1] < 1e-6
    assert scheduler.alphas_cumprod[0] > 0.999
    scheduler.set_timesteps(25)
    assert scheduler.timesteps[0] == TIMES - 1
    # a perfect denoiser: v of the true latents leads back to them from noise alone
    truth, noisy = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    for time in scheduler.timesteps:
        signal = scheduler.alphas_cumprod[time]
        noise = (noisy - signal.sqrt() * truth) / (1 - signal).sqrt()
        velocity = signal.sqrt() * noise - (1 - signal).sqrt() * truth
        noisy = scheduler.step(velocity, time, noisy, return_dict=False)[0]
    torch.testing.assert_close(noisy, truth, atol=1e-4, rtol=0)


def test_the_pool_pairs_latents_with_what_they_show(vae, tmp_path) -> None:
    pool = LatentPool.make(vae, 16, 3, tmp_path / "latents.safetensors")
    assert len(pool) == 16
    assert [part.world.name for part in pool.parts] == ["scenes", "faces", "animals"]
    part = pool.parts[0]
    again = vae.encode(scenes.render(part.attributes) * 2 - 1).latent_dist.mode()
    torch.testing.assert_close(part.latents.float(), again, atol=2e-3, rtol=2e-3)
    latents, captions = pool.batch(8, seed=5)
    assert latents.shape == (8, 4, 16, 16)
    assert len(captions) == 8
    first = pool.batch(8, seed=5)
    assert torch.equal(first[0], latents)
    assert first[1] == captions
    assert pool.batch(8, seed=6)[1] != captions
    # the first caption is one of the row whose latents stand first
    row = next(k for k, each in enumerate(part.latents) if torch.equal(each.float(), latents[0]))
    kind = scenes.classes[int(part.attributes["class"][row])]
    group = next(k for k, members in scenes.superclasses.items() if kind in members)
    named = scenes.grammar.words["classes"][kind] + scenes.grammar.words["superclasses"][group]
    assert any(word in captions[0] for word in named)


def test_a_kept_pool_is_read_again_and_only_for_the_same_arguments(
    vae, tmp_path, monkeypatch
) -> None:
    kept = tmp_path / "latents.safetensors"
    pool = LatentPool.make(vae, 8, 3, kept)
    monkeypatch.setattr(painter_pool, "_latents", lambda *_: pytest.fail("made again"))
    again = LatentPool.make(vae, 8, 3, kept)
    assert torch.equal(again.parts[1].latents, pool.parts[1].latents)
    with pytest.raises(pytest.fail.Exception, match="made again"):
        LatentPool.make(vae, 8, 4, kept)
    torch.manual_seed(1)
    other = new_autoencoder(AutoencoderConfig(widths=(8, 8, 8), latent_channels=4))
    with pytest.raises(pytest.fail.Exception, match="made again"):
        LatentPool.make(other, 8, 3, kept)


def test_some_captions_are_left_empty(words) -> None:
    reader = Reader(*words, dropout=0.5)
    texts = ["a photo of a dog", "a cat in the snow"] * 8
    full = reader(texts)
    assert full.shape == (16, 48, 128)
    found = reader(texts, torch.Generator().manual_seed(0))
    empty = (found == reader.empty).flatten(1).all(1)
    assert 3 <= empty.sum() <= 13
    torch.testing.assert_close(found[~empty], full[~empty], atol=1e-6, rtol=0)


def test_a_unet_reads_words_and_can_be_told_a_guidance() -> None:
    torch.manual_seed(0)
    net = new_unet(TINY, 4, 128, told=16)
    latents, condition = torch.randn(1, 4, 16, 16), torch.randn(1, 48, 128)
    told = torch.randn(1, 16)
    made = net(latents, 5, condition, timestep_cond=told, return_dict=False)[0]
    assert made.shape == latents.shape
    for change in ({"encoder_hidden_states": condition + 1}, {"timestep_cond": told + 1}):
        settings = {"encoder_hidden_states": condition, "timestep_cond": told, **change}
        assert not torch.allclose(net(latents, 5, **settings, return_dict=False)[0], made)


def test_a_killed_training_goes_on_to_the_same_result(vae, words, tmp_path) -> None:
    whole, done = train_unet(TINY, tmp_path / "whole", vae, *words, seed=1)
    assert done
    cut, calls = False, 0
    while not cut:
        resumed, cut = train_unet(TINY, tmp_path / "cut", vae, *words, seed=1, time_limit=0)
        calls += 1
    assert calls == TINY.steps
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    start = new_unet(TINY, 4, 128).state_dict()
    assert not torch.equal(whole.state_dict()["conv_in.weight"], start["conv_in.weight"])
