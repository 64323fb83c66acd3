"""What every procedural world shares: attribute tables, quantile columns and seeded sampling."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.core.memory import keep_memory

if TYPE_CHECKING:
    from visiondx_worlds.worlds.grammar import Grammar

Quantile = Callable[[Tensor], Tensor]


def phi(u: Tensor) -> Tensor:
    """Standard normal distribution function, kept off 0 and 1."""
    return (0.5 * (1 + torch.erf(u / math.sqrt(2)))).clamp(1e-6, 1 - 1e-6)


def uniform(low: float, high: float) -> Quantile:
    """Uniform on [low, high]."""
    return lambda u: low + (high - low) * phi(u)


def amount(share: float, absent: tuple[float, float], present: tuple[float, float]) -> Quantile:
    """Present with probability `share`; each side uniform, with a visible gap between the two."""

    def quantile(u: Tensor) -> Tensor:
        p = phi(u)
        cut = 1 - share
        low = absent[0] + (absent[1] - absent[0]) * p / cut
        high = present[0] + (present[1] - present[0]) * (p - cut) / share
        return torch.where(p < cut, low, high)

    return quantile


def presence(share: float = 0.5) -> Quantile:
    """What can be there or not, in [0, 1]: at most 0.03 where absent, at least 0.97 else."""
    return amount(share, (0.0, 0.03), (0.97, 1.0))


def category(shares: Sequence[float]) -> Quantile:
    """Index 0, 1, … with the given probabilities, as a float."""
    edges = torch.tensor(shares).cumsum(0)[:-1]
    return lambda u: torch.bucketize(phi(u).contiguous(), edges.to(u.device)).to(u.dtype)


def pieces(shares: Sequence[float], ranges: Sequence[tuple[float, float]]) -> Quantile:
    """A category, then uniform within that category's range (ages, say)."""
    edges = torch.tensor([0.0, *shares]).cumsum(0)
    low, high = torch.tensor(ranges).unbind(1)

    def quantile(u: Tensor) -> Tensor:
        p = phi(u)
        k = torch.bucketize(p.contiguous(), edges[1:-1].to(u.device))
        at = [t.to(u.device) for t in (edges, low, high)]
        within = (p - at[0][k]) / (at[0][k + 1] - at[0][k])
        return at[1][k] + (at[2][k] - at[1][k]) * within.clamp(0, 1)

    return quantile


def normals(n: int, width: int, seed: int) -> Tensor:
    """(n, width) standard normals, the same on every device. Raises InputError for n < 1."""
    if n < 1:
        raise InputError(f"n is {n}: ask for at least one image.")
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Attributes:
    """A table of attribute values.

    values: float32 (B, K); names: the K columns. `a["hat"]` is the (B,) column, `a[idx]` the rows.
    """

    values: Tensor
    names: tuple[str, ...]

    def column(self, name: str) -> int:
        """Index of a column. Raises InputError for an unknown name."""
        if name not in self.names:
            raise InputError(f"Unknown attribute {name!r}: choose from {', '.join(self.names)}.")
        return self.names.index(name)

    def __getitem__(self, key: str | slice | Tensor) -> Tensor | Attributes:
        if isinstance(key, str):
            return self.values[:, self.column(key)]
        return Attributes(self.values[key], self.names)

    def __len__(self) -> int:
        return len(self.values)

    def replace(self, **columns: float | Tensor) -> Attributes:
        """A copy with some columns set to numbers or to (B,) tensors."""
        values = self.values.clone()
        for name, value in columns.items():
            values[:, self.column(name)] = torch.as_tensor(value, dtype=values.dtype)
        return Attributes(values, self.names)

    def to(self, device: str | torch.device) -> Attributes:
        return Attributes(self.values.to(device), self.names)

    def split(self, size: int) -> Iterator[Attributes]:
        """Consecutive chunks of at most `size` rows."""
        for values in self.values.split(size):
            yield Attributes(values, self.names)

    @staticmethod
    def cat(tables: Sequence[Attributes]) -> Attributes:
        return Attributes(torch.cat([t.values for t in tables]), tables[0].names)


