"""Where searches begin: at the words whose pictures please most, of some that are tried."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from visiondx.diffexplainer.hard_prompts import Words
from visiondx.diffexplainer.objectives import Objectives
from visiondx.diffexplainer.tried import tried
from visiondx.models.painter import Painter


def best_words(
    painter: Painter,
    template: str,
    aims: Objectives,
    count: int,
    among: int,
    noises: int,
    *,
    without: Sequence[Sequence[str]] = (),
    seed: int = 0,
    batch: int = 64,
    kept: str | Path | None = None,
) -> list[list[str]]:
    """Of each of E aims the `count` words of the least loss, the best first.

    A word costs `noises` pictures without a gradient, and all aims look at the same ones; a search
    that begins at a word far from its aim may never come there.

    Args:
        template: with ``{t}``, where each word stands by itself.
        among: words that are tried, drawn from the vocabulary's whole ones; all, if it has fewer.
        without: of each aim the words that it begins at anyway. kept: see ``tried``.

    Raises:
        InputError: see ``tried``.
    """
    words = Words.of(painter).some(among, seed)
    losses = tried(painter, template, words, [aims], noises, seed=seed, batch=batch, kept=kept)[0]
    order = [[words.texts[w] for w in row] for row in losses.argsort(1).tolist()]
    taken = [set(own) for own in without] or [set()] * len(order)
    return [
        [word for word in row if word not in own][:count]
        for row, own in zip(order, taken, strict=True)
    ]
