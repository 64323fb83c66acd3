"""The truth about a sentence where nothing can be drawn: the loss on the images that match it.

Such images differ from others in all that goes along with the words, and not only in what they say.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx_worlds.marking.llm2loss.truth import PairTruth, Sentence, matching


def found_truth(
    losses: Tensor,
    labels: Tensor,
    names: Sequence[str],
    pairs: Sequence[tuple[Sentence, Sentence]],
) -> PairTruth:
    """Mean losses of all images that match each sentence, and what is certain of their difference.

    An image may match both sentences of a pair; it then counts for both, and the standard error of
    the difference takes account of it. Without such images it is Welch's.

    Args:
        losses: (S, N) nats. labels: (N, A) bool, a column for each of `names`.

    Raises:
        InputError: a sentence that fewer than two images match.
    """
    found = []
    for pair in pairs:
        sides = [matching(labels, names, sentence.given) for sentence in pair]
        for sentence, rows in zip(pair, sides, strict=True):
            if rows.sum() < 2:
                raise InputError(
                    f"{int(rows.sum())} images match {sentence.text!r}: two are needed for a mean "
                    "with an error."
                )
        found.append(_difference(losses.double(), *sides))
    means, error = (torch.stack(part, 1) for part in zip(*found))
    difference = means[..., 0] - means[..., 1]
    return PairTruth(means.float(), difference.float(), difference.abs() > 1.96 * error)


def _difference(losses: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Mean losses (S, 2) on rows a and b, (N,) bool each, and (S,) the error of their difference.

    The mean over n rows moves by (l - mean) / n with each of them, an image in both rows by the
    difference of two such terms; the squares add up to the variance.
    """
    means, moves = [], []
    for rows in (a, b):
        n = rows.sum()
        means.append(losses[:, rows].mean(1))
        moves.append(rows * (losses - means[-1][:, None]) / (n * (n - 1)) ** 0.5)
    return torch.stack(means, 1), (moves[0] - moves[1]).square().sum(1).sqrt()
