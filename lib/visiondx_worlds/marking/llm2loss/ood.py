"""Words for semantic out-of-distribution detection (LLM2Loss, section 4.1.2, Table 1).

The black box knows faces. The sets outside of what it knows are random vectors, the names of
animals, and the classes and super-classes of scenes, in the places of the paper's CIFAR words.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.covariance import LedoitWolf
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.core.stats import Estimate, crossed
from visiondx.models.encoder import Encoder
from visiondx_worlds.worlds import animals, faces, scenes
from visiondx_worlds.worlds.grammar import article

RANDOM = "random vectors"
RESAMPLES = 500


def inside_words(heldout: bool = False) -> list[str]:
    """What faces are called, and a face with each of its attributes.

    Args:
        heldout: attributes in phrases that the encoder never read. Its few nouns for a face it has
            all read, so that they stand in both lists.
    """
    grammar = faces.grammar
    sex = grammar.words["attributes"]["male"]
    nouns = [*grammar.words["nouns"], *sex["present"]["noun"], *sex["absent"]["noun"]]
    said = [phrase for name in faces.binary for phrase in _with(name, heldout)]
    return list(dict.fromkeys([article(n) for n in nouns] + [f"a face with {p}" for p in said]))


def _with(name: str, heldout: bool) -> list[str]:
    """What stands after "a face with" where this attribute is there."""
    grammar = faces.grammar
    if heldout:
        return grammar.heldout["phrases"][name]["present"]
    return grammar.words["attributes"][name]["present"].get("with", [])


def outside_words(heldout: bool = False) -> dict[str, list[str]]:
    """set -> names of what is no face: of animals, of the classes and super-classes of scenes."""
    words = animals.grammar.words
    cat = words["attributes"]["cat"]
    nouns = [*words["nouns"], *cat["present"]["noun"], *cat["absent"]["noun"]]
    unread = animals.grammar.heldout["phrases"]["cat"]
    named = [article(noun) for noun in nouns]
    classes = [p for name in scenes.classes for p in scenes.grammar.phrases(name, True, heldout)]
    groups = [noun for some in scenes.grammar.words["superclasses"].values() for noun in some]
    found = {
        "animals": [*unread["present"], *unread["absent"]] if heldout else named,
        "scene classes": classes,
        "scene super-classes": [article(noun) for noun in groups],
    }
    return {name: list(dict.fromkeys(some)) for name, some in found.items()}


@torch.no_grad()
def embed_words(
    encoder: Encoder, words: Sequence[str], heldout: bool = False, templates: bool = True
) -> Tensor:
    """(P, D) unit rows: each word as it is, or averaged over the sentences of the faces' grammar.

    Args:
        heldout: sentences that the encoder never read, else those of its training.
    """
    sentences = list(dict.fromkeys(faces.grammar.templates(heldout))) if templates else ["{}"]
    texts = [sentence.format(word) for word in words for sentence in sentences]
    each = encoder.embed_texts(texts).cpu().view(len(words), len(sentences), -1)
    return F.normalize(each.mean(1), dim=1)


def mahalanobis(texts: Tensor, centre: Tensor, images: Tensor) -> Tensor:
    """How far texts lie from a centre, in the unit that the training images set; (P,).

    (t - c)' Σ⁻¹ (t - c), Σ the covariance of the images' unit embeddings with the shrinkage of
    Ledoit and Wolf (2004): the distance of Lee et al. (2018) with one class. Where images hardly
    differ, a text that differs is far away.

    Args:
        texts: (P, D). centre: (D,). images: (N, D) training images.
    """
    precision = torch.from_numpy(
        LedoitWolf().fit(F.normalize(images.double(), dim=1).numpy()).precision_
    )
    away = F.normalize(texts.double(), dim=1) - centre.double()
    return ((away @ precision) * away).sum(1).float()


def random_vectors(n: int, dim: int, seed: int) -> Tensor:
    """(n, dim) directions, uniform on the sphere; other ones than the classifier's negatives."""
    drawn = torch.randn(n, dim, generator=torch.Generator().manual_seed(seed + 10**6))
    return F.normalize(drawn, dim=1)


def aurocs(inside: Tensor, outside: Mapping[str, Tensor], seed: int = 0) -> dict[str, Estimate]:
    """AUROC of familiarity for each set: how often a word from inside beats one from outside.

    Args:
        inside: (P,) familiarity of the words of what was seen, or (S, P) of S black boxes.
        outside: set -> (Q,), or (S, Q). seed: of the bootstrap, which resamples the
            words, inside and outside apart; all black boxes are asked the same.

    Raises:
        InputError: another number of black boxes inside than outside.
    """
    inside = torch.atleast_2d(inside)
    found = {}
    for name, scores in outside.items():
        scores = torch.atleast_2d(scores)
        if len(scores) != len(inside):
            raise InputError(
                f"{name!r} has scores of {len(scores)} black boxes and inside of {len(inside)}: "
                "give the same ones."
            )
        found[name] = _auroc(inside.double().numpy(), scores.double().numpy(), seed)
    return found


def _auroc(inside: np.ndarray, outside: np.ndarray, seed: int) -> Estimate:
    """The mean over black boxes of the share of pairs in which inside wins; a tie is half a win."""
    wins = (np.sign(inside[:, :, None] - outside[:, None, :]) + 1) / 2  # (S, P, Q)
    _, p, q = wins.shape

    def each(a: np.ndarray, b: np.ndarray) -> dict[str, np.ndarray]:
        return {"auroc": np.einsum("rp,spq,rq->sr", a, wins, b, optimize=True) / (p * q)}

    return replace(crossed(each, [p, q], RESAMPLES, seed)["auroc"], n=q)
