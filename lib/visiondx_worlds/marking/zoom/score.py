"""Diagnoses scored against the truth: are planted biases found, and balanced models left alone?

What counts: an attribute *wins* if it has the largest h and every other is surely behind it in the
same images (``Sensitivity.apart``). It *matters* to a target if its true sensitivity, measured by
intervention, is at least ``MATTERS``. A *false alarm* is a win, on a balanced target, of an
attribute that does not matter.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from visiondx.core.files import atomic_write, digest, read_kept, result_key
from visiondx.core.stats import Estimate, bootstrap
from visiondx.models.target import Target
from visiondx.zoom.agreement import spearman
from visiondx.zoom.diagnose import diagnose
from visiondx.zoom.directions import Directions
from visiondx.zoom.estimate import CHANNELS, settle
from visiondx.zoom.estimate import METHOD as DIRECTIONS
from visiondx.zoom.search import SearchSettings
from visiondx.zoom.sensitivity import Sensitivity
from visiondx.zoom.settings import METHOD as SEARCHING
from visiondx.zoom.visibility import METHOD as SEEING
from visiondx.zoom.visibility import Visibility
from visiondx_worlds.marking.zoom.truth import Interventions, label_prompts
from visiondx_worlds.models.embedded_targets import fingerprint

METHODS = (SEARCHING, DIRECTIONS, SEEING)  # of what is kept
MATTERS = 0.05  # mean change of the target's probability


@dataclass(frozen=True)
class Case:
    """One target: a measurement for each seed, and the truth, of the same attributes."""

    name: str
    measured: tuple[Sensitivity, ...]
    truth: Sensitivity | None  # None: no world knows it, see ``own``
    planted: str | None = None  # None: a balanced target, a control
    label: str | None = None  # the target's own attribute, where that was asked for, too
    world: str = ""  # targets of one world see the same images

    @cached_property
    def pooled(self) -> Sensitivity:
        """The images of all seeds together."""
        return Sensitivity.pool(self.measured)

    def false_alarm(self, measured: Sensitivity, matters: float = MATTERS) -> bool:
        """Whether an attribute wins that does not matter; never on a target with a planted bias."""
        if self.planted or not measured.apart:
            return False
        return bool(self.truth.raw[self.truth.attributes.index(measured.rank[0])] < matters)

    def to_frame(self) -> pd.DataFrame:
        """h of each attribute, measured and, where it is known, true."""
        sides = {"measured": self.pooled, "true": self.truth}
        known = {side: found.raw for side, found in sides.items() if found is not None}
        return pd.DataFrame(known, index=self.pooled.attributes)

    @property
    def unlabelled(self) -> Sensitivity:
        """The pooled measurement without the target's own label."""
        return self.pooled.of([name for name in self.pooled.attributes if name != self.label])


def run_case(
    name: str,
    interventions: Interventions,
    attributes: Sequence[str],
    generator,
    encoder,
    M: torch.Tensor | None = None,
    *,
    directions: str = "relevance",
    edits: Directions | None = None,
    seeds: Sequence[int],
    images: int,
    settings: SearchSettings,
    folder: str | Path | None = None,
) -> Case:
    """Diagnose the embedded target ``name`` on every seed, and measure its truth.

    Its own label is held fixed by Eq. 8. A balanced target is asked about it all the same, first:
    the yardstick that nothing else may beat. One with a planted bias is not, as in Fig. 4b.

    Args:
        interventions: the truth, of the world that the target was trained on, and the generator
            on its renders; all of its targets share them.
        attributes: the world's names; they are asked for in the world's plain prompts.
        M, directions, edits: see ``diagnose``.
        images: of each seed.
        folder: finished seeds are kept there, so that a long run resumes; None keeps none.

    Raises:
        InputError: no such target, a target of another world, unusable words, or no edit of one.
    """
    world, target = interventions.world, Target.load(name).to(generator.style_mean.device)
    label, planted = target.config["label"], target.config["planted"]
    asked = [label] * (planted is None) + [a for a in attributes if a != label]
    measured = measure_seeds(
        target,
        fingerprint(name),
        {a: world.prompt(a) for a in asked},
        world.grammar.neutral,
        generator,
        encoder,
        M,
        held=label_prompts(world, target),
        directions=directions,
        edits=edits,
        seeds=seeds,
        images=images,
        settings=settings,
        folder=folder,
    )
    truth = interventions.sensitivity(target, asked)
    return Case(name, measured, truth, planted, None if planted else label, world.name)


