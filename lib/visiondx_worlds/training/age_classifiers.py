"""Classifiers of a face's age range: one that learned a tie to the skin's tone, and its twin.

The stand-in for the ResNet-50 of DiffExplainer's section 4.5, trained on FairFace pictures in which
every age range is of one ethnicity. The twin sees the same faces, in tones that say nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import torch
from tqdm.auto import tqdm

from visiondx.models.target import Target
from visiondx_worlds.models.embedded_targets import save_target
from visiondx_worlds.training.scene_classifiers import SceneClassifierConfig, SceneImages
from visiondx_worlds.worlds.age_groups import TIED, aged
from visiondx_worlds.worlds.faces import AGE_RANGES, faces

POOL = 8_000  # renders that each learns from
POOL_SEED = 0
# the untied one takes so long: the marks of age are few pixels, and hair and glasses hide some
RECIPE = SceneClassifierConfig("resnet", 8, 2, images=POOL, steps=2400)


@dataclass(frozen=True)
class AgeClassifier:
    """One classifier: the strength of the tie in its pictures, and its recipe."""

    name: str
    strength: float
    recipe: SceneClassifierConfig = RECIPE

    def draw(self, count: int, seed: int) -> SceneImages:
        """Pictures as it learns from, with the number of their age range."""
        rows = aged(count, seed, self.strength)
        parts = [
            (faces.render(part) * 255).round().byte()
            for part in tqdm(list(rows.split(1024)), desc="renders", mininterval=1.0)
        ]
        return SceneImages(torch.cat(parts), faces.groups(rows)["age_range"])

    def short(self, steps: int, images: int) -> AgeClassifier:
        """The same with another number of steps and pictures: a training that is only shown."""
        return replace(self, recipe=replace(self.recipe, steps=steps, images=images))


CLASSIFIERS = {
    each.name: each for each in (AgeClassifier("ages-tied", 1.0), AgeClassifier("ages-untied", 0.0))
}


def save_age_classifier(
    classifier: AgeClassifier, target: Target, *, notebook: str, quality: dict
) -> None:
    """Keep it as the embedded target of its name, with recipe and ties on its card."""
    recipe = asdict(classifier.recipe)
    seed = recipe.pop("seed")
    strength = classifier.strength
    ties = {age: [TIED[age], strength] for age in AGE_RANGES} if strength else {}
    about = {"notebook": notebook, "seed": seed, "quality": quality}
    save_target(classifier.name, target, **about, **recipe, world="faces", ties=ties)
