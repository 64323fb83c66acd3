"""The generator's last lesson: to be steered.

A generator that has only seen styles of whole pictures has never met an edited one: black hair that
is pushed towards blond passes brown and ends in neon. Jahanian et al. ("On the 'steerability' of
generative adversarial networks", 2020) train generator and edits together, and so do we: styles are
moved along the mean difference between pictures with an attribute and without it, by as many
channels and as far as edits move them, and the picture should then be the render in which that one
attribute is switched. Mapping and affine layers stay as they are, so the style space does, too;
unmoved styles must give the pictures that they gave.
"""

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visiondx.core.errors import InputError
from visiondx.core.loop import Trainer, cosine, set_learning_rate, update_average
from visiondx.core.memory import keep_memory
from visiondx.core.precision import fast_autocast
from visiondx.models.generator import StyleGenerator
from visiondx.models.stylegan2 import normalize_2nd_moment
from visiondx_worlds.training.regression import regression_terms
from visiondx_worlds.worlds.base import Attributes, World


@dataclass(frozen=True)
class SteeringConfig:
    """Settings of the lesson.

    Args:
        images: generator images, moved and unmoved ones.
        batch: images a step. moved: of them with moved styles.
        channels: numbers of style channels that edits move; each image draws one.
        reach: how far, w of Eq. 3, in lengths of the attribute's own mean difference, uniform
            between the two. weights: the least and the largest w, in standard deviations.
        noise: of the direction, in its own root mean square: words give no exact directions.
        towards: share of the edits that add their attribute; the others take it away.
        focus: attributes that edits are about four times as often as about others.
        blend: share of the taught weights in those that are returned, block by block from the
            coarsest on; the rest are the old ones (Wortsman et al., "Robust fine-tuning of
            zero-shot models", 2022). Edits gain in some blocks what small things lose in others.
            Empty: the taught weights alone.
        samples: z that the mean differences are taken over.
    """

    images: int = 32_000
    batch: int = 16
    moved: int = 10
    channels: tuple[int, ...] = (20, 80, 320, 800)
    reach: tuple[float, float] = (1.0, 3.0)
    weights: tuple[float, float] = (4.0, 24.0)
    noise: float = 0.5
    towards: float = 0.75
    focus: tuple[str, ...] = ()
    blend: tuple[float, ...] = ()
    samples: int = 20_000
    lr: float = 2e-3
    ema: float = 0.995
    bf16: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.moved < self.batch:
            raise InputError(
                f"moved = {self.moved} of a batch of {self.batch} leaves moved or unmoved styles "
                "no image: choose a number between."
            )
        if not all(0 <= share <= 1 for share in self.blend):
            raise InputError(f"Every share of blend must be in [0, 1], got {self.blend}.")


def shown(world: World, z: Tensor) -> Attributes:
    """What the pictures of z (B, z_dim) show, as the generator learned it."""
    return world.from_normal(normalize_2nd_moment(z)[:, : world.latent_dim])


@torch.no_grad()
def mean_differences(generator: StyleGenerator, world: World, samples: int, seed: int) -> Tensor:
    """E[s | attribute] - E[s | without it] in standard deviations, (A, c_S); 0 for ToRGB."""
    z = torch.randn(samples, generator.network.z_dim, generator=torch.Generator().manual_seed(seed))
    styles = generator.styles(generator.w(z.to(generator.style_mean.device)))
    on = world.labels(shown(world, z)).to(styles)
    off = 1 - on
    mean = on.T @ styles / on.sum(0)[:, None] - off.T @ styles / off.sum(0)[:, None]
    used = generator.editable & (generator.style_std > 0)
    return torch.where(used, mean / generator.style_std.clamp_min(1e-12), 0)


def moves(differences: Tensor, chosen: Tensor, sign: Tensor, config: SteeringConfig) -> Tensor:
    """One edit an image, (B, c_S) in standard deviations: the strongest channels of a noisy
    direction, of length w (Eqs. 2 and 3).

    Args:
        differences: (A, c_S) of `mean_differences`. chosen: (B,) rows of it. sign: (B,) 1 or -1.
    """
    d = differences[chosen]
    size = d.square().mean(1, keepdim=True).sqrt()
    d = d + config.noise * size * torch.randn_like(d) * (d != 0)
    counts = torch.tensor([min(k, d.shape[1]) for k in config.channels])
    kept = counts[torch.randint(len(counts), (len(d),))].to(d.device)
    order = d.abs().argsort(1, descending=True).argsort(1)  # rank of each channel
    length = differences[chosen].norm(dim=1, keepdim=True)
    low, high = config.reach
    w = length * (low + (high - low) * torch.rand(len(d), 1).to(d))
    w = w.clamp(*config.weights)
    return F.normalize(d * (order < kept[:, None]), dim=1) * w * sign[:, None]


