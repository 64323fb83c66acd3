"""A painter: text-to-image latent diffusion, from token embeddings to pictures, with gradients.

    painter = Painter.load("embedded")
    images = painter.generate(["a dog in the snow"], seeds=[1, 2, 3])     # (1, 3, 3, 64, 64)
    painter = Painter.load("stable-diffusion-v1-5", "cuda", lora="lcm-lora-sdv1-5")

Or step by step, differentiable in the soft tokens that stand in the prompt's rows:

    ids = painter.tokens(["a photo of a thing"])
    condition = painter.encode(ids, soft, rows)                           # (1, L, D)
    image = painter(condition, painter.noise([7]))                        # (1, 3, H, W)

Latent diffusion: Rombach et al. 2022; few steps by consistency: Luo et al. 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from visiondx.core.errors import InputError
from visiondx.core.memory import keep_memory
from visiondx.models import registry
from visiondx.models.denoising import Noise, denoise, noise_steps
from visiondx.models.painter_files import LCM, check_scheduler, check_sizes, read_painter
from visiondx.models.painter_lora import fuse_lora, lora_file

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, SchedulerMixin, UNet2DConditionModel
    from transformers import CLIPTextModel, PreTrainedTokenizerBase

STEPS = {LCM: 4}  # a scheduler's usual number of steps
GUIDANCE = {LCM: 1.0}  # a consistency model has it baked in
USUAL_STEPS, USUAL_GUIDANCE = 25, 7.5


class Painter(nn.Module):
    """Prompt embeddings and noise into images (B, 3, H, W) in [0, 1]. Frozen, in eval mode.

    Args:
        vae, unet, text_encoder, tokenizer, scheduler: parts of diffusers and transformers.

    Raises:
        InputError: parts that do not fit together, or a scheduler that draws its own noise.
    """

    def __init__(
        self,
        vae: AutoencoderKL,
        unet: UNet2DConditionModel,
        text_encoder: CLIPTextModel,
        tokenizer: PreTrainedTokenizerBase,
        scheduler: SchedulerMixin,
    ) -> None:
        super().__init__()
        name = type(scheduler).__name__
        check_scheduler({**scheduler.config, "_class_name": name})
        check_sizes(vae.config, unet.config, text_encoder.config.to_dict())
        if len(tokenizer) > text_encoder.config.vocab_size:
            raise InputError(
                f"The tokenizer has {len(tokenizer)} tokens and the text encoder knows "
                f"{text_encoder.config.vocab_size}: they are parts of different painters."
            )
        self.vae, self.unet, self.text_encoder = vae, unet, text_encoder
        self.tokenizer, self.scheduler = tokenizer, scheduler
        self.steps = STEPS.get(name, USUAL_STEPS)
        self.guidance = GUIDANCE.get(name, USUAL_GUIDANCE)
        self.eval().requires_grad_(False)
        self.vae.to(memory_format=torch.channels_last)  # decodes a fourth faster on a CPU
        keep_memory()

    @classmethod
    def load(
        cls,
        folder: str | Path,
        device: str | torch.device = "cpu",
        lora: str | Path | None = None,
    ) -> Painter:
        """The embedded one, or a folder that ``save_pretrained`` wrote.

        Args:
            folder: "embedded", which paints in four steps, "embedded-teacher", which taught it and
                paints in 25, or that of any Stable Diffusion 1.x or 2.x.
            lora: an LCM-LoRA, its file or folder: added to the UNet, which then paints in four
                steps without guidance, by LCM's scheduler. The embedded ones take none.

        Raises:
            InputError: a part is missing, a pickle, damaged, or does not fit the others; so for the
                LCM-LoRA.
        """
        if str(folder) in registry.offered("painters"):
            if lora is not None:
                raise InputError(f"The painter {folder!r} takes no LCM-LoRA: leave out {lora}.")
            return registry.ask("painter", str(folder), device)
        file = None if lora is None else lora_file(lora)
        parts = read_painter(folder, device)
        if file is not None:
            from diffusers import LCMScheduler

            fuse_lora(parts["unet"], file)
            parts["scheduler"] = LCMScheduler.from_config(parts["scheduler"].config)
        return cls(**parts)

    @property
    def device(self) -> torch.device:
        return self.unet.device

    @property
    def context_length(self) -> int:
        """L, tokens in a prompt, its first and last included."""
        return self.text_encoder.config.max_position_embeddings

    @property
    def distilled(self) -> bool:
        """Whether it learned its few steps from another painter, instead of a diffusion's noise."""
        told = self.unet.config.time_cond_proj_dim is not None
        return told or type(self.scheduler).__name__ == LCM

    @property
    def factor(self) -> int:
        """Pixels of an image along a pixel of its latents."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def size(self) -> int:
        """Pixels of the images that the UNet was trained for, height and width."""
        return self.unet.config.sample_size * self.factor

    # Words.
    def tokens(self, texts: Sequence[str]) -> Tensor:
        """P prompts -> (P, L) ids, filled up with padding, never cut.

        Raises:
            InputError: no list, or a prompt longer than the context.
        """
        if isinstance(texts, str) or not texts:
            raise InputError(f"Prompts {texts!r} were given; give a non-empty list of texts.")
        length = self.context_length
        rows = self.tokenizer(list(texts), verbose=False)["input_ids"]  # what is too long, we say
        for text, row in zip(texts, rows, strict=True):
            if len(row) > length:
                raise InputError(
                    f"The prompt {text!r} needs {len(row)} tokens and the painter reads {length}; "
                    "shorten it."
                )
        padded = self.tokenizer(list(texts), padding="max_length", max_length=length)
        return torch.tensor(padded["input_ids"], device=self.device)

    def token_embeddings(self, ids: Tensor) -> Tensor:
        """(P, L) ids -> (P, L, d): what the text encoder looks up, before positions are added."""
        return self.text_encoder.get_input_embeddings()(ids)

    def encode(
        self, ids: Tensor, soft: Tensor | None = None, rows: Sequence[int] | Tensor = ()
    ) -> Tensor:
        """(P, L) ids -> prompt embeddings (P, L, D), the UNet's condition.

        Args:
            soft: (P, k, d) or (k, d) token embeddings that stand in the places `rows` instead of
                those of the ids; the result is differentiable in them.
            rows: the k places in every prompt. Or a mask (P, L) of each prompt's own; `soft` is
                then (N, d), in the order of the N places, prompt by prompt.

        Raises:
            InputError: soft tokens of another shape, or places outside the prompt.
        """
        if soft is None:
            return self.text_encoder(ids)[0]
        if not isinstance(rows, Tensor):
            soft, rows = self._everywhere(ids, soft, list(rows))
        count, width = int(rows.sum()), self.text_encoder.config.hidden_size
        if rows.shape != ids.shape or soft.shape != (count, width):
            raise InputError(
                f"Soft tokens of shape {tuple(soft.shape)} were given for a mask of shape "
                f"{tuple(rows.shape)} with {count} places: give ({count}, {width}), and a mask of "
                f"shape {tuple(ids.shape)}."
            )

        def overwrite(_: nn.Module, __: tuple, looked_up: Tensor) -> Tensor:
            return looked_up.index_put((rows.to(looked_up.device),), soft.to(looked_up))

        # the text model takes no embeddings in the place of ids
        handle = self.text_encoder.get_input_embeddings().register_forward_hook(overwrite)
        try:
            return self.text_encoder(ids)[0]
        finally:
            handle.remove()

    def _everywhere(self, ids: Tensor, soft: Tensor, rows: list[int]) -> tuple[Tensor, Tensor]:
        """Soft tokens in the same places of all prompts as (N, d) and their mask (P, L)."""
        width = self.text_encoder.config.hidden_size
        fits = soft.ndim in (2, 3) and soft.shape[-2:] == (len(rows), width)
        if not fits or (soft.ndim == 3 and len(soft) != len(ids)):
            raise InputError(
                f"Soft tokens of shape {tuple(soft.shape)} were given for {len(ids)} prompts and "
                f"{len(rows)} places: give ({len(rows)}, {width}), or one such for each prompt."
            )
        if len(set(rows)) < len(rows) or any(not 0 <= row < ids.shape[1] for row in rows):
            raise InputError(
                f"The places {rows} are not {len(rows)} of the prompt's 0 to {ids.shape[1] - 1}."
            )
        order = sorted(range(len(rows)), key=rows.__getitem__)  # a mask is read from the left
        mask = torch.zeros_like(ids, dtype=torch.bool)
        mask[:, rows] = True
        return soft[..., order, :].expand(len(ids), -1, -1).flatten(0, 1), mask

    # Pictures.
    def noise(
        self, seeds: Sequence[int], steps: int | None = None, size: int | None = None
    ) -> Noise:
        """The noise of one picture a seed, the draws of diffusers' pipelines.

        Args:
            steps: of denoising; None for the scheduler's usual number. size: of the images, in
                pixels; None for the UNet's own.

        Raises:
            InputError: seeds that are no list, or a size that the VAE cannot halve so often.
        """
        if isinstance(seeds, int) or len(seeds) == 0:
            raise InputError(f"seeds {seeds!r} were given; give a list, a seed for each picture.")
        size = self.size if size is None else size
        if size < self.factor or size % self.factor:
            raise InputError(
                f"A picture of {size} pixels cannot be halved down to latents: take a multiple of "
                f"{self.factor}."
            )
        side = size // self.factor
        between = noise_steps(self.scheduler, self.steps if steps is None else steps)
        shape = (self.unet.config.in_channels, side, side)
        return Noise.draw(seeds, shape, between).to(self.device)

    def denoise(
        self,
        condition: Tensor,
        noise: Noise,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        through: int | None = None,
    ) -> Tensor:
        """Prompt embeddings (B, L, D) and the noise of B pictures -> latents (B, C, h, w).

        Args, errors: see ``denoising.denoise``; None for the scheduler's usual.
        """
        if len(condition) != len(noise):
            raise InputError(
                f"{len(condition)} prompt embeddings and noise for {len(noise)} pictures were "
                "given: give one each."
            )
        guidance = self.guidance if guidance is None else guidance
        unconditional = None
        if guidance != 1 and self.unet.config.time_cond_proj_dim is None:
            with torch.no_grad():
                unconditional = self.encode(self.tokens([""]))
        return denoise(
            self.unet,
            self.scheduler,
            condition,
            noise,
            steps=self.steps if steps is None else steps,
            guidance=guidance,
            unconditional=unconditional,
            through=through,
        )

    def latents(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] -> latents (B, C, h, w), the means of the VAE's."""
        means = self.vae.encode(images * 2 - 1).latent_dist.mode()
        return means * self.vae.config.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, h, w) -> images (B, 3, H, W) in [0, 1]; clamped, as every pipeline does."""
        made = self.vae.decode(latents / self.vae.config.scaling_factor, return_dict=False)[0]
        return (made / 2 + 0.5).clamp(0, 1)

    def forward(
        self,
        condition: Tensor,
        noise: Noise,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        through: int | None = None,
    ) -> Tensor:
        """Prompt embeddings (B, L, D) and noise -> images (B, 3, H, W); see ``denoise``."""
        return self.decode(
            self.denoise(condition, noise, steps=steps, guidance=guidance, through=through)
        )

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        steps: int | None = None,
        guidance: float | None = None,
        size: int | None = None,
        batch: int = 16,
    ) -> Tensor:
        """Every prompt painted with every seed: (P, S, 3, H, W) on the CPU.

        Picture (p, s) follows from its prompt and its seed alone, up to rounding whatever else is
        in the batch; pictures of one seed have the same noise, so that prompts can be compared.

        Raises:
            InputError: an empty or overlong prompt, a seed given twice, or a size that does not go.
        """
        noise = self.noise(seeds, steps, size)
        if len(set(seeds)) < len(seeds):
            raise InputError(f"seeds {list(seeds)} name one twice, and paint the same picture.")
        ids = self.tokens(prompts)
        for text in prompts:
            if not text.strip():
                raise InputError(f"The prompt {text!r} is empty; write a few words.")
        condition = torch.cat([self.encode(part) for part in ids.split(256)])
        return paint_pairs(self, condition, noise, batch, steps=steps, guidance=guidance)


@torch.no_grad()
def paint_pairs(
    painter: Painter, condition: Tensor, noise: Noise, batch: int, **settings: object
) -> Tensor:
    """Every prompt's embeddings (P, L, D) with every noise of S: (P, S, 3, H, W) on the CPU.

    Args:
        batch: pictures at once. settings: of ``Painter.forward``.
    """
    which = torch.cartesian_prod(torch.arange(len(condition)), torch.arange(len(noise)))
    images = []
    hidden = len(which) <= batch  # a bar of one step tells nothing, and takes its time
    with tqdm(total=len(which), desc="painting", mininterval=1.0, disable=hidden) as bar:
        for part in which.split(batch):
            rows = part.to(painter.device)
            made = painter(condition[rows[:, 0]], noise[rows[:, 1]], **settings)
            images.append(made.float().cpu())
            bar.update(len(part))
    return torch.cat(images).unflatten(0, (len(condition), len(noise)))
