"""The baselines that find images instead of painting them (section 2.1, appendix A.2).

`Pool.nearest` takes the images of a pool whose CLIP embeddings are nearest to a sentence, as
clip-retrieval does with LAION; `Pool.named` takes any that bear the class's name, as a search
engine does that reads names alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.core.files import atomic_write, read_kept
from visiondx.core.seeds import check_seed
from visiondx.dataset_interfaces.clip_filter import embedded
from visiondx.models.encoder import Encoder
from visiondx.models.images import Source

if TYPE_CHECKING:
    from faiss import IndexFlatIP


@dataclass(frozen=True)
class Pool:
    """N images to find some of, as their embeddings (N, D), unit rows, on the CPU.

    names: what each image is called, or None where nobody says.

    Raises:
        InputError: no image, embeddings that are no unit rows, or another number of names.
    """

    embeddings: Tensor
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        shape = tuple(self.embeddings.shape)
        if len(shape) != 2 or not shape[0]:
            raise InputError(f"A pool's embeddings must be (N, D) with N >= 1, got {shape}.")
        if not (self.embeddings.norm(dim=1) - 1).abs().max() < 1e-3:
            raise InputError("A pool's embeddings must have unit norm: take them of an Encoder.")
        if self.names is not None and len(self.names) != shape[0]:
            raise InputError(
                f"{len(self.names)} names were given for {shape[0]} images: give one each."
            )

    @classmethod
    def embed(
        cls,
        source: Source,
        encoder: Encoder,
        names: Sequence[str] | None = None,
        kept: str | Path | None = None,
    ) -> Pool:
        """Of images, by their embeddings; images themselves are not held.

        Args:
            source: see ``models.images.batches``; an iterator for what does not fit into memory.
            kept: a file that keeps the embeddings; name it by the images and the encoder.

        Raises:
            InputError: no image, or one that cannot be read.
        """
        found = read_kept(kept, lambda path: load_file(path)["embeddings"])
        if found is None:
            found = embedded(source, encoder, "pool")
            if kept is not None:
                with atomic_write(kept) as path:
                    save_file({"embeddings": found.contiguous()}, path)
        return cls(found, None if names is None else tuple(names))

    def __len__(self) -> int:
        return len(self.embeddings)

    @cached_property
    def index(self) -> IndexFlatIP:
        """faiss's exact index of inner products (Douze et al. 2024)."""
        from faiss import IndexFlatIP

        made = IndexFlatIP(self.embeddings.shape[1])
        made.add(np.ascontiguousarray(self.embeddings.numpy(), dtype=np.float32))
        return made

    def nearest(self, texts: Sequence[str], encoder: Encoder, k: int = 50) -> tuple[Tensor, Tensor]:
        """The k images nearest to each of P sentences.

        Returns:
            rows (P, k) int64, the nearest first, and their cosines (P, k).

        Raises:
            InputError: no sentence, one that the encoder refuses, another encoder's embeddings, or
                a k that the pool has not.
        """
        self._check(k)
        with torch.no_grad():
            words = encoder.embed_texts(list(texts)).cpu()
        if words.shape[1] != self.embeddings.shape[1]:
            raise InputError(
                f"The encoder has {words.shape[1]} numbers, the pool {self.embeddings.shape[1]}: "
                "search with the encoder that embedded the pool."
            )
        cosines, rows = self.index.search(np.ascontiguousarray(words.numpy()), k)
        return torch.from_numpy(rows), torch.from_numpy(cosines)

    def named(self, name: str, k: int = 50, seed: int = 0) -> Tensor:
        """(k,) rows of images that bear a name, at random: nothing but the name is read.

        Raises:
            InputError: a pool without names, or with fewer images of this one.
        """
        check_seed(seed)
        if self.names is None:
            raise InputError("The pool's images have no names: give them, or search by sentences.")
        rows = torch.tensor([row for row, own in enumerate(self.names) if own == name])
        if not 1 <= k <= len(rows):
            raise InputError(
                f"The pool has {len(rows)} images called {name!r}, so k cannot be {k}: lower it."
            )
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
        return rows[order[:k]]

    def _check(self, k: int) -> None:
        if not 1 <= k <= len(self):
            raise InputError(
                f"k is {k} and the pool has {len(self)} images: take 1 to all of them."
            )
