"""A study of one's own recogniser on CelebA; its images stay on disk until they are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.llm2loss.celeba.images import CelebA
from visiondx.llm2loss.celeba.recogniser import (
    celeba_answers,
    celeba_faces,
    celeba_losses,
    celeba_parts,
)
from visiondx.models.encoder import Encoder
from visiondx_worlds.marking.llm2loss.found_truth import found_truth
from visiondx_worlds.marking.llm2loss.study import Study, prepare_study
from visiondx_worlds.marking.llm2loss.truth import PairTruth, Sentence, matching, pairs_in_words
from visiondx_worlds.marking.llm2loss.words import CelebAWords

BACKENDS = ("embedded", "pretrained")


@dataclass(frozen=True)
class Pretrained:
    """What the pretrained backend is made of; see ``celeba_faces`` and ``Encoder``."""

    root: str | Path  # of CelebA
    recogniser: str
    trained_on: str | Path | None = None
    encoder_name: str = "ViT-B-32"
    encoder_weights: str | None = "openai"


@dataclass(frozen=True)
class CelebAExamples:
    """Some images of CelebA with the classes that are right; see `black_box.Labelled`."""

    faces: CelebA
    answers: Tensor  # (N,) int64

    def __len__(self) -> int:
        return len(self.faces)

    @property
    def labels(self) -> Tensor:
        """(N, A) bool."""
        return self.faces.labels

    def pictures(self, rows: Tensor | slice = slice(None)) -> Tensor:
        """(len(rows), 3, 218, 178) in [0, 1], read from disk."""
        return torch.cat([images for images, _ in self.faces[rows].batches()])


@dataclass(frozen=True)
class CelebAStudy(Study):
    """Nothing can be drawn: what a sentence says is looked for among the test images."""

    examples: Mapping[str, CelebAExamples]

    def draw_pairs(
        self, count: int, images: int, seed: int, heldout: bool = False
    ) -> list[tuple[Sentence, Sentence]]:
        labels, names = self.examples["test"].labels, self.words.binary
        least = max(images, 2)

        def possible(given: Mapping[str, bool]) -> bool:
            return int(matching(labels, names, given).sum()) >= least

        return pairs_in_words(self.words, possible, count, seed, heldout)

    def pair_truth(
        self, pairs: Sequence[tuple[Sentence, Sentence]], images: int, seed: int
    ) -> PairTruth:
        """By all test images that match: `images` and `seed` draw nothing here."""
        labels = self.examples["test"].labels
        return found_truth(self.losses["test"], labels, self.words.binary, pairs)

    def pictures(self, sentence: Sentence, count: int, images: int, seed: int) -> Tensor:
        test = self.examples["test"]
        rows = matching(test.labels, self.words.binary, sentence.given).nonzero()[:count, 0]
        return test.pictures(rows)


def prepare_celeba_study(
    given: Pretrained,
    train: int,
    test: int,
    seed: int,
    folder: str | Path | None = None,
    encoder: Encoder | None = None,
) -> CelebAStudy:
    """Read CelebA, embed it, and let the recogniser answer.

    Args:
        train, test: numbers of images, disjoint parts drawn from `seed`.
        folder: keeps the embeddings, so that an interrupted run, or another one, goes on.
        encoder: in place of the open_clip model that `given` names.

    Raises:
        InputError: what is missing or too few, before anything long begins.
    """
    faces, target = celeba_faces(given.root, given.recogniser, given.trained_on or None)
    words = CelebAWords(faces.attributes)
    counts = {"train": train, "test": test}
    parts = celeba_parts(faces, tuple(counts.values()), seed)
    encoder = encoder or Encoder.from_open_clip(given.encoder_name, given.encoder_weights)
    data = celeba_losses(faces, target, encoder, tuple(counts.values()), seed, folder)
    return CelebAStudy(
        words=words,
        targets={"recogniser": target},
        encoder=encoder,
        examples={
            name: CelebAExamples(part, celeba_answers(part.identities, target))
            for name, part in zip(counts, parts, strict=True)
        },
        embeddings={name: part.embeddings for name, part in zip(counts, data, strict=True)},
        losses={name: part.losses[None] for name, part in zip(counts, data, strict=True)},
    )


def prepare_studies(
    backend: str,
    worlds: Sequence[str],
    train: int,
    test: int,
    seed: int,
    folder: str | Path | None,
    given: Pretrained,
) -> dict[str, Study]:
    """The studies of a notebook, by the name of what their images show.

    Args:
        backend: "embedded" for the black boxes of these worlds; "pretrained" for `given`, whose
            only study is called "faces".
        train, test, seed, folder: see `prepare_study`.

    Raises:
        InputError: an unknown backend, or what `prepare_study` and `prepare_celeba_study` refuse.
    """
    if backend not in BACKENDS:
        raise InputError(f"No backend {backend!r}: choose {' or '.join(BACKENDS)}.")
    if backend == "pretrained":
        return {"faces": prepare_celeba_study(given, train, test, seed, folder)}
    encoder = Encoder.load()
    return {world: prepare_study(world, train, test, seed, encoder, folder) for world in worlds}
