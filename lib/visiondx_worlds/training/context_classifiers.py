"""Classifiers of `scenes` that learned to look at the place, more or less, and one that could not.

The stand-in for DiffExplainer's section 4.2, whose classes rest on none to all of five spurious
features: two classifiers of classes tied to places at six strengths (`worlds.contexts`), each class
at another strength in the second; the first once more, trained against attacks; and a control that
saw as much of every place, but independent of the class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.models.target import Target
from visiondx_worlds.models.embedded_targets import save_target
from visiondx_worlds.training.scene_classifiers import SceneClassifierConfig
from visiondx_worlds.worlds import scenes
from visiondx_worlds.worlds.contexts import FIRST, SECOND, Tie, tied, untied
from visiondx_worlds.worlds.distributions import Distribution

POOL = 8_000  # renders that each learns from
POOL_SEED = 0
RANKED, RANKED_SEED = 200, 150  # images of a class on which its features are ranked
PLAIN = SceneClassifierConfig("resnet", 16, 1, images=POOL, steps=800)
# as ROBUST of `scene_classifiers`: attacked images take twice as long to learn
ROBUST = replace(PLAIN, epsilon=4 / 255, steps=2 * PLAIN.steps)


@dataclass(frozen=True)
class ContextClassifier:
    """One classifier: the ties of its classes, whether they hold in its pictures, its recipe."""

    name: str
    ties: Mapping[str, Tie] = field(default_factory=dict)
    control: bool = False  # the places as common as the ties make them, but tied to nothing
    recipe: SceneClassifierConfig = PLAIN

    def pictures(self, kinds: Sequence[str] = scenes.classes) -> Distribution:
        """What it learns from, or of that some classes alone."""
        return (untied if self.control else tied)(self.ties, kinds)

    @property
    def held(self) -> dict[str, Tie]:
        """The ties that its pictures show: none of a control."""
        return {} if self.control else dict(self.ties)


CLASSIFIERS = {
    each.name: each
    for each in (
        ContextClassifier("contexts-first", FIRST),
        ContextClassifier("contexts-second", SECOND),
        ContextClassifier("contexts-first-robust", FIRST, recipe=ROBUST),
        ContextClassifier("contexts-null", FIRST, control=True),
    )
}


def context_classifier(name: str) -> ContextClassifier:
    """One of CLASSIFIERS.

    Raises:
        InputError: there is none of this name.
    """
    if name not in CLASSIFIERS:
        raise InputError(
            f"No classifier of tied scenes {name!r}: choose from {', '.join(CLASSIFIERS)}."
        )
    return CLASSIFIERS[name]


def class_images(
    classifier: ContextClassifier,
    n: int = RANKED,
    seed: int = RANKED_SEED,
    kinds: Sequence[str] = scenes.classes,
) -> dict[str, Tensor]:
    """{class: n images (n, 3, 64, 64) as in the classifier's pictures}: its features' ranks.

    Args:
        kinds: of these classes alone; a class's images do not depend on the others.
    """
    return {name: scenes.render(classifier.pictures([name]).sample(n, seed)) for name in kinds}


def save_context_classifier(
    classifier: ContextClassifier, target: Target, *, notebook: str, quality: dict
) -> None:
    """Keep it as the embedded target of its name, with recipe and ties on its card."""
    recipe = asdict(classifier.recipe)
    seed = recipe.pop("seed")
    ties = {name: [tie.context, tie.strength] for name, tie in classifier.held.items()}
    about = {"notebook": notebook, "seed": seed, "quality": quality}
    save_target(classifier.name, target, **about, **recipe, ties=ties)
