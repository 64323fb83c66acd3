"""Planted biases of several training seeds, scored together: is what is truly first found first?

A case here is one classifier, "young-biased-bangs@1"; what stands before the @ is its pair. Each
classifier is a diagnosis of its own, against its own truth; intervals are about these classifiers
and new images, which all classifiers of a world see.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from visiondx.core.errors import InputError
from visiondx.core.stats import Estimate, crossed
from visiondx.zoom.agreement import rank_correlation
from visiondx.zoom.sensitivity import Sensitivity
from visiondx_worlds.marking.zoom.score import MATTERS, Case


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
    cases: Sequence[Case], matters: float = MATTERS, draws: int = 1000
) -> dict[str, Estimate | float]:
    """Flat, for ``runs.record``.

    Args:
        cases: biased ones and controls, of any number of pairs and training seeds.
        draws: of the images.

    Returns:
        ``planted.top1``, share of the classifiers whose truly first attribute is measured first;
        ``planted.apart``, the same with every other surely behind it;
        ``planted.truth_spearman``, mean rank correlation of h with the truth;
        ``planted.planted_first``, how often the planted attribute is measured first;
        ``controls.false_alarms``, how many controls; each pair's own under longer names. Shares of
        verdicts (``apart``), and of the few classifiers of one pair, are plain numbers.

    Raises:
        InputError: no biased case, or truths that ask about other attributes than was measured.
    """
    biased = [case for case in cases if case.planted]
    if not biased:
        raise InputError("None of these classifiers has a planted bias: add some.")
    for case in biased:
        if case.pooled.attributes != case.truth.attributes:
            raise InputError(f"{case.name}: measured and true attributes differ, ask for the same.")
    pairs: dict[str, list[Case]] = {}
    for case in biased:
        pairs.setdefault(pair_of(case.name), []).append(case)
    found: dict[str, Estimate | float] = {}
    for name, estimate in _figures(pairs, 0, draws).items():
        key, _, pair = name.partition(".")
        few = pair and key != "truth_spearman"
        found[f"planted.{name}"] = estimate.value if few else estimate
    apart = {
        pair: float(np.mean([found_first(c.pooled, c.truth) and c.pooled.apart for c in own]))
        for pair, own in pairs.items()
    }
    found["planted.apart"] = float(np.mean(list(apart.values())))
    found |= {f"planted.apart.{pair}": share for pair, share in apart.items()}
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


def _figures(pairs: Mapping[str, Sequence[Case]], seed: int, draws: int) -> dict[str, Estimate]:
    """Each figure's mean over pairs of the mean over their classifiers, and that of each pair.

    n is the number of classifiers. Those of one world share each draw of its images.
    """
    cases = [case for own in pairs.values() for case in own]
    changes = {case.name: case.pooled.change.double().numpy() for case in cases}
    samples = {case.name: (case.world, len(changes[case.name])) for case in cases}
    sizes = {sample: sample[1] for sample in samples.values()}

    def each(*counts: np.ndarray) -> dict[str, list[np.ndarray]]:
        drawn = dict(zip(sizes, counts, strict=True))
        h = {name: drawn[samples[name]] @ change for name, change in changes.items()}
        found = {}
        for key, figure in FIGURES.items():
            means = [
                np.mean([figure(h[case.name], case) for case in own], 0) for own in pairs.values()
            ]
            found[key] = means
            found |= {f"{key}.{pair}": [mean] for pair, mean in zip(pairs, means, strict=True)}
        return found

    count = {pair: len(own) for pair, own in pairs.items()}
    return {
        name: replace(estimate, n=count.get(name.partition(".")[2], len(cases)))
        for name, estimate in crossed(each, list(sizes.values()), draws, seed).items()
    }


def _first(h: np.ndarray, attribute: str, case: Case) -> np.ndarray:
    """(R,): 1 where this attribute's column of h (R, N) lies above all others."""
    column = case.truth.attributes.index(attribute)
    return (h[:, column] > np.delete(h, column, 1).max(1)).astype(float)


# of a classifier's h (R, N), in R draws of its images, up to a scale
FIGURES: dict[str, Callable[[np.ndarray, Case], np.ndarray]] = {
    "top1": lambda h, case: _first(h, case.truth.rank[0], case),
    "truth_spearman": lambda h, case: rank_correlation(h, case.truth.raw[None]),
    "planted_first": lambda h, case: _first(h, case.planted, case),
}
