"""Whether a painter paints what its prompts ask for, in the eyes of the judges.

A picture counts as right where both judges see what was asked for; where they disagree they
abstain, which counts as wrong. Intervals resample the noise of the pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from visiondx.core.stats import Estimate, bootstrap
from visiondx.models.painter import Painter
from visiondx_worlds.quality.worlds import DRAWS
from visiondx_worlds.worlds.scenes import CLASSES, FACTORS, scenes

BASE = "base"


@dataclass(frozen=True)
class Painted:
    """Every prompt with every seed, and what both judges see of what was asked.

    prompts: P texts. seeds: S. images: (P, S, 3, H, W) in [0, 1], on the CPU.
    right: {what was asked: (P, S) of 1, 0, and NaN where a prompt does not ask for it}.
    """

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    images: Tensor
    right: Mapping[str, np.ndarray]

    def share(self, *asked: str, rows: Sequence[int] | None = None) -> Estimate:
        """Mean over prompts of the share of pictures that show all of `asked`.

        Prompts that ask for none of them count nowhere; seeds are resampled.

        Args:
            rows: of the prompts, all of them without it.
        """
        table = np.stack([self.right[name] for name in asked])
        if rows is not None:
            table = table[:, list(rows)]
        table = table[:, ~np.isnan(table).all((0, 2))]
        both = np.where(np.isnan(table), 1.0, table).min(0)  # (P, S)
        return bootstrap(both.T, lambda part: float(np.mean(part)), n=DRAWS)


def paint_scenes(
    painter: Painter,
    judges: object,
    prompts: Sequence[tuple[str, str, str]],
    seeds: Sequence[int],
    **settings: object,
) -> Painted:
    """Scenes of a class under a shift, or under none.

    Args:
        judges: of the scenes. prompts: some of ``scene_prompts``. settings: of
            ``Painter.generate``, such as the steps.

    Returns:
        right["class"], and right["shift"], which prompts of no shift do not ask for.
    """
    images = painter.generate([text for *_, text in prompts], seeds, **settings)
    said = judges.answers(images.flatten(0, 1))
    shape = images.shape[:2]

    def both(group: str, wanted: list[int]) -> np.ndarray:
        truth = torch.tensor(wanted).repeat_interleave(shape[1])
        return (said[group] == truth).all(0).view(shape).numpy().astype(float)

    shifts = np.full(tuple(shape), np.nan)
    for factor, (values, _) in FACTORS.items():
        rows = [k for k, (_, shift, _) in enumerate(prompts) if shift in values[1:]]
        wanted = [values.index(shift) if shift in values else 0 for _, shift, _ in prompts]
        shifts[rows] = both(factor, wanted)[rows]
    kinds = [CLASSES.index(kind) for kind, *_ in prompts]
    right = {"class": both("class", kinds), "shift": shifts}
    return Painted(tuple(text for *_, text in prompts), tuple(seeds), images, right)


def scene_prompts() -> list[tuple[str, str, str]]:
    """Every class under every shift, in the words of Dataset Interfaces' Table 1.

    Returns:
        (class, shift, prompt), the shifts of a class together, ``BASE`` first.
    """
    return [
        (kind, shift, scenes.grammar.table1(shift, kind).lower())
        for kind in CLASSES
        for shift in (BASE, *scenes.shifts)
    ]


def paint_attributes(
    painter: Painter, judges: object, world: object, seeds: Sequence[int], **settings: object
) -> Painted:
    """Each yes-or-no attribute of a world asked for, and then each asked to be away.

    Returns:
        right[attribute]: of its two prompts; all others are NaN.
    """
    names = world.binary
    prompts = [world.prompt(name, present) for present in (True, False) for name in names]
    images = painter.generate(prompts, seeds, **settings)
    said = judges.answers(images.flatten(0, 1))["binary"]  # (2, P S, A)
    said = said.unflatten(1, images.shape[:2])
    right = {}
    for k, name in enumerate(names):
        column = said[..., judges.column(name)]  # (2, P, S)
        table = np.full(tuple(images.shape[:2]), np.nan)
        table[k] = column[:, k].all(0).numpy()
        table[k + len(names)] = (~column[:, k + len(names)]).all(0).numpy()
        right[name] = table
    return Painted(tuple(prompts), tuple(seeds), images, right)


def spread(values: Callable[[Tensor], np.ndarray], painted: Tensor, true: Tensor) -> Estimate:
    """How much pictures of one prompt differ, over how much the world's do.

    The ratio of standard deviations of each of V measured values, capped at 1 so that disorder in
    one cannot make up for sameness in another, and the mean over values; one that never differs in
    the world is left out.

    Args:
        values: images (N, 3, H, W) -> (N, V). painted, true: (N, 3, H, W), of one prompt.
    """
    one, two = values(painted), values(true)
    one, two = one[:, two.std(0) > 0], two[:, two.std(0) > 0]
    return bootstrap(
        one, lambda rows: float((rows.std(0) / two.std(0)).clip(max=1).mean()), n=DRAWS
    )
