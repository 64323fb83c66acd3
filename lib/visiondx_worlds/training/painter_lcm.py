"""Latent consistency distillation: the painter in four steps, with its guidance told to it.

Luo et al. 2023, Latent consistency models. The student f answers, from any time of the teacher's
way, the latent at its end: f(z_t, w, c, t) = c_skip z_t + c_out z_0, where z_0 is what the UNet
makes of z_t, and c_skip is 1 at time 0. One step of the teacher's DDIM, guided with a weight w
drawn anew for every picture, leads from z_t to the earlier z_s; there the average of past students
must answer the same:

    d(f(z_t, w, c, t), f'(z_s, w, c, s)),    d(x, y) = sqrt((x - y)^2 + c^2) - c    (pseudo-Huber)
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, LCMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, PreTrainedTokenizerBase

from visiondx.core.loop import Trainer, adamw, set_learning_rate, settling, update_average
from visiondx.core.memory import keep_memory
from visiondx.core.precision import fast_autocast
from visiondx.core.seeds import step_seed
from visiondx.models.denoising import guidance_embedding
from visiondx_worlds.training.painter_pool import LatentPool, fingerprints
from visiondx_worlds.training.painter_unet import TIMES, Reader, new_scheduler

TOLD = 64  # width of the embedding that tells the student its guidance
SIGMA = 0.5  # sigma_data of LCMScheduler
_SEED = 930_000


@dataclass(frozen=True)
class LCMConfig:
    """Settings of the distillation; the defaults take about an hour and a half on one CPU core."""

    steps: int = 3000
    batch: int = 32
    lr: float = 3e-4
    warmup: int = 100
    settle: int = 1500
    pool: int = 49_152
    guidance: tuple[float, float] = (1.0, 6.0)  # w, drawn evenly
    skips: int = 50  # steps that the teacher's DDIM would take in all
    c: float = 0.001
    target: float = 0.95  # decay of the average that answers from the earlier time
    average: float = 0.998  # of the average that is kept


def new_lcm_scheduler(config: LCMConfig) -> LCMScheduler:
    """The painter's times: the teacher's, of which four in equal stretches are taken."""
    shared = new_scheduler().config
    return LCMScheduler(
        num_train_timesteps=TIMES,
        beta_schedule=shared.beta_schedule,
        prediction_type=shared.prediction_type,
        clip_sample=False,
        set_alpha_to_one=True,
        original_inference_steps=config.skips,
    )


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


def boundary(times: Tensor, scheduler: LCMScheduler) -> tuple[Tensor, Tensor]:
    """c_skip and c_out at `times`, (B, 1, 1, 1): 1 and 0 at time 0 (Luo et al. 2023, Eq. 9).

    As ``LCMScheduler`` has them, so that painting does what was learned.
    """
    scaled = (times.float() * scheduler.config.timestep_scaling)[:, None, None, None]
    total = scaled**2 + SIGMA**2
    return SIGMA**2 / total, scaled / total.sqrt()


def split(velocity: Tensor, noisy: Tensor, signal: Tensor) -> tuple[Tensor, Tensor]:
    """v and z_t -> z_0 and the noise. signal: alpha-bar of each, (B, 1, 1, 1)."""
    a, s = signal.sqrt(), (1 - signal).sqrt()
    return a * noisy - s * velocity, a * velocity + s * noisy


def pseudo_huber(one: Tensor, two: Tensor, c: float) -> Tensor:
    """Mean of sqrt((x - y)^2 + c^2) - c."""
    return (((one - two).square() + c**2).sqrt() - c).mean()


class Consistency:
    """The two answers that must agree, for a teacher and its guidance.

    Args:
        empty: (1, L, D) embeddings of the empty prompt.
    """

    def __init__(self, teacher: UNet2DConditionModel, config: LCMConfig, empty: Tensor) -> None:
        self.teacher, self.config, self.empty = teacher, config, empty
        self.scheduler = new_lcm_scheduler(config)
        self.signal = self.scheduler.alphas_cumprod.to(teacher.device)
        self.stride = TIMES // config.skips

    def alpha(self, times: Tensor) -> Tensor:
        """alpha-bar, (B, 1, 1, 1); 1 before time 0."""
        found = torch.where(times >= 0, self.signal[times.clamp(min=0)], 1.0)
        return found[:, None, None, None]

    def answer(
        self,
        net: UNet2DConditionModel,
        noisy: Tensor,
        times: Tensor,
        condition: Tensor,
        told: Tensor,
    ) -> Tensor:
        """f(z_t, w, c, t), (B, C, h, w); z_t itself where the time is before 0."""
        at = times.clamp(min=0)
        velocity = net(noisy, at, condition, timestep_cond=told, return_dict=False)[0].float()
        skip, out = boundary(at, self.scheduler)
        made = skip * noisy + out * split(velocity, noisy, self.alpha(at))[0]
        return torch.where((times >= 0)[:, None, None, None], made, noisy)

    @torch.no_grad()
    def earlier(self, noisy: Tensor, times: Tensor, condition: Tensor, w: Tensor) -> Tensor:
        """z_s, one stride before t, by the teacher's guided DDIM step."""
        both = torch.cat([self.empty.expand_as(condition), condition])
        velocity = self.teacher(
            torch.cat([noisy] * 2), torch.cat([times] * 2), both, return_dict=False
        )[0].float()
        signal = self.alpha(times)
        free, bound = (split(v, noisy, signal) for v in velocity.chunk(2))
        w = w[:, None, None, None]
        clean, noise = (one + w * (two - one) for one, two in zip(free, bound, strict=True))
        before = self.alpha(times - self.stride)
        return before.sqrt() * clean + (1 - before).sqrt() * noise


