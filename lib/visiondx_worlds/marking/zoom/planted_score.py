"""Planted biases of several training seeds, scored together: is what is truly first found first?

A case here is one classifier, "young-biased-bangs@1"; what stands before the @ is its pair. Each
classifier is a diagnosis of its own, against its own truth; intervals resample the classifiers of
each pair (their training seeds), and the images, which all classifiers of a world see.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from visiondx.core.errors import InputError
from visiondx.core.stats import Estimate, ranks, redraw
from visiondx.zoom.sensitivity import Sensitivity
from visiondx_worlds.marking.zoom.score import MATTERS, Case

DRAWS = 1000


def pair_of(name: str) -> str:
    """ "young-biased-bangs" of "young-biased-bangs@1"."""
    return name.partition("@")[0]


def found_first(measured: Sensitivity, truth: Sensitivity) -> bool:
    """Whether the truly most influential attribute is measured as the most influential."""
    return measured.place(truth.rank[0]) == 1


def pool_pair(cases: Sequence[Case]) -> Case:
    """The classifiers of one pair as one: image by image, the mean change of all of them.

    They see the same images, so that three classifiers are no three times as many images, and an
    interval is over the images. ``flipped``: what most of them do.

    Raises:
        InputError: classifiers of several pairs, of other attributes or of other images.
    """
    first = cases[0]
    asked = {(case.truth.attributes, tuple(len(m.change) for m in case.measured)) for case in cases}
    if len({pair_of(case.name) for case in cases}) > 1 or len(asked) > 1:
        raise InputError(
            "Only classifiers of one pair pool, asked the same of the same images, got "
            f"{', '.join(case.name for case in cases)}."
        )
    measured = tuple(_mean(parts) for parts in zip(*(case.measured for case in cases), strict=True))
    truth = _mean([case.truth for case in cases])
    return replace(first, name=pair_of(first.name), measured=measured, truth=truth)


def _mean(parts: Sequence[Sensitivity]) -> Sensitivity:
    """Of several targets on the same images."""
    change = torch.stack([part.change for part in parts]).mean(0)
    flipped = torch.stack([part.flipped for part in parts]).double().mean(0) > 0.5
    return replace(parts[0], change=change, flipped=flipped)


def score_planted(
    cases: Sequence[Case], matters: float = MATTERS, seed: int = 0
) -> dict[str, Estimate | float]:
    """Flat, for ``runs.record``.

    Args:
        cases: biased ones and controls, of any number of pairs and training seeds.

    Returns:
        ``planted.top1``, share of the classifiers whose truly first attribute is measured first;
        ``planted.apart``, the same with every other surely behind it;
        ``planted.truth_spearman``, mean rank correlation of h with the truth;
        ``planted.planted_first``, how often the planted attribute is measured first;
        ``controls.false_alarms``, how many controls; each pair's own under longer names.

    Raises:
        InputError: no biased case, or truths that ask about other attributes than was measured.
    """
    biased = [case for case in cases if case.planted]
    if not biased:
        raise InputError("None of these classifiers has a planted bias: add some.")
    rng = np.random.default_rng(seed)
    points, drawn, counts = {}, {}, {}
    for case in biased:
        n = len(case.pooled.change)
        key = (case.world, n)
        if key not in counts:  # its classifiers see the same images, so that one draw is for all
            counts[key] = rng.multinomial(n, np.full(n, 1 / n), DRAWS)
        points[case.name], drawn[case.name] = _figures(case, counts[key])
    pairs = list(dict.fromkeys(pair_of(case.name) for case in biased))
    members = {pair: [c.name for c in biased if pair_of(c.name) == pair] for pair in pairs}
    found: dict[str, Estimate | float] = {}
    for key in ("top1", "apart", "truth_spearman", "planted_first"):
        found[f"planted.{key}"] = _pooled(key, members, points, drawn, rng)
        for pair in pairs:
            own = {pair: members[pair]}
            found[f"planted.{key}.{pair}"] = _pooled(key, own, points, drawn, rng)
    controls = [case for case in cases if not case.planted]
    alarms = [case for case in controls if case.false_alarm(case.pooled, matters)]
    hidden = [case for case in controls if case.false_alarm(case.unlabelled, matters)]
    found["controls.number"] = len(controls)
    found["controls.false_alarms"] = len(alarms)
    found["controls.unlabelled_alarms"] = len(hidden)
    return found


def planted_frame(cases: Sequence[Case]) -> pd.DataFrame:
    """One row a biased classifier: what is true, what was found, and by how much it was missed."""
    rows = []
    for case in cases:
        if not case.planted:
            continue
        first, truth = case.truth.rank[0], case.truth
        h = case.pooled.raw
        column = truth.attributes.index(first)
        rows.append(
            {
                "classifier": case.name,
                "planted": case.planted,
                "truly first": first,
                "true h": truth.raw.max(),
                "found first": case.pooled.rank[0],
                "h": h.max(),
                "top1": found_first(case.pooled, truth),
                "apart": found_first(case.pooled, truth) and case.pooled.apart,
                # below 0: something else was measured as stronger
                "margin": h[column] - np.delete(h, column).max(),
                "images": len(case.pooled.change),
            }
        )
    return pd.DataFrame(rows)


def _figures(case: Case, counts: np.ndarray) -> tuple[dict, dict]:
    """The four figures of a classifier, and what they are in draws of its images: (DRAWS,) each.

    counts: (DRAWS, images), how often each draw has an image.
    """
    measured, truth = case.pooled, case.truth
    if measured.attributes != truth.attributes:
        raise InputError(f"{case.name}: measured and true attributes differ, ask for the same.")
    change = measured.change.double().numpy()
    h = np.vstack([change.mean(0), counts @ change / len(change)])  # what was measured comes first
    figures = {
        "top1": _first(h, truth.attributes.index(truth.rank[0])),
        "planted_first": _first(h, truth.attributes.index(case.planted)),
        "truth_spearman": _spearman(h, truth.raw),
    }
    apart = float(found_first(measured, truth) and measured.apart)
    figures["apart"] = np.full(DRAWS + 1, apart)  # a verdict of an interval is not resampled
    return {k: v[0] for k, v in figures.items()}, {k: v[1:] for k, v in figures.items()}


def _first(h: np.ndarray, column: int) -> np.ndarray:
    """(R,): 1 where this column of h (R, N) lies above all others."""
    return (h[:, column] > np.delete(h, column, 1).max(1)).astype(float)


def _spearman(h: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Rank correlation of each row of h (R, N) with the truth (N,); 0 where a side is constant."""
    a, b = (x - x.mean(-1, keepdims=True) for x in (ranks(h), ranks(truth)))
    scale = np.sqrt((a**2).sum(1) * (b**2).sum())
    return a @ b / np.where(scale > 0, scale, 1)


def _pooled(
    key: str, members: dict[str, list[str]], points: dict, drawn: dict, rng: np.random.Generator
) -> Estimate:
    """Mean over pairs of the mean over their classifiers; see the head of this file."""
    value = np.mean([np.mean([points[name][key] for name in own]) for own in members.values()])
    draws = [redraw([drawn[name][key] for name in own], rng) for own in members.values()]
    low, high = np.quantile(np.mean(draws, 0), [0.025, 0.975])
    return Estimate(float(value), float(low), float(high), sum(map(len, members.values())))
