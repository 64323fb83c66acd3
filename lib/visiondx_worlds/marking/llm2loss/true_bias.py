"""The true bias of a black box: how much worse it does with an attribute than without.

Rawlsian max-min (RMM; LLM2Loss, section 4.2.2): |quality with - quality without|, where quality is
the AUROC of verification by identity, or, beside it, the mean loss.

A verification trial is an image and a claim to be one of the classes; its score is the black box's
log-probability of that class. Every image of a group is tried against every class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.models.target import Target
from visiondx_worlds.marking.llm2loss.black_box import Labelled, log_probabilities

_LEAST = 2  # images with an attribute, and without it


@dataclass(frozen=True)
class TrueBias:
    """What is needed to measure the bias of S black boxes on N images, resampled or not."""

    attributes: tuple[str, ...]  # A of the world's binary attributes
    labels: Tensor  # (N, A) bool
    losses: Tensor  # (S, N) cross-entropy in nats
    wins: Tensor  # (S, N, N): share of image j's false claims that image i's true one outscores

    def auroc(self, weights: Tensor | None = None) -> Tensor:
        """AUROC of verification within each group: (S, A, 2), with and without.

        Args:
            weights: (N,) how often each image counts, as in a bootstrap; None counts each once.
        """
        groups = self._groups(weights)
        total = groups.sum(2)
        won = torch.stack([((groups @ w) * groups).sum(2) for w in self.wins])
        return won / total.square()

    def loss(self, weights: Tensor | None = None) -> Tensor:
        """Mean loss of each group, (S, A, 2), with and without; weights as in `auroc`."""
        groups = self._groups(weights)
        return torch.einsum("abn,sn->sab", groups, self.losses) / groups.sum(2)

    def rmm(self, by: str = "auroc", weights: Tensor | None = None) -> Tensor:
        """|with - without|: (S, A), by "auroc" or by "loss"."""
        if by not in ("auroc", "loss"):
            raise InputError(f"RMM by {by!r} is unknown: choose auroc or loss.")
        values = self.auroc(weights) if by == "auroc" else self.loss(weights)
        return (values[..., 0] - values[..., 1]).abs()

    def _groups(self, weights: Tensor | None) -> Tensor:
        """(A, 2, N) weights of the images with and without each attribute."""
        sides = torch.stack([self.labels, ~self.labels], 0).permute(2, 0, 1).float()
        return sides if weights is None else sides * weights


def true_bias(
    targets: Mapping[str, Target], examples: Labelled, names: tuple[str, ...]
) -> TrueBias:
    """Try every image against every class, with each target.

    Args:
        names: the columns of ``examples.labels``, the world's binary attributes.

    Returns:
        the bias on those attributes that some images show and some do not.

    Raises:
        InputError: no attribute divides the images.
    """
    shown = examples.labels.sum(0)
    kept = ((shown >= _LEAST) & (len(examples) - shown >= _LEAST)).nonzero()[:, 0].tolist()
    if not kept:
        raise InputError(f"No attribute divides these {len(examples)} images: give more images.")
    losses, wins = [], []
    for target in targets.values():
        log_p = log_probabilities(target, examples)
        losses.append(-log_p.gather(1, examples.answers[:, None])[:, 0])
        wins.append(claim_wins(log_p, examples.answers))
    return TrueBias(
        tuple(names[k] for k in kept),
        examples.labels[:, kept],
        torch.stack(losses),
        torch.stack(wins),
    )


def claim_wins(scores: Tensor, answers: Tensor) -> Tensor:
    """Share of the false claims of image j that the true claim of image i outscores; ties half.

    Args:
        scores: (N, K) of every claim. answers: (N,) int64, which claim is true.

    Returns:
        (N, N) float32, row i, column j.
    """
    true = scores.gather(1, answers[:, None])[:, 0]
    against = scores.sort(1).values  # (N, K), image j's claims
    asked = true.expand(len(scores), -1).contiguous()  # row j: every image's true score
    below = torch.searchsorted(against, asked).float()
    upto = torch.searchsorted(against, asked, right=True).float()
    own = (asked > true[:, None]).float() + 0.5 * (asked == true[:, None]).float()
    return (((below + upto) / 2 - own) / (scores.shape[1] - 1)).T.contiguous()