def teach_steering(
    generator: StyleGenerator,
    world: World,
    config: SteeringConfig,
    directory: str | Path,
    *,
    seed: int = 0,
    time_limit: float | None = None,
) -> StyleGenerator | None:
    """Teach a copy of ``generator``, or go on where the checkpoint in ``directory`` ends.

    Args:
        generator: trained on this world by `train_generator`; stays as it is.
        time_limit: seconds; None when it ran out before the end (call again to go on).

    Returns:
        The generator with averaged weights, its statistics measured.

    Raises:
        InputError: the checkpoint is of another config, or ``blend`` of another number of blocks.
        FloatingPointError: a loss became NaN or infinite; names the step and the term.
    """
    blocks = len(_blocks(generator))
    shares = config.blend or (1.0,) * blocks
    if len(shares) != blocks:
        raise InputError(
            f"blend has {len(shares)} shares and the generator {blocks} blocks, from 4 px to "
            f"{generator.resolution}: give one for each."
        )
    keep_memory()
    taught, average = (copy.deepcopy(generator) for _ in range(2))
    synthesis = taught.network.synthesis.requires_grad_(True)
    for _, layer in synthesis.named_layers():
        layer.affine.requires_grad_(False)
        if hasattr(layer, "noise_strength"):
            layer.noise_strength.requires_grad_(False)
    adam = torch.optim.Adam(
        [p for p in synthesis.parameters() if p.requires_grad], betas=(0.9, 0.99)
    )
    about = {**vars(config), "generator": generator.fingerprint}
    modules = {"taught": taught, "average": average}
    trainer = Trainer("steering", modules, {"adam": adam}, directory, about, seed=seed)
    differences = mean_differences(generator, world, config.samples, seed)
    odds = torch.tensor([4.0 if name in config.focus else 1.0 for name in world.binary])
    device, total = generator.style_mean.device, config.images // config.batch
    m, std, size = config.moved, generator.style_std, generator.resolution

    def step(i: int) -> dict[str, float]:
        set_learning_rate(adam, config.lr * cosine(i, total, warmup=min(100, total), final=0.02))
        z = torch.randn(config.batch, generator.network.z_dim).to(device)
        chosen = odds.multinomial(m, replacement=True)
        looked_at = torch.randint(len(world.binary), (config.batch - m,))  # in unmoved pictures
        want = torch.rand(m) < config.towards
        with torch.no_grad():
            styles = generator.styles(generator.w(z))
            kept = generator.synthesize(styles[m:])
            styles[:m] += moves(differences, chosen, want.to(z) * 2 - 1, config) * std
            off, on = both_sides(world, shown(world, z), torch.cat([chosen, looked_at]), size)
            target = torch.cat(
                [torch.where(want.to(device)[:, None, None, None], on[:m], off[:m]), kept]
            )
            seen = (on - off).abs().mean(1)
            seen = seen / seen.sum((1, 2), keepdim=True).clamp_min(1e-3)
        with fast_autocast(device, config.bf16):
            drawn = synthesis(styles, noise="const")
        terms = regression_terms(drawn.float(), target * 2 - 1, seen)
        trainer.descend(adam, terms)
        update_average(average, taught, config.ema, i)
        return {key: term.item() for key, term in terms.items()}

    if not trainer.run(step, total, time_limit=time_limit):
        return None
    average.requires_grad_(False)
    for share, block, old_block in zip(shares, _blocks(average), _blocks(generator), strict=True):
        for weight, old in zip(block.parameters(), old_block.parameters(), strict=True):
            weight.lerp_(old, 1 - share)
    average.measure()
    return average


def _blocks(generator: StyleGenerator) -> list[nn.Module]:
    """The blocks of the synthesis, from 4 px on."""
    return list(generator.network.synthesis.children())


def both_sides(
    world: World, attributes: Attributes, chosen: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """Renders (B, 3, size, size) of each image without and with its own binary attribute.

    chosen: (B,) indices into ``world.binary``.
    """
    sides = attributes.values.clone(), attributes.values.clone()
    for index in chosen.unique().tolist():
        mine = (chosen == index).to(attributes.values.device)
        for value, side in enumerate(sides):
            part = world.switch(attributes[mine], world.binary[index], bool(value))
            side[mine] = part.values
    off, on = (world.render(Attributes(side, attributes.names), size=size) for side in sides)
    return off, on
