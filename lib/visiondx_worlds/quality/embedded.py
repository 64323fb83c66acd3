"""How good the embedded models are: the measurements behind ``train/quality``.

Each takes tensors, arrays or one model, and gives plain numbers or an `Estimate`, so that it can be
worked out by hand for a small case.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from scipy.linalg import cho_factor, cho_solve, eigh, eigvalsh
from scipy.stats import rankdata
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.core.files import data_dir, reading
from visiondx.core.stats import Estimate, bootstrap
from visiondx_worlds.training.encoder_scores import attribute_scores, embed_renders

RIDGES = (30.0, 300.0, 3000.0)  # tried in a linear probe

BY_EYE_IMAGES = 104  # generated images that were labelled by eye


# ---------------------------------------------------------------- several cases, several seeds


def worst(estimates: Mapping[str, Estimate], *, best: bool = False) -> Estimate:
    """The estimate with the smallest value (``best``: the largest)."""
    return (max if best else min)(estimates.values(), key=lambda estimate: estimate.value)


def worst_seed(
    values: np.ndarray, seeds: np.ndarray, statistic: Callable = np.mean, *, best: bool = False
) -> Estimate:
    """The statistic of the seed where it is smallest (``best``: largest), over that seed's rows.

    Args:
        values: (N,) or (N, columns). seeds: (N,) of each row.
    """
    each = {seed: statistic(values[seeds == seed]) for seed in np.unique(seeds)}
    seed = (max if best else min)(each, key=each.get)
    return bootstrap(values[seeds == seed], statistic)


def images_per_second(world: object, batch: int = 256, repeats: int = 10) -> np.ndarray:
    """(repeats,) speeds of ``world.render``, a warm-up not counted."""
    attributes, speeds = world.sample(batch, 100), []
    with torch.no_grad():
        for _ in range(repeats + 1):
            start = time.perf_counter()
            world.render(attributes)
            speeds.append(batch / (time.perf_counter() - start))
    return np.array(speeds[1:])


# ---------------------------------------------------------------- the world: a linear probe


@torch.no_grad()
def pixel_probe(
    world: object,
    train: int = 4000,
    test: int = 2000,
    seed: int = 100,
) -> tuple[np.ndarray, np.ndarray]:
    """What ridge regression from raw pixels makes of each attribute, on fresh renders.

    The targets are -1 and 1. A quarter of the training renders is held back to choose the ridge of
    each attribute and its threshold, halfway between the two classes' mean answers.

    Returns:
        right, truth: (test, A) bool, see `balanced`.
    """
    attributes = world.sample(train + test, seed)
    x = world.render(attributes).flatten(1)
    truth = world.labels(attributes).numpy()
    x -= x[:train].mean(0)
    fit, y = train - train // 4, truth * 2.0 - 1
    gram = (x @ x[:train].T).double().numpy()  # (train + test, train)

    def answers(rows: slice, upto: int, ridge: float) -> np.ndarray:
        mean = y[:upto].mean(0)
        factor = cho_factor(gram[:upto, :upto] + ridge * np.eye(upto), overwrite_a=True)
        return gram[rows, :upto] @ cho_solve(factor, y[:upto] - mean) + mean

    held = slice(fit, train)
    tried = np.stack([answers(held, fit, ridge) for ridge in RIDGES])  # (R, held, A)
    on = truth[held]
    middle = (_class_mean(tried, on) + _class_mean(tried, ~on)) / 2  # (R, A)
    right = (tried > middle[:, None]) == on
    best = ((_class_mean(right, on) + _class_mean(right, ~on)) / 2).argmax(0)  # (A,)
    found = np.stack([answers(slice(train, None), train, ridge) for ridge in RIDGES])
    columns = np.arange(truth.shape[1])
    said = found[best, :, columns].T > middle[best, columns]
    return said == truth[train:], truth[train:]


def _class_mean(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Mean of (R, N, A) over the chosen (N, A) rows: (R, A)."""
    return (values * chosen).sum(1) / np.maximum(chosen.sum(0), 1)


