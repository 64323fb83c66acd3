"""What the painter learns from: latents of renders, made once, and captions, new at every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from visiondx.core.files import atomic_write, digest, read_kept, result_key
from visiondx.core.seeds import step_seed
from visiondx_worlds.training.painter_autoencoder import SHARES, sample_rows
from visiondx_worlds.worlds.base import Attributes, World
from visiondx_worlds.worlds.grammar import Grammar

_ROWS = 920_000  # the painter's renders are drawn apart from every other draw
_CHUNK = 256
METHOD = 1  # raised where renders of the same rows look otherwise
_SAID = {"animals": "portrait"}


@dataclass(frozen=True)
class Part:
    """One world's share of the pool: N rows of attributes and their latents (N, C, h, w), fp16."""

    world: World
    attributes: Attributes
    latents: Tensor

    @cached_property
    def grammar(self) -> Grammar:
        """See ``told``."""
        return told(self.world)


def told(world: World) -> Grammar:
    """The sentences that the painter is told a world in: scenes show cats and dogs too, so what
    shows an animal's head alone is always said to be a portrait.
    """
    said = _SAID.get(world.name)
    return world.grammar if said is None else world.grammar.saying(said)


class LatentPool:
    """Renders of all worlds as latents, each world with its share of every batch.

    Args:
        parts: one a world, in the order of ``SHARES``.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = list(parts)

    @classmethod
    def make(
        cls, net: AutoencoderKL, count: int, seed: int, kept: str | Path | None = None
    ) -> LatentPool:
        """`count` renders (a multiple of 4), the worlds with the shares of ``SHARES``.

        Args:
            net: whose latents' means are kept, in units of deviation 1.
            kept: a file that keeps them for the next call with the same arguments.
        """
        total = sum(share for _, share in SHARES)
        rows = [
            sample_rows(world, count * share // total, step_seed(_ROWS + index, seed))
            for index, (world, share) in enumerate(SHARES)
        ]
        drawn = [digest(values=part.values) for part in rows]
        tag = result_key(
            METHOD, [[w.name, share] for w, share in SHARES], drawn, fingerprints(vae=net)
        )
        found = read_kept(kept, lambda path: _read(path, tag))
        if found is None:
            parts = zip(SHARES, rows, strict=True)
            found = {world.name: _latents(net, world, part) for (world, _), part in parts}
            if kept is not None:
                with atomic_write(kept) as path:
                    save_file(found, path, {"made": tag})
        parts = zip(SHARES, rows, strict=True)
        return cls([Part(world, part, found[world.name]) for (world, _), part in parts])

    def __len__(self) -> int:
        return sum(len(part.latents) for part in self.parts)

    def batch(self, size: int, seed: int) -> tuple[Tensor, list[str]]:
        """`size` (a multiple of 4) random rows: latents (size, C, h, w) float32, and captions.

        A caption tells some of what a picture shows, in other words at every seed.
        """
        total = sum(share for _, share in SHARES)
        latents, captions = [], []
        for index, (part, (_, share)) in enumerate(zip(self.parts, SHARES, strict=True)):
            now = step_seed(seed, index)
            source = torch.Generator().manual_seed(now)
            rows = torch.randint(len(part.latents), (size * share // total,), generator=source)
            latents.append(part.latents[rows].float())
            captions += part.grammar.captions(part.world, part.attributes[rows], now)
        return torch.cat(latents), captions


@torch.no_grad()
def _latents(net: AutoencoderKL, world: World, rows: Attributes) -> Tensor:
    parts = []
    for part in tqdm(torch.arange(len(rows)).split(_CHUNK), desc=f"latents of {world.name}"):
        images = world.render(rows[part]).to(net.device) * 2 - 1
        parts.append(net.encode(images).latent_dist.mode().half().cpu())
    return torch.cat(parts)


def _read(path: Path, tag: str) -> dict[str, Tensor] | None:
    """None where the file was made with other arguments."""
    with safe_open(path, framework="pt") as file:
        if file.metadata().get("made") != tag:
            return None
        return {key: file.get_tensor(key) for key in file.keys()}


def fingerprints(**parts: nn.Module) -> dict[str, str]:
    """A short hash of each part's weights: what was made with others is made again, or refused."""
    return {name: digest(**part.state_dict()) for name, part in parts.items()}
