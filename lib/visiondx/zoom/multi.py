"""Multi-attribute counterfactuals (ZOOM, section 4.4): all weights of an image move together."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.core.errors import InputError
from visiondx.search.batching import Batch
from visiondx.search.descent import descend, trajectory
from visiondx.search.objective import frozen
from visiondx.zoom.directions import Directions
from visiondx.zoom.multi_result import MultiResult, effect
from visiondx.zoom.objective import Consistency, Counterfactual, Originals, check_styles
from visiondx.zoom.settings import SearchSettings
from visiondx.zoom.tasks import task_of

__all__ = ["SETTINGS", "MultiResult", "SearchSettings", "multi_search", "multi_steps"]

# Together the attributes need no push to start: of many slopes at 0, some are not flat.
SETTINGS = SearchSettings(steps=25, starts=(0.0,))


def multi_search(
    generator,
    target,
    encoder,
    directions: Directions,
    styles: Tensor,
    settings: SearchSettings = SETTINGS,
    consistency: Sequence[str] | None = None,
    seed: int | None = None,
) -> MultiResult:
    """For every image, the weights of all attributes together that move the target most.

    Args:
        generator: ``synthesize(styles) -> images``. target: ``logit(images) -> (B,)``, see Target.
        encoder: used for the consistency prompts only; may be None without them.
        directions: N attributes. styles: (B, c_S) of the original images.
        settings: a start is that of all N weights.
        consistency: (present, absent) prompts of the target's own attribute (Eq. 8), or None.
        seed: where the styles came from; kept with the result.

    Raises:
        InputError: styles of the wrong shape, impossible settings or consistency prompts, or a
            single image does not fit into memory.
        FloatingPointError: a NaN or infinity, with its step and its term.
    """
    styles, hold = _checked(encoder, directions, styles, settings, consistency)
    images = len(styles) * len(settings.starts)
    with (
        frozen(generator, target, encoder),
        tqdm(total=images * (settings.steps + 1), desc="multi search", unit="image") as bar,
    ):

        def some(first: int, last: int) -> tuple[Tensor, Tensor, Tensor]:
            own = styles[first:last]
            originals = Originals(generator, target, own, settings, hold, first)
            return originals.p.cpu(), *_search(originals, directions, own, first, bar)

        chunks = Batch.start(settings.batch, generator, styles).split(len(styles), some, bar)
    p_original, w, p = (torch.cat(parts) for parts in zip(*chunks, strict=True))
    about = _about(generator, target, directions, styles, settings, consistency, seed)
    return MultiResult.from_trajectories(
        p_original=p_original, trajectory_w=w, trajectory_p=p, **about
    )


def multi_steps(
    generator,
    target,
    encoder,
    directions: Directions,
    styles: Tensor,
    settings: SearchSettings = SETTINGS,
    consistency: Sequence[str] | None = None,
    seed: int | None = None,
) -> Iterator[MultiResult]:
    """``multi_search`` of a single image from a single start, as it goes on.

    Yields:
        after every step, from the start on, the result of the path so far; the last is that of
        ``multi_search``. Whoever watches may stop at any.

    Raises:
        InputError: as ``multi_search``; more images or starts than one.
        FloatingPointError: as ``multi_search``.
    """
    styles, hold = _checked(encoder, directions, styles, settings, consistency)
    if len(styles) != 1 or len(settings.starts) != 1:
        raise InputError(
            f"A search is watched of one image from one start, not of {len(styles)} from "
            f"{len(settings.starts)}: use multi_search."
        )
    about = _about(generator, target, directions, styles, settings, consistency, seed)
    delta_s = directions.delta_s.to(styles)
    path: list[tuple[Tensor, Tensor]] = []
    with frozen(generator, target, encoder):
        originals = Originals(generator, target, styles, settings, hold, 0)
        objective = Counterfactual(originals, lambda w, rows: styles[rows] + w @ delta_s)  # Eq. 3
        start = styles.new_full((1, len(directions)), settings.starts[0])
        for at in descend(objective, start, settings.descent, "image {}".format):
            path.append((at.variable.cpu(), at.reading.cpu()))
            w, p = (torch.stack(part, 1) for part in zip(*path, strict=True))
            yield MultiResult.from_trajectories(
                p_original=originals.p.cpu(), trajectory_w=w, trajectory_p=p, **about
            )


def _checked(
    encoder,
    directions: Directions,
    styles: Tensor,
    settings: SearchSettings,
    consistency: Sequence[str] | None,
) -> tuple[Tensor, Consistency | None]:
    check_styles(styles, directions)
    if settings.toggle:
        raise InputError("Many attributes move together from one start: set toggle=False.")
    hold = Consistency(encoder, consistency) if consistency and settings.gamma else None
    return styles.detach(), hold


def _about(generator, target, directions, styles, settings, consistency, seed) -> dict[str, Any]:
    """What a result says of how it was made."""
    return {
        "directions": directions,
        "styles": styles.cpu(),
        "settings": asdict(settings),
        "consistency": tuple(consistency) if consistency else None,
        "seed": seed,
        "generator": generator,
        "task": task_of(target),
    }


def _search(
    originals: Originals, directions: Directions, styles: Tensor, first: int, bar: tqdm
) -> tuple[Tensor, Tensor]:
    """w (B, T + 1, N) and p (B, T + 1) of a few images, each on the path from its best start."""
    delta_s = directions.delta_s.to(styles)
    objective = Counterfactual(originals, lambda w, rows: styles[rows] + w @ delta_s)  # Eq. 3
    settings, paths = originals.settings, []
    for start in settings.starts:
        w, p = trajectory(
            objective,
            styles.new_full((len(styles), len(directions)), start),
            settings.descent,
            lambda row: f"image {first + row}",
            bar,
        )
        paths.append((w.transpose(0, 1).cpu(), p.T.cpu()))
    w, p = (torch.stack(path) for path in zip(*paths, strict=True))
    best = effect(p, originals.p.cpu(), originals.original.task).amax(2).argmax(0)  # (B,)
    rows = torch.arange(len(best))
    return w[best, rows], p[best, rows]
