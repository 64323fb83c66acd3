"""What group the pictures of an explanation show, in the eyes of the judges (Fig. 9).

An explanation of a class is many pictures. The group read off it is the one that most of them show,
as both judges see them; where they differ a picture shows none. Read off six explanations, groups
can be right by chance: what the same pictures would get if the classes' groups were dealt anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.core.stats import Estimate, bootstrap
from visiondx_worlds.models.judges import Judges

UNSURE = "?"  # where the judges differ; of an explanation, that no group is seen most
MOST = 8  # explanations whose groups are dealt in every order


@dataclass(frozen=True)
class Read:
    """A multi-way attribute in P pictures of each of E explanations.

    values: V names. wanted: (E,) numbers of what each should show. seen: (E, P) what both judges
    see, -1 where they differ.
    """

    classes: tuple[str, ...]
    values: tuple[str, ...]
    wanted: Tensor
    seen: Tensor

    def counts(self) -> Tensor:
        """(E, V) how many pictures show each value."""
        return (self.seen[:, :, None] == torch.arange(len(self.values))).sum(1)

    @property
    def most(self) -> Tensor:
        """(E,) the value that most pictures show; -1 where two share that place, or none is."""
        counts = self.counts()
        top = counts.max(1)
        alone = (counts == top.values[:, None]).sum(1) == 1
        return torch.where(alone, top.indices, -1)

    @property
    def right(self) -> int:
        """How many explanations most of whose pictures show what they should."""
        return int((self.most == self.wanted).sum())

    def share(self, row: int | None = None) -> Estimate:
        """Of pictures that show what they should, of one explanation or the mean over all.

        Noise is resampled, the same for all explanations.
        """
        shows = (self.seen == self.wanted[:, None]).double()
        return bootstrap((shows.mean(0) if row is None else shows[row]).numpy())

    def chance(self) -> float:
        """The part of all ways to deal out what is wanted that does as well: a permutation test.

        Of the pictures that show what they should; the smallest it can be is 1 / E! where all that
        is wanted differs.

        Raises:
            InputError: more than `MOST` explanations.
        """
        many = len(self.classes)
        if many > MOST:
            raise InputError(f"{many} explanations have too many orders: give at most {MOST}.")
        of = self.counts().double().numpy()[:, self.wanted.numpy()]  # (E, E)
        orders = np.array(list(permutations(range(many))))
        sums = of[np.arange(many), orders].sum(1)
        return float((sums >= np.trace(of) - 1e-9).mean())

    def table(self) -> pd.DataFrame:
        """Share of each explanation's pictures that show each value; the last is unsure."""
        shares = self.counts().double() / self.seen.shape[1]
        frame = pd.DataFrame(shares.numpy(), pd.Index(self.classes, name="class"), self.values)
        return frame.assign(**{UNSURE: (self.seen < 0).double().mean(1).numpy()})

    def to_frame(self) -> pd.DataFrame:
        """A row an explanation: what is wanted, what is read, and the shares of pictures.

        share: that show what is wanted. next: that show the commonest other value.
        """
        shares = self.table()[list(self.values)].to_numpy()
        rows = np.arange(len(shares))
        wanted = shares[rows, self.wanted.numpy()]
        others = shares.copy()
        others[rows, self.wanted.numpy()] = -1
        names = np.array([*self.values, UNSURE])
        return pd.DataFrame(
            {
                "wanted": names[self.wanted.numpy()],
                "read": names[self.most.numpy()],
                "share": wanted,
                "next": others.max(1),
                UNSURE: (self.seen < 0).double().mean(1).numpy(),
            },
            pd.Index(self.classes, name="class"),
        )

    def titles(self, few: int, rows: Sequence[int]) -> list[str]:
        """What the first pictures of some explanations show, row after row."""
        names = [*self.values, UNSURE]
        return [names[value] for value in self.seen[list(rows), :few].flatten().tolist()]


def read(
    judges: Judges,
    images: Tensor,
    attribute: str,
    classes: Sequence[str],
    values: Sequence[str],
    wanted: Sequence[str],
) -> Read:
    """What the judges see of an attribute in pictures (E, P, 3, H, W), P of each of E classes.

    Args:
        values: names of the attribute's values. wanted: what the pictures of each class should
            show, E of these names.

    Raises:
        InputError: an attribute that no judge reads, another number of values than it has, or of
            classes than of rows, or something wanted that is no value.
    """
    if attribute not in judges.groups:
        raise InputError(f"No judge reads {attribute!r}: choose from {', '.join(judges.groups)}.")
    if judges.groups[attribute] != len(values):
        raise InputError(
            f"{attribute!r} has {judges.groups[attribute]} values, got {len(values)} names."
        )
    if images.ndim != 5 or not len(images) == len(classes) == len(wanted):
        raise InputError(
            f"Pictures of {len(classes)} classes, with {len(wanted)} values wanted of them, must "
            f"have shape ({len(classes)}, P, 3, H, W), got {tuple(images.shape)}."
        )
    for name in wanted:
        if name not in values:
            raise InputError(f"{attribute!r} is never {name!r}: choose from {', '.join(values)}.")
    seen, unsure = judges.read_groups(images.flatten(0, 1))[attribute]
    seen = torch.where(unsure, -1, seen).cpu().view(images.shape[:2])
    numbers = torch.tensor([list(values).index(name) for name in wanted])
    return Read(tuple(classes), tuple(values), numbers, seen)
