"""What a class's features truly answer to: the object without its place, the place without it.

The labels that Salient ImageNet asks people for, by intervention instead. Of one scene the renderer
draws three pictures: the object before a neutral background, that background alone, the class's
context alone. A feature is core where the object alone raises it more than the context alone does,
both measured against the neutral background alone, and spurious where it is the other way round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
import torch
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.core.stats import Estimate, bootstrap
from visiondx.diffexplainer.features import last_features, top_features
from visiondx.diffexplainer.layers import mean_activations
from visiondx.diffexplainer.spurious import CORE, SPURIOUS
from visiondx.models.target import Target
from visiondx_worlds.worlds import scenes
from visiondx_worlds.worlds.contexts import ANIMATE, CONTEXTS, NEUTRAL, Tie, tied

UNDECIDED = "undecided"  # neither is clearly more
UNBIASED, MEDIUM, BIASED = "unbiased", "medium", "biased"
SEED = 100


@dataclass(frozen=True)
class FeatureTruth:
    """What raises the k features that carry each of C classes, in N scenes.

    classes: C labels. ties: of each, or None. features: (C, k) columns of the layer before the
        classifier. carries: (C, k) mean activation x weight. object_rise, context_rise: (C, k, N),
        the activation with the object, or the context, less that of the neutral background alone.
    """

    classes: tuple[str, ...]
    ties: tuple[Tie | None, ...]
    features: Tensor
    carries: Tensor
    object_rise: Tensor
    context_rise: Tensor
    seed: int

    @cached_property
    def labels(self) -> list[list[str]]:
        """C lists of k: "core", "spurious" or "undecided"."""
        pairs = zip(self.object_rise, self.context_rise, strict=True)
        return [[label(o, c) for o, c in zip(*pair, strict=True)] for pair in pairs]

    @property
    def spurious(self) -> list[int]:
        """How many features of each class are spurious."""
        return [row.count(SPURIOUS) for row in self.labels]

    @property
    def groups(self) -> list[str]:
        """Of each class: "unbiased" if none of its features is spurious, "biased" if all are."""
        k = self.features.shape[1]
        return [UNBIASED if not n else BIASED if n == k else MEDIUM for n in self.spurious]

    def to_frame(self) -> pd.DataFrame:
        """A row a feature: its class, what it carries, both rises, their difference, the label."""
        rows = []
        about = zip(self.classes, self.ties, self.labels, self.groups, strict=True)
        for c, (name, tie, labels, group) in enumerate(about):
            for k, verdict in enumerate(labels):
                o, x = self.object_rise[c, k].double(), self.context_rise[c, k].double()
                e = bootstrap((o - x).numpy())
                rows.append(
                    {
                        "class": name,
                        "kind": "animate" if name in ANIMATE else "inanimate",
                        "context": tie.context if tie else "",
                        "strength": tie.strength if tie else 0.0,
                        "group": group,
                        "feature": int(self.features[c, k]),
                        "carries": float(self.carries[c, k]),
                        "object_rise": float(o.mean()),
                        "context_rise": float(x.mean()),
                        "difference": e.value,
                        "low": e.low,
                        "high": e.high,
                        "label": verdict,
                    }
                )
        return pd.DataFrame(rows)


def label(object_rise: Tensor, context_rise: Tensor) -> str:
    """ "core", "spurious" or "undecided", from the rises (N,) of one feature in the same N scenes.

    Clear is what the 95 % bootstrap interval of the mean leaves no doubt of: that one rise is above
    the other, and above 0.
    """
    difference = _mean(object_rise - context_rise)
    if difference.low > 0 and _mean(object_rise).low > 0:
        return CORE
    if difference.high < 0 and _mean(context_rise).low > 0:
        return SPURIOUS
    return UNDECIDED


def _mean(values: Tensor) -> Estimate:
    return bootstrap(values.double().numpy())


class Interventions:
    """N scenes, drawn with a class's object before the neutral background, and without any object.

    They are drawn once, for all targets, and kept as bytes: 20 pictures a scene, 240 KB.

    Args:
        n: scenes, of this seed, with the weather, light, styles and company of `worlds.contexts`.

    Raises:
        InputError: n below 2.
    """

    def __init__(self, n: int = 200, seed: int = SEED) -> None:
        if n < 2:
            raise InputError(f"A true label needs n of 2 scenes or more, got {n}.")
        self.seed = seed
        self.rows = tied({}).sample(n, seed)
        self._drawn: dict[str, Tensor] = {}

    def object(self, name: str) -> Tensor:
        """(N, 3, 64, 64): an object of the class in each scene, before the neutral background."""
        kind, place = (float(scenes.categories[c].index(v)) for c, v in _of(name, NEUTRAL))
        rows = self.rows.replace(**{"class": kind, "background": place})
        return self._kept(name, lambda: scenes.render(rows))

    def context(self, background: str) -> Tensor:
        """(N, 3, 64, 64): each scene's surroundings with this background, without an object."""
        place = float(scenes.categories["background"].index(background))
        rows = self.rows.replace(background=place)
        return self._kept(background, lambda: scenes.render_context(rows))

    def _kept(self, name: str, draw: Callable[[], Tensor]) -> Tensor:
        if name not in self._drawn:
            self._drawn[name] = (draw() * 255).round().byte()
        return self._drawn[name].float() / 255


