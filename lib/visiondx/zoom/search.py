"""Counterfactual search along single edit directions (ZOOM, section 3.3), as one batch of pairs.

Every (image, attribute) pair has one scalar w; `zoom.multi` moves all attributes of an image
together. What is minimised is in `zoom.objective`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial

import torch
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.core.errors import InputError
from visiondx.search.batching import Batch
from visiondx.search.descent import trajectory
from visiondx.search.objective import frozen
from visiondx.zoom.directions import Directions
from visiondx.zoom.objective import Consistency, Counterfactual, Originals, check_styles
from visiondx.zoom.result import SearchResult
from visiondx.zoom.settings import SearchSettings
from visiondx.zoom.tasks import task_of
from visiondx.zoom.toggle import check_encoder, toggles

__all__ = ["SearchSettings", "search", "search_pairs"]


def search(
    generator,
    target,
    encoder,
    directions: Directions,
    styles: Tensor,
    settings: SearchSettings | None = None,
    consistency: Sequence[str] | None = None,
    seed: int | None = None,
) -> SearchResult:
    """For every image and attribute, the edit weight that moves the target most.

    Args:
        generator: ``synthesize(styles) -> images``. target: ``logit(images) -> (B,)``, see Target.
        encoder: used for consistency prompts and ``settings.toggle``; may be None without them.
        directions: N attributes. styles: (B, c_S) of the original images.
        consistency: (present, absent) prompts of the target's own attribute (Eq. 8), or None.
        seed: where the styles came from; kept with the result.

    Raises:
        InputError: styles of the wrong shape, impossible settings or consistency prompts, toggle
            without an encoder, or a single image does not fit into memory.
        FloatingPointError: a NaN or infinity, with its step and its term.
    """
    settings = settings or SearchSettings()
    check_styles(styles, directions)
    styles = styles.detach()
    delta_s = directions.delta_s.to(styles)
    sides = None
    if settings.toggle:
        check_encoder(encoder)
        sides = partial(toggles, encoder, directions.delta_t)
    p_original, w, p = search_pairs(
        generator,
        target,
        encoder,
        directions.attributes,
        styles,
        lambda w, image, attribute: styles[image] + w[:, None] * delta_s[attribute],  # Eq. 3
        settings,
        consistency,
        sides,
    )
    return SearchResult.from_trajectories(
        directions=directions,
        styles=styles.cpu(),
        p_original=p_original,
        trajectory_w=w,
        trajectory_p=p,
        settings=asdict(settings),
        consistency=tuple(consistency) if consistency else None,
        seed=seed,
        generator=generator,
        task=task_of(target),
    )


def search_pairs(
    generator,
    target,
    encoder,
    attributes: Sequence[str],
    styles: Tensor,
    edit: Callable[[Tensor, Tensor, Tensor], Tensor],
    settings: SearchSettings,
    consistency: Sequence[str] | None = None,
    sides: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """f(x) (B,), and w and f(x̂) of every step (T + 1, B, N) of all pairs, on the CPU.

    Each pair goes through all starts, and keeps the path with the most counterfactual step.

    Args:
        attributes: their N names, for messages. styles: (B, …) of the originals, anything that
            ``generator.synthesize`` takes.
        edit: (w, image, attribute), (R,) each -> styles (R, …) of these pairs' x̂; image and
            attribute are indices.
        sides: images -> (R, N), what ``toggle`` multiplies the starts by.

    Raises:
        InputError: toggle without sides; see also ``search``.
    """
    if settings.toggle and sides is None:
        raise InputError("Only a search by words knows what CLIP sees: set toggle=False.")
    hold = Consistency(encoder, consistency) if consistency and settings.gamma else None
    pairs = len(styles) * len(attributes) * len(settings.starts)
    with (
        frozen(generator, target, encoder),
        tqdm(total=pairs * (settings.steps + 1), desc="search", unit="image") as bar,
    ):
        batch = Batch.start(settings.batch, generator, styles)

        def some(first: int, last: int) -> tuple[Tensor, Tensor, Tensor]:
            own = styles[first:last]
            originals = Originals(generator, target, own, settings, hold, first, sides)
            return originals.p.cpu(), *_search(originals, attributes, edit, first, batch, bar)

        chunks = batch.split(len(styles), some, bar)
    p_original, w, p = zip(*chunks, strict=True)
    return torch.cat(p_original), torch.cat(w, 1), torch.cat(p, 1)


def _search(
    originals: Originals,
    attributes: Sequence[str],
    edit: Callable,
    first: int,
    batch: Batch,
    bar: tqdm,
) -> tuple[Tensor, Tensor]:
    """w and p of every step (T + 1, B, N), on the CPU, of the images from ``first`` on."""
    settings, p_original = originals.settings, originals.p
    shape = (len(p_original), len(attributes), len(settings.starts))
    pairs = torch.arange(math.prod(shape), device=p_original.device)

    def some(start: int, stop: int) -> tuple[Tensor, Tensor]:
        image, attribute, begin = torch.unravel_index(pairs[start:stop], shape)

        def move(w, rows):
            return edit(w, first + image[rows], attribute[rows])

        def place(row):
            return f"{attributes[attribute[row]]!r}, image {first + int(image[row])}"

        w = p_original.new_tensor(settings.starts)[begin]
        if originals.sides is not None:
            w = w * originals.sides[image, attribute]
        objective = Counterfactual(originals.index(image), move)
        return trajectory(objective, w, settings.descent, place, bar)

    paths = batch.split(len(pairs), some, bar)
    w, p = (torch.cat(path, 1).unflatten(1, shape) for path in zip(*paths, strict=True))
    reached = (p - p_original[:, None, None]).abs().amax(0)  # (B, N, starts)
    best = reached.argmax(2)[None, :, :, None].expand(len(w), -1, -1, 1)
    return tuple(path.gather(3, best).squeeze(3).cpu() for path in (w, p))
