"""Counterfactual search along single edit directions (ZOOM, section 3.3), as one batch of pairs.

Every (image, attribute) pair has one scalar w; `zoom.multi` moves all attributes of an image
together. The equations are in `zoom.descent`.
"""

from collections.abc import Sequence
from dataclasses import asdict

import torch
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.zoom.descent import (
    Consistency,
    Objective,
    SearchSettings,
    check_styles,
    descend,
    frozen,
    gradient_step,
)
from visiondx.zoom.directions import Directions
from visiondx.zoom.result import SearchResult

__all__ = ["Consistency", "SearchSettings", "frozen", "gradient_step", "search"]


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
        encoder: used for the consistency prompts only; may be None without them.
        directions: N attributes. styles: (B, c_S) of the original images.
        consistency: (present, absent) prompts of the target's own attribute (Eq. 8), or None.
        seed: where the styles came from; kept with the result.

    Raises:
        InputError: styles of the wrong shape, impossible settings or consistency prompts.
        FloatingPointError: a NaN or infinity, with its step and its term.
    """
    settings = settings or SearchSettings()
    check_styles(styles, directions)
    styles = styles.detach()
    hold = Consistency(encoder, consistency) if consistency and settings.gamma else None
    pairs = len(styles) * len(directions) * len(settings.starts)
    chunks = []
    with (
        frozen(generator, target, encoder),
        tqdm(total=pairs * (settings.steps + 1), desc="search", unit="image") as bar,
    ):
        for first in range(0, len(styles), settings.batch):
            some = styles[first : first + settings.batch]
            objective = Objective(generator, target, some, settings, hold, first)
            chunks.append((objective.p.cpu(), *_search(objective, directions, some, first, bar)))
    p_original, w, p = zip(*chunks, strict=True)
    return SearchResult.from_trajectories(
        directions=directions,
        styles=styles.cpu(),
        p_original=torch.cat(p_original),
        trajectory_w=torch.cat(w, 1),
        trajectory_p=torch.cat(p, 1),
        settings=asdict(settings),
        consistency=tuple(consistency) if consistency else None,
        seed=seed,
        generator=generator,
    )


def _search(
    objective: Objective, directions: Directions, styles: Tensor, first: int, bar: tqdm
) -> tuple[Tensor, Tensor]:
    """w and p of every step (T + 1, B, N), on the CPU, of a few images with all attributes."""
    settings = objective.settings
    shape = (len(styles), len(directions), len(settings.starts))
    delta_s = directions.delta_s.to(styles)
    paths = []
    for pairs in torch.arange(shape[0] * shape[1] * shape[2], device=styles.device).split(
        settings.batch
    ):
        image, attribute, start = torch.unravel_index(pairs, shape)
        own_styles, own_delta = styles[image], delta_s[attribute]

        def edit(w, rows, own_styles=own_styles, own_delta=own_delta):  # Eq. 3
            return own_styles[rows] + w[:, None] * own_delta[rows]

        def place(row, image=image, attribute=attribute):
            return f"{directions.attributes[attribute[row]]!r}, image {first + int(image[row])}"

        w = styles.new_tensor(settings.starts)[start]
        paths.append(descend(objective.index(image), w, edit, place, bar))
    w, p = (torch.cat(path, 1).unflatten(1, shape) for path in zip(*paths, strict=True))
    reached = (p - objective.p[:, None, None]).abs().amax(0)  # (B, N, starts)
    best = reached.argmax(2)[None, :, :, None].expand(len(w), -1, -1, 1)
    return tuple(path.gather(3, best).squeeze(3).cpu() for path in (w, p))
