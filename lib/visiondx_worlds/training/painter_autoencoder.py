"""Training the painter's autoencoder: diffusers' ``AutoencoderKL`` on renders of all worlds.

What the latents lose the painter can never draw, so four things are asked of a reconstruction r of
an image x: |r - x| (edges stay sharp), (r - x)^2 (no pixel is far off), the distance of the two in
the embedded encoder's inner features (Zhang et al. 2018, LPIPS, without learned weights: thin lines
and textures count more than their few pixels), and a KL term so small that it only keeps the
latents from drifting (Rombach et al. 2022). There is no adversary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor, nn
from torch.nn import functional as F

from visiondx.core.errors import InputError
from visiondx.core.loop import Trainer, set_learning_rate, settling
from visiondx.core.memory import keep_memory
from visiondx.core.precision import fast_autocast
from visiondx.core.seeds import step_seed
from visiondx.models.encoder import Encoder
from visiondx_worlds.worlds import animals, faces, scenes
from visiondx_worlds.worlds.base import Attributes, World
from visiondx_worlds.worlds.distributions import Distribution

DISTRIBUTION = "scenes-broad"  # of the scenes that the painter sees
SHARES = ((scenes, 2), (faces, 1), (animals, 1))  # of each world in a batch
_BLOCKS = 910_000  # renders for training are drawn apart from every other draw


@dataclass(frozen=True)
class AutoencoderConfig:
    """Settings of the training; the defaults take about an hour and a quarter on one CPU core."""

    steps: int = 6000
    batch: int = 16
    lr: float = 1e-3
    warmup: int = 100
    settle: int = 2000  # the last steps, over which the rate falls to 0 as a half cosine
    # channels at 64, 32 and 16 px. At 64 px a channel costs most: these learn from 26 images a
    # second on one core, (32, 64, 64) from 22, (16, 32, 64) from 36
    widths: tuple[int, ...] = (24, 48, 64)
    # with 4, what is small and of few pixels, such as lipstick, was lost far more often
    latent_channels: int = 8
    measured: int = 2048  # renders whose latents are brought to deviation 1
    block: int = 512  # images drawn at once: scenes are slow to draw in small numbers
    squares: float = 1.0  # weights of the loss's terms beside the mean absolute difference
    perceptual: float = 0.1
    kl: float = 1e-4

    def __post_init__(self) -> None:
        if self.block % self.batch:
            raise InputError(
                f"block is {self.block} and batch {self.batch}: draw whole batches at once."
            )


def new_autoencoder(config: AutoencoderConfig) -> AutoencoderKL:
    """The architecture with random weights; each width after the first halves the picture."""
    levels = len(config.widths)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=config.widths,
        layers_per_block=1,
        latent_channels=config.latent_channels,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
        scaling_factor=1.0,  # `normalise_latents` puts it into the weights
    )


def sample_rows(world: World, n: int, seed: int) -> Attributes:
    """n random rows of a world as the painter sees it: of the scenes, the broad distribution."""
    if world is scenes:
        return Distribution.load(DISTRIBUTION, scenes).sample(n, seed)
    return world.sample(n, seed)


def render_block(size: int, seed: int) -> Tensor:
    """(size, 3, 64, 64) uint8 renders, the worlds in turn, so that every 4 rows have their shares.

    Args:
        size: a multiple of 4.
    """
    parts = []
    for index, (world, share) in enumerate(SHARES):
        rows = sample_rows(world, size * share // 4, step_seed(seed, index))
        images = (world.render(rows) * 255).round().byte()
        parts += [images[k::share] for k in range(share)]
    return torch.stack(parts, 1).flatten(0, 1)


class Features(nn.Module):
    """Inner features of an embedded encoder's image tower, each position of unit norm.

    Takes images (B, 3, 64, 64) in [0, 1]; returns one (B, C, H, W) a resolution, fine to coarse.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        tower = self.encoder.clip.visual.trunk
        found = [tower.stem(self.encoder.prepare(images))]
        for stage in tower.stages:
            found.append(stage(found[-1]))
        return [F.normalize(each.float(), dim=1, eps=1e-6) for each in found]


