"""Renders made once and kept as bytes: several trainings read each picture many times."""

import torch
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.core.seeds import step_seed


class Pool:
    """`count` renders of a world with their attributes.

    Half is as the world is; in the other half each row has one binary attribute, in turn, set by a
    coin, so that rare ones (a moustache) are seen often, with everything else as it comes.

    Args:
        world: an object with the interface of `visiondx_worlds.worlds.faces`.
        count: images, 12 KB each at 64 px.
        seed: the same seed gives the same pool.
    """

    def __init__(self, world: object, count: int, seed: int) -> None:
        self.world = world
        size = max(1, count // 2 // len(world.binary))
        parts = [world.sample(max(1, count - size * len(world.binary)), seed)]
        for index, name in enumerate(world.binary):
            part_seed = step_seed(seed, index + 1)
            source = torch.Generator().manual_seed(part_seed)
            coin = torch.rand(size, generator=source) < 0.5
            parts.append(world.sample(size, part_seed, given={name: coin}))
        self.attributes = type(parts[0]).cat(parts)
        self.labels = world.labels(self.attributes)  # (count, A) bool
        rows = torch.arange(len(self.attributes)).split(256)
        self.images = torch.cat(
            [
                (world.render(self.attributes[part]) * 255).round().byte()
                for part in tqdm(rows, desc="renders", mininterval=1.0)
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def pick(self, count: int, source: torch.Generator) -> Tensor:
        """(count,) random row indices."""
        return torch.randint(len(self), (count,), generator=source)

    def render(self, rows: Tensor) -> Tensor:
        """(len(rows), 3, H, W) float32 in [0, 1]."""
        return self.images[rows].float() / 255
