"""What counterfactual training feeds on: labelled renders, and a bank of what each round found."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.core.files import atomic_write, read_kept, result_key
from visiondx.zoom.settings import METHOD as SEARCHING

BATCH = 256  # images at once; a memory limit

METHOD = 1  # of training against what a search finds, for ``files.result_key``
METHODS = (METHOD, SEARCHING)


@dataclass(frozen=True)
class Renders:
    """Labelled images as bytes, rendered once: (N, 3, H, W) uint8 and (N,) bool."""

    images: Tensor
    labels: Tensor

    @classmethod
    def balanced(cls, world, label: str, n: int, seed: int) -> "Renders":
        """n fresh images, every second one with the label."""
        attributes = world.sample(n, seed, given={label: torch.arange(n) % 2 == 0})
        return cls.draw(world, attributes, label)

    @classmethod
    @torch.no_grad()
    def draw(cls, world, attributes, label: str) -> "Renders":
        """Render these attributes of a world; ``label``: the binary one that is asked for."""
        labels = world.labels(attributes)[:, world.binary.index(label)]
        parts = [attributes[rows] for rows in torch.arange(len(labels)).split(BATCH)]
        return cls(torch.cat([to_bytes(world.render(part)) for part in parts]), labels)

    def __len__(self) -> int:
        return len(self.images)

    @torch.no_grad()
    def right(self, target) -> Tensor:
        """(N,) bool, on the CPU: whether a binary target says what the label says."""
        device = target.mean.device
        said = [target(part.to(device) / 255) >= 0.5 for part in self.images.split(BATCH)]
        return torch.cat(said).cpu() == self.labels


@dataclass(frozen=True)
class Round:
    """What one search found, against the target after so many rounds. B images, on the CPU."""

    number: int
    views: Tensor  # (B, V, 3, H, W) uint8: x, x̂ at its most counterfactual step, other edits
    p_original: Tensor  # (B,) f(x) of the target as it then was
    p: Tensor  # (B,) f(x̂)
    regular: Tensor  # (B,) what the regular target says: its mean logit of all views
    right: Tensor  # (n,) bool, the target's answers to held-out renders

    @property
    def withstood(self) -> Tensor:
        """(B,) bool: the search did not change the prediction."""
        return (self.p >= 0.5) == (self.p_original >= 0.5)

    def write(self, path: Path, stamp: str) -> None:
        tensors = {part.name: getattr(self, part.name) for part in fields(self)[1:]}
        with atomic_write(path) as temporary:
            save_file({k: t.contiguous() for k, t in tensors.items()}, temporary, {"made": stamp})

    @classmethod
    def read(cls, path: Path, number: int, stamp: str) -> "Round | None":
        """The round in this file; None if there is none, a damaged one, or another's."""

        def own(path: Path) -> "Round | None":
            with safe_open(path, "pt") as file:
                if (file.metadata() or {}).get("made") != stamp:
                    return None
                return cls(number, *(file.get_tensor(part.name) for part in fields(cls)[1:]))

        return read_kept(path, own)


class Bank:
    """All rounds so far, a file each, so that an interrupted training finds them again.

    Args:
        settings: JSON values; a file that was made with others is not used.
    """

    def __init__(self, directory: str | Path, settings: object) -> None:
        self.directory, self.rounds = Path(directory), []
        self._stamp = result_key(METHODS, settings)

    def upto(self, number: int, search: Callable[[int], Round]) -> None:
        """Hold the rounds from 0 to this one; only this one may be searched for now.

        Raises:
            InputError: an earlier round's file is gone or damaged; its target is gone, too.
        """
        while len(self.rounds) <= number:
            index = len(self.rounds)
            path = self.directory / f"round-{index:02d}.safetensors"
            found = Round.read(path, index, self._stamp)
            if found is None:
                if index < number:
                    raise InputError(
                        f"{path} is missing or damaged, and its round cannot be searched again "
                        "after training has gone on: empty the folder and start anew."
                    )
                search(index).write(path, self._stamp)
                found = Round.read(path, index, self._stamp)
            self.rounds.append(found)
            parts = (found.views, found.regular)
            if index:
                parts = [torch.cat(pair) for pair in zip(self._held, parts, strict=True)]
            self._held = parts

    def draw(self, n: int, source: torch.Generator) -> tuple[Tensor, Tensor]:
        """n images of all rounds: their views (n, V, 3, H, W) uint8, the regular logit (n,)."""
        rows = torch.randint(len(self._held[1]), (n,), generator=source)
        views, regular = self._held
        return views[rows], regular[rows]


def to_bytes(images: Tensor) -> Tensor:
    """Images in [0, 1] as uint8 on the CPU."""
    return (images * 255).round().clamp(0, 255).byte().cpu()
