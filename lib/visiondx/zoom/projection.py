"""Photographs in the generator's style space: for each, the w of every layer that draws it best.

Abdal, Qin and Wonka, "Image2StyleGAN" (2019), find them by gradient descent; the space of one w for
each layer is called W+. With v the distance from the mean w in standard deviations of random w,
and e(x) the encoder's unit vector of an image, we minimise for a photograph x

    L(v) = mean over scales (G(v) - x)² + 0.02 (1 - e(G(v))·e(x)) + 0.003 mean(v²)

by Adam, from the nearest of 256 random w; from the mean w it ends in worse places. The scales are
the full resolution and that halved up to three times: alone, the full one would not see where a
shape is to go. Their perceptual network (LPIPS) is left out: the encoder that reads the words
stands in for it. The pull to the mean keeps an image where edits of the style space still do what
they do on the generator's own.

A generator can be made to draw nearly anything blurred, a chair or a grey wall, so not every
photograph may stand for what the generator draws. ``Projection`` says which are reached.
"""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.core.errors import InputError
from visiondx.core.files import USER, atomic_write, cache_dir, digest, read_kept, result_key
from visiondx.core.seeds import check_seed
from visiondx.models.photographs import Photographs
from visiondx.search.batching import Batch
from visiondx.search.descent import Descent, descend
from visiondx.search.objective import Objective, State, Term, frozen
from visiondx.zoom.projected import HALF, Projection
from visiondx.zoom.tasks import compare

METHOD = 1  # for ``files.result_key``
STEPS = 200
ETA = 0.2  # of Adam at the start, in standard deviations of w; annealed to 0
ENCODER, PULL = 0.02, 0.003  # weights beside the pixels'
SCALES, LEAST = 4, 4  # halvings of the picture, while its side has so many pixels
DRAWN = 10_000  # random w, of which mean and deviation are taken
STARTS = 256  # of these w, where it may start, and between which the generator's spacing is taken
SMALL = 64  # pixels a side at which pictures are compared, where they have more
PART = 8  # images drawn at once without a gradient
EVERY = 25  # steps, after which the state is kept


def project(
    generator,
    encoder,
    photographs: Photographs,
    target=None,
    *,
    steps: int = STEPS,
    seed: int = 0,
    cache: str | Path | None = USER,
) -> Projection:
    """Find the styles of photographs, all of them at once, and which of them are reached.

    Args:
        generator: a ``StyleGenerator``. encoder: an ``Encoder``.
        target: is asked about photographs and reconstructions, if there is one.
        seed: of the random w.
        cache: folder in which the state of each photograph is kept every 25 steps, by what it was
            made of: a run that was interrupted goes on from there, with the same result bit for bit
            on a CPU (if memory holds as many at once); a finished one is found again, also when
            photographs were added. "user" is ``files.cache_dir()``, None keeps nothing.

    Raises:
        InputError: photographs of another size than the generator's, steps or a seed that cannot
            be, or a single image does not fit into memory.
        FloatingPointError: a NaN or infinity, with its photograph, step and term.
    """
    check_seed(seed)
    side = generator.resolution
    if photographs.images.shape[1:] != (3, side, side) or not len(photographs):
        raise InputError(
            f"Photographs of shape {tuple(photographs.images.shape)} were given; the generator "
            f"draws (B, 3, {side}, {side}): read them with Photographs.read(folder, {side})."
        )
    descent = Descent(steps, ETA, "adam", anneal=True)
    with (
        frozen(generator, encoder),
        tqdm(total=len(photographs) * (steps + 1), desc="projection", unit="image") as bar,
    ):
        find = _Search(generator, encoder, descent, seed, cache_dir() if cache == USER else cache)
        w = find(photographs, bar)
        found = find.measure(photographs.images, w)
    answers = None
    if target is not None:
        pairs = zip(photographs.images.split(PART), found["reconstructions"].split(PART))
        asked = [compare(target, *(x.to(find.mean) for x in pair)) for pair in pairs]
        answers = tuple(torch.cat(p).cpu() for p in zip(*asked, strict=True))
    return Projection(
        photographs=photographs,
        w=w,
        limits=find.limits(),
        answers=answers,
        settings={"steps": steps, "eta": ETA, "encoder weight": ENCODER, "pull": PULL},
        seed=seed,
        **found,
    )


