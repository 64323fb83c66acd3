"""Which concept of the world a feature wants, and which renders have more or less of it.

By intervention, as `truth`: of every class the object alone, and of every context the place alone,
raise a feature by so much above the neutral background alone. What raises it most is its concept.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from visiondx.core.errors import InputError
from visiondx.core.stats import LEVEL
from visiondx.diffexplainer.features import last_features
from visiondx.diffexplainer.layers import mean_activations
from visiondx.models.target import Target
from visiondx_worlds.marking.diffexplainer.truth import FeatureTruth, Interventions
from visiondx_worlds.worlds.contexts import CONTEXTS, NEUTRAL
from visiondx_worlds.worlds.scenes import CLASSES

CONCEPTS = (*CLASSES, *CONTEXTS)  # the objects and places on which a feature is tried
DRAWS = 1000


@dataclass(frozen=True)
class Wanted:
    """What raises each of F features, in N scenes.

    features: (F,) columns of the layer before the classifier. rises: (F, K, N), the activation with
    each of the K concepts alone, less that of the neutral background alone.
    """

    features: Tensor
    rises: Tensor

    @property
    def concept(self) -> Tensor:
        """(F,) the number of the concept that raises the feature most, on average."""
        return self.rises.mean(2).argmax(1)

    @cached_property
    def certainty(self) -> Tensor:
        """(F,) in how many of the resampled sets of scenes it is that concept, and raises at all.

        A feature that two concepts raise alike is not certain: no answer to it would be wrong.
        """
        count = self.rises.shape[2]
        rows = torch.as_tensor(np.random.default_rng(0).integers(count, size=(DRAWS, count)))
        times = one_hot(rows, count).sum(1)  # (draws, N)
        means = self.rises.double() @ times.double().T / count  # (F, K, draws)
        top = means.max(1)
        return ((top.indices == self.concept[:, None]) & (top.values > 0)).double().mean(1)

    @property
    def clear(self) -> Tensor:
        """(F,) whether the concept is certain, in 95 % of the resampled sets."""
        return self.certainty >= LEVEL

    def only(self, rows: Tensor) -> Wanted:
        """Some of the features, by number or as (F,) bool."""
        return Wanted(self.features[rows], self.rises[rows])

    def to_frame(self) -> pd.DataFrame:
        """A row a feature: its concept, the rise, the runner-up, its rise, and the certainty."""
        top = self.rises.double().mean(2).topk(2, 1)
        first, second = ([CONCEPTS[k] for k in column] for column in top.indices.T.tolist())
        return pd.DataFrame(
            {
                "concept": first,
                "rise": top.values[:, 0].numpy(),
                "next": second,
                "next_rise": top.values[:, 1].numpy(),
                "certainty": self.certainty.numpy(),
            },
            index=pd.Index(self.features.tolist(), name="feature"),
        )


def wanted(target: Target, features: Tensor, drawn: Interventions) -> Wanted:
    """Measure what raises features (F,) of the layer before the classifier.

    Raises:
        InputError: no features, or some that the layer has not.
    """
    head = last_features(target)
    many = head.weight.shape[1]
    if not len(features) or not 0 <= int(features.min()) <= int(features.max()) < many:
        raise InputError(
            f"Name features from 0 to {many - 1}, one at least, got {features.tolist()}."
        )

    def of(images: Tensor) -> Tensor:
        return mean_activations(target, images, head.layer)[:, features]

    nothing = of(drawn.context(NEUTRAL))
    shown = [of(drawn.object(name)) for name in CLASSES]
    shown += [of(drawn.context(name)) for name in CONTEXTS]
    return Wanted(features, torch.stack([(each - nothing).T for each in shown], 1))


def carried(truth: FeatureTruth, features: Tensor) -> Tensor:
    """(F,) the class, by its row in the truth, that each of F features carries most.

    Raises:
        InputError: a feature that carries none of its classes.
    """
    own = truth.features[None] == features[:, None, None]  # (F, C, k)
    missing = features[~own.flatten(1).any(1)]
    if len(missing):
        raise InputError(
            f"Feature {int(missing[0])} carries no class: choose from "
            f"{truth.features.unique().tolist()}."
        )
    return truth.carries.masked_fill(~own, -torch.inf).amax(2).argmax(1)


# ---------------------------------------------------------------- activations


def own_activations(target: Target, images: Tensor, features: Tensor) -> Tensor:
    """(F, P): what each of F features answers to its own pictures (F, P, 3, H, W)."""
    layer = last_features(target, images.shape[-1]).layer
    every = mean_activations(target, images.flatten(0, 1), layer).unflatten(0, images.shape[:2])
    return every[torch.arange(len(features)), :, features]


def most_activating(activations: Tensor, count: int) -> Tensor:
    """(F, count): which of N renders raise each feature most, from their activations (N, F).

    Raises:
        InputError: fewer renders than are asked for.
    """
    _enough(len(activations), count)
    return activations.T.argsort(dim=1, descending=True, stable=True)[:, :count]


def middling(activations: Tensor, count: int, among: Tensor | None = None) -> Tensor:
    """(F, count): which of N renders raise each feature as the median one does, or nearly.

    Args:
        activations: (N, F). among: (F, N) bool, the renders to choose from; the median is theirs.

    Raises:
        InputError: fewer renders than are asked for.
    """
    every = torch.ones(activations.T.shape, dtype=torch.bool) if among is None else among
    _enough(int(every.sum(1).min()), count)
    own = activations.T.masked_fill(~every, torch.nan)
    away = (own - own.nanquantile(0.5, 1, keepdim=True)).abs()
    return away.nan_to_num(nan=torch.inf).argsort(dim=1, stable=True)[:, :count]


def _enough(have: int, count: int) -> None:
    if not 1 <= count <= have:
        raise InputError(f"{count} renders are asked for of {have}: draw more, or ask for fewer.")
