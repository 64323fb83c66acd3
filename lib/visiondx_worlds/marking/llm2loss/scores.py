"""How good is a loss model? Its predictions against the truth, over S black boxes of one kind.

Every interval resamples the black boxes first and images (or pairs of sentences) second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.stats import kendalltau, pearsonr, spearmanr
from sklearn.metrics import roc_auc_score
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.core.stats import Estimate, bootstrap
from visiondx.llm2loss.model import LossModel
from visiondx.models.encoder import Encoder
from visiondx_worlds.marking.llm2loss.true_bias import TrueBias
from visiondx_worlds.marking.llm2loss.words import Words

MEASURES: dict[str, Callable] = {"Pearson": pearsonr, "Spearman": spearmanr, "Kendall": kendalltau}


def correlation(a: np.ndarray, b: np.ndarray, measure: str) -> float:
    """Of two (N,) arrays: "Pearson", "Spearman" or "Kendall" (tau-b); 0 where one is constant."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(MEASURES[measure](a, b).statistic)


def image_correlations(
    predicted: Tensor, losses: Tensor, n: int = 200, seed: int = 0
) -> dict[str, Estimate]:
    """Table 2: does the order of the images by prediction agree with that by true loss?

    Args:
        predicted, losses: (S, N). n: resamples.

    Returns:
        each measure's mean over the black boxes; its interval's n is the number of images.

    Raises:
        InputError: shapes that differ.
    """
    if predicted.shape != losses.shape or predicted.ndim != 2:
        raise InputError(
            f"Predictions {tuple(predicted.shape)} and losses {tuple(losses.shape)} must both be "
            "(S, N): one row a black box."
        )
    x, y = (t.double().numpy() for t in (predicted, losses))
    rng = np.random.default_rng(seed)
    count, images = x.shape
    found = {}
    for measure in MEASURES:
        value = np.mean([correlation(a, b, measure) for a, b in zip(x, y)])
        draws = []
        for boxes in rng.integers(count, size=(n, count)):
            rows = rng.integers(images, size=(count, images))
            each = [
                correlation(x[box, row], y[box, row], measure)
                for box, row in zip(boxes, rows, strict=True)
            ]
            draws.append(np.mean(each))
        found[measure] = _estimate(value, draws, images)
    return found


def bias_correlations(
    predicted: Tensor, bias: TrueBias, by: str = "auroc", n: int = 100, seed: int = 0
) -> dict[str, Estimate]:
    """Table 3: does the order of the attributes by predicted RMM agree with that by true RMM?

    Args:
        predicted: (S, A) for the attributes of `bias`. by: "auroc" or "loss", the true RMM's
            quality. n: resamples of the test images, with which the true RMM is measured anew.

    Returns:
        each measure's mean over the black boxes; its interval's n is the number of attributes.
    """
    true = bias.rmm(by)
    if predicted.shape != true.shape:
        raise InputError(
            f"Predictions {tuple(predicted.shape)} must be {tuple(true.shape)}: a black box a row, "
            "an attribute of the truth a column."
        )
    rng = np.random.default_rng(seed)
    count, images = bias.losses.shape
    draws: dict[str, list[float]] = {measure: [] for measure in MEASURES}
    for boxes in rng.integers(count, size=(n, count)):
        weights = np.bincount(rng.integers(images, size=images), minlength=images)
        again = bias.rmm(by, torch.as_tensor(weights).float())
        for measure, values in draws.items():
            values.append(_mean_correlation(predicted[boxes], again[boxes], measure))
    return {
        measure: _estimate(_mean_correlation(predicted, true, measure), values, true.shape[1])
        for measure, values in draws.items()
    }


def _mean_correlation(predicted: Tensor, true: Tensor, measure: str) -> float:
    rows = zip(predicted.double().numpy(), true.double().numpy(), strict=True)
    return float(np.mean([correlation(a, b, measure) for a, b in rows]))


def _estimate(value: float, draws: Sequence[float], n: int) -> Estimate:
    kept = np.asarray(draws)[np.isfinite(draws)]
    low, high = np.quantile(kept, [0.025, 0.975])
    return Estimate(float(value), float(low), float(high), n)


def phrasings(
    words: Words, names: Sequence[str], present: bool, count: int, seed: int, heldout: bool
) -> list[str]:
    """`count` phrasings of each attribute, or of its absence: attribute by attribute."""
    return [
        words.prompt(name, present, seed=seed + k, heldout=heldout)
        for name in names
        for k in range(count)
    ]


def predicted_gaps(
    model: LossModel,
    words: Words,
    names: Sequence[str],
    count: int,
    seed: int = 0,
    heldout: bool = True,
) -> Tensor:
    """How much worse each attribute is than its absence, by words alone: (E, A), each member's.

    Scores are averaged over `count` phrasings of the grammar.
    """
    sides = []
    for present in (True, False):
        members = model.ask(phrasings(words, names, present, count, seed, heldout)).members
        sides.append(members.unflatten(1, (len(names), count)).mean(2))
    return model.sign * (sides[0] - sides[1])


def zero_shot_auroc(
    encoder: Encoder,
    embeddings: Tensor,
    labels: Tensor,
    words: Words,
    names: Sequence[str],
    count: int,
    seed: int = 0,
    heldout: bool = True,
) -> dict[str, float]:
    """Table 5's last column: can the encoder tell images with an attribute from those without?

    The score is sim(I, "<attribute>") - sim(I, its absence), averaged over `count` phrasings.

    Args:
        embeddings: (N, D) of the images. labels: (N, A) bool, a column for each of `names`.
    """
    with torch.no_grad():
        sides = [
            encoder.embed_texts(phrasings(words, names, present, count, seed, heldout))
            for present in (True, False)
        ]
    directions = (sides[0] - sides[1]).unflatten(0, (len(names), count)).mean(1).cpu()
    scores = embeddings @ directions.T
    return {
        name: float(roc_auc_score(labels[:, k].numpy(), scores[:, k].numpy()))
        for k, name in enumerate(names)
    }


def sign_accuracy(right: np.ndarray, agree: np.ndarray, boxes: np.ndarray) -> dict[str, Estimate]:
    """Are comparisons right, and where all members agree?

    Args:
        right, agree: (P,) bool, of each comparison. boxes: (P,) which black box it is about.

    Returns:
        "sign_accuracy" where all members agree, "confident_share" of those, "all_accuracy".

    Raises:
        InputError: the members agree nowhere.
    """
    if not agree.any():
        raise InputError("The members agree on no pair: ask more pairs, or fewer members.")
    rows = np.stack([right, agree], 1).astype(float)
    return {
        "sign_accuracy": bootstrap(rows, _of_agreed, groups=boxes),
        "confident_share": bootstrap(rows[:, 1], groups=boxes),
        "all_accuracy": bootstrap(rows[:, 0], groups=boxes),
    }


def _of_agreed(rows: np.ndarray) -> float:
    agreed = rows[:, 1] > 0
    return rows[agreed, 0].mean() if agreed.any() else np.nan