class _Search:
    """Photographs -> their W+, by one generator, encoder and descent; kept in a folder, if any."""

    @torch.no_grad()
    def __init__(self, generator, encoder, descent: Descent, seed: int, keep: str | Path | None):
        self.generator, self.encoder, self.descent = generator, encoder, descent
        self.keep = Path(keep) if keep else None
        self.made_of = self.keep and [generator.fingerprint, encoder.image_fingerprint, seed]
        w = generator.sample_w(DRAWN, seed)
        self.mean, self.std, self.starts = w.mean(0), w.std(0), w[:STARTS]
        parts = [
            self._see(generator.synthesize(generator.styles(p))) for p in self.starts.split(PART)
        ]
        self.small, self.embedding, self.mirrored = map(torch.cat, zip(*parts, strict=True))

    def _see(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Small pictures, and the encoder's vectors of images and of these mirrored."""
        embed = self.encoder.embed_images
        return small(images), embed(images), embed(images.flip(3))

    def limits(self) -> dict[str, float]:
        """See the rule in ``zoom.projected``."""
        pixels = self.small.flatten(1)
        return {
            "rms": HALF * 255 * float(spacing(pixels)) / math.sqrt(pixels.shape[1]),
            "mirrored": 1 - (HALF * float(spacing(self.mirrored))) ** 2 / 2,  # |a-b|² = 2 (1 - cos)
            "contrast": HALF * float(contrast(self.small).min()),
        }

    def __call__(self, photographs: Photographs, bar: tqdm) -> Tensor:
        """(B, num_ws, w_dim), on the CPU. Those that were left at the same step go on together."""
        batch, found = Batch.start(None, self.generator, self.mean), {}
        kept = [read_kept(path, _read) for path in self._paths(photographs)]
        at = [0 if state is None else state[2] for state in kept]
        for step in sorted(set(at)):
            rows = [row for row, own in enumerate(at) if own == step]
            bar.update(len(rows) * step)

            def some(first: int, last: int, rows: list[int] = rows, step: int = step) -> Tensor:
                own = rows[first:last]
                return self._descend(photographs.of(own), [kept[row] for row in own], step, bar)

            found |= dict(zip(rows, torch.cat(batch.split(len(rows), some, bar)), strict=True))
        return torch.stack([found[row] for row in range(len(photographs))])

    def _paths(self, photographs: Photographs) -> list[Path | None]:
        """Where the state of each is kept."""
        if not self.keep:
            return [None] * len(photographs)
        how = [self.descent.steps, ETA, ENCODER, PULL, SCALES, STARTS, SMALL]
        keys = [
            result_key(METHOD, *self.made_of, *how, digest(image=image))
            for image in photographs.images
        ]
        return [self.keep / f"projection-{key}.safetensors" for key in keys]

    def _descend(self, photographs: Photographs, kept: list, first: int, bar: tqdm) -> Tensor:
        """W+ of these, from the step ``first`` on; ``kept`` has their states there, if not at 0."""
        images, paths = photographs.images.to(self.mean), self._paths(photographs)
        if first:
            v = torch.stack([state[0] for state in kept]).to(images)
            moments = torch.stack([state[1] for state in kept], 1).to(images)
        else:
            v = (self._nearest(images) - self.mean) / self.std
            v = v[:, None].repeat(1, self.generator.num_ws, 1)
            moments = v.new_zeros(2, *v.shape)
        objective = Reconstruction(self.generator, self.encoder, images, self.mean, self.std)
        place = [repr(name) for name in photographs.names].__getitem__
        for at in descend(objective, v, self.descent, place, bar, first, moments):
            bar.set_postfix_str(f"RMS {255 * at.reading.median():.0f}", refresh=False)
            due = at.number % EVERY == 0 or at.number == self.descent.steps
            if self.keep and due and at.number > first:
                for path, row, own in zip(paths, at.variable, moments.unbind(1), strict=True):
                    _write(path, row, own, at.number)
        return (self.mean + self.std * at.variable).cpu()

    @torch.no_grad()
    def _nearest(self, images: Tensor) -> Tensor:
        """For each image the best of the starts (B, w_dim), by small pixels and the encoder."""
        ours = small(images).flatten(1)
        pixels = torch.cdist(ours, self.small.flatten(1)).square() / ours.shape[1]
        encoded = 1 - self.encoder.embed_images(images) @ self.embedding.T
        return self.starts[(pixels + ENCODER * encoded).argmin(1)]

    @torch.no_grad()
    def measure(self, images: Tensor, w: Tensor) -> dict[str, Tensor]:
        """What W+ draws, and how near it comes: fields of ``Projection``, on the CPU."""
        parts = []
        for x, own in zip(images.split(PART), w.split(PART), strict=True):
            styles = self.generator.styles(own.to(self.mean))
            drawn = self.generator.synthesize(styles)
            ours, theirs = self._see(drawn), self._see(x.to(self.mean))
            rms = 255 * (ours[0] - theirs[0]).square().mean((1, 2, 3)).sqrt()
            cosine, mirrored = ((a * b).sum(1) for a, b in zip(ours[1:], theirs[1:], strict=True))
            parts.append((styles, drawn, rms, contrast(theirs[0]), cosine, mirrored))
        names = ("styles", "reconstructions", "rms", "contrast", "cosine", "mirrored")
        return {n: torch.cat(p).cpu() for n, p in zip(names, zip(*parts, strict=True), strict=True)}


class Reconstruction(Objective):
    """The loss above, of R photographs, in v (R, num_ws, w_dim). It reads the RMS of pixels."""

    @torch.no_grad()
    def __init__(self, generator, encoder, images: Tensor, mean: Tensor, std: Tensor):
        self.generator, self.encoder, self.mean, self.std = generator, encoder, mean, std
        self.scales, self.embedding = scales(images), encoder.embed_images(images)

    @property
    def terms(self) -> list[Term]:
        return [
            Term("pixels", self._pixels),
            ENCODER * Term("encoder", lambda s: 1 - (s["embedding"] * self.embedding).sum(1)),
            PULL * Term("pull", lambda s: s["offset"].square().mean((1, 2))),
        ]

    def _pixels(self, state: State) -> Tensor:
        pairs = zip(scales(state["image"]), self.scales, strict=True)
        errors = [(ours - theirs).square().mean((1, 2, 3)) for ours, theirs in pairs]
        return torch.stack(errors).mean(0)

    def observe(self, variable: Tensor) -> State:
        styles = self.generator.styles(self.mean + self.std * variable)
        image = self.generator.synthesize(styles)
        embedding = self.encoder.embed_images(image)
        return {"image": image, "embedding": embedding, "offset": variable}

    def read(self, state: State) -> Tensor:
        return (state["image"] - self.scales[0]).square().mean((1, 2, 3)).sqrt()

    def index(self, rows: Tensor) -> "Reconstruction":
        some = object.__new__(type(self))
        vars(some).update(vars(self))
        some.scales = [each[rows] for each in self.scales]
        some.embedding = self.embedding[rows]
        return some


def scales(images: Tensor) -> list[Tensor]:
    """Images (B, 3, H, W), and these halved up to three times, while 4 pixels are left."""
    found = [images]
    while len(found) < SCALES and min(found[-1].shape[2:]) >= 2 * LEAST:
        found.append(F.avg_pool2d(found[-1], 2))
    return found


def small(images: Tensor) -> Tensor:
    """Images (B, 3, H, W) at 64 pixels a side, or as they are where they have no more."""
    return F.adaptive_avg_pool2d(images, SMALL) if images.shape[2] > SMALL else images


def contrast(images: Tensor) -> Tensor:
    """RMS of an image's pixels around their mean colour, in levels of 0-255: (B,)."""
    return 255 * (images - images.mean((2, 3), keepdim=True)).square().mean((1, 2, 3)).sqrt()


def spacing(rows: Tensor) -> Tensor:
    """The median distance of a row (N, D) from its nearest other one."""
    distance = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    return distance.fill_diagonal_(torch.inf).amin(1).quantile(0.5)


def _write(path: Path, v: Tensor, moments: Tensor, step: int) -> None:
    tensors = {"v": v, "moments": moments, "step": torch.tensor(step)}
    with atomic_write(path) as temporary:
        save_file({n: t.detach().cpu().contiguous() for n, t in tensors.items()}, temporary)


def _read(path: Path) -> tuple[Tensor, Tensor, int]:
    """What ``_write`` wrote of an image: v (num_ws, w_dim), the moments (2, …) and the step."""
    kept = load_file(path)
    return kept["v"], kept["moments"], int(kept["step"])
