"""Multi-attribute counterfactuals (ZOOM, section 4.4): all weights of an image move together."""

from collections.abc import Sequence
from dataclasses import asdict

import torch
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.core.errors import InputError
from visiondx.search.batching import Batch
from visiondx.search.descent import trajectory
from visiondx.search.objective import frozen
from visiondx.zoom.directions import Directions
from visiondx.zoom.multi_result import MultiResult, effect
from visiondx.zoom.objective import Consistency, Counterfactual, Originals, check_styles
from visiondx.zoom.settings import SearchSettings
from visiondx.zoom.tasks import task_of

__all__ = ["SETTINGS", "MultiResult", "SearchSettings", "multi_search"]

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
    check_styles(styles, directions)
    if settings.toggle:
        raise InputError("Many attributes move together from one start: set toggle=False.")
    styles = styles.detach()
    hold = Consistency(encoder, consistency) if consistency and settings.gamma else None
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
    return MultiResult.from_trajectories(
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