def balanced(rows: np.ndarray) -> float:
    """Balanced accuracy of rows (right, truth): the mean of the two classes' accuracies."""
    right, truth = rows[:, 0], rows[:, 1] > 0
    return float(np.mean([right[side].mean() for side in (truth, ~truth) if side.any()]))


# ---------------------------------------------------------------- the encoder: AUROC


def auroc(rows: np.ndarray) -> float:
    """Area under the ROC curve of rows (truth, score, score, …), the mean over the score columns.

    The chance that a random positive scores above a random negative, ties counting half; NaN if
    one side is missing.
    """
    positive = rows[:, 0] > 0
    p, n = positive.sum(), (~positive).sum()
    if not p or not n:
        return float("nan")
    ranks = rankdata(rows[:, 1:], axis=0)[positive].sum(0)
    return float(((ranks - p * (p + 1) / 2) / (p * n)).mean())


def zero_shot(
    encoder: object, world: object, images: int, seeds: Sequence[int], **settings: object
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The encoder's scores of fresh renders of each seed, as `auroc` takes them.

    Args:
        settings: phrasings, heldout, see `training.encoder_scores.attribute_scores`.

    Returns:
        attribute -> rows (N, 1 + phrasings); the seed of each row (N,).
    """
    parts = [attribute_scores(encoder, world, images, seed, **settings) for seed in seeds]
    scores = torch.cat([score for score, _ in parts], 1).permute(2, 1, 0)  # (A, N, phrasings)
    labels = torch.cat([label for _, label in parts]).T[..., None].to(scores)
    rows = torch.cat([labels, scores], 2).double().numpy()
    return dict(zip(world.binary, rows, strict=True)), np.repeat(np.array(seeds), images)


def class_found(
    held: Mapping[str, np.ndarray], classes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Which class scores highest in the answers of `zero_shot`, and which is there.

    Returns:
        said (N, phrasings) and truth (N,): indices into ``classes``.
    """
    rows = np.stack([held[name] for name in classes])  # (classes, N, 1 + phrasings)
    return rows[..., 1:].argmax(0), rows[..., 0].argmax(0)


@torch.no_grad()
def world_found(
    encoder: object, worlds: Sequence, images: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which world's neutral sentences a render is nearest to, on average, and which it is from.

    Returns: said and truth (len(worlds) * images,), indices into ``worlds``.
    """
    names = [sorted({world.neutral(s) for s in range(48)}) for world in worlds]
    means = torch.stack([encoder.embed_texts(texts).cpu().mean(0) for texts in names])
    means = torch.nn.functional.normalize(means, dim=1)
    seen = [embed_renders(encoder, world, world.sample(images, seed)) for world in worlds]
    said = (torch.cat(seen) @ means.T).argmax(1)
    return said.numpy(), np.repeat(np.arange(len(worlds)), images)


# ---------------------------------------------------------------- the generator: shares, Fréchet


def share_ratio(labels: Tensor, abstain: Tensor, share: Tensor) -> list[Estimate]:
    """Judged share of each attribute in samples over its share in renders, an Estimate each.

    Args:
        labels, abstain: (B, A) bool from ``Judges.read``; what the judges abstain on is left out.
        share: (A,) in renders.

    Raises:
        InputError: an attribute that no render has, or on which the judges always abstain.
    """
    counted = ~abstain.numpy()
    if not counted.any(0).all() or not (share > 0).all():
        raise InputError(
            "A share ratio needs, for each attribute, samples that the judges agree on and renders "
            "that have it: use more images."
        )
    return [
        bootstrap(label[keep] / float(whole))
        for label, keep, whole in zip(labels.numpy().T, counted.T, share, strict=True)
    ]


def frechet(mean_a: np.ndarray, cov_a: np.ndarray, mean_b: np.ndarray, cov_b: np.ndarray) -> float:
    """Squared Fréchet distance of two Gaussians (Dowson and Landau, 1982; FID's formula).

    |μa - μb|² + tr(Σa + Σb - 2 (Σa Σb)^½). The trace of the root is the sum of the root
    eigenvalues of √Σa Σb √Σa, which is symmetric: no complex numbers arise.
    """
    values, vectors = eigh(cov_a)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    cross = np.sqrt(eigvalsh(root @ cov_b @ root).clip(0)).sum()
    return float(((mean_a - mean_b) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """`frechet` of Gaussians fitted to two sets of features (N, D) and (M, D)."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise InputError(
            "A Fréchet distance needs two or more rows of the same features on both sides, got "
            f"{tuple(a.shape)} and {tuple(b.shape)}."
        )
    a, b = a.double().numpy(), b.double().numpy()
    return frechet(a.mean(0), np.cov(a, rowvar=False), b.mean(0), np.cov(b, rowvar=False))


# ---------------------------------------------------------------- the judges: labels made by eye


@dataclass(frozen=True)
class ByEye:
    """What a person saw on the generated images."""

    index: Tensor  # (N,) which of the images
    labels: Tensor  # (N, A) 1, 0, or NaN where the person could not tell


def read_by_eye(binary: Sequence[str], path: Path | None = None) -> ByEye:
    """Labels made by eye: a CSV with the column ``index`` and one an attribute: 0, 1 or empty.

    Args:
        binary: the attributes, in the order of the columns that are wanted.
        path: default data/labels/faces_by_eye.csv.

    Raises:
        InputError: no such file, a missing column, another value, or an index that is repeated or
            beyond the images.
    """
    path = path or data_dir() / "labels" / "faces_by_eye.csv"
    if not path.is_file():
        raise InputError(
            f"No labels made by eye at {path}: look at the {BY_EYE_IMAGES} generated images of "
            "train/02_judges and write them down, a row an image, 0, 1 or nothing an attribute."
        )
    with reading(path, "restore it with 'git checkout data'"):
        table = pd.read_csv(path)
    missing = [name for name in ("index", *binary) if name not in table]
    if missing:
        raise InputError(f"{path} has no column {', '.join(missing)}: add it.")
    try:
        index, labels = table["index"].to_numpy(int), table[list(binary)].to_numpy(float)
    except ValueError as error:
        raise InputError(f"{path} holds something other than numbers ({error}).") from error
    if len(set(index)) < len(index) or not np.isin(index, range(BY_EYE_IMAGES)).all():
        raise InputError(
            f"{path}: each index must occur once and lie in 0 … {BY_EYE_IMAGES - 1}: correct it."
        )
    if not np.isin(labels[~np.isnan(labels)], (0, 1)).all():
        raise InputError(f"{path} holds other labels than 0, 1 and nothing: correct it.")
    return ByEye(torch.tensor(index), torch.tensor(labels))


def by_eye_images(path: Path | None = None) -> Tensor:
    """The generated images that were labelled, (104, 3, 64, 64), kept as one grid of 13 a row.

    They are kept as pixels, so that the labels stay true when a generator is trained anew.
    """
    return tiles(path or data_dir() / "labels" / "faces_by_eye.png", BY_EYE_IMAGES)


def tiles(path: Path, count: int) -> Tensor:
    """(count, 3, 64, 64) in [0, 1]: the first pictures of a file that is a grid of them.

    Raises:
        InputError: no such file, a damaged one, or one of fewer pictures.
    """
    if not path.is_file():
        raise InputError(f"No labelled images at {path}: restore it with 'git checkout data'.")
    with reading(path, "restore it with 'git checkout data'"), Image.open(path) as image:
        grid = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1) / 255
    parts = grid.unfold(1, 64, 64).unfold(2, 64, 64)  # (3, rows, columns, 64, 64)
    found = parts.permute(1, 2, 0, 3, 4).reshape(-1, 3, 64, 64)
    if len(found) < count:
        raise InputError(f"{path} holds {len(found)} pictures, not {count}: restore it.")
    return found[:count]


def agreement(labels: Tensor, abstain: Tensor, seen: Tensor) -> np.ndarray:
    """Where judges and eye agree: (N, A) 1 or 0, NaN where either of them would not say.

    Args:
        labels, abstain: (N, A) bool from ``Judges.read``. seen: (N, A) of `ByEye`.
    """
    same = (labels == (seen > 0.5)).double()
    return same.masked_fill(abstain | seen.isnan(), float("nan")).numpy()
