"""The truth about a sentence: the world draws what it says, and the black box's loss is measured.

Sentences name a few attributes and are put together by the world's grammar. All sentences of one
call are drawn from the same random numbers, so that two differ in little but what they say.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.core.stats import Estimate, bootstrap
from visiondx.models.target import Target
from visiondx_worlds.marking.llm2loss.black_box import Source, example_losses, render_examples
from visiondx_worlds.marking.llm2loss.words import Words
from visiondx_worlds.worlds.base import Attributes

_CHECKED = 16  # images on which a sentence must come true before it is taken
_TRIES = 2000  # pairs that may be refused in a row


@dataclass(frozen=True)
class Sentence:
    """Words, and what they say: {attribute: whether it is there}."""

    text: str
    given: Mapping[str, bool]


@dataclass(frozen=True)
class PairTruth:
    """Which of two sentences is harder, for S black boxes and P pairs."""

    means: Tensor  # (S, P, 2) mean loss on images of each sentence, nats
    difference: Tensor  # (S, P) of the first sentence less that of the second
    known: Tensor  # (S, P) bool: the 95 % interval of the difference does not hold 0

    @classmethod
    def of_drawn(cls, losses: Tensor) -> PairTruth:
        """From losses (S, P, 2, images) on images that were drawn alike for both sentences."""
        difference = (losses[:, :, 0] - losses[:, :, 1]).mean(2)
        return cls(losses.mean(3), difference, known_sign(losses))


def draw_pairs(
    source: Source, count: int, seed: int, heldout: bool = False
) -> list[tuple[Sentence, Sentence]]:
    """Pairs of sentences that the world can draw; see `pairs_in_words`."""

    def possible(given: Mapping[str, bool]) -> bool:
        return can_be(source, given)

    return pairs_in_words(source.world, possible, count, seed, heldout)


def pairs_in_words(
    words: Words,
    possible: Callable[[Mapping[str, bool]], bool],
    count: int,
    seed: int,
    heldout: bool = False,
) -> list[tuple[Sentence, Sentence]]:
    """Pairs of sentences that share up to two attributes and differ in the rest.

    A third each: one attribute there and denied ("a smile" / "no smile"); two attributes there and
    both denied; one attribute there and another in its place ("a hat" / "bangs").

    Args:
        possible: are there images of this, {attribute: whether it is there}?
        heldout: in phrases that the encoder never read, else in those of its training.

    Raises:
        InputError: count below 1, or fewer pairs than that are to be found.
    """
    if count < 1:
        raise InputError(f"{count} pairs were asked for: ask for one or more.")
    rng = random.Random(f"{seed} pairs")
    pairs: list[tuple[Sentence, Sentence]] = []
    seen = set()
    refused = 0
    while len(pairs) < count:
        if refused == _TRIES:
            raise InputError(
                f"Only {len(pairs)} of {count} pairs of sentences have enough images: ask for "
                "fewer pairs, or for fewer images of each sentence."
            )
        refused += 1
        kind = len(pairs) % 3
        changed = 1 if kind == 0 else 2
        names = rng.sample(words.binary, changed + rng.randint(0, 2))
        shared = {name: rng.random() < 0.75 for name in names[changed:]}
        if kind == 2:
            sides = [{names[0]: True}, {names[1]: True}]
        else:
            there = dict.fromkeys(names[:changed], True)
            sides = [there, {name: not value for name, value in there.items()}]
        rng.shuffle(sides)
        given = [side | shared for side in sides]
        key = frozenset(frozenset(g.items()) for g in given)
        if key in seen or not all(possible(g) for g in given):
            continue
        try:
            texts = [words.grammar.sentence(g, seed, heldout) for g in given]
        except InputError:  # the grammar has no sentence for it
            continue
        seen.add(key)
        refused = 0
        pairs.append(tuple(Sentence(w, g) for w, g in zip(texts, given, strict=True)))
    return pairs


def can_be(source: Source, given: Mapping[str, bool]) -> bool:
    """Can the world draw images on all of which `given` is true?"""
    try:
        attributes, _ = source.sample(_CHECKED, 0, given)
    except InputError:
        return False
    return bool(_agree(source, attributes, given).all())


def matching(labels: Tensor, names: Sequence[str], given: Mapping[str, bool]) -> Tensor:
    """(N,) bool: on which images is all of `given`, {attribute: whether it is there}, true?

    Args:
        labels: (N, A) bool, a column for each of `names`.

    Raises:
        InputError: an unknown attribute.
    """
    unknown = [name for name in given if name not in names]
    if unknown:
        raise InputError(f"Unknown attribute {unknown[0]!r}: choose from {', '.join(names)}.")
    columns = [names.index(name) for name in given]
    return (labels[:, columns] == torch.tensor([*given.values()])).all(1)


def _agree(source: Source, attributes: Attributes, given: Mapping[str, bool]) -> Tensor:
    return matching(source.world.labels(attributes), source.world.binary, given)


def true_losses(
    source: Source,
    targets: Mapping[str, Target],
    sentences: Sequence[Sentence],
    images: int,
    seed: int,
) -> Tensor:
    """Losses of each target on new images that match each sentence: (S, P, images) float32, nats.

    A sentence that stands in the list twice is drawn once.

    Args:
        source: of the images; a target must know its classes.
        images: drawn for each sentence. seed: of the images.

    Raises:
        InputError: no sentence, or one that the world cannot draw.
    """
    if not sentences:
        raise InputError("No sentence was given: give one or more.")
    keys = [frozenset(sentence.given.items()) for sentence in sentences]
    unique = {key: sentence for key, sentence in zip(keys, sentences, strict=True)}
    tables, answers = [], []
    for sentence in unique.values():
        attributes, answer = source.sample(images, seed, sentence.given)
        if not _agree(source, attributes, sentence.given).all():
            raise InputError(f"No image can show {sentence.text!r}: name what goes together.")
        tables.append(attributes)
        answers.append(answer)
    examples = render_examples(source, Attributes.cat(tables), torch.cat(answers))
    losses = torch.stack([example_losses(target, examples) for target in targets.values()])
    place = {key: index for index, key in enumerate(unique)}
    return losses.view(len(targets), len(unique), images)[:, [place[key] for key in keys]]


def mean_losses(losses: Tensor) -> list[Estimate]:
    """The true mean loss of each sentence, over targets; the interval resamples the images.

    All targets see the same images, and n counts these.

    Args:
        losses: (S, P, images), see `true_losses`; also differences of two of them.
    """
    return [bootstrap(row) for row in losses.double().mean(0).numpy()]


def known_sign(losses: Tensor) -> Tensor:
    """(S, P) bool: on which pairs is it certain which of the two is harder?

    Where the 95 % interval of the mean difference, image by image, does not hold 0.

    Args:
        losses: (S, P, 2, images), of both sentences of each pair, see `true_losses`.
    """
    difference = losses[:, :, 0] - losses[:, :, 1]
    error = difference.std(2) / difference.shape[2] ** 0.5
    return difference.mean(2).abs() > 1.96 * error
