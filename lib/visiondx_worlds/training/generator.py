"""Training StyleGAN2 on a world's renders: regression warm-up, overlap, adversarial.

A world maps a normal vector to attributes and renders them, so (z, image) pairs cost nothing. The
generator first learns to draw the render of its own z (fast, no discriminator). Then a
discriminator joins, the regression fades, and the run ends purely adversarial: non-saturating
logistic loss, lazy R1 (Mescheder et al. 2018; Karras et al. 2020), weights averaged over time.

One generator pass serves both networks: its images face the renders of the same z for the
regression, and the discriminator sees both batches after that.
"""

import copy
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.utils import save_image

from visiondx.core.errors import InputError
from visiondx.core.files import atomic_write
from visiondx.core.loop import Trainer, cosine, flat, set_learning_rate, update_average
from visiondx.core.memory import keep_memory
from visiondx.core.precision import fast_autocast
from visiondx.models.generator import StyleGenerator
from visiondx.models.stylegan2 import Generator, normalize_2nd_moment
from visiondx_worlds.models.discriminator import Discriminator
from visiondx_worlds.training.mapping import pretrain_mapping
from visiondx_worlds.training.regression import presence, regression_terms
from visiondx_worlds.worlds.base import Attributes


@dataclass(frozen=True)
class GeneratorConfig:
    """Sizes, counts and rates. Image counts are generator images; the world renders as many."""

    z_dim: int = 64
    w_dim: int = 192
    channels: dict[int, int] = field(
        default_factory=lambda: {4: 128, 8: 128, 16: 96, 32: 64, 64: 32}
    )
    mapping_layers: int = 4
    mapping_width: int = 384
    mapping_lr_multiplier: float = 0.3  # 0.01, usual for GANs, is too slow for regression
    discriminator_channels: dict[int, int] = field(
        default_factory=lambda: {32: 32, 16: 64, 8: 128, 4: 128}
    )
    batch: int = 16  # small: regression gains more from steps than from larger batches
    regression_images: int = 360_000
    overlap_images: int = 24_000
    adversarial_images: int = 56_000
    mapping_steps: int = 4000  # of the mapping network alone, before any picture is drawn
    mapping_batch: int = 1024
    regression_lr: float = 1e-2  # peak; falls as a cosine to adversarial_lr
    adversarial_lr: float = 1e-3
    discriminator_lr: float = 2e-3
    warmup_images: int = 10_000
    discriminator_lead: float = 0.25  # share of the overlap in which only D learns adversarially
    r1_gamma: float = 0.3
    r1_every: int = 16
    ema: float = 0.998
    noise: bool = False  # False: noise strengths stay 0 and noise is never drawn
    bf16: bool = True

    def model(self) -> dict[str, object]:
        """The settings that `Generator` takes."""
        return {
            "z_dim": self.z_dim,
            "w_dim": self.w_dim,
            "channels": dict(self.channels),
            "mapping_layers": self.mapping_layers,
            "mapping_width": self.mapping_width,
            "mapping_lr_multiplier": self.mapping_lr_multiplier,
        }

    def phase_ends(self) -> tuple[int, int, int]:
        """Steps at which regression, overlap and adversarial training end."""
        a = self.regression_images // self.batch
        b = a + self.overlap_images // self.batch
        return a, b, b + self.adversarial_images // self.batch


def r1_penalty(discriminator: Discriminator, real: Tensor) -> Tensor:
    """Mean squared gradient norm of D at real images, in float32."""
    real = real.detach().float().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(real).sum(), real, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()


