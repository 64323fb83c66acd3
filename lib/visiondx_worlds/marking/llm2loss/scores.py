"""How good is a loss model? Its predictions against the truth, over S black boxes of one kind.

Intervals are about these black boxes and new images (or pairs of sentences), which all boxes see.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from scipy.stats import kendalltau, pearsonr, spearmanr
from sklearn.metrics import roc_auc_score
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.core.stats import Estimate, bootstrap, crossed
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

    def each(counts: np.ndarray) -> dict[str, np.ndarray]:
        drawn = [np.repeat(np.arange(len(row)), row) for row in counts]
        return _correlations([[(a[rows], b[rows]) for rows in drawn] for a, b in zip(x, y)])

    return crossed(each, [x.shape[1]], n, seed)


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

    def each(counts: np.ndarray) -> dict[str, np.ndarray]:
        true = [bias.rmm(by, weights).double().numpy() for weights in torch.tensor(counts).float()]
        boxes = enumerate(predicted.double().numpy())
        return _correlations([[(row, again[box]) for again in true] for box, row in boxes])

    found = crossed(each, [bias.losses.shape[1]], n, seed)
    return {measure: replace(estimate, n=true.shape[1]) for measure, estimate in found.items()}


def _correlations(pairs: list[list[tuple[np.ndarray, np.ndarray]]]) -> dict[str, np.ndarray]:
    """{measure: (S, R)} of S black boxes in R draws."""
    return {
        measure: np.array([[correlation(a, b, measure) for a, b in row] for row in pairs])
        for measure in MEASURES
    }


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


def sign_accuracy(right: Tensor, confident: Tensor, known: Tensor) -> dict[str, Estimate]:
    """Are comparisons right, and are they where the ensemble is confident?

    Args:
        right, confident, known: (S, P) bool, of each comparison: S black boxes answer P pairs.
            Those whose truth is not known do not count.

    Returns:
        "confident_share", "all_accuracy", and, if any comparison is confident, "sign_accuracy" of
        those; n is the number of comparisons. Intervals resample pairs, each with all black boxes.

    Raises:
        InputError: shapes that differ, or no truth that is known.
    """
    if not right.shape == confident.shape == known.shape or right.ndim != 2:
        raise InputError(
            f"right {tuple(right.shape)}, confident {tuple(confident.shape)} and known "
            f"{tuple(known.shape)} must all be (S, P): a black box a row, a pair a column."
        )
    if not known.any():
        raise InputError("The truth is known of no pair: draw more pairs, or more images for each.")
    pairs = known.nonzero()[:, 1].numpy()
    rows = torch.stack([right[known], confident[known]], 1).double().numpy()
    found = {
        "confident_share": bootstrap(rows[:, 1], groups=pairs),
        "all_accuracy": bootstrap(rows[:, 0], groups=pairs),
    }
    if rows[:, 1].any():
        found["sign_accuracy"] = bootstrap(rows, _of_confident, groups=pairs)
    return found


def _of_confident(rows: np.ndarray) -> float:
    confident = rows[:, 1] > 0
    return rows[confident, 0].mean() if confident.any() else np.nan
