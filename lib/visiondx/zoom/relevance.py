"""StyleCLIP's channel relevance M: what each style channel does to the image in CLIP's space.

Patashnik et al., 2021, section 6: a channel of n random styles is set to its mean plus and minus 5
standard deviations, both images are encoded, the difference of their unit embeddings is
normalised, averaged over the n images and normalised again. We push by 2.5: at 5 our small
generator leaves what it can draw, and M then describes ruins. It takes 2 n images a channel, days
for a large generator on a CPU, so it is computed once for a generator and an encoder, kept under a
hash of both, and resumed where it was.
"""

import time
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.core.errors import InputError
from visiondx.core.files import USER, atomic_write, cache_dir, read_kept, result_key
from visiondx.core.precision import half_autocast
from visiondx.models import registry
from visiondx.search.batching import Batch

METHOD = 1  # for ``files.result_key``
REACH = 2.5  # deviations that a channel is pushed from its mean; StyleCLIP: 5
IMAGES = 100  # random styles a channel, as in StyleCLIP
SAVE_SECONDS = 60.0  # between two writes of what is finished
LONG = 600.0  # seconds from which on it is said how long it will take


def relevance(
    generator,
    encoder,
    images: int = IMAGES,
    cache: Path | str | None = USER,
    **settings,
) -> Tensor:
    """M (c_S, c_T) for a generator and an encoder: a kept one if one is theirs, else computed.

    The arguments are those of ``relevance_matrix``.
    """
    M = known_relevance(generator, encoder, images, cache, **settings)
    if M is not None:
        return M
    return relevance_matrix(generator, encoder, images, cache=cache, **settings)


def known_relevance(
    generator,
    encoder,
    images: int = IMAGES,
    cache: Path | str | None = USER,
    *,
    sigma: float = REACH,
    seed: int = 0,
    resolution: int | None = None,
    half: bool | None = None,
    batch: int | None = None,
) -> Tensor | None:
    """M that a package ships, or that was computed before; None where there is neither.

    "Theirs" is decided by the fingerprints of the generator and of the encoder's image tower (no
    text enters M), never by a name. A kept M that is missing or altered is not an error: computing
    it is the fix. The arguments are those of ``relevance_matrix``; if ``half`` is None, a finished
    M of either precision will do.
    """
    M = registry.kept("relevance", generator.fingerprint, encoder.image_fingerprint)
    own = _half(generator, half)
    for each in (own,) if half is not None else (own, not own):
        if M is None:
            M = _read(_path(generator, encoder, images, sigma, seed, resolution, each, cache))
    return None if M is None else M.to(generator.style_mean)


@torch.no_grad()
def relevance_matrix(
    generator,
    encoder,
    images: int = IMAGES,
    sigma: float = REACH,
    seed: int = 0,
    batch: int | None = None,
    cache: Path | str | None = USER,
    resolution: int | None = None,
    half: bool | None = None,
) -> Tensor:
    """Compute M (c_S, c_T): unit rows, zero for ToRGB channels and for channels without effect.

    What is finished is written every minute; a run that was killed goes on there, with the batch
    that it had, to the same bits. Where it will take more than ten minutes, a warning says so.

    Args:
        images: random styles a channel (StyleCLIP: 100). sigma: how far the channel is pushed.
        batch: images synthesised at once; None takes what the free memory holds. Halved where
            memory runs out. It does not change M, but for rounding.
        cache: folder of matrices, finished and begun: "user" is ``files.cache_dir()``, None keeps
            nothing.
        resolution: layers beyond it are left out, and their rows zero: the finest hardly change
            what is in an image, and take longest. None: no layer is.
        half: float16 for generator and encoder (a batch that overflows is done again in float32);
            None: on a GPU. On the 64 px faces the cosine of a row with that of float32 is .998 or
            more, and an entry of M·Δt is within .03 (bfloat16: .85 and .16, too coarse for the
            small differences between embeddings).

    Raises:
        InputError: numbers that suit no M, or a single image does not fit into memory.
        FloatingPointError: an embedding is NaN or infinite.
    """
    if images < 1 or (batch is not None and batch < 1) or not sigma > 0:
        raise InputError(
            "relevance_matrix needs images >= 1, batch >= 1 and sigma > 0, "
            f"got {images}, {batch} and {sigma}."
        )
    half = _half(generator, half)
    path = _path(generator, encoder, images, sigma, seed, resolution, half, cache)
    if (kept := _read(path)) is not None:
        return kept.to(generator.style_mean)
    channels = torch.arange(generator.num_styles)[_asked(generator, resolution)]
    styles = generator.sample_styles(images, seed)
    width = encoder.embed_images(generator.synthesize(styles[:1])).shape[1]
    sums = _Sums(path, len(channels), width)
    size = Batch.start(batch or sums.batch, generator, styles, gradient=False)
    first, total = sums.done, len(channels) * images  # pairs of a channel and a style

    with tqdm(total=2 * total, initial=2 * first, desc="relevance", unit="image") as bar:
        clock = _Clock(2 * total)

        def some(start: int, stop: int) -> None:
            item = torch.arange(first + start, first + stop)
            which, row = item // images, (item % images).to(styles.device)
            change = _change(generator, encoder, styles[row], channels[which], sigma, half)
            sums.add(which, change.cpu(), size.size)
            bar.update(2 * len(item))
            clock.tell(2 * sums.done)

        size.split(total - first, some, bar)
    M = torch.zeros(generator.num_styles, width)
    M[channels] = F.normalize(sums.sums, dim=1)  # the sum over images points where their mean does
    _write(path, M=M)
    sums.forget()
    return M.to(generator.style_mean)


