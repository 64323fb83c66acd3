"""Textual inversion of all classes at once (Dataset Interfaces, section 3 and appendix A.1).

    v_c = argmin over v of E[ |target - eps(z_t, t, tau(template with v))|^2 ]

over images of class c, templates, times t and noise; the painter stays as it is. Every batch mixes
classes, and a step moves the vectors of its classes alone. What a class sees at a step follows from
the seed, its name and the step: its word is the same, up to rounding, whichever classes are learned
beside it and however many share a batch.

Source: Gal et al. 2022, An image is worth one word.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.core.errors import InputError
from visiondx.core.files import atomic_write, digest, read_kept, result_key
from visiondx.core.precision import fast_autocast
from visiondx.core.seeds import check_seed, step_seed
from visiondx.dataset_interfaces.folders import ImagesByClass, by_class
from visiondx.dataset_interfaces.latents import ClassLatents
from visiondx.dataset_interfaces.tokens import (
    PLACE,
    ClassTokens,
    check_names,
    check_new,
    fingerprint,
    lay_out,
    token_name,
)
from visiondx.models.painter import Painter
from visiondx.models.soft_words import soft_word
from visiondx.search.descent import Descent

if TYPE_CHECKING:
    from diffusers import DDPMScheduler

METHOD = 1  # raised with every change that gives another result
SAVE_SECONDS = 60.0
SHOWN = 50  # steps, of all classes together, below which no bar is drawn
HELD = 1  # seeds of the held noise are apart from those of the steps
# Gal et al.'s, which the authors use
TEMPLATES = (
    "a photo of a <class>",
    "a rendering of a <class>",
    "a cropped photo of the <class>",
    "the photo of a <class>",
    "a photo of a clean <class>",
    "a photo of a dirty <class>",
    "a dark photo of the <class>",
    "a photo of my <class>",
    "a photo of the cool <class>",
    "a close-up photo of a <class>",
    "a bright photo of the <class>",
    "a cropped photo of a <class>",
    "a photo of the <class>",
    "a good photo of the <class>",
    "a photo of one <class>",
    "a close-up photo of the <class>",
    "a rendition of the <class>",
    "a photo of the clean <class>",
    "a rendition of a <class>",
    "a photo of a nice <class>",
    "a good photo of a <class>",
    "a photo of the nice <class>",
    "a photo of the small <class>",
    "a photo of the weird <class>",
    "a photo of the large <class>",
    "a photo of a cool <class>",
    "a photo of a small <class>",
)


@dataclass(frozen=True)
class Inversion:
    """How words are learned.

    The steps, step size, moments and weight decay are appendix A.1's; what it does not say is as in
    the authors' code: AdamW, one image of a class a step, the norm held, flips, the templates. Ours
    are that images are drawn with replacement, that their latents are the VAE's means, and the
    batch, which changes the result by rounding alone.

    Args:
        vectors: k, of a word.
        pin_norm: hold each vector's length to that of its start.
        images: of each class in a step. batch: images at once, of several classes.
        flip: half of the images are seen in a mirror; not for classes that know left from right.
        templates: prompts with "<class>".

    Raises:
        InputError: a count below 1, more images of a class than the batch holds, or a template
            without "<class>" or with two.
    """

    vectors: int = 1
    pin_norm: bool = True
    images: int = 1
    batch: int = 16
    flip: bool = True
    templates: tuple[str, ...] = TEMPLATES
    descent: Descent = field(default_factory=lambda: Descent(3000, 5e-4, "adam", decay=1e-2))

    def __post_init__(self) -> None:
        for name in ("vectors", "images", "batch"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: give 1 or more.")
        if self.images > self.batch:
            raise InputError(
                f"images is {self.images} and batch {self.batch}: a class's images are seen at "
                "once, so give a batch as large."
            )
        if isinstance(self.templates, str) or not self.templates:
            raise InputError(f"templates must be a list of prompts, got {self.templates!r}.")
        for text in self.templates:
            if text.count(PLACE) != 1:
                raise InputError(f"The template {text!r} must hold {PLACE} once.")


def learn_tokens(
    painter: Painter,
    images: ImagesByClass | Mapping[str, Tensor],
    settings: Inversion | None = None,
    *,
    words: Mapping[str, str] | str | None = None,
    seed: int = 0,
    kept: str | Path | None = None,
) -> ClassTokens:
    """Learn a word for each class of a data set.

    Args:
        painter: that was trained on diffusion's noise: of a distilled one, learn with its teacher;
            its words are the same.
        images: by class, as large as the painter's; a ``ClassFolder`` or tensors.
        words: what each class's vectors start from, its description; or one broad word for all, as
            of fine-grained classes (appendix D). None: the classes' names. One vector starts as the
            mean of the words' tokens, several as their sequence.
        kept: a folder that keeps the latents and what is learned so far: a killed run goes on to
            the same result.

    Raises:
        InputError: a distilled painter, one that predicts something else than noise or velocity,
            two classes with one word, a class without its description, a template longer than the
            painter reads, and see ``ClassLatents.make``.
        FloatingPointError: a loss became NaN or infinite; names the step and class.
    """
    check_seed(seed)
    settings, data = settings or Inversion(), by_class(images)
    begun = initial_tokens(painter, data.classes, words, settings.vectors)
    start = begun.vectors.to(painter.device)
    lesson = Lesson.make(painter, data, settings, seed, kept)
    file = None
    if kept is not None:
        weights = digest(**painter.state_dict())
        how = dict(painter.scheduler.config)
        given = [weights, repr(how), data.content, data.labels.tolist(), list(data.classes)]
        key = result_key(METHOD, *given, list(begun.initialisers), asdict(settings), seed)
        file = Path(kept) / f"tokens-{key}.safetensors"
    progress = read_kept(file, Progress.read) or Progress.begin(start.cpu(), settings.descent.steps)
    take_steps(lesson, progress, start, file)
    vectors = lesson.held(progress.vectors.to(start), start).cpu()
    return replace(begun, vectors=vectors, losses=progress.losses)


def initial_tokens(
    painter: Painter,
    classes: Sequence[str],
    words: Mapping[str, str] | str | None = None,
    vectors: int = 1,
) -> ClassTokens:
    """Tokens before anything is learned: those of the words that they start from.

    Args:
        words: see ``learn_tokens``. vectors: k.

    Raises:
        InputError: two classes with one word, one that the painter's tokenizer knows, or a class
            without its description.
    """
    names = tuple(token_name(name) for name in classes)
    initialisers = _initialisers(classes, words)
    check_names(classes, names)
    check_new(painter, names)
    start = torch.stack([soft_word(painter, word, vectors) for word in initialisers])
    found = start.float().cpu()
    return ClassTokens(tuple(classes), names, found, initialisers, fingerprint(painter))


@torch.no_grad()
def denoising_loss(
    painter: Painter,
    images: ImagesByClass | Mapping[str, Tensor],
    tokens: ClassTokens,
    settings: Inversion | None = None,
    *,
    seed: int = 0,
    draws: int = 16,
    kept: str | Path | None = None,
) -> Tensor:
    """(C,) the loss of each class's word on noise, times and templates that no step saw.

    The same draws for the same classes, images and seed, so that words can be compared.

    Args:
        images: as ``learn_tokens``'s, with the classes of the tokens in their order.
        draws: of ``settings.images`` images each.

    Raises:
        InputError: tokens of other classes or of another painter, and see ``learn_tokens``.
    """
    settings, data = settings or Inversion(), by_class(images)
    tokens.check(painter)
    if tokens.classes != tuple(data.classes) or tokens.count != settings.vectors:
        raise InputError(
            f"The tokens are of {tokens.count} vectors of {', '.join(tokens.classes)}, the images "
            f"of {', '.join(data.classes)} and the settings of {settings.vectors}: give those that "
            "belong together."
        )
    lesson = Lesson.make(painter, data, settings, step_seed(seed, HELD), kept)
    vectors = tokens.vectors.to(painter.device)
    total = torch.zeros(len(vectors))
    for step in range(draws):
        for rows in lesson.groups():
            total[rows] += lesson.losses(vectors[rows], rows, step).cpu()
    return total / draws


@dataclass(frozen=True)
class Lesson:
    """What the words of C classes are learned from.

    ids, stands: (T, L) of the templates, and where in them the word stands.
    """

    painter: Painter
    latents: ClassLatents
    settings: Inversion
    seeds: tuple[int, ...]
    noising: DDPMScheduler
    ids: Tensor
    stands: Tensor

    @classmethod
    def make(
        cls,
        painter: Painter,
        data: ImagesByClass,
        settings: Inversion,
        seed: int,
        kept: str | Path | None,
    ) -> Lesson:
        """Check the painter and the templates, then encode the images."""
        noising = noise_schedule(painter)
        ids, which = lay_out(painter, settings.templates, [PLACE], settings.vectors)
        latents = ClassLatents.make(painter, data, settings.flip, kept)
        seeds = tuple(step_seed(seed, zlib.crc32(name.encode())) for name in data.classes)
        return cls(painter, latents, settings, seeds, noising, ids, which >= 0)

    def groups(self) -> Iterator[slice]:
        """The classes that share a batch."""
        size = self.settings.batch // self.settings.images
        for start in range(0, len(self.seeds), size):
            yield slice(start, min(start + size, len(self.seeds)))

    def held(self, vectors: Tensor, start: Tensor) -> Tensor:
        """(G, k, d) with the lengths of `start`, where they are pinned."""
        if not self.settings.pin_norm:
            return vectors
        return vectors * (start.norm(dim=2, keepdim=True) / vectors.norm(dim=2, keepdim=True))

    def losses(self, vectors: Tensor, rows: slice, step: int) -> Tensor:
        """(G, k, d) of the classes `rows` -> (G,) their losses, differentiable in the vectors."""
        count, device = self.settings.images, self.painter.device
        drawn = [self._draw(row, step) for row in range(rows.start, rows.stop)]
        template, times, latents, noise = (torch.cat(each).to(device) for each in zip(*drawn))
        latents = latents.float()
        noisy = self.noising.add_noise(latents, noise, times)
        target = noise
        if self.noising.config.prediction_type == "v_prediction":
            target = self.noising.get_velocity(latents, noise, times)
        soft = vectors.repeat_interleave(count, 0).flatten(0, 1)
        condition = self.painter.encode(self.ids[template], soft, self.stands[template])
        with fast_autocast(device, enabled=device.type == "cuda"):
            made = self.painter.unet(noisy, times, condition, return_dict=False)[0]
        error = F.mse_loss(made.float(), target, reduction="none").mean((1, 2, 3))
        return error.unflatten(0, (-1, count)).mean(1)

    def _draw(self, row: int, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of one class at a step: templates (n,), times (n,), latents and noise (n, C, h, w)."""
        source = torch.Generator().manual_seed(step_seed(self.seeds[row], step))
        first, last = self.latents.first[row : row + 2].tolist()
        shape = (self.settings.images,)
        image = torch.randint(first, last, shape, generator=source)
        mirror = torch.randint(self.latents.values.shape[1], shape, generator=source)
        template = torch.randint(len(self.ids), shape, generator=source)
        span = self.noising.config.num_train_timesteps
        times = torch.randint(span, shape, generator=source)
        latents = self.latents.values[image, mirror]
        return template, times, latents, torch.randn(latents.shape, generator=source)


