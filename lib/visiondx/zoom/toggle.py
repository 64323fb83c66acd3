"""Is an attribute in the picture already, and which edit is enough to switch it? CLIP says.

Both look at e(x)·Δt of an image: above 0, it fits the attribute's sentence better than the neutral
one. The truth that a diagnosis is held against switches an attribute off where it is and on where
it is not (``zoom.truth``); a search that begins so looks for the same thing. From the other side,
it could show nothing but its edit's side effects.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from tqdm.auto import trange

from visiondx.errors import InputError
from visiondx.zoom.directions import Directions
from visiondx.zoom.estimate import edit_directions

BATCH = 64  # images at once, without gradient


@torch.no_grad()
def toggles(generator, encoder, directions: Directions, styles: Tensor) -> Tensor:
    """-1 where CLIP sees an attribute in an image, +1 where it does not: (B, N).

    Args:
        directions: N attributes. styles: (B, c_S).

    Raises:
        InputError: no encoder.
    """
    if encoder is None:
        raise InputError("toggle asks the encoder what is in the originals: pass one.")
    return _sides(_scores(generator, encoder, directions, styles)).to(styles.dtype)


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
    """For each attribute, the mildest edit with which CLIP sees it switched.

    Some edits do much at a weight at which others are hardly seen, so that one number of channels
    and one weight for all would measure the edits, and not the target. Here an attribute takes the
    first option with which toggling changes its own score e(x)·Δt enough on average over the
    images, or the last one if none does. No target is asked.

    Args:
        attributes, neutral, estimator, M: see ``edit_directions``.
        styles: (B, c_S), some dozen images.
        options: (channels, weight), the mildest first. Directions get such a length that a weight
            of ``options[0][1]`` is the chosen one.
        gain: enough, in standard deviations of the score over the images. Between the means of two
            equally common classes lie at most two.

    Raises:
        InputError: no options, a weight that is not above 0, fewer than 2 images, or unusable
            words or numbers of channels.
    """
    if not options or min(weight for _, weight in options) <= 0:
        raise InputError(f"options must hold (channels, weight) above 0, got {list(options)}.")
    if len(styles) < 2:
        raise InputError(f"A standard deviation needs 2 images or more, got {len(styles)}.")
    tried = {
        channels: edit_directions(
            generator, encoder, attributes, neutral, estimator, channels=channels, M=M
        )
        for channels in dict.fromkeys(channels for channels, _ in options)
    }
    any_edits, first = tried[options[0][0]], options[0][1]
    before = _scores(generator, encoder, any_edits, styles)
    sides, enough = _sides(before), gain * before.std(0)
    rows, lambdas = [], []
    for n in trange(len(attributes), desc="switching edits", unit="attribute"):
        for channels, weight in options:
            edit = weight * tried[channels].delta_s[n].to(styles)
            moved = styles + sides[:, n, None].to(styles) * edit
            after = _scores(generator, encoder, any_edits, moved)[:, n]
            if (sides[:, n] * (after - before[:, n])).mean() >= enough[n]:
                break
        rows.append(edit / first)
        lambdas.append(tried[channels].threshold[n])
    return replace(any_edits, delta_s=torch.stack(rows), threshold=tuple(lambdas))


def _scores(generator, encoder, directions: Directions, styles: Tensor) -> Tensor:
    """e(x)·Δt of B images and N attributes: (B, N)."""
    parts = styles.split(BATCH)
    e = torch.cat([encoder.embed_images(generator.synthesize(part)) for part in parts])
    return e @ directions.delta_t.to(e).T


def _sides(scores: Tensor) -> Tensor:
    return 1 - 2 * (scores > 0).float()
