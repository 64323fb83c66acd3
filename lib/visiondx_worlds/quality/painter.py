"""How good the painter is, as judges see it: here what its autoencoder loses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.core.stats import Estimate, bootstrap
from visiondx_worlds.quality.embedded import balanced
from visiondx_worlds.quality.worlds import DRAWS

LOST = 0.02  # how much a head's accuracy may fall on reconstructions


@dataclass(frozen=True)
class Head:
    """What the judges read of one attribute on N renders, and on the same N reconstructed.

    right: (N, 2) of 0 and 1, renders and reconstructions: both judges say what is there. Where
        they disagree they abstain, which counts as wrong.
    truth: (N,) values; -1 where nothing can be seen, and such rows count nowhere.
    binary: a yes or no, whose accuracy is the mean of the accuracies where it is there and where
        it is not: a moustache lost everywhere would else cost no more than moustaches are rare.
    """

    right: np.ndarray
    truth: np.ndarray
    binary: bool

    def accuracy(self) -> tuple[Estimate, Estimate]:
        """On renders, and on reconstructions."""
        return tuple(self._estimate(lambda rows, k=k: self._value(rows, k)) for k in (0, 1))

    def lost(self) -> Estimate:
        """Accuracy on renders minus accuracy on their reconstructions; the pairs are resampled."""
        return self._estimate(lambda rows: self._value(rows, 0) - self._value(rows, 1))

    def _value(self, rows: np.ndarray, k: int) -> float:
        return balanced(rows[:, [k, 2]]) if self.binary else float(rows[:, k].mean())

    def _estimate(self, statistic: Callable) -> Estimate:
        seen = self.truth >= 0
        rows = np.column_stack([self.right[seen], self.truth[seen]])
        return bootstrap(rows, statistic, n=DRAWS)


@torch.no_grad()
def reconstruction_heads(
    judges: object,
    world: object,
    attributes: object,
    reconstruct: Callable[[Tensor], Tensor],
    batch: int = 256,
) -> dict[str, Head]:
    """{attribute: Head} of a world, the binary and then the multi-way attributes.

    A head that has no visible row, or a binary one that all or none of the rows show, is left out.

    Args:
        judges: of the world. attributes: rows of the world; draw them in no training.
        reconstruct: images (B, 3, 64, 64) in [0, 1] to the same.
    """
    said = []
    rows = torch.arange(len(attributes)).split(batch)
    for part in tqdm(rows, desc=f"{world.name} reconstructed"):
        images = world.render(attributes[part])
        said.append((judges.answers(images), judges.answers(reconstruct(images))))

    def right(name: str, truth: Tensor) -> np.ndarray:
        pairs = [torch.cat([s[k][name] for s in said], 1) == truth for k in (0, 1)]
        return torch.stack([both.all(0) for both in pairs], -1).numpy().astype(float)

    labels, groups = world.labels(attributes), world.groups(attributes)
    told = right("binary", labels)  # (N, A, 2)
    heads = {
        name: Head(told[:, k], labels[:, k].long().numpy(), True)
        for k, name in enumerate(judges.binary)
        if 0 < labels[:, k].sum() < len(labels)
    }
    for name, truth in groups.items():
        if (truth >= 0).any():
            heads[f"which {name}"] = Head(right(name, truth), truth.numpy(), False)
    return heads


def gate(heads: Mapping[str, Head]) -> dict[str, Estimate]:
    """{head: accuracy lost}, the largest loss first: the autoencoder passes if none is above LOST.

    Identical reconstructions lose 0 everywhere.
    """
    lost = {name: head.lost() for name, head in heads.items()}
    return dict(sorted(lost.items(), key=lambda item: -item[1].value))
