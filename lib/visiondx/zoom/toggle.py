"""Is an attribute in the picture already, and how long must an edit be to switch it? CLIP says.

Both look at e(x)·Δt of an image: above 0, it fits the attribute's sentence better than the neutral
one. The truth that a diagnosis is held against switches an attribute off where it is and on where
it is not (``zoom.truth``); a search that begins so looks for the same thing. From the other side,
it could show nothing but its edit's side effects.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.errors import InputError
from visiondx.zoom.directions import Directions
from visiondx.zoom.estimate import CHANNELS, edit_directions

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
def stretches(
    generator,
    encoder,
    directions: Directions,
    styles: Tensor,
    weights: Sequence[float],
    gain: float = 2.0,
) -> dict[str, float]:
    """How many times longer than others an attribute's edit must be, to show.

    Some edits do much at a weight at which others are hardly seen, so that one weight for all
    measures the edits, and not the target. Here each attribute takes the least of the weights at
    which toggling changes its own score enough on average, or the largest if none does.

    Args:
        directions: N attributes. styles: (B, c_S), some dozen images.
        weights: ascending; the first has factor 1.
        gain: enough, in standard deviations of the score over the images. Between the means of two
            equally common classes lie at most two.

    Returns:
        Factors by attribute, for ``Directions.stretched``; 1 where the first weight is enough.

    Raises:
        InputError: weights that do not ascend from above 0, fewer than 2 images, or no encoder.
    """
    weights = [float(w) for w in weights]
    if not weights or weights[0] <= 0 or weights != sorted(set(weights)):
        raise InputError(f"weights must ascend from above 0, got {weights}.")
    if len(styles) < 2:
        raise InputError(f"A standard deviation needs 2 images or more, got {len(styles)}.")
    sides = toggles(generator, encoder, directions, styles)
    before = _scores(generator, encoder, directions, styles)
    enough = gain * before.std(0)
    found = {}
    for n, name in enumerate(tqdm(directions.attributes, desc="stretches", unit="attribute")):
        move = sides[:, n, None] * directions.delta_s[n].to(styles)
        for w in weights:
            after = _scores(generator, encoder, directions, styles + w * move)[:, n]
            if (sides[:, n] * (after - before[:, n])).mean() >= enough[n]:
                break
        found[name] = w / weights[0]
    return found


def world_stretches(
    world,
    attributes: Sequence[str],
    generator,
    encoder,
    M: Tensor | None = None,
    *,
    directions: str = "relevance",
    channels: int = CHANNELS,
    weights: Sequence[float],
    images: int = 48,
    seed: int = 3,
) -> dict[str, float]:
    """``stretches`` by the names of a world's attributes, from generated images of a tuning seed.

    Args:
        attributes: names, asked for in the world's plain prompts; a repeated one counts once.
        M, directions, channels: see ``zoom.diagnose``.
    """
    prompts = {world.prompt(name): name for name in attributes}
    edits = edit_directions(
        generator,
        encoder,
        list(prompts),
        world.grammar.neutral,
        directions,
        channels=channels,
        M=M,
    )
    found = stretches(generator, encoder, edits, generator.sample_styles(images, seed), weights)
    return {prompts[prompt]: factor for prompt, factor in found.items()}


def _scores(generator, encoder, directions: Directions, styles: Tensor) -> Tensor:
    """e(x)·Δt of B images and N attributes: (B, N)."""
    parts = styles.split(BATCH)
    e = torch.cat([encoder.embed_images(generator.synthesize(part)) for part in parts])
    return e @ directions.delta_t.to(e).T


def _sides(scores: Tensor) -> Tensor:
    return 1 - 2 * (scores > 0).float()