def _change(
    generator, encoder, styles: Tensor, channels: Tensor, sigma: float, half: bool
) -> Tensor:
    """How the embeddings (R, c_T) of R styles differ between their channel up and down, unit."""
    channels = channels.to(styles.device)
    reach = sigma * generator.style_std[channels]
    index, ends = torch.arange(len(styles), device=styles.device), []
    for sign in (1, -1):  # one after the other, so that a batch is as many images as it says
        pushed = styles.clone()
        pushed[index, channels] = generator.style_mean[channels] + sign * reach
        ends.append(F.normalize(_embed(generator, encoder, pushed, half), dim=1))
    return F.normalize(ends[0] - ends[1], dim=1)


def _embed(generator, encoder, styles: Tensor, half: bool) -> Tensor:
    with half_autocast(styles.device, half):
        found = encoder.embed_images(generator.synthesize(styles)).float()
    if torch.isfinite(found).all():
        return found
    if half:
        return _embed(generator, encoder, styles, False)
    raise FloatingPointError(
        "An image's embedding is NaN or infinite: check generator and encoder."
    )


class _Sums:
    """The sums over images (C, c_T) of each channel's changes, on the CPU, as far as they are.

    ``done`` pairs are in them, ``batch`` is what the run that kept them last had at once.
    """

    def __init__(self, path: Path | None, channels: int, width: int):
        self.part = path.with_suffix(".part.safetensors") if path else None
        kept = read_kept(self.part, load_file) or {}
        self.sums = kept.get("sums", torch.zeros(channels, width))
        self.done = int(kept.get("done", 0))
        self.batch = int(kept["batch"]) if kept else None
        self._saved = time.monotonic()

    def add(self, which: Tensor, change: Tensor, batch: int) -> None:
        self.sums.index_add_(0, which, change)
        self.done += len(which)
        if time.monotonic() - self._saved >= SAVE_SECONDS:
            _write(
                self.part, sums=self.sums, done=torch.tensor(self.done), batch=torch.tensor(batch)
            )
            self._saved = time.monotonic()

    def forget(self) -> None:
        if self.part:
            self.part.unlink(missing_ok=True)


class _Clock:
    """Says once, after two batches (the first is slower), how long a long matrix will take."""

    def __init__(self, total: int):
        self.total, self.seen = total, []  # (images, seconds)

    def tell(self, done: int) -> None:
        if len(self.seen) == 2:
            return
        self.seen.append((done, time.monotonic()))
        if len(self.seen) == 2:
            (before, start), (after, end) = self.seen
            left = (self.total - after) * (end - start) / (after - before)
            if left > LONG:
                warnings.warn(
                    f"The relevance matrix takes {self.total:,} images, {self.total - after:,} more"
                    f": about {left / 3600:.1f} hours here. If it is stopped, it goes on another "
                    'time; directions="gradient" needs none.',
                    stacklevel=2,
                )


def _asked(generator, resolution: int | None) -> Tensor:
    """(c_S,) bool, on the CPU: editable channels of layers up to this resolution."""
    editable = generator.editable.cpu()
    if resolution is None:
        return editable
    coarse = torch.zeros_like(editable)
    for layer in generator.layers:
        coarse[layer.start : layer.start + layer.width] = layer.resolution <= resolution
    if not (editable & coarse).any():
        sides = sorted({layer.resolution for layer in generator.layers})
        raise InputError(f"No layer has resolution {resolution} or less: the layers have {sides}.")
    return editable & coarse


def _half(generator, half: bool | None) -> bool:
    return generator.style_mean.is_cuda if half is None else half


def _path(
    generator, encoder, images, sigma, seed, resolution, half: bool, cache: Path | str | None
) -> Path | None:
    """Where M is kept; None where nothing is to be."""
    if cache is None:
        return None
    made_of = [generator.fingerprint, encoder.image_fingerprint, images, sigma, seed]
    if not torch.equal(_asked(generator, resolution), _asked(generator, None)):
        made_of.append(resolution)
    made_of += ["half"] * half
    folder = cache_dir() if cache == USER else Path(cache)
    return folder / f"relevance-{result_key(METHOD, *made_of)}.safetensors"


def _read(path: Path | None) -> Tensor | None:
    """A kept matrix; None if there is none or it cannot be read, for then it is made again."""
    return read_kept(path, lambda path: load_file(path)["M"])


def _write(path: Path | None, **tensors: Tensor) -> None:
    if path:
        with atomic_write(path) as temporary:
            save_file({name: t.contiguous().cpu() for name, t in tensors.items()}, temporary)
