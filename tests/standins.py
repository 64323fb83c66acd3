"""Small stand-ins that tests share: a world of four attributes that renders in a millisecond."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NAMES = ("red", "ring", "square", "stripe", "x", "y")
WORDS = {
    "red": (("a red shape", "a shape painted red"), ("a blue shape", "a shape that is not red")),
    "square": (("a square shape", "a shape with corners"), ("a round shape", "a disc")),
    "ring": (("a shape with a ring", "a shape in a ring"), ("a shape without a ring", "no ring")),
    "stripe": (("a shape on stripes", "a striped picture"), ("a plain picture", "no stripes")),
}
HELDOUT = {"red": "something red", "square": "something with corners"}


@dataclass(frozen=True)
class ToyAttributes:
    """`values` (B, 6): four binary attributes as 0 / 1, then the position in [-1, 1]."""

    values: Tensor
    names: tuple[str, ...] = NAMES

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, key: str | slice | Tensor) -> "Tensor | ToyAttributes":
        if isinstance(key, str):
            return self.values[:, self.names.index(key)]
        return ToyAttributes(self.values[key])

    @staticmethod
    def cat(tables: "Sequence[ToyAttributes]") -> "ToyAttributes":
        return ToyAttributes(torch.cat([table.values for table in tables]))

    def to(self, device: str) -> "ToyAttributes":
        return ToyAttributes(self.values.to(device))


class ToyWorld:
    """The interface of a world (`worlds.faces`) with soft shapes instead of faces."""

    names = NAMES
    binary = NAMES[:4]
    latent_dim = 6

    def from_normal(self, u: Tensor) -> ToyAttributes:
        return ToyAttributes(torch.cat([(u[:, :4] > 0).float(), u[:, 4:].tanh()], 1))

    def sample(self, n: int, seed: int, given: dict | None = None) -> ToyAttributes:
        source = torch.Generator().manual_seed(seed)
        attributes = self.from_normal(torch.randn(n, self.latent_dim, generator=source))
        for name, value in (given or {}).items():
            attributes = self.switch(attributes, name, value)
        return attributes

    def switch(self, attributes: ToyAttributes, name: str, value: object) -> ToyAttributes:
        values = attributes.values.clone()
        values[:, NAMES.index(name)] = torch.as_tensor(value).float()
        return ToyAttributes(values)

    def render(self, attributes: ToyAttributes, size: int = 64) -> Tensor:
        """(B, 3, size, size) in [0, 1]."""
        red, ring, square, stripe, x, y = (v.view(-1, 1, 1) for v in attributes.values.T)
        line = torch.linspace(-1, 1, size, device=attributes.values.device)
        dx, dy = line - 0.3 * x, line[:, None] - 0.3 * y
        disc, box = (dx**2 + dy**2).sqrt(), torch.maximum(dx.abs(), dy.abs())
        distance = torch.lerp(disc, box, square)
        shape = torch.sigmoid((0.4 - distance) * 40)
        hoop = torch.exp(-(((disc - 0.75) * 25) ** 2)) * ring
        ground = (0.8 + 0.15 * stripe * torch.sin(line * 25))[:, None].expand(-1, 1, size, size)
        colour = torch.stack([0.2 + 0.7 * red, 0.2 + 0 * red, 0.9 - 0.7 * red], 1)
        image = torch.lerp(ground, colour, shape[:, None])
        return (image * (1 - hoop[:, None])).clamp(0, 1)

    def labels(self, attributes: ToyAttributes) -> Tensor:
        return attributes.values[:, : len(self.binary)] > 0.5

    def prompt(
        self, name: str, present: bool = True, seed: int | None = None, heldout: bool = False
    ) -> str:
        if heldout and present and name in HELDOUT:
            return HELDOUT[name]
        words = WORDS[name][0 if present else 1]
        return words[0] if seed is None else random.Random(seed).choice(words)

    def neutral(self, seed: int | None = None, heldout: bool = False) -> str:
        return "a shape"

    def wrong_caption(self, attributes: ToyAttributes, seed: int) -> list[str]:
        return self.caption(attributes, seed, wrong=True)

    def caption(self, attributes: ToyAttributes, seed: int, wrong: bool = False) -> list[str]:
        source = random.Random(seed)
        captions = []
        for row in self.labels(attributes).tolist():
            row[0] ^= wrong
            parts = [
                source.choice(WORDS[name][0 if present else 1])
                for name, present in zip(self.binary, row, strict=True)
            ]
            source.shuffle(parts)
            captions.append(", ".join(parts))
        return captions