def measure_seeds(
    target: Target,
    made: str,
    prompts: Mapping[str, str],
    neutral: str,
    generator,
    encoder,
    M: torch.Tensor | None = None,
    *,
    held: tuple[str, str] | None,
    directions: str,
    edits: Directions | None,
    seeds: Sequence[int],
    images: int,
    settings: SearchSettings,
    folder: str | Path | None,
) -> tuple[Sensitivity, ...]:
    """A target's diagnosis on every seed, under short names; see ``run_case`` and ``diagnose``.

    Args:
        made: fingerprint of the target: what is kept in the folder is found by it.
        prompts: name -> the phrase that is asked about. held: what Eq. 8 holds fixed, if anything.

    Raises:
        InputError: unusable words, numbers or target, or no edit of one of the attributes.
    """
    phrases, own = list(prompts.values()), None
    if edits is not None:
        edits = edits.of(phrases)
        own = digest(delta_s=edits.delta_s, delta_t=edits.delta_t)
    elif directions == "auto":  # seeds are kept under what it comes to
        directions, M = settle(generator, encoder, directions, M)
    words = [phrases, neutral, held]
    models = [generator.fingerprint, encoder.fingerprint]
    parts = []
    for seed in seeds:

        def measure(seed=seed) -> Sensitivity:
            found = diagnose(
                target,
                phrases,
                neutral,
                generator,
                encoder,
                consistency=held,
                images=images,
                seed=seed,
                settings=settings,
                directions=directions,
                edits=edits,
                M=M,
            )
            return found.sensitivity.renamed(list(prompts))

        made_of = [made, words, images, seed, asdict(settings), directions, CHANNELS, own]
        parts.append(kept_sensitivity(folder, result_key(METHODS, *made_of, *models), measure))
    return tuple(parts)


def score(cases: Sequence[Case], matters: float = MATTERS) -> dict[str, Estimate | float]:
    """Flat, for ``runs.record``. A key without a target's name holds the worst of its targets."""
    found: dict[str, Estimate | float] = {}
    biased = [case for case in cases if case.planted]
    for case in biased:
        seeds = [part.place(case.planted) for part in case.measured]
        found[f"planted_rank.{case.name}"] = case.pooled.place(case.planted)
        found[f"planted_rank.{case.name}.seeds_mean"] = bootstrap(seeds)
        found[f"planted_rank.{case.name}.seeds_worst"] = max(seeds)
        first = case.pooled.place(case.planted) == 1
        found[f"planted_apart.{case.name}"] = int(first and case.pooled.apart)
        found[f"truth.planted_rank.{case.name}"] = case.truth.place(case.planted)
        found[f"truth.planted.{case.name}"] = case.truth.h[
            case.truth.attributes.index(case.planted)
        ]
        found[f"truth.spearman.{case.name}"] = spearman(case.pooled, case.truth)
    if biased:
        for key, worst in (("planted_rank", max), ("planted_apart", min)):
            found[key] = worst(found[f"{key}.{case.name}"] for case in biased)
        found["truth.planted_rank"] = max(found[f"truth.planted_rank.{c.name}"] for c in biased)
        each = [found[f"truth.spearman.{case.name}"] for case in biased]
        found["truth.spearman"] = min(each, key=lambda estimate: estimate.value)
    controls = [case for case in cases if not case.planted]
    for case in controls:
        found[f"controls.wins.{case.name}"] = int(case.pooled.apart)
        found[f"controls.false_alarms.{case.name}"] = int(case.false_alarm(case.pooled, matters))
        alarm = case.false_alarm(case.unlabelled, matters)
        found[f"controls.unlabelled_alarms.{case.name}"] = int(alarm)
    if controls:
        for key in ("wins", "false_alarms", "unlabelled_alarms"):
            found[f"controls.{key}"] = sum(found[f"controls.{key}.{c.name}"] for c in controls)
        alarms = [float(c.false_alarm(part, matters)) for c in controls for part in c.measured]
        found["controls.false_alarm_rate"] = bootstrap(alarms)  # over (control, seed)
    return found


def to_frame(cases: Sequence[Case], matters: float = MATTERS) -> pd.DataFrame:
    """One row a target: what was found first and, where it is known, what is true, and whether that
    is an alarm.
    """
    rows = []
    for case in cases:
        measured, truth = case.pooled, case.truth
        row = {
            "target": case.name,
            "planted": case.planted or "–",
            "first": measured.rank[0],
            "apart": measured.apart,
            "h": measured.raw.max(),
        }
        if truth is not None:
            row |= {
                "truly first": truth.rank[0],
                "true h": truth.raw.max(),
                "planted rank": measured.place(case.planted) if case.planted else "–",
                "false alarm": case.false_alarm(measured, matters),
            }
        rows.append(row | {"images": len(measured.change)})
    return pd.DataFrame(rows)


def kept_sensitivity(
    folder: str | Path | None, key: str, measure: Callable[[], Sensitivity]
) -> Sensitivity:
    """What was measured under this ``result_key``, kept in the folder or else measured now."""
    if folder is None:
        return measure()
    path = Path(folder) / f"sensitivity-{key}.safetensors"
    kept = read_kept(path, _read)
    if kept is not None:
        return kept
    found = measure()
    about = {"attributes": json.dumps(found.attributes), "seed": json.dumps(found.seed)}
    about["source"] = found.source
    with atomic_write(path) as temporary:
        tensors = {"change": found.change, "flipped": found.flipped}
        if found.seen is not None:
            tensors |= {"seen": found.seen.seen, "sure": found.seen.sure}
        save_file({k: v.contiguous() for k, v in tensors.items()}, temporary, about)
    return _read(path)


def _read(path: Path) -> Sensitivity:
    with safe_open(path, "pt") as file:
        about, seen = file.metadata(), None
        if "seen" in file.keys():
            seen = Visibility(file.get_tensor("seen"), file.get_tensor("sure"))
        return Sensitivity(
            tuple(json.loads(about["attributes"])),
            file.get_tensor("change"),
            file.get_tensor("flipped"),
            about.get("source", "search"),
            json.loads(about["seed"]),
            seen,
        )
