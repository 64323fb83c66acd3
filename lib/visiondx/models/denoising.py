"""Latent diffusion's denoising with its noise given, so that it repeats, and with gradients.

diffusers' pipelines draw their noise as they go and run under ``no_grad``. Here a picture is a
function of a condition and of noise: the same two give the same picture, bit for bit, and the
gradient of the picture reaches the condition. Each call of the UNet is checkpointed (Chen et al.
2016): its activations are computed again in the backward pass, so that memory does not grow with
the number of steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from visiondx.core.errors import InputError
from visiondx.core.seeds import check_seed

if TYPE_CHECKING:
    from diffusers import LCMScheduler, SchedulerMixin, UNet2DConditionModel


@dataclass(frozen=True)
class Noise:
    """What is random about B pictures.

    start: (B, C, h, w) standard normals, before the scheduler's ``init_noise_sigma``.
    steps: (K, B, C, h, w) standard normals that a consistency model adds between its steps, K one
        less than the steps; other schedulers add none and K is 0.
    """

    start: Tensor
    steps: Tensor

    @classmethod
    def draw(cls, seeds: Sequence[int], shape: tuple[int, int, int], between: int) -> Noise:
        """From a seed a picture, on the CPU: the draws of diffusers' pipelines for
        ``generator=[torch.Generator().manual_seed(s) for s in seeds]``.

        Args:
            shape: (C, h, w) of the latents. between: K.
        """
        for seed in seeds:
            check_seed(seed)
        drawn = []
        for seed in seeds:
            source = torch.Generator().manual_seed(seed)
            drawn.append([torch.randn((1, *shape), generator=source) for _ in range(1 + between)])
        rows = [torch.cat(row) for row in zip(*drawn, strict=True)]
        steps = torch.stack(rows[1:]) if between else torch.empty(0, len(seeds), *shape)
        return cls(rows[0], steps)

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, rows: slice | Tensor) -> Noise:
        return Noise(self.start[rows], self.steps[:, rows])

    def to(self, device: str | torch.device) -> Noise:
        return Noise(self.start.to(device), self.steps.to(device))


def guidance_embedding(scale: Tensor, width: int) -> Tensor:
    """(B,) -> (B, width): sines and cosines of 1000 (w - 1), as LCM tells the UNet its guidance w.

    Source: Luo et al. 2023, Latent consistency models; the frequencies of Vaswani et al. 2017.
    """
    half = width // 2
    steps = torch.arange(half, dtype=torch.float32, device=scale.device)
    frequencies = torch.exp(steps * -(math.log(10000.0) / (half - 1)))
    angles = (scale.float() - 1)[:, None] * 1000 * frequencies
    found = torch.cat([angles.sin(), angles.cos()], 1)
    return torch.nn.functional.pad(found, (0, width - found.shape[1]))


def denoise(
    unet: UNet2DConditionModel,
    scheduler: SchedulerMixin,
    condition: Tensor,
    noise: Noise,
    *,
    steps: int,
    guidance: float = 1.0,
    unconditional: Tensor | None = None,
    through: int | None = None,
) -> Tensor:
    """Latents (B, C, h, w) out of noise, for prompt embeddings (B, L, D).

    Args:
        scheduler: its settings are used, its state is left alone.
        guidance: w of classifier-free guidance (Ho and Salimans 2022); 1 is none. A UNet that was
            distilled with w as an input (``time_cond_proj_dim``) is told w and runs once a step.
        unconditional: (1, L, D) embeddings of the empty prompt; needed for w other than 1, unless
            the UNet is told w.
        through: how many of the last steps carry the gradient; None for all.

    Raises:
        InputError: no such number of steps, or noise for another number.
        FloatingPointError: the UNet's answer is NaN or infinite; names the step.
    """
    told = unet.config.time_cond_proj_dim
    guided = guidance != 1 and told is None
    if guided and unconditional is None:
        raise InputError(
            f"guidance {guidance} needs the embeddings of the empty prompt: give them."
        )
    schedule = type(scheduler).from_config(scheduler.config)
    schedule.set_timesteps(steps, device=condition.device)
    times = schedule.timesteps
    between = noise_steps(scheduler, steps)
    if len(noise.steps) != between:
        raise InputError(
            f"The noise is for {len(noise.steps)} steps between and {steps} steps need {between}: "
            "draw it for these steps."
        )
    through = len(times) if through is None else through
    if not 0 <= through:
        raise InputError(f"through is {through}: give how many of the last steps, at least 0.")
    embedded = None
    if told is not None:
        scale = torch.full((len(condition),), float(guidance), device=condition.device)
        embedded = guidance_embedding(scale, told).to(condition.dtype)

    def predict(latents: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        if not guided:
            return unet(latents, time, condition, timestep_cond=embedded, return_dict=False)[0]
        both = torch.cat([unconditional.expand_as(condition), condition])
        without, with_ = unet(torch.cat([latents] * 2), time, both, return_dict=False)[0].chunk(2)
        return without + guidance * (with_ - without)

    latents = noise.start.to(condition) * schedule.init_noise_sigma
    wanted = torch.is_grad_enabled()
    for index, time in enumerate(times):
        with torch.set_grad_enabled(wanted and index >= len(times) - through):
            scaled = schedule.scale_model_input(latents, time)
            if torch.is_grad_enabled() and (condition.requires_grad or scaled.requires_grad):
                # no dropout in eval mode, so no random state to keep
                answer = checkpoint(
                    predict, scaled, time, condition, use_reentrant=False, preserve_rng_state=False
                )
            else:
                answer = predict(scaled, time, condition)
            if not answer.isfinite().all():
                raise FloatingPointError(
                    f"The denoiser's answer has NaN or infinite values at step {index + 1} of "
                    f"{len(times)}."
                )
            if between:
                latents = _consistency_step(schedule, answer, index, latents, noise)
            else:
                latents = schedule.step(answer, time, latents, return_dict=False)[0]
    return latents


def noise_steps(scheduler: SchedulerMixin, steps: int) -> int:
    """How many times noise is added between `steps` steps: steps - 1 for LCM, else never.

    Raises:
        InputError: fewer steps than one.
    """
    if steps < 1:
        raise InputError(f"steps is {steps}: denoise in at least one.")
    return steps - 1 if type(scheduler).__name__ == "LCMScheduler" else 0


def _consistency_step(
    schedule: LCMScheduler, answer: Tensor, index: int, latents: Tensor, noise: Noise
) -> Tensor:
    """Denoised latents with the given noise added for the next time; LCM's own step draws it."""
    times = schedule.timesteps
    # what it draws is thrown away; a source of its own keeps the global one as it is
    source = torch.Generator(answer.device).manual_seed(0)
    found = schedule.step(answer, times[index], latents, generator=source, return_dict=False)[1]
    if index + 1 == len(times):
        return found
    return schedule.add_noise(
        found, noise.steps[index].to(found), times[index + 1].expand(len(found))
    )