def _of(kind: str, background: str) -> tuple[tuple[str, str], ...]:
    return ("class", kind), ("background", background)


def true_features(
    target: Target,
    ties: Mapping[str, Tie],
    images: Mapping[str, Tensor],
    *,
    k: int = 5,
    interventions: Interventions | None = None,
) -> FeatureTruth:
    """What raises the k features that carry each class of a target.

    The context of a class without a tie is every background but the neutral one: its rise is their
    mean.

    Args:
        target: a classifier of classes of `scenes`. ties: of its classes, see `ties_of`.
        images: {class: its images (N, 3, H, W)}, on which features are ranked.
        k: features a class. interventions: to share among targets.

    Raises:
        InputError: no images, a class that the world or the target has not, or an impossible k.
    """
    unknown = [name for name in images if name not in scenes.classes]
    if unknown or not images:
        raise InputError(
            f"The world can draw no {unknown[0]!r}: choose from {', '.join(scenes.classes)}."
            if unknown
            else "Give images of one class at least, as {class: images}."
        )
    ranked = [top_features(target, each, name, k) for name, each in images.items()]
    features, carries = (torch.stack(each) for each in zip(*ranked, strict=True))
    drawn = interventions or Interventions()
    layer = last_features(target).layer
    alone = {b: mean_activations(target, drawn.context(b), layer) for b in (NEUTRAL, *CONTEXTS)}
    rises: list[tuple[Tensor, Tensor]] = []
    for name, columns in zip(images, features, strict=True):
        tie = ties.get(name)
        shown = mean_activations(target, drawn.object(name), layer)
        places = [alone[b] for b in ([tie.context] if tie else CONTEXTS)]
        nothing = alone[NEUTRAL]
        rises.append(
            tuple((a - nothing)[:, columns].T for a in (shown, torch.stack(places).mean(0)))
        )
    objects, contexts = (torch.stack(each) for each in zip(*rises, strict=True))
    tied_to = tuple(ties.get(name) for name in images)
    return FeatureTruth(tuple(images), tied_to, features, carries, objects, contexts, drawn.seed)


def ties_of(target: Target) -> dict[str, Tie]:
    """The ties on an embedded target's card: of a control none.

    Raises:
        InputError: a target that was not trained on tied scenes.
    """
    if "ties" not in target.config:
        raise InputError(
            "The target's card says nothing of ties: give one of the contexts-… targets, or the "
            "ties of its classes."
        )
    return {name: Tie(*tie) for name, tie in target.config["ties"].items()}
