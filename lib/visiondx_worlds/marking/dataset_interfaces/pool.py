"""A large pool of renders to retrieve from, in which some classes are never seen under some shifts.

It stands for what is found on the web: places, lights and states as in `scenes-broad`, on which a
painter of everything learned, where plates are mostly empty. Of the pairs of a class and a shift
one in six is absent and one in six rare, two classes each of every shift.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.core.files import digest, result_key
from visiondx.core.seeds import step_seed
from visiondx.dataset_interfaces.retrieval import Pool
from visiondx.dataset_interfaces.shifts import Shift
from visiondx.models.encoder import Encoder
from visiondx_worlds.marking.dataset_interfaces.truth import world_shift
from visiondx_worlds.worlds.base import Attributes
from visiondx_worlds.worlds.scenes import CLASSES, SHIFTS, scenes

METHOD = 1  # raised where renders of the same rows look otherwise
WEB = "scenes-broad"
RARE = 0.05  # share that is left of a rare pair
EVERY = 6
_BATCH = 1024
ABSENT_PAIRS, RARE_PAIRS = (
    frozenset(
        (kind, shift)
        for c, kind in enumerate(CLASSES)
        for s, shift in enumerate(SHIFTS)
        if (c + s) % EVERY == place
    )
    for place in (0, 1)
)


@dataclass(frozen=True)
class RenderPool:
    """N renders, by their attributes: drawn again when they are asked for."""

    rows: Attributes
    seed: int

    @classmethod
    def draw(cls, n: int, seed: int) -> RenderPool:
        """n scenes without the absent pairs and with few of the rare ones.

        Raises:
            InputError: n below 1.
        """
        if n < 1:
            raise InputError(f"n is {n}: a pool needs one image at least.")
        found, count, turn = [], 0, 0
        while count < n:
            now = step_seed(seed, turn)
            rows = scenes.sample(2 * n + 64, now, distribution=WEB)
            luck = torch.rand(len(rows), generator=torch.Generator().manual_seed(now))
            rows = rows[~paired(rows, ABSENT_PAIRS) & (~paired(rows, RARE_PAIRS) | (luck < RARE))]
            found.append(rows)
            count, turn = count + len(rows), turn + 1
        return cls(Attributes.cat(found)[torch.arange(n)], seed)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def names(self) -> tuple[str, ...]:
        """The class of each: what a page would call the image."""
        return tuple(CLASSES[k] for k in self.rows["class"].long().tolist())

    def images(self, rows: Tensor) -> Tensor:
        """(R, 3, 64, 64) of R rows of the pool."""
        return scenes.render(self.rows[rows])

    def embed(self, encoder: Encoder, kept: str | Path | None = None) -> Pool:
        """The pool as an encoder sees it, with its names.

        Args:
            kept: a folder that keeps the embeddings for the next call.
        """
        file = None
        if kept is not None:
            key = result_key(METHOD, digest(rows=self.rows.values), encoder.image_fingerprint)
            file = Path(kept) / f"pool-{key}.safetensors"
        return Pool.embed(self._batches(), encoder, self.names, file)

    def _batches(self) -> Iterator[Tensor]:
        for part in torch.arange(len(self)).split(_BATCH):
            yield self.images(part)


def how_common(kind: str, shift: Shift) -> str:
    """Whether a pool has a class under a shift of Table 1: "absent", "rare" or "usual"."""
    pair = (kind, world_shift(shift))
    return "absent" if pair in ABSENT_PAIRS else "rare" if pair in RARE_PAIRS else "usual"


def paired(rows: Attributes, pairs: frozenset[tuple[str, str]]) -> Tensor:
    """(B,) bool: which scenes show a class under a shift that is one of the pairs."""
    kinds = rows["class"].long()
    found = torch.zeros(len(rows), dtype=torch.bool)
    for shift, (factor, value) in SHIFTS.items():
        has = torch.tensor([(kind, shift) in pairs for kind in CLASSES])
        found |= has[kinds] & (rows[factor] == value)
    return found
