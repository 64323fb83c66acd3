"""Is the object even in what a feature wants to see? Core and spurious features (section 3.3).

Of a class, the five features that carry it are explained by Eq. 5, which asks for the class and the
feature together; a segmenter looks for the class's word in the pictures. With r the fraction of a
picture that the object covers, Eq. 6 calls a feature core where E_z[r] >= delta, else spurious.
Where the target does not take the pictures for the class, the search has not shown what it wants,
and nothing is said; so of several starts those are preferred that it takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.core.files import atomic_write
from visiondx.core.seeds import step_seed
from visiondx.core.stats import bootstrap
from visiondx.core.words import check_words
from visiondx.diffexplainer.explain import HELD, Found, Settings, search
from visiondx.diffexplainer.features import last_features, top_features
from visiondx.diffexplainer.objectives import Objectives, activation, class_number, toward
from visiondx.diffexplainer.painting import noise_of, painted
from visiondx.diffexplainer.question import check_counts
from visiondx.diffexplainer.ways import Way
from visiondx.models.painter import Painter
from visiondx.models.segmenter import Segmenter
from visiondx.models.target import Target
from visiondx.show import plots

DELTA = 0.05  # of Eq. 6: the object covers at least a twentieth
PICTURES = 10  # that stand for E_z
REACHED = 0.5  # share of the pictures that the target must take for the class
_SHOWN = 4  # kind of draw out of one seed
CORE, SPURIOUS, UNKNOWN = "core", "spurious", "unknown"


@dataclass(frozen=True)
class Features:
    """The features that carry C classes, k each, as pictures, and how much of these is the object.

    classes: C labels. words: what to look for; known: whether the segmenter can, and if not,
        nothing is known of the class's features.
    features: (C, k) columns of the layer before the classifier. carries: (C, k), their mean
        activation x weight. images: (C, k, P, 3, H, W). taken: (C, k, P) bool, whether the target
        takes them for the class. r: (C, k, P), NaN where nothing is known.
    """

    classes: tuple[str, ...]
    words: tuple[str, ...]
    known: tuple[bool, ...]
    features: Tensor
    carries: Tensor
    images: Tensor
    taken: Tensor
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
        shown = self.taken.float().mean(2) >= REACHED
        return [
            [
                UNKNOWN if np.isnan(r) or not ok else CORE if r >= self.delta else SPURIOUS
                for r, ok in zip(row, reached, strict=True)
            ]
            for row, reached in zip(self.mean_r.tolist(), shown.tolist(), strict=True)
        ]

    def sentences(self) -> list[str]:
        """One for each class: what was found, or that nothing can be said and why."""
        said = []
        for c, (name, verdicts) in enumerate(zip(self.classes, self.verdicts, strict=True)):
            if not self.known[c]:
                said.append(
                    f"{name}: the segmenter has never seen the word {self.words[c]!r}, so of its "
                    "features nothing can be said; give a word that it knows."
                )
                continue
            count, wrong, open_ = (
                len(verdicts),
                verdicts.count(SPURIOUS),
                verdicts.count(UNKNOWN),
            )
            kind = f"{wrong} show no {self.words[c]}"
            if open_:
                kind += f", and of {open_} the target does not take the pictures for it"
            said.append(f"{name}: of the {count} features that carry it, {kind}.")
        return said

    def to_frame(self) -> pd.DataFrame:
        """A row a feature: class, feature, carries, r with its interval, verdict, held loss."""
        rows = []
        found = self.found
        losses = found.losses.gather(1, found.best[:, None]).view(self.features.shape)
        for c, name in enumerate(self.classes):
            for k, verdict in enumerate(self.verdicts[c]):
                r = self.r[c, k]
                e = bootstrap(r.double().numpy()) if self.known[c] else None
                rows.append(
                    {
                        "class": name,
                        "feature": int(self.features[c, k]),
                        "carries": float(self.carries[c, k]),
                        "r": e.value if e else np.nan,
                        "low": e.low if e else np.nan,
                        "high": e.high if e else np.nan,
                        "taken": float(self.taken[c, k].float().mean()),
                        "verdict": verdict,
                        "loss": float(losses[c, k]),
                    }
                )
        return pd.DataFrame(rows)

    def plot(self, columns: int = 8) -> Figure:
        """A row a feature, with its verdict."""
        shown = self.images[:, :, :columns].flatten(0, 1)
        rows = [
            f"{name}, {feature}\n{verdict}"
            for name, features, verdicts in zip(
                self.classes, self.features.tolist(), self.verdicts, strict=True
            )
            for feature, verdict in zip(features, verdicts, strict=True)
        ]
        return plots.image_grid(shown.flatten(0, 1), columns=shown.shape[1], rows=rows)

    def save(self, folder: str | Path) -> None:
        """features.csv and features.png."""
        with atomic_write(Path(folder) / "features.csv") as path:
            self.to_frame().to_csv(path, index=False)
        with atomic_write(Path(folder) / "features.png") as path:
            self.plot().savefig(path, dpi=150)


def discover(
    painter: Painter,
    target: Target,
    segmenter: Segmenter,
    images: Mapping[str | int, Tensor],
    *,
    words: Mapping[str | int, str] | None = None,
    k: int = 5,
    settings: Settings | None = None,
    way: Way | None = None,
    pictures: int = PICTURES,
    delta: float = DELTA,
    seed: int = 0,
    kept: str | Path | None = None,
) -> Features:
    """Explain the k features that carry each class, and judge whether each shows the object.

    Args:
        images: {class, by label or number: its images (N, 3, H, W)}, on which features are ranked.
        words: {class: what to look for}, where it is not the label. settings, way: of the searches,
            whose rows are the classes with the k features of each.
        pictures: that stand for the expectation of r. delta: of Eq. 6.
        kept: a folder that keeps the searches.

    Raises:
        InputError: no class, an unknown one, an empty word, a k that the target has not, or
            impossible pictures or delta.
    """
    if not images:
        raise InputError("Give images of one class at least, as {class: images}.")
    check_counts(pictures, delta)
    numbers = [class_number(target, name) for name in images]
    labels = [target.labels[number] for number in numbers]
    asked = words_of(target, numbers, words)
    ranked = [top_features(target, each, n, k) for n, each in zip(numbers, images.values())]
    features, carries = (torch.stack(each) for each in zip(*ranked, strict=True))
    layer = last_features(target, painter.size).layer
    aims = [
        toward(number) + activation(layer, feature)
        for number, row in zip(numbers, features.tolist(), strict=True)
        for feature in row
    ]
    objectives = Objectives(target, aims, painter.size)
    found = search(painter, objectives, settings, way, seed=seed, kept=kept)
    found = _taken_first(painter, target, found, torch.tensor(numbers).repeat_interleave(k))
    seeds = [step_seed(step_seed(seed, _SHOWN), index) for index in range(pictures)]
    shown = found.images(painter, seeds).unflatten(0, features.shape)
    known = [segmenter.knows(word) for word in asked]
    return Features(
        tuple(labels),
        tuple(asked),
        tuple(known),
        features,
        carries,
        shown,
        torch.stack([takes(target, each, n) for each, n in zip(shown, numbers, strict=True)]),
        object_shares(segmenter, shown, asked),
        found,
        delta,
    )


@torch.no_grad()
def _taken_first(painter: Painter, target: Target, found: Found, numbers: Tensor) -> Found:
    """With the start of the least loss among those whose pictures the target takes for the class.

    Eq. 5 adds a feature without a bound to a loss with one: where the feature outweighs the class,
    the least loss is of pictures that nothing can be said of. On the held noise; where no start is
    taken, the loss decides.

    Args:
        numbers: (E,) the class of each explanation.
    """
    starts = found.losses.shape[1]
    if starts == 1:
        return found
    noise = noise_of(painter, found.settings.held, step_seed(found.seed, HELD))
    soft = found.soft.flatten(0, 1)
    images = painted(painter, found.prompt, soft, noise, found.settings.batch)
    likeliest = probabilities(target, images).argmax(-1).unflatten(0, (-1, starts))
    taken = (likeliest == numbers[:, None, None]).float().mean(2) >= REACHED
    choose = taken | ~taken.any(1, keepdim=True)
    return replace(found, choice=found.losses.masked_fill(~choose, torch.inf).argmin(1))


def object_shares(segmenter: Segmenter, images: Tensor, words: Sequence[str | None]) -> Tensor:
    """r: the fraction of each picture that its class's word covers; NaN without one it knows.

    Args:
        images: (C, k, P, 3, H, W).

    Returns:
        (C, k, P).
    """
    found = []
    for pictures, word in zip(images, words, strict=True):
        if word is None or not segmenter.knows(word):
            found.append(torch.full(pictures.shape[:2], torch.nan))
            continue
        shares = segmenter(pictures.flatten(0, 1), [word]).shares[:, 0]
        found.append(shares.cpu().unflatten(0, pictures.shape[:2]))
    return torch.stack(found)


def words_of(
    target: Target, numbers: Sequence[int], words: Mapping[str | int, str] | None
) -> list[str]:
    """What to look for of each class: what `words` says of it, else its label.

    Raises:
        InputError: `words` names no class of the target, or says nothing of one.
    """
    told = {class_number(target, name): word for name, word in (words or {}).items()}
    asked = [told.get(number, target.labels[number]) for number in numbers]
    for word in asked:  # one at a time, for two aims may ask for one class
        check_words([word])
    return asked


@torch.no_grad()
def probabilities(target: Target, images: Tensor, batch: int = 64) -> Tensor:
    """The target's probability of every class: images (..., 3, H, W) -> (..., K), on the CPU.

    Raises:
        FloatingPointError: one that is NaN.
    """
    flat = images.flatten(0, -4)
    parts = [target(part.to(target.mean.device)).float().cpu() for part in flat.split(batch)]
    p = torch.cat(parts)
    if target.task == "binary":
        p = torch.stack([1 - p, p], 1)
    if p.isnan().any():
        raise FloatingPointError("The target answers NaN to a picture of an explanation.")
    return p.unflatten(0, images.shape[:-3])


def takes(target: Target, images: Tensor, number: int) -> Tensor:
    """Whether the target takes images (..., 3, H, W) for a class: (...) bool, its likeliest."""
    return probabilities(target, images).argmax(-1) == number
