"""Is an attribute in the picture already, and which edit is enough to switch it? CLIP says.

Both questions are put to e(x)·Δt of an image: above 0, it fits the attribute's sentence better than
the neutral one. The truth that a diagnosis is held against switches an attribute off where it is,
and on where it is not. A search that begins with such a switch looks for the same thing; one that
begins by taking away what is not there could show nothing but the edit's side effects.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from tqdm.auto import trange

from visiondx.core.errors import InputError
from visiondx.zoom.directions import Directions, from_relevance, text_directions, threshold_for
from visiondx.zoom.estimate import edit_relevance, settle

BATCH = 64  # images at once, without gradient


@torch.no_grad()
def toggles(encoder, delta_t: Tensor, images: Tensor) -> Tensor:
    """-1 where CLIP sees an attribute in an image, +1 where it does not: (B, N).

    Args:
        delta_t: (N, c_T). images: (B, 3, H, W).
    """
    e = encoder.embed_images(images)
    return _sides(e @ delta_t.to(e).T)


@torch.no_grad()
def clip_scores(generator, encoder, delta_t: Tensor, styles: Tensor, batch: int = BATCH) -> Tensor:
    """e(x)·Δt of the images of B styles (B, c_S) and N attributes (N, c_T): (B, N)."""
    parts = styles.split(batch)
    e = torch.cat([encoder.embed_images(generator.synthesize(part)) for part in parts])
    return e @ delta_t.to(e).T


@torch.no_grad()
def switching_edits(
    generator,
    encoder,
    attributes: Sequence[str],
    neutral: str,
    styles: Tensor,
    options: Sequence[tuple[int, float]],
    *,
    gain: float = 1.3,
    estimator: str = "relevance",
    M: Tensor | None = None,
) -> Directions:
    """For each of N attributes, the mildest edit that, to CLIP, does enough towards its other side.

    Some edits do much at a weight at which others are hardly seen, so that one number of channels
    and one weight for all would measure the edits, and not the target. Here an attribute takes the
    first option with which toggling changes its own score e(x)·Δt enough on average over the
    images, or the last one if none does. No target is asked.

    Args:
        attributes, neutral, estimator, M: see ``edit_directions``.
        styles: (B, c_S), some dozen images.
        options: (channels, weight), the mildest first.
        gain: enough, in standard deviations of the score over the images. If half of the images
            have an attribute, the means of those with it and without lie at most two apart.

    Returns:
        Directions, delta_s (N, c_S), of such lengths that ``options[0][1]`` is each attribute's
        weight: start there. For others than the first option, w then counts not one standard
        deviation, but as many as their weight is larger.

    Raises:
        InputError: options that are no such pairs, a gain that is not above 0, fewer than 2
            images, no encoder, or unusable words or numbers of channels.
    """
    check_encoder(encoder)
    _check_options(options)
    if not gain > 0:
        raise InputError(f"gain must be above 0, got {gain}.")
    if len(styles) < 2:
        raise InputError(f"A standard deviation needs 2 images or more, got {len(styles)}.")
    delta_t = text_directions(encoder, attributes, neutral)
    estimator, M = settle(generator, encoder, estimator, M)
    strength = edit_relevance(generator, encoder, delta_t, estimator, M)
    make = partial(from_relevance, strength, attributes, neutral, delta_t, generator.style_std)
    tried = {
        channels: make(threshold_for(strength, channels), estimator=estimator)
        for channels in sorted({channels for channels, _ in options}, reverse=True)
    }
    before = clip_scores(generator, encoder, delta_t, styles)
    sides, enough = _sides(before), gain * before.std(0)
    rows, lambdas = [], []
    for n in trange(len(attributes), desc="switching edits", unit="attribute"):
        for channels, weight in options:
            edit = weight * tried[channels].delta_s[n]
            moved = styles + sides[:, n, None].to(styles) * edit.to(styles)
            after = clip_scores(generator, encoder, delta_t[n : n + 1], moved)[:, 0]
            if (sides[:, n] * (after - before[:, n])).mean() >= enough[n]:
                break
        rows.append(edit / options[0][1])
        lambdas.append(tried[channels].threshold[n])
    mildest = tried[options[0][0]]
    return replace(mildest, delta_s=torch.stack(rows), threshold=tuple(lambdas))


def check_encoder(encoder) -> None:
    """Raise InputError where there is none."""
    if encoder is None:
        raise InputError("CLIP is asked what is in the originals: pass an encoder.")


def _check_options(options: Sequence[tuple[int, float]]) -> None:
    """Raise InputError unless these are (channels, weight) pairs, one or more, all above 0."""
    pairs = [option for option in options if isinstance(option, Sequence) and len(option) == 2]
    if not pairs or len(pairs) < len(options) or min(map(min, pairs)) <= 0:
        raise InputError(
            f"options must be (channels, weight) pairs above 0, the mildest first, got {options}."
        )


def _sides(scores: Tensor) -> Tensor:
    return 1 - 2 * (scores > 0).float()
