"""Whether a painter paints what its prompts ask for, in the eyes of the judges.

A picture counts as right where both judges see what was asked for; where they disagree they
abstain, which counts as wrong. Intervals resample the noise of the pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from visiondx.core.stats import Estimate, bootstrap
from visiondx.models.painter import Painter
from visiondx.models.segmenter import Segmenter
from visiondx_worlds.quality.worlds import DRAWS
from visiondx_worlds.training.painter_pool import told
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
    painter: Painter,
    judges: object,
    world: object,
    seeds: Sequence[int],
    names: Sequence[str] | None = None,
    **settings: object,
) -> Painted:
    """Each yes-or-no attribute of a world asked for, and then each asked to be away.

    Prompts are as the painter is told the world: "a portrait of a cat", see ``painter_pool.told``.

    Args:
        names: of the attributes, all of them without it. settings: of ``Painter.generate``.

    Returns:
        right[attribute]: of its two prompts; all others are NaN.
    """
    names = world.binary if names is None else names
    frame = told(world).templates(heldout=False)[0]
    prompts = [
        frame.format(world.prompt(name, present)) for present in (True, False) for name in names
    ]
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


def diversity(
    segmenter: Segmenter, painted: Tensor, true: Tensor, words: Sequence[str]
) -> Estimate:
    """How much pictures of one prompt differ in the object's size, place, pose and colour, over how
    much the world's do: ``spread`` of ``object_values``, seen by the segmenter in both.

    Args:
        painted: (P, S, 3, H, W). true: (P, N, 3, H, W), of the same words. words: P of them.
    """
    return spread(*(object_values(segmenter, images, words) for images in (painted, true)))


def object_values(segmenter: Segmenter, images: Tensor, words: Sequence[str]) -> np.ndarray:
    """Of the object in each picture: its share of the picture, centre (x, y), pose and mean colour.

    The pose is the mask's width over its height (the log of its deviations' ratio), its slant (the
    correlation of x and y) and the side to which it leans (the skewness of x).

    Args:
        images: (P, S, 3, H, W), pictures of P words.

    Returns:
        (S, P, 9); NaN where the segmenter sees no object.
    """
    rows = zip(images, words, strict=True)
    masks = torch.stack([segmenter(part, [word]).masks[:, 0].double() for part, word in rows])
    total = masks.sum((2, 3), keepdim=True)
    weight = masks / total  # NaN without a pixel
    ticks = [torch.linspace(0, 1, side, dtype=torch.float64) for side in masks.shape[2:]]
    y, x = torch.meshgrid(*ticks, indexing="ij")

    def mean(value: Tensor) -> Tensor:
        return (weight * value).sum((2, 3), keepdim=True)

    dx, dy = x - mean(x), y - mean(y)
    sx, sy = (mean(d.square()).sqrt().clamp(min=1e-3) for d in (dx, dy))
    found = [
        masks.mean((2, 3), keepdim=True).where(total > 0, torch.nan),
        mean(x),
        mean(y),
        (sx / sy).log(),
        mean(dx * dy) / (sx * sy),
        mean(dx**3) / sx**3,
        *(mean(images[:, :, channel].double()) for channel in range(3)),
    ]
    return torch.cat(found, 2).squeeze(3).transpose(0, 1).numpy()


def spread(painted: np.ndarray, true: np.ndarray) -> Estimate:
    """Standard deviation over pictures, painted over true: the mean over prompts and values.

    Each ratio is capped at 1, so that disorder in one value cannot make up for sameness in another.
    What never differs in the world is left out; a prompt whose object is never seen has 0.

    Args:
        painted, true: (S, P, V) and (N, P, V); NaN where there is nothing to measure.
    """
    wide = _deviation(true)
    used = wide > 0

    def mean(rows: np.ndarray) -> float:
        ratio = _deviation(painted[rows[:, 0].astype(int)])[used] / wide[used]
        return float(ratio.clip(max=1).mean())

    return bootstrap(np.arange(len(painted))[:, None], mean, n=DRAWS)


def _deviation(values: np.ndarray) -> np.ndarray:
    """Over the first axis, of what is not NaN; 0 where there is nothing."""
    seen = ~np.isnan(values)
    count = seen.sum(0).clip(min=1)
    filled = np.where(seen, values, 0.0)
    centred = np.where(seen, filled - filled.sum(0) / count, 0.0)
    return np.sqrt((centred**2).sum(0) / count)
