"""Distilling the painter into four steps, with its guidance told to it.

Progressive distillation (Salimans and Ho 2022) of a guided painter (Meng et al. 2023): one step of
the student leads as far as several guided steps of the teacher. DDIM leads from z_t to z_s by

    z_s = cos(d) z_t - sin(d) v,        d the angle between t and s, cos^2(angle) = alpha-bar,

so the teacher's own way from z_t to z_s says which v the student has to answer in one step. The
ways are walked once, from noise, with a guidance w drawn for each: what the student learns from is
what it meets when it paints, and each way teaches all of its steps.
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm
from transformers import CLIPTextModel, PreTrainedTokenizerBase

from visiondx.core.files import atomic_write, read_kept, result_key
from visiondx.core.loop import Trainer, adamw, set_learning_rate, settling, update_average
from visiondx.core.memory import keep_memory
from visiondx.core.precision import fast_autocast
from visiondx.core.seeds import step_seed
from visiondx.models.denoising import guidance_embedding
from visiondx_worlds.training.painter_autoencoder import SHARES, sample_rows
from visiondx_worlds.training.painter_pool import fingerprints, told
from visiondx_worlds.training.painter_unet import Reader, new_scheduler

TOLD = 64  # width of the embedding that tells the student its guidance
METHOD = 1  # raised where the same settings walk other ways
_SEED = 930_000
_CHUNK = 128  # ways walked at once, and kept in one file; a multiple of 4


@dataclass(frozen=True)
class QuickConfig:
    """Settings of the distillation; the defaults take three quarters of an hour on two cores."""

    ways: int = 8192  # of the teacher, from noise to a picture
    strides: int = 20  # steps of the teacher on a way
    painting: int = 4  # steps of the student on the same
    guidance: tuple[float, float] = (1.0, 6.0)  # w, drawn evenly
    steps: int = 2400
    batch: int = 64
    lr: float = 5e-4
    warmup: int = 100
    settle: int = 1400
    average: float = 0.998


@dataclass(frozen=True)
class Ways:
    """N ways of the teacher.

    states: (N, painting + 1, C, h, w) fp16: noise, where the student's steps end, the latent.
    w: (N,) guidance. captions: N.
    """

    states: Tensor
    w: Tensor
    captions: list[str]

    def __len__(self) -> int:
        return len(self.w)


def new_student(teacher: UNet2DConditionModel) -> UNet2DConditionModel:
    """The teacher's UNet with one input more, the guidance, which at first changes nothing."""
    kept = {name: value for name, value in teacher.config.items() if not name.startswith("_")}
    settings = {**kept, "time_cond_proj_dim": TOLD}  # "_name_or_path" is of this machine
    student = UNet2DConditionModel.from_config(settings)
    missing, unexpected = student.load_state_dict(teacher.state_dict(), strict=False)
    if missing != ["time_embedding.cond_proj.weight"] or unexpected:
        raise ValueError(f"The student lacks {missing} and does not know {unexpected}.")
    torch.nn.init.zeros_(student.time_embedding.cond_proj.weight)
    return student.to(teacher.device)


