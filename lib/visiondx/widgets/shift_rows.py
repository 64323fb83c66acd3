"""What the explorer of shifts asks, and a row of pictures with what is said of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from visiondx.dataset_interfaces.models import Model
from visiondx.dataset_interfaces.shifts import Shift
from visiondx.diffexplainer.spurious import probabilities
from visiondx.models.pixels import pictures

NAME, TOKEN, TRUTH = "name", "token", "truth"  # the rows
MOST = 100  # pictures in a row


@dataclass(frozen=True)
class ShiftQuestion:
    """What a person asks: `count` pictures of a class under a shift.

    shift: of Table 1 by its name, or in words, see ``Shift.of``. style: these are of an art style.
    """

    kind: str
    shift: str
    style: bool = False
    count: int = 12
    seed: int = 0

    @property
    def described(self) -> Shift:
        """Raises InputError for no words."""
        return Shift.of(self.shift, style=self.style)


@dataclass(frozen=True)
class Progress:
    """`done` of `total` pictures, and what they are for."""

    said: str
    done: int
    total: int


@dataclass(frozen=True)
class Row:
    """n pictures, and what is said of them.

    prompt: what the painter was asked; "" of drawn ones. images: (n, 3, H, W) in [0, 1], in the
    steps of a PNG. p: (n, K), the classifier's probability of each of its labels. of_class,
    of_shift: (n,) cosines with c_class and c_shift; the last NaN where nothing is shifted.
    """

    prompt: str
    images: Tensor
    p: Tensor
    of_class: np.ndarray
    of_shift: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def __add__(self, other: Row) -> Row:
        """These pictures and then the others."""
        images, p = (
            torch.cat([getattr(row, of) for row in (self, other)]) for of in ("images", "p")
        )
        of_class, of_shift = (
            np.concatenate([getattr(row, of) for row in (self, other)])
            for of in ("of_class", "of_shift")
        )
        return Row(self.prompt, images, p, of_class, of_shift)


@torch.no_grad()
def label_probabilities(model: Model, images: Tensor) -> Tensor:
    """Images (n, 3, H, W) in [0, 1] -> (n, K), as the model reads a PNG of each.

    Raises:
        FloatingPointError: one that is NaN.
    """
    return probabilities(
        model.target, torch.stack([model.picture(each) for each in pictures(images)])
    )
