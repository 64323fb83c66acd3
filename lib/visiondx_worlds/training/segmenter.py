"""Training the embedded segmenter on renders of all worlds, whose masks are known.

Every picture is asked about some things that it shows and some that it does not show (`worlds.
things`): BCE of every pixel, soft Dice (Milletari et al. 2016) of what is there, so that a nose
counts as much as a meadow, and BCE of whether a thing is there at all. What cannot be known - where
the ears of a scene's dog are - is asked last of all. The pictures are bent, blurred, resampled,
tinted and made noisy, so that the network reads painted pictures as well, which are a little soft
and a little off.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from visiondx.core.augment import grain, soften, tint
from visiondx.core.errors import InputError
from visiondx.core.loop import Trainer, adamw, cosine, set_learning_rate, update_average
from visiondx.core.memory import keep_memory
from visiondx.core.precision import fast_autocast
from visiondx.core.seeds import step_seed
from visiondx.models.encoder import Encoder
from visiondx_worlds.models.segmenter import SegmenterNet, start_words
from visiondx_worlds.training.painter_autoencoder import SHARES, sample_rows
from visiondx_worlds.worlds.things import THINGS, WORDS, Truth, truth

_BLOCKS = 970_000  # renders for training are drawn apart from every other draw


@dataclass(frozen=True)
class SegmenterConfig:
    """Settings of the training; the defaults take three quarters of an hour on one CPU core."""

    steps: int = 4000
    batch: int = 32
    asked: int = 24  # things asked of each picture: first those that it shows
    lr: float = 2e-3
    warmup: int = 100
    weight_decay: float = 0.02
    width: int = 32
    dim: int = 48
    presence: float = 0.1  # weight of the loss of what is there at all
    augmentation: float = 1.0
    average: float = 0.998
    block: int = 256  # images drawn at once: scenes are slow to draw in small numbers

    def __post_init__(self) -> None:
        if self.block % self.batch:
            raise InputError(
                f"block is {self.block} and batch {self.batch}: draw whole batches at once."
            )


def soft_dice(probabilities: Tensor, masks: Tensor) -> Tensor:
    """1 - (2 Σ p m + 1) / (Σ p² + Σ m² + 1) over the last two dimensions (Milletari et al. 2016).

    Args:
        probabilities, masks: (..., H, W) in [0, 1].
    """
    both = (probabilities * masks).sum((-2, -1))
    either = (probabilities.square() + masks.square()).sum((-2, -1))
    return 1 - (2 * both + 1) / (either + 1)


def segmenter_loss(
    logits: Tensor, there: Tensor, masks: Tensor, present: Tensor, absent: Tensor, presence: float
) -> dict[str, Tensor]:
    """The terms of the loss, to be summed; pairs that are neither present nor absent count in none
    but the pixels'.

    Args:
        logits, masks: (B, K, H, W). there: (B, K) logits. present, absent: (B, K) bool.
    """
    pixels = F.binary_cross_entropy_with_logits(logits, masks)
    dice = soft_dice(logits.sigmoid(), masks)
    said = F.binary_cross_entropy_with_logits(there, present.float(), reduction="none")
    sure = (present | absent).float()
    return {
        "pixels": pixels,
        "dice": (dice * present).sum() / present.sum().clamp_min(1),
        "presence": presence * (said * sure).sum() / sure.sum().clamp_min(1),
    }


def resample(images: Tensor, source: torch.Generator, amount: float) -> Tensor:
    """A third of the images made smaller, by up to a half, and enlarged again."""
    size = images.shape[-1]
    smaller = int(torch.randint(size // 2, size, (), generator=source))
    chosen = torch.rand(len(images), generator=source) < amount / 3
    small = F.interpolate(images, (smaller, smaller), mode="bilinear", antialias=True)
    back = F.interpolate(small, images.shape[-2:], mode="bicubic")
    return torch.where(chosen.to(images.device)[:, None, None, None], back, images)


def warp(
    images: Tensor, masks: Tensor, source: torch.Generator, amount: float
) -> tuple[Tensor, Tensor]:
    """Images (B, 3, H, W) and masks (B, K, H, W) bent alike, by up to about 3 px of 64.

    What a painter draws is never quite the shape that the world draws.
    """
    count, size = len(images), images.shape[-2:]
    reach = torch.rand(count, 1, 1, 1, generator=source) * 0.06 * amount
    coarse = torch.randn(count, 2, 5, 5, generator=source) * reach
    bend = F.interpolate(coarse, size, mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    straight = F.affine_grid(torch.eye(2, 3).expand(count, 2, 3), [count, 1, *size], False)
    both = torch.cat((images, masks), 1)
    bent = F.grid_sample(both, straight + bend, padding_mode="reflection", align_corners=False)
    return bent[:, :3], bent[:, 3:].clamp(0, 1)


def ask(found: Truth, count: int, source: torch.Generator) -> Tensor:
    """(B, count) things to ask of each picture: those it shows, then known ones it does not.

    Where a picture shows more than `count`, some of them.
    """
    chance = torch.rand(found.known.shape, generator=source)
    return (chance + 2 * found.present + 1.0 * found.known).topk(count, 1).indices


def phrases() -> list[str]:
    """What the encoder is asked to embed for each of WORDS."""
    return [f"a picture of {word}" for word in WORDS]


def new_segmenter(config: SegmenterConfig, encoder: Encoder) -> SegmenterNet:
    """An untrained network that knows WORDS; in train mode."""
    vectors = encoder.embed_texts(phrases())
    net = SegmenterNet(len(WORDS), config.width, config.dim, vectors.shape[1])
    start_words(net, vectors)
    return net


class _Blocks:
    """Pictures and truth by the batch, out of blocks; which ones follows from the step alone."""

    def __init__(self, config: SegmenterConfig, seed: int) -> None:
        self.size, self.batch, self.seed = config.block, config.batch, step_seed(_BLOCKS, seed)
        self.number = -1

    def __call__(self, step: int) -> tuple[Tensor, Truth]:
        """(batch, 3, 64, 64) in [0, 1], and where everything is."""
        number, row = divmod(step, self.size // self.batch)
        if number != self.number:
            self.number, self._kept = number, _render(self.size, step_seed(self.seed, number))
        rows = torch.arange(row, self.size, self.size // self.batch)
        images, masks, known = (part[rows] for part in self._kept)
        return images.float() / 255, Truth(masks.float() / 255, known)


@torch.no_grad()
def _render(size: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images, masks (both uint8) and what is known, of rows of all worlds one after another."""
    parts = []
    for index, (world, share) in enumerate(SHARES):
        rows = sample_rows(world, size * share // 4, step_seed(seed, index))
        found = truth(world, rows)
        parts.append((_bytes(world.render(rows)), _bytes(found.masks), found.known))
    return tuple(torch.cat(each) for each in zip(*parts, strict=True))


def _bytes(values: Tensor) -> Tensor:
    return (values * 255).round().byte()


def train_segmenter(
    config: SegmenterConfig,
    directory: str | Path,
    encoder: Encoder,
    *,
    seed: int = 0,
    device: str = "cpu",
    time_limit: float | None = None,
) -> SegmenterNet | None:
    """Train, or go on.

    Args:
        encoder: the embedded one; the words' vectors start at its text embeddings.

    Returns:
        the averaged network in eval mode, or None when `time_limit` (seconds) ran out.
    """
    keep_memory()
    torch.manual_seed(seed)
    net, average = (new_segmenter(config, encoder).to(device) for _ in range(2))
    net, average = (each.to(memory_format=torch.channels_last) for each in (net, average))
    average.requires_grad_(False)
    adam = adamw(net.parameters(), config.lr, config.weight_decay)
    modules = {"net": net, "average": average}
    trainer = Trainer("segmenter", modules, {"adam": adam}, directory, config, seed=seed)
    blocks = _Blocks(config, seed)
    first, counts = _words_of_things()

    def step(i: int) -> dict[str, float]:
        set_learning_rate(adam, config.lr * cosine(i, config.steps, warmup=config.warmup))
        source = torch.Generator().manual_seed(step_seed(seed, i))
        images, found = blocks(i)
        things = ask(found, config.asked, source)
        # one of a thing's words, another for every picture
        chance = torch.rand(things.shape, generator=source)
        words = first[things] + (chance * counts[things]).long()
        masks = found.masks.gather(1, things[..., None, None].expand(-1, -1, *images.shape[2:]))
        present, absent = (
            each.gather(1, things).to(device) for each in (found.present, found.absent)
        )
        images, masks = warp(images, masks, source, config.augmentation)
        for change in (resample, soften, tint, grain):
            images = change(images, source, config.augmentation)
        images = images.clamp(0, 1).to(device).contiguous(memory_format=torch.channels_last)
        with fast_autocast(device):
            pixels = net.features(images)
        logits, there = net.compare(*pixels, words.to(device))
        terms = segmenter_loss(logits, there, masks.to(device), present, absent, config.presence)
        trainer.descend(adam, terms)
        update_average(average, net, config.average, i)
        return {name: term.item() for name, term in terms.items()}

    done = trainer.run(step, config.steps, time_limit=time_limit)
    return average.eval() if done else None


def _words_of_things() -> tuple[Tensor, Tensor]:
    """Of each thing its first word's row in WORDS, and how many words it has; (T,) each."""
    counts = torch.tensor([len(words) for words in THINGS.values()])
    return counts.cumsum(0) - counts, counts