class Phases:
    """One training step at any point of the run, and the schedules that it follows."""

    def __init__(self, world, config: GeneratorConfig, device: str) -> None:
        self.world, self.config, self.device = world, config, device
        self.generator = Generator(**config.model()).to(device)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        self.discriminator = Discriminator(config.discriminator_channels).to(device)
        # lazy R1 acts as fewer, larger steps: correct rate and betas (StyleGAN2, appendix B)
        c = config.r1_every / (config.r1_every + 1)
        self.d_lr = config.discriminator_lr * c
        self.g_opt = torch.optim.Adam(self.generator.parameters(), betas=(0.9, 0.99))
        self.d_opt = torch.optim.Adam(self.discriminator.parameters(), betas=(0.0, 0.99**c))

    def weights(self, step: int) -> tuple[float, float]:
        """(regression, adversarial) loss weights at ``step``."""
        start, end, _ = self.config.phase_ends()
        progress = min(1.0, max(0.0, (step - start) / max(1, end - start)))
        if step < start:
            return 1.0, 0.0
        lead = self.config.discriminator_lead
        adversarial = max(0.0, (progress - lead) / (1 - lead))
        return 1 - adversarial, adversarial

    def g_lr(self, step: int) -> float:
        """Cosine to the adversarial rate, then flat, then linearly to a tenth in the last fifth."""
        config = self.config
        start, _, total = config.phase_ends()
        if step < start:
            warmup = min(start, config.warmup_images // config.batch)
            final = config.adversarial_lr / config.regression_lr
            return config.regression_lr * cosine(step, start, warmup=warmup, final=final)
        left = (total - step) / max(1, total - start)
        return config.adversarial_lr * max(0.1, min(1.0, left * 5))

    def attributes(self, z: Tensor) -> Attributes:
        """What the pictures of z (B, z_dim) are to show."""
        return self.world.from_normal(normalize_2nd_moment(z)[:, : self.world.latent_dim])

    @torch.no_grad()
    def render(self, attributes: Attributes) -> Tensor:
        """Renders (B, 3, H, W) in [-1, 1]."""
        return self.world.render(attributes, size=self.generator.resolution) * 2 - 1

    def autocast(self) -> torch.autocast:
        return fast_autocast(self.device, self.config.bf16)

    def step(self, trainer: Trainer, i: int) -> dict[str, float]:
        """One generator step and, once the overlap has begun, one discriminator step."""
        regression, adversarial = self.weights(i)
        joined = i >= self.config.phase_ends()[0]
        if joined:  # momentum off, as StyleGAN2 trains
            self.g_opt.param_groups[0]["betas"] = (0.0, 0.99)
        set_learning_rate(self.g_opt, self.g_lr(i))
        z = torch.randn(self.config.batch, self.config.z_dim).to(self.device)
        attributes = self.attributes(z)
        real = self.render(attributes)
        with self.autocast():
            fake = self.generator(z, noise="random" if self.config.noise else "none")
            terms = {}
            if regression > 0:
                seen = presence(self.world, attributes, real, self.render)
                terms = regression_terms(fake, real, seen)
                terms = {key: term * regression for key, term in terms.items()}
            if adversarial > 0:
                self.discriminator.requires_grad_(False)
                terms["fool"] = F.softplus(-self.discriminator(fake)).mean() * adversarial
                self.discriminator.requires_grad_(True)
        trainer.descend(self.g_opt, terms)
        update_average(self.average, self.generator, self.config.ema, i)
        values = {k: v.item() for k, v in terms.items()}
        return values | (self.discriminator_step(trainer, i, fake.detach(), real) if joined else {})

    def discriminator_step(
        self, trainer: Trainer, i: int, fake: Tensor, real: Tensor
    ) -> dict[str, float]:
        start = self.config.phase_ends()[0]
        set_learning_rate(self.d_opt, self.d_lr * flat(i - start, warmup=100))
        with self.autocast():
            # apart, so that the minibatch statistics never mix real and fake
            on_real, on_fake = self.discriminator(real), self.discriminator(fake)
            terms = {"real": F.softplus(-on_real).mean(), "fake": F.softplus(on_fake).mean()}
        values = {k: v.item() for k, v in terms.items()}
        values["margin"] = (on_real.mean() - on_fake.mean()).item()
        if i % self.config.r1_every == 0:
            scale = self.config.r1_gamma / 2 * self.config.r1_every
            terms["r1"] = r1_penalty(self.discriminator, real) * scale
        trainer.descend(self.d_opt, terms)
        return values


def train_generator(
    world,
    config: GeneratorConfig,
    checkpoint_dir: str | Path,
    *,
    seed: int = 0,
    device: str = "cpu",
    time_limit: float | None = None,
    sample_every: int = 500,
) -> StyleGenerator | None:
    """Train, or go on where the checkpoint in ``checkpoint_dir`` ends.

    Writes there ``checkpoint.safetensors``, ``log.jsonl`` and, every ``sample_every`` steps,
    ``samples.png`` (renders above what the averaged generator draws for the same z) with a
    numbered copy every tenth time.

    Args:
        world: has ``latent_dim``, ``from_normal`` and ``render``, such as `worlds.faces`.
        time_limit: seconds; None when it ran out before the end (call again to go on).

    Returns:
        The averaged generator, its statistics measured, ready for `StyleGenerator.save`.

    Raises:
        InputError: z is too short for the world, or the checkpoint is of another config.
        FloatingPointError: a loss became NaN or infinite; names the step and the term.
    """
    if world.latent_dim > config.z_dim:
        raise InputError(
            f"z_dim {config.z_dim} is shorter than the world's latent_dim {world.latent_dim}: "
            "raise z_dim."
        )
    keep_memory()
    torch.manual_seed(seed)
    phases = Phases(world, config, device)
    modules = {
        "generator": phases.generator,
        "average": phases.average,
        "discriminator": phases.discriminator,
    }
    optimizers = {"generator": phases.g_opt, "discriminator": phases.d_opt}
    trainer = Trainer("generator", modules, optimizers, checkpoint_dir, config, seed=seed)
    if trainer.step == 0 and config.mapping_steps:
        pretrain_mapping(
            phases.generator.mapping,
            world,
            z_dim=config.z_dim,
            w_dim=config.w_dim,
            steps=config.mapping_steps,
            batch=config.mapping_batch,
            lr=5e-3 / config.mapping_lr_multiplier,  # as fast as with a multiplier of 1
        )
        phases.generator.to(device)
        phases.average.load_state_dict(phases.generator.state_dict())
    shown = torch.randn(16, config.z_dim, generator=torch.Generator().manual_seed(seed))
    renders = phases.render(phases.attributes(shown.to(device)))

    def draw(i: int) -> None:
        images = torch.cat([renders, _images(phases.average, shown)])
        for name in ["samples.png"] + [f"samples-{i:06d}.png"] * (i % (10 * sample_every) == 0):
            with atomic_write(Path(checkpoint_dir) / name) as path:
                save_image((images + 1) / 2, path, format="png", nrow=8, padding=1)

    total = config.phase_ends()[2]
    every = {sample_every: draw}
    if not trainer.run(
        lambda i: phases.step(trainer, i), total, time_limit=time_limit, every=every
    ):
        return None
    result = StyleGenerator(phases.average, config.model())
    result.measure()
    return result


@torch.no_grad()
def _images(generator: Generator, z: Tensor) -> Tensor:
    return generator(z.to(generator.mapping.w_avg.device), noise="const").clamp(-1, 1)
