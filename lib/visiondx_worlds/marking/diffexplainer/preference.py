"""Which of two explanations shows the feature? Judges in place of people (section 4.3, Fig. 7).

A judge is shown an explanation's pictures and nothing else, and recognises the feature if what it
sees most surely in them, of all objects and places, is the concept that the feature wants (see
`wanted`). Of two explanations the one is preferred in which judges are surer of that concept.

The judges are two networks of other kinds, trained on other renders; a second reading is the
segmenter's: how much of the pictures the concept's word covers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.core.stats import LEVEL, Estimate, bootstrap, proportion
from visiondx.models.segmenter import Segmenter
from visiondx_worlds.marking.diffexplainer.wanted import CONCEPTS, DRAWS
from visiondx_worlds.models.judges import Judges
from visiondx_worlds.worlds.scenes import CLASSES

LEAST = 0.05  # of a judge's confidence: below, it is hardly surer of one than of the other
SHOWS = ("the object alone", "the object in a place", "a place alone", "neither")


def confidences(judges: Judges, images: Tensor) -> Tensor:
    """How surely both judges see each concept in F sets of pictures (F, P, 3, H, W): (F, K).

    Of every picture the smaller of their two probabilities; the mean over a set.
    """
    _sets(images)
    flat = images.flatten(0, 1)
    kinds, places = (judges.group_probabilities(flat, g).cpu() for g in ("class", "background"))
    both = torch.cat([kinds, places[..., 1:]], -1).amin(0)  # all but the neutral background
    return both.unflatten(0, images.shape[:2]).mean(1)


@torch.no_grad()
def coverage(segmenter: Segmenter, images: Tensor) -> Tensor:
    """How much of F sets of pictures (F, P, 3, H, W) the word of each concept covers: (F, K).

    Raises:
        InputError: a word that the segmenter has never seen.
    """
    _sets(images)
    flat = images.flatten(0, 1)
    shares = torch.cat([segmenter(part, CONCEPTS).shares.cpu() for part in flat.split(64)])
    return shares.unflatten(0, images.shape[:2]).mean(1)


def _sets(images: Tensor) -> None:
    if images.ndim != 5 or not images.shape[0] * images.shape[1]:
        raise InputError(f"Sets of pictures have shape (F, P, 3, H, W), got {tuple(images.shape)}.")


def of_right(seen: Tensor, concept: Tensor) -> Tensor:
    """(F,): of what is seen of each concept (F, K), what of the right one (F,)."""
    return seen.gather(1, concept[:, None])[:, 0]


def recognised(seen: Tensor, concept: Tensor) -> Tensor:
    """(F,) bool: whether the right concept is the one that is seen most surely."""
    return seen.argmax(1) == concept


# ---------------------------------------------------------------- which is preferred


@dataclass(frozen=True)
class Preference:
    """How often the first of two explanations is preferred, of F features.

    share: of the features where the two differ, with Wilson's interval. ties: where they hardly do.
    p: exact binomial test of a share of a half. wilcoxon: signed-rank test that the differences of
    these features lie around 0. Both have two sides. difference: the mean over all features.
    """

    share: Estimate
    ties: int
    p: float
    wilcoxon: float
    difference: Estimate

    def row(self) -> dict[str, object]:
        """As a row of a table."""
        return {
            "preference": self.share,
            "ties": self.ties,
            "p": self.p,
            "Wilcoxon p": self.wilcoxon,
            "difference": self.difference,
        }


def prefer(
    ours: Tensor, other: Tensor, groups: Tensor | None = None, least: float = LEAST
) -> Preference:
    """Compare two explanations of each of F features, by what judges see of the right concept.

    Args:
        ours, other: (F,), `of_right`; or `recognised`, and then a preference is that exactly one
            is (McNemar's exact test).
        groups: (F,), such as the concepts: means over each are compared, for features of one
            concept are no independent witnesses.
        least: the difference from which on one is preferred; below, they are tied.

    Raises:
        InputError: no features, another number of them on either side, or a least of 0 or below.
    """
    if ours.shape != other.shape or ours.ndim != 1 or not len(ours):
        raise InputError(
            f"Compare the same features, one at least: got {tuple(ours.shape)} and "
            f"{tuple(other.shape)}."
        )
    if not least > 0:
        raise InputError(f"least is {least}: give a difference above 0, for none is a tie.")
    from scipy.stats import binomtest, wilcoxon  # slow to import

    difference = ours.double() - other.double()
    if groups is not None:
        difference = torch.stack([difference[groups == g].mean() for g in groups.unique()])
    d = difference.numpy()
    differs = np.abs(d) >= least
    won = d[differs] > 0
    count = len(won)
    return Preference(
        proportion(won),
        int((~differs).sum()),
        float(binomtest(int(won.sum()), count).pvalue) if count else 1.0,
        float(wilcoxon(d[differs]).pvalue) if count else 1.0,
        bootstrap(d),
    )


@dataclass(frozen=True)
class Chance:
    """What is recognised where explanations are exchanged among F features.

    share: of features that the explanation of another one is recognised as, over all pairs of two;
    its interval holds 95 % of random exchanges of all of them. p: how often such an exchange does
    as well as what was found.
    """

    share: Estimate
    p: float


def exchanged(seen: Tensor, concept: Tensor, draws: int = DRAWS, seed: int = 0) -> Chance:
    """The control of `recognised`: an explanation of a random other feature.

    Args:
        seen: (F, K). concept: (F,).

    Raises:
        InputError: fewer than two features.
    """
    count = len(seen)
    if count < 2:
        raise InputError(f"Explanations are exchanged among two features or more, got {count}.")
    named, true = seen.argmax(1).numpy(), concept.numpy()
    others = (named[None] == true[:, None])[~np.eye(count, dtype=bool)].mean()
    rng = np.random.default_rng(seed)
    orders = rng.permuted(np.tile(np.arange(count), (draws, 1)), axis=1)
    hits = (named[orders] == true).mean(1)
    low, high = np.quantile(hits, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    found = (named == true).mean()
    p = (1 + (hits >= found - 1e-12).sum()) / (1 + draws)
    value = float(others)
    return Chance(Estimate(value, min(value, float(low)), max(value, float(high)), count), float(p))


# ---------------------------------------------------------------- Fig. 7


def contents(judges: Judges, images: Tensor, classes: Sequence[str]) -> pd.DataFrame:
    """What the pictures (C, P, 3, H, W) of C classes show: shares of `SHOWS`, a row a class.

    The object is there if both judges see the class, a place if both see one and the same, and not
    the neutral background.

    Raises:
        InputError: another number of classes than of rows, or one that no judge knows.
    """
    _sets(images)
    unknown = [name for name in classes if name not in CLASSES]
    if unknown or len(classes) != len(images):
        raise InputError(
            f"No judge knows the class {unknown[0]!r}: choose from {', '.join(CLASSES)}."
            if unknown
            else f"Got {len(classes)} classes for {len(images)} rows of pictures."
        )
    said = judges.answers(images.flatten(0, 1))
    kinds, places = (said[g].cpu().unflatten(1, images.shape[:2]) for g in ("class", "background"))
    asked = torch.tensor([CLASSES.index(name) for name in classes])[:, None]
    there = (kinds == asked).all(0)
    placed = (places[0] == places[1]) & (places[0] != 0)
    parts = there & ~placed, there & placed, ~there & placed, ~there & ~placed
    shares = torch.stack([each.double().mean(1) for each in parts], 1)
    return pd.DataFrame(shares.numpy(), pd.Index(classes, name="class"), SHOWS)
