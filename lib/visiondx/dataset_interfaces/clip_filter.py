"""Which images show both their class and the shift, by CLIP (section 3.1, appendix A.3).

An image is kept where sim(image, c_class) >= t_class and sim(image, c_shift) >= t_shift, the cosine
of CLIP's embeddings. t_class is the 20th percentile over real images of the class. t_shift belongs
to the encoder: of the paper's CLIP it is in Table 1; of another it is chosen by eye (`near`), or
calibrated on images that somebody has judged (`calibrate`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.core.errors import InputError
from visiondx.core.stats import Estimate, bootstrap, proportion
from visiondx.dataset_interfaces.folders import ImagesByClass, by_class
from visiondx.dataset_interfaces.shifts import SHIFTS, Shift
from visiondx.models.encoder import Encoder
from visiondx.models.images import Source, batches

CLASS_PERCENTILE = 20
PERCENTILES = tuple(range(0, 100, 5))  # that A.3 looks at
ACCEPTED = 0.95  # share of the kept images that must show the shift
LEAST = 20  # images that a share is taken of
BATCH = 256


@torch.no_grad()
def embedded(source: Source, encoder: Encoder, desc: str = "CLIP") -> Tensor:
    """Images of files, data sets or tensors -> their embeddings (N, D), unit rows, on the CPU.

    Args:
        source: see ``models.images.batches``.

    Raises:
        InputError: nothing to embed, or an image that cannot be read, by its name.
    """
    parts, number = batches(source, BATCH, encoder.preprocess)
    hidden = number is not None and number < 2  # a bar of one step tells nothing
    found = []
    for part in tqdm(parts, total=number, desc=desc, disable=hidden):
        images, why = part.load()
        for item, said in why.items():
            raise InputError(f"{part.names[item]} cannot be read ({said}): repair or remove it.")
        found.append(encoder.embed_images(images.to(encoder.mean.device)).cpu())
    if not found:
        raise InputError("There is no image to embed: the iterator gave no batch.")
    return torch.cat(found)


@torch.no_grad()
def similarities(embeddings: Tensor, captions: Sequence[str], encoder: Encoder) -> Tensor:
    """Cosine of each image with its own caption: (N, D), N texts -> (N,). Texts may repeat."""
    texts = list(dict.fromkeys(captions))
    words = encoder.embed_texts(texts).cpu()
    row = {text: k for k, text in enumerate(texts)}
    return (embeddings * words[torch.tensor([row[text] for text in captions])]).sum(1)


def class_scores(
    embeddings: Tensor, classes: Sequence[str], shift: Shift, encoder: Encoder
) -> np.ndarray:
    """(N,) sim(image, c_class), each image with the caption of its own class of N."""
    said = [shift.class_caption(name) for name in classes]
    return similarities(embeddings, said, encoder).double().numpy()


def shift_scores(embeddings: Tensor, shift: Shift, encoder: Encoder) -> np.ndarray:
    """(N,) sim(image, c_shift); NaN where the shift has no caption, as `base` has none."""
    if not shift.caption:
        return np.full(len(embeddings), np.nan)
    return similarities(embeddings, [shift.caption] * len(embeddings), encoder).double().numpy()


def spoken(classes: Sequence[str], words: Mapping[str, str] | None) -> list[str]:
    """What captions and prompts call each class: its words, or else its name, "_" for a space."""
    return [(words or {}).get(name) or name.replace("_", " ") for name in classes]


@dataclass(frozen=True)
class ClipFilter:
    """The thresholds of one encoder.

    photo, style: {class: t_class}, for "a photo of a <class>" and for an art style's "a <class>".
    shift: {shift's name: t_shift}. encoder: its fingerprint.
    """

    photo: Mapping[str, float]
    style: Mapping[str, float]
    encoder: str
    shift: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def fit(
        cls,
        images: ImagesByClass | Mapping[str, Tensor],
        encoder: Encoder,
        words: Mapping[str, str] | None = None,
        percentile: float = CLASS_PERCENTILE,
    ) -> ClipFilter:
        """t_class of each class, from real images of it: the paper's are of the validation set.

        Args:
            images: a ``ClassFolder``, or {class: (n, 3, S, S) in [0, 1]}.
            words: {class: what captions call it}; a class that is not there by its own name.

        Raises:
            InputError: no class, too few images of one, or no percentile.
        """
        if not 0 <= percentile < 100:
            raise InputError(f"percentile must be 0 or more and below 100, got {percentile}.")
        data = by_class(images)
        labels = data.labels.tolist()
        own = [spoken(data.classes, words)[label] for label in labels]
        found = embedded(data.batches(BATCH), encoder, "real images")
        limits = []
        for shift in (SHIFTS[0], next(shift for shift in SHIFTS if shift.style)):
            scores, rows = class_scores(found, own, shift, encoder), data.labels.numpy()
            cut = [np.percentile(scores[rows == c], percentile) for c in range(len(data.classes))]
            limits.append(dict(zip(data.classes, map(float, cut), strict=True)))
        return cls(*limits, encoder=encoder.fingerprint)

    def with_shift(self, shift: Shift, threshold: float | None = None) -> ClipFilter:
        """The same with t_shift of one shift.

        Args:
            threshold: as chosen by eye or by ``calibrate``; without it that of Table 1, which
                holds for the paper's CLIP alone (OpenCLIP's ViT-H/14).

        Raises:
            InputError: no threshold was given and Table 1 has none, or one that no cosine reaches.
        """
        value = shift.threshold if threshold is None else float(threshold)
        if value is None:
            raise _none(shift)
        if not -1 <= value <= 1:
            raise InputError(
                f"A threshold is a cosine, from -1 to 1, got {value} for {shift.name}."
            )
        return replace(self, shift={**self.shift, shift.name: value})

    def keeps(
        self, shift: Shift, classes: Sequence[str], of_class: ArrayLike, of_shift: ArrayLike
    ) -> np.ndarray:
        """(N,) bool: which images pass both thresholds; `base` asks for the class alone.

        Args:
            classes: N names. of_class, of_shift: (N,) similarities.

        Raises:
            InputError: a shift or a class without a threshold.
        """
        self.check(shift, classes)
        limits = self.style if shift.style else self.photo
        kept = np.asarray(of_class) >= np.array([limits[name] for name in classes], dtype=float)
        if shift.caption:
            kept &= np.asarray(of_shift) >= self.shift[shift.name]
        return kept

    def check(self, shift: Shift, classes: Sequence[str]) -> None:
        """Raise InputError where a threshold is lacking."""
        unknown = sorted(set(classes) - set(self.photo))
        if unknown:
            raise InputError(
                f"There is no threshold for the class {unknown[0]!r}: fit the filter on real "
                f"images of it; it knows {', '.join(self.photo)}."
            )
        if shift.caption and shift.name not in self.shift:
            raise _none(shift)


def _none(shift: Shift) -> InputError:
    return InputError(
        f"The shift {shift.name!r} has no threshold: give one with ClipFilter.with_shift, chosen "
        "by eye (clip_filter.near) or calibrated on judged images (clip_filter.calibrate)."
    )


# Choosing t_shift.
def near(scores: ArrayLike, percentiles: Sequence[float] = PERCENTILES, count: int = 8) -> Tensor:
    """Rows of the images with similarities around each percentile, to be looked at (A.3).

    The threshold by eye is the similarity at the lowest percentile at which all of them show the
    shift: ``np.percentile(scores, percentile)``.

    Args:
        scores: (N,) similarities to c_shift of all images painted under the shift.
        count: images a percentile, at most N.

    Returns:
        (P, count) int64, the least similar first.
    """
    values = _finite(scores)
    order = np.argsort(values, kind="stable")
    count = min(count, len(values))
    middle = np.asarray(percentiles, dtype=float) / 100 * (len(values) - 1)
    first = np.clip(np.round(middle - (count - 1) / 2), 0, len(values) - count).astype(int)
    return torch.from_numpy(order[first[:, None] + np.arange(count)])


@dataclass(frozen=True)
class Calibration:
    """How t_shift was found.

    threshold: t_shift. percentile: of the calibration images at which it lies. accepted: the share
        of the images from there up that show the shift. reached: whether that is what was wanted;
        else no percentile has it, and this is the one with the largest share.
    """

    threshold: float
    percentile: float
    accepted: Estimate
    reached: bool


def calibrate(
    scores: ArrayLike,
    accepted: ArrayLike,
    percentiles: Sequence[float] = PERCENTILES,
    share: float = ACCEPTED,
    least: int = LEAST,
) -> Calibration:
    """t_shift: the lowest percentile from which on `share` of the images show the shift.

    Appendix A.3 with judges in the place of eyes: they look at all images that the threshold would
    keep, and one in twenty may fail, for judges err too.

    Args:
        scores: (N,) similarities to c_shift of calibration images: of seeds that nothing is
            reported on.
        accepted: (N,) bool, whether the shift is seen in each.
        least: images that must be left above a percentile for it to count.

    Raises:
        InputError: not one answer a score, fewer than `least` images, or no images that show it.
    """
    values, seen = _finite(scores), np.asarray(accepted)
    if seen.shape != values.shape or seen.dtype != bool:
        raise InputError(
            f"accepted must be ({len(values)},) bool, one answer a similarity, got {seen.shape} "
            f"{seen.dtype}."
        )
    if len(values) < least:
        raise InputError(
            f"{len(values)} calibration images are too few: paint {least} or more, or choose the "
            "threshold by eye."
        )
    if not seen.any():
        raise InputError(
            "None of the calibration images shows the shift: no threshold can help; reword the "
            "shift, or leave it out."
        )
    found = []
    for percentile in sorted(percentiles):
        limit = float(np.percentile(values, percentile))
        above = values >= limit
        if above.sum() >= least:
            found.append(Calibration(limit, float(percentile), proportion(seen[above]), True))
    for each in found:
        if each.accepted.value >= share:
            return each
    if not found:
        raise InputError(f"No percentile of {list(percentiles)} leaves {least} images: lower them.")
    return replace(max(found, key=lambda each: each.accepted.value), reached=False)


def _finite(scores: ArrayLike) -> np.ndarray:
    values = np.asarray(scores, dtype=float)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise InputError(
            f"Similarities to a shift must be (N,) finite numbers, got {values.shape}: `base` has "
            "none, and needs no threshold."
        )
    return values


# How good the filter is.
def quality(kept: ArrayLike, right: ArrayLike, seed: int = 0) -> dict[str, Estimate]:
    """What filtering gains and costs, against a given truth; images are resampled.

    Args:
        kept: (N,) bool, passed the filter. right: (N,) bool, shows class and shift.

    Returns:
        "yield" share kept; "before" share right of all; "precision" share right of the kept;
        "precision_gain" their difference; "recall" share kept of the right. NaN, n = 0, where there
        is nothing to take a share of.

    Raises:
        InputError: not (N,) bool both, or no image.
    """
    kept, right = np.asarray(kept), np.asarray(right)
    if kept.shape != right.shape or kept.ndim != 1 or {kept.dtype, right.dtype} != {np.dtype(bool)}:
        raise InputError(
            f"kept and right must be (N,) bool, got {kept.shape} {kept.dtype} and {right.shape} "
            f"{right.dtype}."
        )
    if not len(kept):
        raise InputError("There is no image to judge the filter by: generate some.")
    nothing = Estimate(np.nan, np.nan, np.nan, 0)
    gain = nothing
    if kept.any():
        rows = np.column_stack([kept, right]).astype(float)
        gain = bootstrap(rows, _gain, seed=seed)
    return {
        "yield": proportion(kept),
        "before": proportion(right),
        "precision": proportion(right[kept]) if kept.any() else nothing,
        "precision_gain": gain,
        "recall": proportion(kept[right]) if right.any() else nothing,
    }


def _gain(rows: np.ndarray) -> float:
    kept = rows[:, 0] > 0
    return float(rows[kept, 1].mean() - rows[:, 1].mean()) if kept.any() else np.nan
