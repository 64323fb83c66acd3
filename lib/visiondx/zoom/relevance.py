"""StyleCLIP's channel relevance M: what each style channel does to the image in CLIP's space.

Patashnik et al., 2021, section 6: a channel of n random styles is set to its mean plus and minus 5
standard deviations, both images are encoded, the difference of their unit embeddings is
normalised, averaged over the n images and normalised again. We push by 2.5: at 5 our small
generator leaves what it can draw, and M then describes ruins. It takes 2 n images a channel, so it
is computed once for a generator and an encoder, kept under a hash of both, and resumed by layer.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.core.errors import InputError
from visiondx.core.files import atomic_write, read_kept, result_key
from visiondx.core.memory import keep_memory
from visiondx.models import registry

METHOD = 1  # for ``files.result_key``
REACH = 2.5  # deviations that a channel is pushed from its mean; StyleCLIP: 5


def relevance(
    generator,
    encoder,
    images: int = 100,
    cache: Path | str = "runs/cache",
    **settings,
) -> Tensor:
    """M (c_S, c_T) for a generator and an encoder: a kept one if one is theirs, else computed.

    "Theirs" is decided by the fingerprints of the generator and of the encoder's image tower (no
    text enters M), never by a name. A kept M that is missing or altered is not an error: computing
    it is the fix.
    """
    M = registry.kept("relevance", generator.fingerprint, encoder.image_fingerprint)
    if M is not None:
        return M.to(generator.style_mean)
    return relevance_matrix(generator, encoder, images, cache=cache, **settings)


@torch.no_grad()
def relevance_matrix(
    generator,
    encoder,
    images: int = 100,
    sigma: float = REACH,
    seed: int = 0,
    batch: int = 256,
    cache: Path | str | None = "runs/cache",
) -> Tensor:
    """Compute M (c_S, c_T): unit rows, zero for ToRGB channels and for channels without effect.

    Args:
        images: random styles a channel (StyleCLIP: 100). sigma: how far the channel is pushed.
        batch: images synthesised at once; a memory limit, it does not change M.
        cache: folder of finished layers and matrices; None keeps nothing.
    """
    if images < 1 or batch < 2 or not sigma > 0:
        raise InputError(
            "relevance_matrix needs images >= 1, batch >= 2 and sigma > 0, "
            f"got {images}, {batch} and {sigma}."
        )
    prints = generator.fingerprint, encoder.image_fingerprint
    name = f"relevance-{result_key(METHOD, *prints, images, sigma, seed)}"
    whole = Path(cache) / f"{name}.safetensors" if cache else None
    if whole and (kept := _read(whole)) is not None:
        return kept.to(generator.style_mean)
    keep_memory()  # on the CPU, halves the time
    styles = generator.sample_styles(images, seed)
    embedded = encoder.embed_images(generator.synthesize(styles[:1]))
    M = styles.new_zeros(generator.num_styles, embedded.shape[1])
    parts = []
    with tqdm(total=int(generator.editable.sum()), desc="relevance", unit="channel") as bar:
        for layer in generator.layers:
            span = slice(layer.start, layer.start + layer.width)
            channels = torch.arange(span.start, span.stop)[generator.editable[span].cpu()]
            if not len(channels):
                continue
            part = whole.with_name(f"{name}.{layer.name}.safetensors") if whole else None
            rows = _read(part) if part else None
            if rows is None:
                rows = _rows(generator, encoder, styles, channels, sigma, batch, bar)
                _write(part, rows)
            else:
                bar.update(len(channels))
            M[channels] = rows.to(M)
            parts.append(part)
    _write(whole, M)
    for part in filter(None, parts):
        part.unlink(missing_ok=True)
    return M


def _rows(
    generator, encoder, styles: Tensor, channels: Tensor, sigma: float, batch: int, bar: tqdm
) -> Tensor:
    """The rows of M of some channels (C, c_T); every (channel, image) pair is one work item."""
    n, total, done = len(styles), None, 0
    for item in torch.arange(len(channels) * n).split(batch // 2):
        which, row = item // n, (item % n).to(styles.device)
        channel = channels[which].to(styles.device)
        reach = sigma * generator.style_std[channel]
        pushed = styles[row].repeat(2, 1)
        index = torch.arange(len(item), device=styles.device)
        pushed[index, channel] = generator.style_mean[channel] + reach
        pushed[index + len(item), channel] = generator.style_mean[channel] - reach
        embedded = F.normalize(encoder.embed_images(generator.synthesize(pushed)), dim=1)
        change = F.normalize(embedded[: len(item)] - embedded[len(item) :], dim=1)
        if total is None:
            total = change.new_zeros(len(channels), change.shape[1])
        total.index_add_(0, which.to(change.device), change)
        finished = int(item[-1] + 1) // n
        bar.update(finished - done)
        done = finished
    return F.normalize(total, dim=1)  # the sum over images points where their mean points


def _read(path: Path) -> Tensor | None:
    """A kept tensor; None if there is none or it cannot be read, for then it is made again."""
    return read_kept(path, lambda path: load_file(path)["M"])


def _write(path: Path | None, rows: Tensor) -> None:
    if path:
        with atomic_write(path) as temporary:
            save_file({"M": rows.contiguous().cpu()}, temporary)
