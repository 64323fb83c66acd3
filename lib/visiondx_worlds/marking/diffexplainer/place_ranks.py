"""What a perfect painter would show of places: which of them, rendered, speaks most for a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from visiondx.diffexplainer.objectives import Objectives
from visiondx_worlds.marking.diffexplainer.truth import Interventions
from visiondx_worlds.worlds.contexts import CONTEXTS


@torch.no_grad()
def place_ranks(
    aims: Objectives,
    classes: Sequence[str],
    answers: Mapping[str, str],
    drawn: Interventions,
    batch: int = 64,
) -> dict[str, int]:
    """{class: the rank, from 1, of its place among all contexts by the mean loss of renders}.

    Args:
        aims: of these classes. answers: {class: its place}, of those that have one.
        drawn: whose scenes, without any object, are looked at. batch: renders at once.
    """
    device = aims.target.mean.device
    losses = []
    for place in CONTEXTS:
        parts = [aims(part[None].to(device))[0] for part in drawn.context(place).split(batch)]
        losses.append(torch.cat(parts, 1).mean(1).cpu())
    ranks = torch.stack(losses, 1).argsort(1).argsort(1) + 1  # (E, contexts)
    return {
        name: int(ranks[row, CONTEXTS.index(answers[name])])
        for row, name in enumerate(classes)
        if name in answers
    }
