"""Training the painter's UNet: denoising of latents under captions, by v-prediction.

A latent z, a time t and noise e give z_t = a_t z + s_t e; the UNet answers v = a_t e - s_t z
(Salimans and Ho 2022). Errors in v weigh (min(SNR, gamma) + 1) / (SNR + 1): the weights of Hang et
al. 2023 (min-SNR) for v, but without their fading where there is nothing but noise, since the first
steps of the painter decide what the picture is of. The times are those of a cosine (Nichol and
Dhariwal 2021): at the last, nothing of the latent is left, as in the noise that painting starts
from.
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, PreTrainedTokenizerBase

from visiondx.core.loop import Trainer, adamw, set_learning_rate, settling, update_average
from visiondx.core.memory import keep_memory
from visiondx.core.precision import fast_autocast
from visiondx.core.seeds import step_seed
from visiondx_worlds.training.painter_pool import LatentPool, fingerprints

TIMES = 1000


@dataclass(frozen=True)
class UNetConfig:
    """Settings of the training; the defaults take about three and a half hours on one CPU core."""

    steps: int = 16_000
    batch: int = 32
    lr: float = 1e-3
    warmup: int = 200
    settle: int = 6000  # the last steps, over which the rate falls to 0 as a half cosine
    widths: tuple[int, ...] = (56, 112)  # channels at 16 and at 8 px of the latents
    heads: int = 4
    pool: int = 49_152  # renders, of all worlds together
    dropout: float = 0.1  # share of captions that are left empty, for guidance
    gamma: float = 5.0
    average: float = 0.999


def new_unet(
    config: UNetConfig, latents: int, text: int, told: int | None = None
) -> UNet2DConditionModel:
    """The architecture with random weights: one block a level, words are read at 8 px.

    Args:
        latents: channels of the latents, 16 x 16. text: width of the prompt embeddings.
        told: width of the embedding that tells it a guidance; None for one that is not told.
    """
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=latents,
        out_channels=latents,
        block_out_channels=config.widths,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=text,
        attention_head_dim=config.heads,  # so diffusers calls the number of heads
        norm_num_groups=8,
        time_cond_proj_dim=told,
    )


def new_scheduler() -> DDIMScheduler:
    """The times of training, and of the teacher's painting (Song et al. 2021, DDIM)."""
    return DDIMScheduler(
        num_train_timesteps=TIMES,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        timestep_spacing="trailing",  # begins at the last time, where there is noise alone
        clip_sample=False,
        set_alpha_to_one=True,
    )


def snr_weights(signal: Tensor, gamma: float) -> Tensor:
    """(min(SNR, gamma) + 1) / (SNR + 1) for alpha-bar `signal`, SNR = signal / (1 - signal)."""
    snr = signal / (1 - signal)
    return (snr.clamp(max=gamma) + 1) / (snr + 1)


def spread_times(size: int, source: torch.Generator) -> Tensor:
    """(size,) times of 0 to TIMES - 1, one in each of `size` equal stretches, in random order."""
    where = (torch.arange(size) + torch.rand(size, generator=source)) / size
    times = (where * TIMES).long().clamp(max=TIMES - 1)  # in float32 31 + r may round to 32
    return times[torch.randperm(size, generator=source)]


class Reader:
    """Captions into prompt embeddings, some of them left empty.

    Args:
        dropout: share of the captions that are read as "".
    """

    def __init__(
        self, text_encoder: CLIPTextModel, tokenizer: PreTrainedTokenizerBase, dropout: float
    ) -> None:
        self.encoder, self.tokenizer, self.dropout = text_encoder, tokenizer, dropout
        self.empty = self([""])

    @torch.no_grad()
    def __call__(self, captions: list[str], source: torch.Generator | None = None) -> Tensor:
        """B captions -> (B, L, D); `source` says which are left empty, none without it."""
        if source is not None:
            dropped = torch.rand(len(captions), generator=source) < self.dropout
            captions = [
                "" if drop else text for text, drop in zip(captions, dropped.tolist(), strict=True)
            ]
        length = self.encoder.config.max_position_embeddings
        found = self.tokenizer(
            captions, padding="max_length", max_length=length, return_tensors="pt"
        )
        return self.encoder(found["input_ids"].to(self.encoder.device))[0]


def train_unet(
    config: UNetConfig,
    directory: str | Path,
    vae: AutoencoderKL,
    text_encoder: CLIPTextModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    seed: int = 0,
    device: str = "cpu",
    time_limit: float | None = None,
) -> tuple[UNet2DConditionModel, bool]:
    """Train, or go on where `directory` ends.

    Args:
        vae: with latents of deviation 1. text_encoder, tokenizer: frozen, of the captions.

    Returns:
        the averaged UNet so far, in eval mode, and whether all steps are done (`time_limit`, in
        seconds, may end it early: call again to go on).

    Raises:
        InputError: `directory` holds a training with other settings or parts.
    """
    keep_memory()
    directory = Path(directory)
    torch.manual_seed(seed)
    net = new_unet(config, vae.config.latent_channels, text_encoder.config.hidden_size)
    net = net.to(device).train()
    average = copy.deepcopy(net).eval().requires_grad_(False)
    adam = adamw(net.parameters(), config.lr, 0.01, (0.9, 0.99))
    modules = {"net": net, "average": average}
    settings = {**asdict(config), **fingerprints(vae=vae, text=text_encoder)}
    trainer = Trainer("unet", modules, {"adam": adam}, directory, settings, seed=seed)
    pool = LatentPool.make(vae, config.pool, seed, directory / "latents.safetensors")
    reader, scheduler = Reader(text_encoder, tokenizer, config.dropout), new_scheduler()

    def step(i: int) -> dict[str, float]:
        rate = settling(i, config.steps, config.settle, warmup=config.warmup)
        set_learning_rate(adam, config.lr * rate)
        now = step_seed(seed, i)
        source = torch.Generator().manual_seed(now)
        latents, captions = pool.batch(config.batch, now)
        condition = reader(captions, source).to(device)
        times = spread_times(len(latents), source)
        noise = torch.randn(latents.shape, generator=source)
        target = scheduler.get_velocity(latents, noise, times).to(device)
        noisy = scheduler.add_noise(latents, noise, times).to(device)
        weights = snr_weights(scheduler.alphas_cumprod[times], config.gamma).to(device)
        with fast_autocast(device):
            made = net(noisy, times.to(device), condition, return_dict=False)[0].float()
        error = (made - target).square().mean((1, 2, 3))
        terms = {"velocity": (weights * error).mean()}
        trainer.descend(adam, terms)
        update_average(average, net, config.average, i)
        return {name: term.item() for name, term in terms.items()}

    finished = trainer.run(step, config.steps, time_limit=time_limit)
    return average, finished
