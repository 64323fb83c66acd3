"""A case of one's own: a target from a file, on a world or on pictures whose truth nobody knows."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from visiondx.core.stats import Estimate, proportion
from visiondx.zoom.agreement import spearman
from visiondx.zoom.directions import Directions
from visiondx.zoom.search import SearchSettings
from visiondx_worlds.marking.zoom.score import Case, measure_seeds, run_case
from visiondx_worlds.marking.zoom.target_state import target_state
from visiondx_worlds.marking.zoom.truth import Interventions

if TYPE_CHECKING:
    from visiondx_worlds.ground import Ground


def case_of(
    ground: "Ground",
    spec: str,
    attributes: Sequence[str],
    interventions: Interventions | None = None,
    M: torch.Tensor | None = None,
    *,
    directions: str = "relevance",
    edits: Directions | None = None,
    seeds: Sequence[int],
    images: int,
    settings: SearchSettings,
    folder: str | Path | None = None,
) -> Case:
    """``score.run_case`` of an embedded target; of one from a file, on any pictures, as much of it
    as can be known.

    One's own target is asked about all attributes but its label, which Eq. 8 holds fixed, if the
    words know the label; it is no control, as nobody knows what it should mind.

    Args:
        spec: see ``Target.load``. attributes: names that the words have, or phrases.
        interventions: the truth, of the ground's world; None where there is none.
        The others are those of ``run_case``.

    Raises:
        InputError: see ``run_case`` and ``diagnose``.
    """
    how = {"directions": directions, "edits": edits, "seeds": seeds, "images": images}
    how |= {"settings": settings, "folder": folder}
    models = ground.generator, ground.encoder
    target = ground.target(spec)
    if interventions is not None and target.config:
        return run_case(spec, interventions, attributes, *models, M, **how)
    label = ground.label(target)
    prompts = {name: ground.prompt(name) for name in attributes if name != label}
    made, held = target_state(target, ground.generator, asked=True), ground.held(target)
    measured = measure_seeds(target, made, prompts, ground.neutral, *models, M, held=held, **how)
    truth = interventions and interventions.sensitivity(target, list(prompts))
    return Case(Path(spec).name, measured, truth)


def own_metrics(case: Case) -> dict[str, Estimate | float]:
    """Flat, for ``runs.record``: what was measured, and what the truth says where it is known."""
    pooled = case.pooled
    found: dict[str, Estimate | float] = {"apart": int(pooled.apart)}
    for n, name in enumerate(pooled.attributes):
        found[f"h.{name}"] = pooled.h[n]
        found[f"flip_rate.{name}"] = proportion(pooled.flipped[:, n].numpy())
        found[f"seen.{name}"] = pooled.seen.share[n]
    if case.truth is not None:
        names = case.truth.attributes
        found |= {f"truth.{name}": h for name, h in zip(names, case.truth.h, strict=True)}
        if len(names) >= 3:
            found["truth.spearman"] = spearman(pooled, case.truth)
    return found