def captions_of_all_worlds(count: int, seed: int) -> list[str]:
    """`count` (a multiple of 4) captions, the worlds with the shares of ``SHARES``."""
    total, captions = sum(share for _, share in SHARES), []
    for index, (world, share) in enumerate(SHARES):
        now = step_seed(step_seed(_SEED + index, seed), 0)
        rows = sample_rows(world, count * share // total, now)
        captions += told(world).captions(world, rows, now)
    return captions


@torch.no_grad()
def walk(
    teacher: UNet2DConditionModel,
    noise: Tensor,
    condition: Tensor,
    empty: Tensor,
    w: Tensor,
    config: QuickConfig,
) -> Tensor:
    """The teacher's guided DDIM from noise (B, C, h, w): (B, painting + 1, C, h, w).

    Args:
        condition: (B, L, D). empty: (1, L, D) of the empty prompt. w: (B,) guidance.
    """
    scheduler, every = new_scheduler(), config.strides // config.painting
    scheduler.set_timesteps(config.strides)
    both, scale = torch.cat([empty.expand_as(condition), condition]), w[:, None, None, None]
    states, now = [noise], noise
    for index, time in enumerate(scheduler.timesteps):
        with fast_autocast(noise.device):
            free, bound = teacher(torch.cat([now] * 2), time, both, return_dict=False)[0].chunk(2)
        velocity = torch.lerp(free.float(), bound.float(), scale)
        now = scheduler.step(velocity, time, now, return_dict=False)[0]
        if (index + 1) % every == 0:
            states.append(now)
    return torch.stack(states, 1)


def make_ways(
    teacher: UNet2DConditionModel, reader: Reader, config: QuickConfig, seed: int, folder: Path
) -> Ways:
    """``config.ways`` ways of the teacher; kept in `folder`, a file for some, to go on from."""
    shape = (teacher.config.in_channels, *[teacher.config.sample_size] * 2)
    parts = []
    starts = range(0, config.ways, _CHUNK)
    for start in tqdm(starts, desc="ways of the teacher", mininterval=1.0):
        size, now = min(_CHUNK, config.ways - start), step_seed(step_seed(_SEED, seed), start)
        captions, source = captions_of_all_worlds(size, now), torch.Generator().manual_seed(now)
        low, high = config.guidance
        w = low + (high - low) * torch.rand(size, generator=source)
        noise = torch.randn((size, *shape), generator=source)
        settings = [size, config.strides, config.painting]
        tag = result_key(METHOD, settings, captions, w.tolist(), fingerprints(teacher=teacher))
        file = folder / f"ways-{start:06d}.safetensors"
        states = read_kept(file, lambda path, tag=tag: _read(path, tag))
        if states is None:
            device = teacher.device
            given = (each.to(device) for each in (noise, reader(captions), reader.empty, w))
            states = walk(teacher, *given, config).half().cpu()
            with atomic_write(file) as path:
                save_file({"states": states}, path, {"made": tag})
        parts.append(Ways(states, w, captions))
    return Ways(
        torch.cat([part.states for part in parts]),
        torch.cat([part.w for part in parts]),
        [caption for part in parts for caption in part.captions],
    )


def _read(path: Path, tag: str) -> Tensor | None:
    """None where the file was made with other arguments."""
    with safe_open(path, framework="pt") as file:
        return file.get_tensor("states") if file.metadata().get("made") == tag else None


class Leaps:
    """The student's steps: its times, and the v that leads from one to the next."""

    def __init__(self, painting: int) -> None:
        scheduler = new_scheduler()
        scheduler.set_timesteps(painting)
        self.times = scheduler.timesteps
        angles = torch.cat([scheduler.alphas_cumprod[self.times], torch.ones(1)]).sqrt().acos()
        self.turns = angles[:-1] - angles[1:]

    def velocity(self, before: Tensor, after: Tensor, which: Tensor) -> Tensor:
        """v with DDIM(before, v) = after, (B, C, h, w), for the steps `which` (B,)."""
        turn = self.turns[which][:, None, None, None]
        return (turn.cos() * before - after) / turn.sin()


def train_quick(
    config: QuickConfig,
    directory: str | Path,
    teacher: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    seed: int = 0,
    device: str = "cpu",
    time_limit: float | None = None,
) -> tuple[UNet2DConditionModel, bool]:
    """Distil, or go on where `directory` ends.

    Returns:
        the averaged student so far, in eval mode, and whether all steps are done (`time_limit`, in
        seconds, may end it early: call again to go on).

    Raises:
        InputError: `directory` holds a distillation with other settings or parts.
    """
    keep_memory()
    directory = Path(directory)
    torch.manual_seed(seed)
    teacher = teacher.to(device).eval().requires_grad_(False)
    net = new_student(teacher).train().requires_grad_(True)
    average = copy.deepcopy(net).eval().requires_grad_(False)
    adam = adamw(net.parameters(), config.lr, 0.0, (0.9, 0.99))
    settings = {**asdict(config), **fingerprints(teacher=teacher, text=text_encoder)}
    modules = {"net": net, "average": average}
    trainer = Trainer("quick", modules, {"adam": adam}, directory, settings, seed=seed)
    reader, leaps = Reader(text_encoder, tokenizer, 0.0), Leaps(config.painting)
    ways = make_ways(teacher, reader, config, seed, directory)

    def step(i: int) -> dict[str, float]:
        rate = settling(i, config.steps, config.settle, warmup=config.warmup)
        set_learning_rate(adam, config.lr * rate)
        source = torch.Generator().manual_seed(step_seed(step_seed(_SEED + 1, seed), i))
        rows = torch.randint(len(ways), (config.batch,), generator=source)
        which = torch.randint(config.painting, (config.batch,), generator=source)
        before, after = (ways.states[rows, which + k].float() for k in range(2))
        asked = leaps.velocity(before, after, which).to(device)
        condition = reader([ways.captions[row] for row in rows.tolist()]).to(device)
        embedded = guidance_embedding(ways.w[rows], TOLD).to(device)
        times = leaps.times[which].to(device)
        with fast_autocast(device):
            made = net(
                before.to(device), times, condition, timestep_cond=embedded, return_dict=False
            )[0].float()
        terms = {"velocity": (made - asked).square().mean()}
        trainer.descend(adam, terms)
        update_average(average, net, config.average, i)
        return {name: term.item() for name, term in terms.items()}

    finished = trainer.run(step, config.steps, time_limit=time_limit)
    return average, finished
