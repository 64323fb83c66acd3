"""Instant directions: Δs of ZOOM's Eq. 2 without a relevance matrix, from gradients.

M asks what every style channel does to an image in CLIP's space, with two images for each channel
and style: hundreds of thousands. To edit towards Δt, it is enough to know how CLIP(G(s))·Δt, the
cosine of image and words, grows with each channel: the gradient, one backward pass. It is averaged
over some dozen images, so that the direction is global, and counted for one standard deviation of
each channel. Noise on the styles smooths it (SmoothGrad; Smilkov et al., 2017).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.core.errors import InputError
from visiondx.core.precision import half_autocast
from visiondx.search.batching import Batch
from visiondx.search.objective import check_finite, frozen
from visiondx.zoom.directions import (
    Directions,
    check_sided,
    from_relevance,
    text_directions,
    threshold_for,
)

SCALE = 1024  # of what is differentiated in float16, whose smallest numbers are 6e-8


def gradient_directions(
    generator,
    encoder,
    attributes: Sequence[str],
    neutral: str,
    styles: Tensor,
    threshold: float | Sequence[float] | None = None,
    channels: int = 20,
    sided: str = "two",
    templates: Sequence[str] | str | None = None,
    noise: float = 0.0,
    samples: int = 1,
    seed: int = 0,
    batch: int | None = None,
    half: bool | None = None,
) -> Directions:
    """Edit directions of attributes in words, of the type and units of ``directions.directions``.

    Args:
        styles: (B, c_S) of the images that are averaged over.
        threshold: λ, one for all attributes or one each; None leaves each ``channels`` channels.
            As M·Δt is a cosine, so is what λ is held against here (see ``gradient_relevance``),
            but of the whole direction with one channel: it is smaller.
        noise, samples, seed, batch, half: see ``gradient_relevance``.

    Raises:
        InputError: unusable prompts, styles or numbers, or a λ that leaves an attribute no channel.
        FloatingPointError: a gradient is NaN or infinite.
    """
    check_sided(sided)
    delta_t = text_directions(encoder, attributes, neutral, templates)
    found = gradient_relevance(
        generator, encoder, delta_t, styles, noise, samples, seed, batch, half
    )
    if threshold is None:
        threshold = threshold_for(found, channels, sided)
    std = generator.style_std
    return from_relevance(found, attributes, neutral, delta_t, std, threshold, sided, "gradient")


def gradient_relevance(
    generator,
    encoder,
    delta_t: Tensor,
    styles: Tensor,
    noise: float = 0.0,
    samples: int = 1,
    seed: int = 0,
    batch: int | None = None,
    half: bool | None = None,
) -> Tensor:
    """What stands for M·Δt: unit rows (N, c_S), cosines of the mean gradient with the channels.

    Styles are counted in standard deviations. ToRGB channels, which edits leave alone, are zero.

    Args:
        delta_t: (N, c_T), unit norm. styles: (B, c_S).
        noise: standard deviation of what is added to the styles, in theirs. samples: draws of it
            for each style. seed: of these draws, on the CPU: the same for any batch and device.
        batch: images at once; None takes what the free memory holds (``search.batching``).
        half: float16 for generator and encoder, float32 where that overflows; None: on a GPU. On
            the 64 px faces the cosine with the rows of float32 is .998 or more.

    Raises:
        InputError: unusable styles or numbers, or a single image does not fit into memory.
        FloatingPointError: a gradient is NaN or infinite.

    Cost: B * samples images, one pass forward and N backward. (All N backward at once, by
    ``is_grads_batched``, took twice as long on the CPU.)
    """
    if styles.ndim != 2 or styles.shape[1] != generator.num_styles or not len(styles):
        raise InputError(
            f"styles must have shape (B, {generator.num_styles}), got {tuple(styles.shape)}."
        )
    if not noise >= 0 or samples < 1 or (samples > 1 and not noise):
        raise InputError(
            "gradient directions need noise >= 0, samples >= 1 and, for more than one sample, "
            f"noise above 0; got noise {noise} and samples {samples}."
        )
    half = styles.is_cuda if half is None else half
    scale = generator.style_std * generator.editable
    drawn = torch.Generator().manual_seed(seed)
    total = styles.new_zeros(len(delta_t), styles.shape[1])
    with (
        frozen(generator, encoder),
        tqdm(total=len(styles) * samples, desc="gradients", unit="image") as bar,
    ):
        size = Batch.start(batch, generator, styles)
        for _ in range(samples):
            start = styles.detach()
            if noise:
                start = start + noise * scale * torch.randn(styles.shape, generator=drawn).to(start)

            def some(first: int, last: int, start=start) -> Tensor:
                found = _gradients(generator, encoder, delta_t, start[first:last], first, half)
                bar.update(last - first)
                return found

            for part in size.split(len(start), some, bar):
                total += part
    return F.normalize(total * scale, dim=1)


def _gradients(
    generator, encoder, delta_t: Tensor, styles: Tensor, first: int, half: bool
) -> Tensor:
    """Gradient (N, c_S) of CLIP(G(s))·Δt of each attribute, summed over the images."""
    with torch.enable_grad():
        leaf = styles.clone().requires_grad_(True)
        with half_autocast(styles.device, half):
            embedded = encoder.embed_images(generator.synthesize(leaf))
        scale = SCALE if half else 1
        scores = scale * embedded.to(delta_t) @ delta_t.T  # (B, N)
        found = torch.stack(
            [torch.autograd.grad(c.sum(), leaf, retain_graph=True)[0] for c in scores.T]
        )
    if half and not torch.isfinite(found).all():
        return _gradients(generator, encoder, delta_t, styles, first, False)
    values = {"gradient": found.transpose(0, 1)}
    check_finite(values, "of CLIP(G(s))·Δt", lambda row: f"image {first + row}")
    return found.sum(1) / scale