@dataclass
class Progress:
    """How far the classes are; tensors on the CPU.

    vectors: (C, k, d), before their lengths are pinned. moments: (2, C, k, d), Adam's. done: (C,)
    steps of each class. losses: (T, C), NaN where a step is still to come.
    """

    vectors: Tensor
    moments: Tensor
    done: Tensor
    losses: Tensor

    @classmethod
    def begin(cls, start: Tensor, steps: int) -> Progress:
        count = len(start)
        return cls(
            start.clone(),
            start.new_zeros(2, *start.shape),
            torch.zeros(count, dtype=torch.long),
            torch.full((steps, count), torch.nan),
        )

    @classmethod
    def read(cls, file: Path) -> Progress:
        return cls(**load_file(file))

    def save(self, file: Path) -> None:
        with atomic_write(file) as path:
            save_file({name: value.contiguous() for name, value in vars(self).items()}, path)


def noise_schedule(painter: Painter) -> DDPMScheduler:
    """The diffusion that a painter was trained on: ``add_noise``, ``get_velocity`` and its config.

    Raises:
        InputError: a distilled painter, or one that predicts something else than noise or velocity.
    """
    from diffusers import DDPMScheduler

    if painter.distilled:
        raise InputError(
            "This painter was distilled to a few steps and no more tells noise from picture, so no "
            'word can be learned with it: learn with its teacher (of "embedded", '
            'Painter.load("embedded-teacher"); else load it without its LCM-LoRA), the words are '
            "then good for both."
        )
    kind = painter.scheduler.config.get("prediction_type", "epsilon")
    if kind not in ("epsilon", "v_prediction"):
        raise InputError(
            f"The painter's scheduler says that it predicts {kind!r}: words are learned with one "
            "that predicts epsilon or v_prediction."
        )
    return DDPMScheduler.from_config(painter.scheduler.config)


