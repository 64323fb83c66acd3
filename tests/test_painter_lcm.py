"""Distilling the painter: a true teacher's step, diffusers' answer, resuming."""

from types import SimpleNamespace

import pytest
import torch

from visiondx.models.denoising import guidance_embedding
from visiondx_worlds.models.painter_text import text_model, text_tokenizer
from visiondx_worlds.models.tiny_encoder import load_encoder
from visiondx_worlds.models.tokenizer import Tokenizer
from visiondx_worlds.training.painter_autoencoder import AutoencoderConfig, new_autoencoder
from visiondx_worlds.training.painter_lcm import (
    TOLD,
    Consistency,
    LCMConfig,
    new_lcm_scheduler,
    new_student,
    pseudo_huber,
    train_lcm,
)
from visiondx_worlds.training.painter_unet import TIMES, UNetConfig, new_scheduler, new_unet

TINY = LCMConfig(steps=3, batch=4, warmup=1, settle=2, pool=8)
UNET = UNetConfig(widths=(8, 16), heads=2)
EMPTY = torch.zeros(1, 48, 128)


@pytest.fixture(scope="module")
def teacher():
    torch.manual_seed(0)
    return new_unet(UNET, 4, 128).eval()


def test_pseudo_huber_by_hand() -> None:
    one, two = torch.tensor([0.0, 3.0]), torch.tensor([0.0, 0.0])
    assert pseudo_huber(one, two, 4.0).item() == pytest.approx((0 + 5 - 4) / 2)


def test_four_steps_begin_where_there_is_noise_alone() -> None:
    scheduler = new_lcm_scheduler(LCMConfig())
    scheduler.set_timesteps(4)
    assert scheduler.timesteps.tolist() == [999, 759, 499, 259]
    assert torch.equal(scheduler.alphas_cumprod, new_scheduler().alphas_cumprod)


def test_the_students_guidance_changes_nothing_at_first(teacher) -> None:
    student = new_student(teacher)
    latents, condition = torch.randn(2, 4, 16, 16), torch.randn(2, 48, 128)
    told = guidance_embedding(torch.tensor([1.0, 5.0]), TOLD)
    made = student(latents, 7, condition, timestep_cond=told, return_dict=False)[0]
    assert torch.equal(made, teacher(latents, 7, condition, return_dict=False)[0])
    torch.nn.init.ones_(student.time_embedding.cond_proj.weight)
    other = student(latents, 7, condition, timestep_cond=told, return_dict=False)[0]
    assert not torch.allclose(made, other)


def test_a_students_configuration_names_no_folder(teacher, tmp_path) -> None:
    teacher.save_pretrained(tmp_path)
    student = new_student(type(teacher).from_pretrained(tmp_path))
    assert str(tmp_path) not in str(dict(student.config))


def test_a_true_teacher_leads_back_along_the_way_it_came() -> None:
    source = torch.Generator().manual_seed(0)
    truth, noise = torch.randn(2, 3, 4, 2, 2, generator=source)
    times = torch.tensor([19, 399, 999])

    def velocity(latents, at, condition, return_dict):
        signal = rule.alpha(at)
        twice = [torch.cat([each] * 2) for each in (truth, noise)]
        return (signal.sqrt() * twice[1] - (1 - signal).sqrt() * twice[0],)

    net = SimpleNamespace(device="cpu")
    rule = Consistency(net, LCMConfig(), EMPTY)
    rule.teacher = type("Teacher", (), {"__call__": staticmethod(velocity)})()
    signal = rule.alpha(times)
    noisy = signal.sqrt() * truth + (1 - signal).sqrt() * noise
    before = rule.alpha(times - 20)
    assert before.flatten()[0] == 1
    for weight in (1.0, 4.0):  # words change nothing, so guidance does not either
        found = rule.earlier(noisy, times, EMPTY.expand(3, -1, -1), torch.full((3,), weight))
        wanted = before.sqrt() * truth + (1 - before).sqrt() * noise
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_guidance_pushes_away_from_the_empty_prompt(teacher) -> None:
    torch.manual_seed(0)
    rule = Consistency(teacher, LCMConfig(), EMPTY)
    noisy, condition = torch.randn(2, 4, 16, 16), torch.randn(2, 48, 128)
    times = torch.tensor([499, 759])
    with torch.no_grad():
        free, bound, far = (
            rule.earlier(noisy, times, condition, torch.full((2,), w)) for w in (0.0, 1.0, 3.0)
        )
        empty = rule.earlier(noisy, times, EMPTY.expand(2, -1, -1), torch.ones(2))
    torch.testing.assert_close(free, empty, atol=1e-5, rtol=0)
    torch.testing.assert_close(far, free + 3 * (bound - free), atol=1e-4, rtol=0)


def test_the_students_answer_is_what_diffusers_paints_with(teacher) -> None:
    torch.manual_seed(0)
    rule, student = Consistency(teacher, LCMConfig(), EMPTY), new_student(teacher)
    noisy, condition = torch.randn(2, 4, 16, 16), torch.randn(2, 48, 128)
    told = guidance_embedding(torch.tensor([2.0, 2.0]), TOLD)
    scheduler = new_lcm_scheduler(LCMConfig())
    scheduler.set_timesteps(4)
    for time in scheduler.timesteps:
        with torch.no_grad():
            ours = rule.answer(student, noisy, time.expand(2), condition, told)
            velocity = student(noisy, time, condition, timestep_cond=told, return_dict=False)[0]
        theirs = scheduler.step(velocity, time, noisy, return_dict=False)[1]
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    ended = rule.answer(student, noisy, torch.tensor([-1, 19]), condition, told)
    assert torch.equal(ended[0], noisy[0])
    assert not torch.equal(ended[1], noisy[1])


def test_a_killed_distillation_goes_on_to_the_same_result(teacher, tmp_path) -> None:
    torch.manual_seed(0)
    vae = (
        new_autoencoder(AutoencoderConfig(widths=(8, 8, 8), latent_channels=4))
        .eval()
        .requires_grad_(False)
    )
    words = text_model(load_encoder()), text_tokenizer(Tokenizer.load())
    whole, done = train_lcm(TINY, tmp_path / "whole", teacher, vae, *words, seed=1)
    assert done
    cut = False
    while not cut:
        folder = tmp_path / "cut"
        resumed, cut = train_lcm(TINY, folder, teacher, vae, *words, seed=1, time_limit=0)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    assert whole.config.time_cond_proj_dim == TOLD
    assert whole.time_embedding.cond_proj.weight.abs().max() > 0
    assert TIMES % TINY.skips == 0
