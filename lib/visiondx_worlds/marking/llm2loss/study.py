"""All that an experiment on black boxes needs: images, embeddings, losses, loss models, truth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from visiondx.llm2loss.cache import embed
from visiondx.llm2loss.checks import check_choice
from visiondx.llm2loss.data import LossData
from visiondx.llm2loss.fit import FitSettings
from visiondx.llm2loss.model import LossModel
from visiondx.models.encoder import Encoder
from visiondx.models.target import Target
from visiondx_worlds.marking.llm2loss import truth
from visiondx_worlds.marking.llm2loss.black_box import (
    Labelled,
    Source,
    example_losses,
    load_black_boxes,
    split_examples,
)
from visiondx_worlds.marking.llm2loss.truth import PairTruth, Sentence
from visiondx_worlds.marking.llm2loss.words import Words

TEXTS = ("projected", "centred", "as they are")


@dataclass(frozen=True)
class Study(ABC):
    """S black boxes of one kind of images, and those that their loss models learn from and meet."""

    words: Words
    targets: Mapping[str, Target]  # S by name
    encoder: Encoder
    examples: Mapping[str, Labelled]  # "train" and "test"
    embeddings: Mapping[str, Tensor]  # (N, D)
    losses: Mapping[str, Tensor]  # (S, N)

    @property
    def neutral(self) -> list[str]:
        """Sentences that name no attribute, one a training template: what centres the texts."""
        count = 4 * len(self.words.grammar.templates(heldout=False))
        return sorted({self.words.neutral(seed) for seed in range(count)})

    def fit(
        self,
        kind: str = "ranker",
        settings: FitSettings | None = None,
        texts: str = "projected",
        aggregation: str = "mean",
    ) -> dict[str, LossModel]:
        """One loss model for each black box; the same seed's members, see `LossModel.fit`.

        Args:
            texts: what is done about the modality gap: "projected", "centred" (images too), or
                "as they are", as in the paper.

        Raises:
            InputError: another word for texts.
        """
        check_choice("texts", texts, TEXTS)
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
                neutral=self.neutral if texts == "centred" else (),
                projected=texts == "projected",
                seed=index,
            )
        return models

    @abstractmethod
    def draw_pairs(
        self, count: int, images: int, seed: int, heldout: bool = False
    ) -> list[tuple[Sentence, Sentence]]:
        """Pairs of sentences, each of which `images` images can show; see `truth.draw_pairs`."""

    @abstractmethod
    def pair_truth(
        self, pairs: Sequence[tuple[Sentence, Sentence]], images: int, seed: int
    ) -> PairTruth:
        """Which sentence of each pair is truly harder, by the losses on images that match them."""

    @abstractmethod
    def pictures(self, sentence: Sentence, count: int, images: int, seed: int) -> Tensor:
        """(count, 3, H, W) in [0, 1]: the first of the images that `pair_truth` takes for it."""


@dataclass(frozen=True)
class WorldStudy(Study):
    """Black boxes of a world, which draws new images of whatever a sentence says."""

    source: Source

    def draw_pairs(
        self, count: int, images: int, seed: int, heldout: bool = False
    ) -> list[tuple[Sentence, Sentence]]:
        return truth.draw_pairs(self.source, count, seed, heldout)

    def pair_truth(
        self, pairs: Sequence[tuple[Sentence, Sentence]], images: int, seed: int
    ) -> PairTruth:
        flat = [sentence for pair in pairs for sentence in pair]
        losses = truth.true_losses(self.source, self.targets, flat, images, seed)
        return PairTruth.of_drawn(losses.unflatten(1, (-1, 2)))

    def pictures(self, sentence: Sentence, count: int, images: int, seed: int) -> Tensor:
        attributes, _ = self.source.sample(images, seed, sentence.given)
        return self.source.world.render(attributes[:count])


def prepare_study(
    world: str, train: int, test: int, seed: int, encoder: Encoder, folder: str | Path | None = None
) -> WorldStudy:
    """Draw the images, embed them, and let every black box of the world answer.

    Args:
        world: "faces" or "scenes". train, test: numbers of images, drawn from `seed`.
        folder: keeps the embeddings, so that an interrupted run, or another one, goes on.

    Raises:
        InputError: an unknown world.
    """
    source, targets = load_black_boxes(world)
    examples = split_examples(source, train, test, seed)
    return WorldStudy(
        words=source.world,
        targets=targets,
        encoder=encoder,
        examples=examples,
        embeddings={
            name: embed(part.images, encoder, folder).embeddings for name, part in examples.items()
        },
        losses={
            name: torch.stack([example_losses(target, part) for target in targets.values()])
            for name, part in examples.items()
        },
        source=source,
    )
