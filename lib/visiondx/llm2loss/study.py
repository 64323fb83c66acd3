"""All that an experiment on embedded black boxes needs: images, embeddings, losses, loss models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from visiondx.llm2loss.black_box import (
    Examples,
    Source,
    example_losses,
    load_black_boxes,
    split_examples,
)
from visiondx.llm2loss.cache import embed
from visiondx.llm2loss.data import LossData
from visiondx.llm2loss.fit import FitSettings
from visiondx.llm2loss.model import LossModel
from visiondx.models.encoder import Encoder
from visiondx.models.target import Target


@dataclass(frozen=True)
class Study:
    """S black boxes of one world, and the images that their loss models learn from and meet."""

    source: Source
    targets: Mapping[str, Target]  # S by name
    encoder: Encoder
    examples: Mapping[str, Examples]  # "train" and "test"
    embeddings: Mapping[str, Tensor]  # (N, D)
    losses: Mapping[str, Tensor]  # (S, N)

    @property
    def neutral(self) -> list[str]:
        """Sentences that name no attribute, one a training template: what centres the texts."""
        grammar, world = self.source.world.grammar, self.source.world
        count = 4 * len(grammar.templates(heldout=False))
        return sorted({world.neutral(seed) for seed in range(count)})

    def fit(
        self,
        kind: str = "ranker",
        settings: FitSettings | None = None,
        centred: bool = True,
        aggregation: str = "mean",
    ) -> dict[str, LossModel]:
        """One loss model for each black box; the same seed's members, see `LossModel.fit`."""
        models = {}
        for index, name in enumerate(self.targets):
            data = LossData(
                self.embeddings["train"], self.losses["train"][index], self.encoder.fingerprint
            )
            models[name] = LossModel.fit(
                data,
                self.encoder,
                kind=kind,
                settings=settings,
                aggregation=aggregation,
                neutral=self.neutral if centred else (),
                seed=index,
            )
        return models


def prepare_study(
    world: str, train: int, test: int, seed: int, encoder: Encoder, folder: str | Path | None = None
) -> Study:
    """Draw the images, embed them, and let every black box of the world answer.

    Args:
        world: "faces" or "scenes". train, test: numbers of images, drawn from `seed`.
        folder: keeps the embeddings, so that an interrupted run, or another one, goes on.

    Raises:
        InputError: an unknown world.
    """
    source, targets = load_black_boxes(world)
    examples = split_examples(source, train, test, seed)
    return Study(
        source,
        targets,
        encoder,
        examples,
        {name: embed(part.images, encoder, folder).embeddings for name, part in examples.items()},
        {
            name: torch.stack([example_losses(target, part) for target in targets.values()])
            for name, part in examples.items()
        },
    )