def take_steps(lesson: Lesson, progress: Progress, start: Tensor, file: Path | None = None) -> None:
    """All steps of all classes, from where `progress` is, which goes along.

    Args:
        start: (C, k, d) on the painter's device, whose lengths are held.
        file: where `progress` is saved now and then and at the end; None saves none.
    """
    descent, saved = lesson.settings.descent, time.monotonic()
    vectors, moments = (each.to(start) for each in (progress.vectors, progress.moments))
    total, done = progress.losses.numel(), int(progress.done.sum())
    if done == total:
        return
    hidden = total - done < SHOWN
    # classes that shared a batch are equally far
    with tqdm(
        total=total, initial=done, desc="class tokens", mininterval=1.0, disable=hidden
    ) as bar:
        for step in range(int(progress.done.min()), descent.steps):
            for rows in lesson.groups():
                if (progress.done[rows] > step).all():
                    continue
                raw = vectors[rows].detach().requires_grad_(True)
                losses = lesson.losses(lesson.held(raw, start[rows]), rows, step)
                for row, value in enumerate(losses.tolist(), rows.start):
                    _check(value, step, lesson.latents.classes[row])
                (gradient,) = torch.autograd.grad(losses.sum(), raw)
                with torch.no_grad():
                    vectors[rows] = descent.move(raw, gradient, moments[:, rows], step)
                progress.losses[step, rows] = losses.detach().cpu()
                progress.done[rows] = step + 1
                bar.update(rows.stop - rows.start)
                if file is not None and time.monotonic() - saved > SAVE_SECONDS:
                    _store(progress, vectors, moments, file)
                    saved = time.monotonic()
            seen = progress.losses[max(0, step - 99) : step + 1].nanmean()
            bar.set_postfix(loss=f"{seen:.4f}", refresh=False)
    _store(progress, vectors, moments, file)


def _store(progress: Progress, vectors: Tensor, moments: Tensor, file: Path | None) -> None:
    progress.vectors, progress.moments = vectors.detach().cpu(), moments.detach().cpu()
    if file is not None:
        progress.save(file)


def _check(value: float, step: int, name: str) -> None:
    if not -torch.inf < value < torch.inf:
        raise FloatingPointError(f"The loss of class {name!r} became {value} at step {step}.")


def _initialisers(classes: Sequence[str], words: Mapping[str, str] | str | None) -> tuple[str, ...]:
    """The words that each class starts from."""
    if words is None:
        return tuple(name.replace("_", " ") for name in classes)
    if isinstance(words, str):
        return (words,) * len(classes)
    if missing := [name for name in classes if not words.get(name)]:
        raise InputError(
            f"Class {missing[0]!r} has no description to start from: add it to words, or give one "
            "word for all."
        )
    return tuple(words[name] for name in classes)
