"""Distilling the painter into four steps: the velocity of a leap, the teacher's ways, resuming."""

from types import SimpleNamespace

import pytest
import torch

from visiondx.models.denoising import Noise, denoise, guidance_embedding
from visiondx_worlds.models.painter_text import text_model, text_tokenizer
from visiondx_worlds.models.tiny_encoder import load_encoder
from visiondx_worlds.models.tokenizer import Tokenizer
from visiondx_worlds.training.painter_quick import (
    TOLD,
    Leaps,
    QuickConfig,
    captions_of_all_worlds,
    make_ways,
    new_student,
    train_quick,
    walk,
)
from visiondx_worlds.training.painter_unet import Reader, UNetConfig, new_scheduler, new_unet

TINY = QuickConfig(ways=8, strides=4, painting=2, steps=3, batch=4, warmup=1, settle=2)
UNET = UNetConfig(widths=(8, 16), heads=2)
EMPTY = torch.zeros(1, 48, 128)


@pytest.fixture(scope="module")
def teacher():
    torch.manual_seed(0)
    return new_unet(UNET, 4, 128).eval()


@pytest.fixture(scope="module")
def words():
    return text_model(load_encoder()), text_tokenizer(Tokenizer.load())


def test_four_steps_begin_where_there_is_noise_alone() -> None:
    leaps = Leaps(4)
    assert leaps.times.tolist() == [999, 749, 499, 249]
    # a quarter of the way from noise to picture each, all but the cosine's offset
    torch.testing.assert_close(leaps.turns.sum().item(), torch.pi / 2, atol=0.01, rtol=0)
    assert leaps.turns.min() > 0.3


def test_the_velocity_of_a_leap_is_the_one_with_which_diffusers_takes_it() -> None:
    source = torch.Generator().manual_seed(0)
    before, after = torch.randn(2, 4, 3, 2, 2, generator=source)
    leaps, scheduler = Leaps(4), new_scheduler()
    scheduler.set_timesteps(4)
    found = leaps.velocity(before, after, torch.arange(4))
    for k, time in enumerate(scheduler.timesteps):
        made = scheduler.step(found[k], time, before[k], return_dict=False)[0]
        torch.testing.assert_close(made, after[k], atol=1e-5, rtol=0)
    backwards = leaps.velocity(before.flip(0), after.flip(0), torch.arange(4).flip(0))
    assert torch.equal(backwards, found.flip(0))


def test_the_velocity_by_hand() -> None:
    leaps = Leaps(4)
    leaps.turns = torch.tensor([torch.pi / 2, torch.pi / 6])
    before, after = torch.full((2, 1, 1, 1), 2.0), torch.full((2, 1, 1, 1), 1.0)
    found = leaps.velocity(before, after, torch.tensor([0, 1])).flatten()
    assert found.tolist() == pytest.approx([-1, (2 * 3**0.5 / 2 - 1) / 0.5], rel=1e-5)


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


def test_a_way_is_what_the_teacher_paints_with_the_same_guidance(teacher, monkeypatch) -> None:
    monkeypatch.setattr(
        "visiondx_worlds.training.painter_quick.fast_autocast",
        lambda device: torch.autocast("cpu", enabled=False),
    )
    source = torch.Generator().manual_seed(0)
    noise = torch.randn((2, 4, 16, 16), generator=source)
    condition = torch.randn((2, 48, 128), generator=source)
    w = torch.tensor([1.0, 4.0])
    way = walk(teacher, noise, condition, EMPTY, w, TINY)
    assert way.shape == (2, TINY.painting + 1, 4, 16, 16)
    assert torch.equal(way[:, 0], noise)
    for row in range(2):
        with torch.no_grad():
            painted = denoise(
                teacher,
                new_scheduler(),
                condition[row : row + 1],
                Noise(noise[row : row + 1], torch.empty(0, 1, 4, 16, 16)),
                steps=TINY.strides,
                guidance=float(w[row]),
                unconditional=EMPTY,
            )
        torch.testing.assert_close(way[row, -1], painted[0], atol=1e-4, rtol=0)


def test_half_of_a_way_is_half_of_the_steps() -> None:
    """A teacher that always answers 1 turns all latents alike: by hand."""
    net = type("Net", (), {"__call__": lambda s, z, *_, **__: (torch.ones_like(z),)})()
    noise = torch.full((1, 1, 1, 1), 0.5)
    way = walk(net, noise, EMPTY, EMPTY, torch.ones(1), TINY).flatten()
    scheduler, state = new_scheduler(), noise
    scheduler.set_timesteps(4)
    for time in scheduler.timesteps[:2]:
        state = scheduler.step(torch.ones_like(state), time, state, return_dict=False)[0]
    assert way[1].item() == pytest.approx(state.item(), abs=1e-5)


def test_ways_are_kept_and_one_that_is_damaged_is_walked_again(teacher, words, tmp_path) -> None:
    reader = Reader(*words, 0.0)
    made = make_ways(teacher, reader, TINY, 1, tmp_path)
    assert len(made) == len(made.captions) == 8
    low, high = TINY.guidance
    assert made.w.min() >= low
    assert made.w.max() <= high
    assert made.w.std() > 0
    never = SimpleNamespace(config=teacher.config, state_dict=teacher.state_dict, device="cpu")
    kept = make_ways(never, reader, TINY, 1, tmp_path)  # it cannot be called
    assert torch.equal(kept.states, made.states)
    assert kept.captions == made.captions
    (file,) = tmp_path.glob("ways-*.safetensors")
    file.write_bytes(b"no tensors")
    with pytest.warns(UserWarning, match="damaged"):
        again = make_ways(teacher, reader, TINY, 1, tmp_path)
    assert torch.equal(again.states, made.states)
    other = make_ways(teacher, reader, TINY, 2, tmp_path)
    assert not torch.equal(other.states, made.states)


def test_captions_come_from_all_worlds() -> None:
    told = captions_of_all_worlds(16, 0)
    assert len(told) == 16
    assert told == captions_of_all_worlds(16, 0)
    assert told != captions_of_all_worlds(16, 1)
    assert sum("portrait" in each for each in told[12:]) == 4  # animals, so told apart from scenes


def test_a_student_learns_what_its_teacher_does(teacher, words, tmp_path) -> None:
    config = QuickConfig(
        ways=8, strides=4, painting=2, steps=60, batch=16, lr=3e-3, warmup=1, settle=30, average=0.9
    )
    student, done = train_quick(config, tmp_path, teacher, *words, seed=1)
    assert done
    reader, leaps = Reader(*words, 0.0), Leaps(2)
    ways = make_ways(teacher, reader, config, 1, tmp_path)
    before, after = ways.states[:, 0].float(), ways.states[:, 1].float()
    first = torch.zeros(8, dtype=torch.long)
    asked = leaps.velocity(before, after, first)
    condition, told = reader(ways.captions), guidance_embedding(ways.w, TOLD)
    errors = [
        (net(before, leaps.times[first], condition, timestep_cond=told)[0] - asked).square().mean()
        for net in (new_student(teacher), student)
    ]
    assert errors[1] < 0.7 * errors[0]


def test_a_killed_distillation_goes_on_to_the_same_result(teacher, words, tmp_path) -> None:
    whole, done = train_quick(TINY, tmp_path / "whole", teacher, *words, seed=1)
    assert done
    cut = False
    while not cut:
        folder = tmp_path / "cut"
        resumed, cut = train_quick(TINY, folder, teacher, *words, seed=1, time_limit=0)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    assert whole.config.time_cond_proj_dim == TOLD
    assert whole.time_embedding.cond_proj.weight.abs().max() > 0
