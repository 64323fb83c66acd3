"""How good a segmenter is on renders, whose masks are known.

Two questions: of pictures that show a thing, how well its mask fits (IoU); and of those that do
not, how much of them is called it all the same (false area).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from tqdm.auto import tqdm

from visiondx.core.errors import InputError
from visiondx.core.seeds import step_seed
from visiondx.core.stats import Estimate, bootstrap
from visiondx.models.segmenter import Segmenter, Segments
from visiondx_worlds.quality.worlds import DRAWS
from visiondx_worlds.training.painter_autoencoder import sample_rows
from visiondx_worlds.worlds import animals, faces, scenes
from visiondx_worlds.worlds.things import THINGS, Truth, truth

_PICTURES = 1_310_000  # renders of this measurement are drawn apart from every other draw
BATCH = 32  # pictures at once: their maps of all things are 31 MB, of which several are needed


@dataclass(frozen=True)
class MaskMarks:
    """What masks of T things on N pictures have in common with the truth.

    both, either: (N, T) pixels of intersection and union, 0 where the thing is not present. area:
    (N, T) share of the picture that the mask covers. scores: (N, T). present, absent: (N, T) bool;
    neither, where the truth is unknown or too small to be seen.
    """

    both: np.ndarray
    either: np.ndarray
    area: np.ndarray
    scores: np.ndarray
    present: np.ndarray
    absent: np.ndarray

    @classmethod
    def of(cls, found: Segments, known: Truth) -> MaskMarks:
        """Of pictures that were asked about every thing, in the order of THINGS.

        A pixel is part of a thing in truth if at least half of it is covered.
        """
        masks, true = found.masks.cpu(), known.masks >= 0.5
        present = known.present
        parts = (
            (masks & true).sum((2, 3)) * present,
            (masks | true).sum((2, 3)) * present,
            found.shares,
            found.scores,
            present,
            known.absent,
        )
        return cls(*(part.cpu().numpy() for part in parts))

    @classmethod
    def empty(cls, pictures: int) -> MaskMarks:
        """Of so many pictures of which nothing is known."""
        numbers = [np.zeros((pictures, len(THINGS))) for _ in range(4)]
        return cls(*numbers, *(np.zeros((pictures, len(THINGS)), bool) for _ in range(2)))

    @staticmethod
    def cat(parts: Sequence[MaskMarks]) -> MaskMarks:
        """The pictures of all, one after another."""
        names = MaskMarks.__dataclass_fields__
        return MaskMarks(*(np.concatenate([getattr(p, n) for p in parts]) for n in names))

    def only(self, things: Sequence[str]) -> MaskMarks:
        """Of these things alone."""
        columns = [list(THINGS).index(thing) for thing in things]
        parts = {n: getattr(self, n)[:, columns] for n in self.__dataclass_fields__}
        return replace(self, **parts)

    def ious(self) -> np.ndarray:
        """(T,): intersection over union, over the pixels of all pictures that show the thing.

        NaN for a thing that none shows.
        """
        return _ratio(self.both.sum(0), self.either.sum(0))

    def iou(self) -> Estimate:
        """Mean over things of ``ious``; the interval resamples pictures.

        Raises:
            InputError: no picture shows any of the things.
        """
        if not self.present.any():
            raise InputError("None of these renders shows a thing: use more of them.")
        return _mean_ratio(self.both, self.either)

    def false_areas(self) -> np.ndarray:
        """(T,): mean share that the mask covers of the pictures without the thing; NaN if none."""
        return _ratio((self.area * self.absent).sum(0), self.absent.sum(0))

    def false_area(self) -> Estimate:
        """Mean over things of ``false_areas``; the interval resamples pictures.

        Raises:
            InputError: every picture shows all of the things.
        """
        if not self.absent.any():
            raise InputError("Every render shows all of these things: use more of them.")
        return _mean_ratio(self.area * self.absent, self.absent)

    def recognised(self, least: float) -> np.ndarray:
        """(T,): mean of the shares of scores that are right where the thing is present (at least
        `least`) and where it is absent (below); NaN where only one of the two occurs.
        """
        there = self.scores >= least
        seen = _ratio((there & self.present).sum(0), self.present.sum(0))
        unseen = _ratio((~there & self.absent).sum(0), self.absent.sum(0))
        return (seen + unseen) / 2


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return part / np.where(whole > 0, whole, np.nan)


def _mean_ratio(part: np.ndarray, whole: np.ndarray) -> Estimate:
    """Of (N, T) each: the mean over things of the ratio of their sums over pictures."""
    things = part.shape[1]

    def mean(some: np.ndarray) -> float:
        total = some.sum(0)
        return float(np.nanmean(_ratio(total[:things], total[things:])))

    return bootstrap(np.concatenate([part, whole], 1).astype(float), mean, n=DRAWS)


def mark_renders(segmenter: Segmenter, images: int, seed: int) -> MaskMarks:
    """Marks on fresh renders, `images` of each world (scenes as the painter sees them).

    A thing's words take turns from batch to batch, so that synonyms are measured as well.
    """
    return _marked(segmenter, images, seed, [(segmenter.threshold, segmenter.least)])[0]


def calibrated(segmenter: Segmenter, images: int, seed: int) -> Segmenter:
    """The same with the `threshold` of the best mean IoU and the `least` of the best recognition.

    Tried are 0.3 to 0.7, on `images` renders of each world: take another seed than for marks.
    """
    values = [k / 20 for k in range(6, 15)]
    marks = _marked(segmenter, images, seed, [(value, 0.0) for value in values])
    whole = dict(zip(values, marks, strict=True))
    threshold = max(values, key=lambda value: np.nanmean(whole[value].ious()))
    least = max(values, key=lambda value: np.nanmean(whole[threshold].recognised(value)))
    return Segmenter(segmenter.module, segmenter.known, threshold=threshold, least=least)


def _marked(
    segmenter: Segmenter, images: int, seed: int, settings: Sequence[tuple[float, float]]
) -> list[MaskMarks]:
    """Marks for each setting (threshold, least), of the same answers.

    The marks are allocated before the first map: small arrays that are made between large ones and
    kept split what these leave free, so that memory would grow by gigabytes.
    """
    whole = [MaskMarks.empty(3 * images) for _ in settings]
    for row, found, known in _answers(segmenter, images, seed):
        for marks, (threshold, least) in zip(whole, settings, strict=True):
            part = MaskMarks.of(replace(found, threshold=threshold, least=least), known)
            for name in MaskMarks.__dataclass_fields__:
                some = getattr(part, name)
                getattr(marks, name)[row : row + len(some)] = some
    return whole


def _answers(segmenter: Segmenter, images: int, seed: int) -> Iterator[tuple[int, Segments, Truth]]:
    """The first picture's number, answers and truth, a batch at a time."""
    for k, world in enumerate((scenes, faces, animals)):
        rows = sample_rows(world, images, step_seed(_PICTURES, 3 * seed + k))
        batches = list(rows.split(BATCH))
        for number, some in enumerate(tqdm(batches, desc=f"{world.name} segmented")):
            words = [each[number % len(each)] for each in THINGS.values()]
            found = segmenter(world.render(some), words)
            yield k * images + number * BATCH, found, truth(world, some)
