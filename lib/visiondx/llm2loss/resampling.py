"""Which examples each member of an ensemble learns from, stops by, and is tested on.

A member is one guess at h. Were all members to learn from the same examples, they would share
whatever chance put into these, and agree on noise. So each draws its own examples, with
replacement (bagging; Breiman, 1996): how far the members lie apart then tells how much h hangs on
the draw of the examples and on the random start, as the bootstrap has it. The third of the examples
that a member did not draw is out of its bag: by some of it the member stops, by the rest it is
tested, so that no choice was made on what it is tested on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from visiondx.core.stats import Estimate

STOP = 0.15  # share of the examples by which a member stops
TEST = 0.15  # share that is tested, where the members do not resample
SAME = 1e-5  # unit embeddings that differ by no more are of one image
Z = 1.959964  # standard deviations of a 95 % interval


@dataclass(frozen=True)
class Draws:
    """Rows of N examples, for E members."""

    learn: Tensor  # (E, n) int64; with replacement where the members resample
    stop: Tensor  # (E, m) int64
    test: Tensor  # (E, N) bool


def draw(count: int, resample: bool, seeds: Sequence[int], split: int) -> Draws:
    """Divide ``count`` examples, member by member.

    Args:
        resample: each member draws ``count`` of them, with replacement, by its seed. Or else all
            learn from the same 70 %, and stop and are tested by the same 15 %, by the seed
            ``split``.
    """
    held = max(2, round(STOP * count))
    if not resample:
        order = _permutation(count, split)
        test = torch.zeros(count, dtype=torch.bool)
        test[order[held : held + max(2, round(TEST * count))]] = True
        learn = order[held:][~test[order[held:]]]
        return Draws(*(t.expand(len(seeds), -1) for t in (learn, order[:held], test)))
    learn, stop, tested = [], [], []
    for seed in seeds:
        random = torch.Generator().manual_seed(seed)
        bag = torch.randint(count, (count,), generator=random)
        order = torch.randperm(count, generator=random)
        inside = torch.zeros(count, dtype=torch.bool)
        inside[bag] = True
        outside = order[~inside[order]]
        test = torch.zeros(count, dtype=torch.bool)
        test[outside[held:]] = True
        learn.append(bag)
        stop.append(outside[:held])
        tested.append(test)
    return Draws(torch.stack(learn), torch.stack(stop), torch.stack(tested))


def distinct(embeddings: Tensor, losses: Tensor) -> tuple[Tensor, Tensor]:
    """One example for each image: (N, D), (N,) -> (n, D), (n,), with the mean of its losses.

    Rows whose unit vectors are equal, but for rounding, are one image: given twice, it would
    count twice, and be held out from a member that has learned from it.
    """
    x = F.normalize(embeddings.double(), dim=1)
    random = torch.Generator().manual_seed(0)
    order = (x @ torch.randn(x.shape[1], dtype=x.dtype, generator=random)).argsort()
    new = (x[order][1:] - x[order][:-1]).abs().amax(1) > SAME
    image = torch.cat((new.new_zeros(1), new)).cumsum(0)
    count = int(image[-1]) + 1
    if count == len(x):
        return embeddings, losses
    sums = torch.zeros(count, dtype=torch.float64).index_add_(0, image, losses[order].double())
    means = sums / image.bincount()
    first = torch.full((count,), len(x)).scatter_reduce_(0, image, order, "amin")
    place = first.argsort()  # in the order in which they were given
    return embeddings[first[place]], means[place].to(losses.dtype)


def skill(h: Tensor, y: Tensor, test: Tensor) -> Estimate:
    """Spearman's correlation of y and the predictions of members that are tested on an example.

    Predictions of two examples whose members have learned from each other depend on each other.
    For a predictor that is linear in what it learned, chance then moves the correlation by up to
    twice the variance that it has with independent pairs; the interval is that of Bonett and Wright
    (2000) with twice the variance. It is above 0 in at most 2.5 % of ensembles that learn noise.

    Args:
        h: (E, N). y: (N,). test: (E, N) bool.
    """
    often = test.sum(0)
    seen = often > 0
    h = torch.where(test, h.double(), 0).sum(0)[seen] / often[seen]
    ranks = np.stack([pd.Series(part.numpy()).rank() for part in (h, y[seen])])
    n = ranks.shape[1]
    if n < 4 or (ranks.std(1) == 0).any():
        return Estimate(0.0, -1.0, 1.0, n)
    value = float(np.corrcoef(ranks)[0, 1])
    z = np.arctanh(np.clip(value, -1 + 1e-12, 1 - 1e-12))
    reach = Z * np.sqrt(2 * (1 + value**2 / 2) / (n - 3))
    return Estimate(value, float(np.tanh(z - reach)), float(np.tanh(z + reach)), n)


def doubt(known: Estimate) -> str:
    """A warning where the interval of the skill does not lie above 0; else nothing."""
    if known.low > 0:
        return ""
    return (
        "this loss model knows no more than chance: nothing can be said (held-out Spearman "
        f"{known.value:.2f} [{known.low:.2f}, {known.high:.2f}], n={known.n})"
    )


def titled(title: str, known: Estimate) -> str:
    """A figure's title, with the skill on a line below it, or the warning on two."""
    note = doubt(known).replace(" (", "\n(") or (
        f"held-out Spearman {known.value:.2f} [{known.low:.2f}, {known.high:.2f}]"
    )
    return f"{title}\n{note}".strip()


def _permutation(count: int, seed: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))