def feature_distance(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Tensor:
    """Mean over resolutions and positions of the squared distance between unit feature vectors."""
    parts = [(a - b).square().sum(1).mean() for a, b in zip(ours, theirs, strict=True)]
    return torch.stack(parts).mean()


def loss_terms(
    images: Tensor,
    made: Tensor,
    latents: DiagonalGaussianDistribution,
    features: Features | None,
    config: AutoencoderConfig,
) -> dict[str, Tensor]:
    """The weighted terms of the loss, to be summed.

    Args:
        images, made: (B, 3, H, W) in [-1, 1], as the autoencoder reads and writes them.
        latents: of the encoder; its KL divergence from a standard normal is averaged over values.
        features: of the perceptual term; None leaves it out.
    """
    terms = {
        "absolute": (made - images).abs().mean(),
        "squares": config.squares * (made - images).square().mean(),
        "kl": config.kl * latents.kl().sum() / latents.mean.numel(),
    }
    if features is not None:
        with torch.no_grad():
            theirs = features(images / 2 + 0.5)
        ours = features(made / 2 + 0.5)
        terms["perceptual"] = config.perceptual * feature_distance(ours, theirs)
    return terms


class _Blocks:
    """Batches out of blocks of renders; which ones follows from the step alone."""

    def __init__(self, config: AutoencoderConfig, seed: int) -> None:
        self.size, self.batch, self.seed = config.block, config.batch, step_seed(_BLOCKS, seed)
        self.number, self.images = -1, torch.empty(0)

    def __call__(self, step: int) -> Tensor:
        """(batch, 3, 64, 64) in [-1, 1]."""
        number, row = divmod(step, self.size // self.batch)
        if number != self.number:
            self.number = number
            self.images = render_block(self.size, step_seed(self.seed, number))
        return self.images[row * self.batch :][: self.batch].float() / 127.5 - 1


def train_autoencoder(
    config: AutoencoderConfig,
    directory: str | Path,
    encoder: Encoder | None,
    *,
    seed: int = 0,
    device: str = "cpu",
    time_limit: float | None = None,
) -> AutoencoderKL | None:
    """Train, or go on where `directory` ends; the latents are normalised at the end.

    Args:
        encoder: the embedded encoder, of the perceptual term; None trains without that term.

    Returns:
        The autoencoder in eval mode; None when `time_limit` (seconds) ran out: call again to go on.

    Raises:
        InputError: `directory` holds a training with other settings.
    """
    keep_memory()
    torch.manual_seed(seed)
    net = new_autoencoder(config).to(device, memory_format=torch.channels_last).train()
    features = None if encoder is None else Features(encoder).to(device)
    adam = torch.optim.AdamW(net.parameters(), lr=config.lr, betas=(0.9, 0.99), weight_decay=0.0)
    trainer = Trainer("autoencoder", {"net": net}, {"adam": adam}, directory, config, seed=seed)
    batches = _Blocks(config, seed)

    def step(i: int) -> dict[str, float]:
        rate = settling(i, config.steps, config.settle, warmup=config.warmup)
        set_learning_rate(adam, config.lr * rate)
        images = batches(i).to(device, memory_format=torch.channels_last)
        with fast_autocast(device):
            latents = net.encode(images).latent_dist
            made = net.decode(latents.sample()).sample.float()
            terms = loss_terms(images, made, latents, features, config)
        trainer.descend(adam, terms)
        return {name: term.item() for name, term in terms.items()}

    if not trainer.run(step, config.steps, time_limit=time_limit):
        return None
    net.eval().requires_grad_(False)
    normalise_latents(net, render_block(config.measured, step_seed(_BLOCKS + 1, seed)))
    return net


@torch.no_grad()
def normalise_latents(net: AutoencoderKL, images: Tensor, batch: int = 64) -> None:
    """Change the weights so that each latent channel has mean 0 and deviation 1 over `images`.

    The 1 x 1 convolutions on either side of the latents take up the shift and the scale, so the
    reconstructions stay what they were and ``scaling_factor`` is 1 (which every pipeline knows; a
    shift for each channel few do).

    Args:
        images: (N, 3, H, W) uint8.
    """
    parts = [
        net.encode(part.to(net.device).float() / 127.5 - 1).latent_dist.mean.float()
        for part in images.split(batch)
    ]
    latents = torch.cat(parts).transpose(0, 1).flatten(1)  # (C, N H W)
    mean, deviation = latents.mean(1), latents.std(1)
    before, after = net.quant_conv, net.post_quant_conv
    # after: W (s z' + m) + b, before: (mean - m) / s and log variance - 2 log s
    after.bias += after.weight[..., 0, 0] @ mean
    after.weight *= deviation[None, :, None, None]
    channels = len(mean)
    before.weight[:channels] /= deviation[:, None, None, None]
    before.bias[:channels] = (before.bias[:channels] - mean) / deviation
    before.bias[channels:] -= 2 * deviation.log()
    net.register_to_config(scaling_factor=1.0)


@torch.no_grad()
def reconstruct(net: AutoencoderKL, images: Tensor, batch: int = 64) -> Tensor:
    """Images (N, 3, H, W) in [0, 1] -> what is left of them after the latents' mean, in [0, 1]."""
    return torch.cat([part for part in _reconstructed(net, images, batch)])


def _reconstructed(net: AutoencoderKL, images: Tensor, batch: int) -> Iterator[Tensor]:
    for part in images.split(batch):
        latents = net.encode(part.to(net.device) * 2 - 1).latent_dist.mode()
        yield (net.decode(latents).sample / 2 + 0.5).clamp(0, 1)