def train_lcm(
    config: LCMConfig,
    directory: str | Path,
    teacher: UNet2DConditionModel,
    vae: AutoencoderKL,
    text_encoder: CLIPTextModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    seed: int = 0,
    device: str = "cpu",
    time_limit: float | None = None,
) -> tuple[UNet2DConditionModel, bool]:
    """Distil, or go on where `directory` ends.

    Returns:
        the averaged student so far, in eval mode, and whether all steps are done.

    Raises:
        InputError: `directory` holds a distillation with other settings or parts.
    """
    keep_memory()
    directory = Path(directory)
    torch.manual_seed(seed)
    teacher = teacher.to(device).eval().requires_grad_(False)
    net = new_student(teacher).train().requires_grad_(True)
    target = copy.deepcopy(net).eval().requires_grad_(False)
    average = copy.deepcopy(target)
    adam = adamw(net.parameters(), config.lr, 0.0, (0.9, 0.99))
    modules = {"net": net, "target": target, "average": average}
    settings = {
        **asdict(config),
        **fingerprints(teacher=teacher, vae=vae, text=text_encoder),
    }
    trainer = Trainer("lcm", modules, {"adam": adam}, directory, settings, seed=seed)
    pool = LatentPool.make(vae, config.pool, seed, directory / "latents.safetensors")
    reader = Reader(text_encoder, tokenizer, 0.0)
    rule = Consistency(teacher, config, reader.empty.to(device))
    low, high = config.guidance

    def step(i: int) -> dict[str, float]:
        rate = settling(i, config.steps, config.settle, warmup=config.warmup)
        set_learning_rate(adam, config.lr * rate)
        now = step_seed(step_seed(_SEED, seed), i)
        source = torch.Generator().manual_seed(now)
        latents, captions = pool.batch(config.batch, now)
        condition = reader(captions).to(device)
        size = len(latents)
        # the times of the teacher's DDIM: stride - 1, 2 stride - 1, ..., TIMES - 1
        times = (torch.randint(config.skips, (size,), generator=source) + 1) * rule.stride - 1
        w = low + (high - low) * torch.rand(size, generator=source)
        noise = torch.randn(latents.shape, generator=source)
        noisy = rule.scheduler.add_noise(latents, noise, times).to(device)
        times, w = times.to(device), w.to(device)
        told = guidance_embedding(w, TOLD)
        with fast_autocast(device):
            made = rule.answer(net, noisy, times, condition, told)
            before = rule.earlier(noisy, times, condition, w)
            with torch.no_grad():
                asked = rule.answer(target, before, times - rule.stride, condition, told)
        terms = {"consistency": pseudo_huber(made, asked, config.c)}
        trainer.descend(adam, terms)
        update_average(target, net, config.target, i)
        update_average(average, net, config.average, i)
        return {name: term.item() for name, term in terms.items()}

    finished = trainer.run(step, config.steps, time_limit=time_limit)
    return average, finished
