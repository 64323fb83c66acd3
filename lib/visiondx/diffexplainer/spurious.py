"""Is the object even in what a feature wants to see? Core and spurious features (section 3.3).

Of a class, the five features that carry it are explained by Eq. 5, which asks for the class and the
feature together; a segmenter looks for the class's word in the pictures. With r the fraction of a
picture that the object covers, Eq. 6 calls a feature core where E_z[r] >= delta, else spurious: the
target takes the pictures for the class all the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.core.seeds import step_seed
from visiondx.core.stats import bootstrap
from visiondx.diffexplainer.explain import Found, Settings, search
from visiondx.diffexplainer.features import last_features, top_features
from visiondx.diffexplainer.objectives import Objectives, activation, class_number, toward
from visiondx.models.painter import Painter
from visiondx.models.segmenter import Segmenter
from visiondx.models.target import Target

DELTA = 0.05  # of Eq. 6: the object covers at least a twentieth
PICTURES = 10  # that stand for E_z
_SHOWN = 4  # kind of draw out of one seed
CORE, SPURIOUS, UNKNOWN = "core", "spurious", "unknown"


@dataclass(frozen=True)
class Features:
    """The features that carry C classes, k each, as pictures, and how much of these is the object.

    classes: C labels. words: what the segmenter was asked for; None where it has never seen the
        class's word, and then nothing is known of its features.
    features: (C, k) columns of the layer before the classifier. carries: (C, k), their mean
        activation x weight. images: (C, k, P, 3, H, W). r: (C, k, P), NaN where nothing is known.
    """

    classes: tuple[str, ...]
    words: tuple[str | None, ...]
    features: Tensor
    carries: Tensor
    images: Tensor
    r: Tensor
    found: Found
    delta: float

    def at(self, delta: float) -> Features:
        """The same, judged by another threshold."""
        return replace(self, delta=delta)

    @property
    def mean_r(self) -> Tensor:
        """(C, k): E_z[r]."""
        return self.r.mean(2)

    @property
    def verdicts(self) -> list[list[str]]:
        """C lists of k: "core", "spurious" or "unknown" (Eq. 6)."""
        return [
            [
                UNKNOWN if np.isnan(value) else CORE if value >= self.delta else SPURIOUS
                for value in row
            ]
            for row in self.mean_r.tolist()
        ]

    def sentences(self) -> list[str]:
        """One for each class: what was found, or that nothing can be said and why."""
        said = []
        for name, word, verdicts in zip(self.classes, self.words, self.verdicts, strict=True):
            if word is None:
                said.append(
                    f"{name}: the segmenter has never seen this word, so of its features nothing "
                    "can be said; give a word that it knows."
                )
                continue
            count, wrong = len(verdicts), verdicts.count(SPURIOUS)
            kind = {0: "all show the object", count: "none shows the object"}.get(
                wrong, f"{wrong} of them do not show the object"
            )
            said.append(f"{name}: of the {count} features that carry it, {kind}.")
        return said

    def to_frame(self) -> pd.DataFrame:
        """A row a feature: class, feature, carries, r with its interval, verdict, held loss."""
        rows = []
        losses = self.found.losses.min(1).values.view(self.features.shape)
        for c, name in enumerate(self.classes):
            for k, verdict in enumerate(self.verdicts[c]):
                r = self.r[c, k]
                e = bootstrap(r.double().numpy()) if verdict != UNKNOWN else None
                rows.append(
                    {
                        "class": name,
                        "feature": int(self.features[c, k]),
                        "carries": float(self.carries[c, k]),
                        "r": e.value if e else np.nan,
                        "low": e.low if e else np.nan,
                        "high": e.high if e else np.nan,
                        "verdict": verdict,
                        "loss": float(losses[c, k]),
                    }
                )
        return pd.DataFrame(rows)


def discover(
    painter: Painter,
    target: Target,
    segmenter: Segmenter,
    images: Mapping[str | int, Tensor],
    *,
    words: Mapping[str | int, str] | None = None,
    k: int = 5,
    settings: Settings | None = None,
    pictures: int = PICTURES,
    delta: float = DELTA,
    seed: int = 0,
    kept: str | Path | None = None,
) -> Features:
    """Explain the k features that carry each class, and judge whether each shows the object.

    Args:
        images: {class, by label or number: its images (N, 3, H, W)}, on which features are ranked.
        words: {class: what to look for}, where it is not the label. settings: of the searches.
        pictures: that stand for the expectation of r. delta: of Eq. 6.
        kept: a file that keeps the searches.

    Raises:
        InputError: no class, an unknown one, or a k that the target has not.
    """
    if not images:
        raise InputError("Give images of one class at least, as {class: images}.")
    numbers = [class_number(target, name) for name in images]
    labels = [target.labels[number] for number in numbers]
    asked = [(words or {}).get(name, label) for name, label in zip(images, labels, strict=True)]
    ranked = [top_features(target, each, n, k) for n, each in zip(numbers, images.values())]
    features, carries = (torch.stack(each) for each in zip(*ranked, strict=True))
    layer = last_features(target, painter.size).layer
    aims = [
        toward(number) + activation(layer, feature)
        for number, row in zip(numbers, features.tolist(), strict=True)
        for feature in row
    ]
    objectives = Objectives(target, aims, painter.size)
    found = search(painter, objectives, settings, seed=seed, kept=kept)
    seeds = [step_seed(step_seed(seed, _SHOWN), index) for index in range(pictures)]
    shown = found.images(painter, seeds).unflatten(0, features.shape)
    known = [word if word_known(segmenter, word) else None for word in asked]
    return Features(
        tuple(labels),
        tuple(known),
        features,
        carries,
        shown,
        object_shares(segmenter, shown, known),
        found,
        delta,
    )


def object_shares(segmenter: Segmenter, images: Tensor, words: Sequence[str | None]) -> Tensor:
    """r: the fraction of each picture that its class's word covers; NaN for a word of None.

    Args:
        images: (C, k, P, 3, H, W).

    Returns:
        (C, k, P).
    """
    found = []
    for pictures, word in zip(images, words, strict=True):
        if word is None:
            found.append(torch.full(pictures.shape[:2], torch.nan))
            continue
        shares = segmenter(pictures.flatten(0, 1), [word]).shares[:, 0]
        found.append(shares.cpu().unflatten(0, pictures.shape[:2]))
    return torch.stack(found)


def word_known(segmenter: Segmenter, word: str) -> bool:
    try:
        segmenter.check_words([word])
    except InputError:
        return False
    return True