class World:
    """A renderer with known truth. Subclasses give the columns, the rules and the drawing."""

    name: str
    grammar: Grammar
    size = 64
    binary: tuple[str, ...]
    columns: Mapping[str, Quantile]
    # of each core: 64 x 64 float32 layers of 32 images stay in its cache
    chunk = 32

    def __init__(self) -> None:
        self.names = tuple(self.columns)
        self.latent_dim = len(self.columns)

    def from_normal(self, u: Tensor) -> Attributes:
        """Attributes at the quantiles of standard normals u (B, latent_dim), column by column."""
        if u.ndim != 2 or u.shape[1] != self.latent_dim:
            raise InputError(f"u must be (B, {self.latent_dim}), not {tuple(u.shape)}.")
        values = [quantile(u[:, i]) for i, quantile in enumerate(self.columns.values())]
        return self.resolve(Attributes(torch.stack(values, 1), self.names))

    def sample(
        self, n: int, seed: int, given: Mapping[str, bool | Tensor] | None = None
    ) -> Attributes:
        """n random attribute rows; the same seed gives the same rows on every device.

        given: binary attributes to hold, each one bool for all or a (n,) bool tensor.
        """
        attributes = self.from_normal(normals(n, self.latent_dim, seed))
        for name, value in (given or {}).items():
            attributes = self.switch(attributes, name, value)
        return attributes

    def switch(self, attributes: Attributes, name: str, value: bool | Tensor) -> Attributes:
        """The same images with one binary attribute visibly present or absent.

        value: one bool for all rows, or a (B,) bool tensor. Rows that already agree stay as they
        are. Raises InputError for an unknown attribute.
        """
        if name not in self.binary:
            raise InputError(f"Unknown attribute {name!r}: choose from {', '.join(self.binary)}.")
        want = torch.as_tensor(value, device=attributes.values.device).expand(len(attributes))
        now = self.labels(attributes)[:, self.binary.index(name)]
        on, off = self.set(attributes, name, True), self.set(attributes, name, False)
        new = torch.where(want[:, None], on.values, off.values)
        keep = (want == now)[:, None]
        return Attributes(torch.where(keep, attributes.values, new), self.names)

    def render(self, attributes: Attributes, size: int | None = None) -> Tensor:
        """Images (B, 3, size, size) in [0, 1]; differentiable in the continuous attributes."""
        return self.in_chunks(self.draw, attributes, size)

    def in_chunks(
        self, draw: Callable[[Attributes, int], Tensor], attributes: Attributes, size: int | None
    ) -> Tensor:
        """What ``draw(chunk, size)`` makes of all chunks of the rows, one after another."""
        size = self.size if size is None else size
        keep_memory()
        rows = self.chunk * torch.get_num_threads()
        return torch.cat([draw(part, size) for part in attributes.split(rows)])

    # Words.
    def caption(self, attributes: Attributes, seed: int) -> list[str]:
        """One free caption an image, from the training half of the grammar."""
        return self.grammar.captions(self, attributes, seed)

    def wrong_caption(self, attributes: Attributes, seed: int) -> list[str]:
        """`caption` with one thing changed so that it is false: hard negatives."""
        return self.grammar.captions(self, attributes, seed, wrong=True)

    def prompt(
        self, name: str, present: bool = True, seed: int | None = None, heldout: bool = False
    ) -> str:
        """A phrase that names one of `binary` ("a face with bangs", "a thing in the snow").

        Without a seed the plain form; with one a random training phrasing, or a held-out phrasing.
        """
        return self.grammar.prompt(name, present, seed, heldout)

    def neutral(self, seed: int | None = None, heldout: bool = False) -> str:
        """The prompt that names no attribute ("a face"); seed and heldout as in `prompt`."""
        return self.grammar.neutral_prompt(seed, heldout)

    # A world's own part.
    def resolve(self, attributes: Attributes) -> Attributes:
        """Make impossible combinations possible (a bald head has no bangs)."""
        return attributes

    def set(self, attributes: Attributes, name: str, present: bool) -> Attributes:
        """All rows with one binary attribute, here an amount, set; with what follows from it."""
        return attributes.replace(**{name: 0.985 if present else 0.015})

    def labels(self, attributes: Attributes) -> Tensor:
        """(B, len(binary)) bool: what is visibly there, amounts above a half and `special`."""
        special = self.special(attributes)
        columns = [
            special[name] if name in special else attributes[name] > 0.5 for name in self.binary
        ]
        return torch.stack(columns, 1)

    def special(self, attributes: Attributes) -> dict[str, Tensor]:
        """The (B,) bool labels of the binary attributes that are not amounts."""
        return {}

    def draw(self, attributes: Attributes, size: int) -> Tensor:
        """One chunk of images."""
        raise TypeError(f"{type(self).__name__} must define draw().")
