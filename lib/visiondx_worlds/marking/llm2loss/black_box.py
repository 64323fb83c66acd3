"""The embedded black boxes: face recognisers and classifiers of scenes, with images to audit them.

A source draws labelled images of its world: `worlds.people.People`, or `SceneClasses` here. What
was learned from, what a loss model learns from and what it is tested on are different draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.core.errors import InputError
from visiondx.core.seeds import step_seed
from visiondx.models.device import device_of
from visiondx.models.target import Target
from visiondx_worlds.models.recogniser import load_recogniser
from visiondx_worlds.worlds import scenes
from visiondx_worlds.worlds.base import Attributes, World
from visiondx_worlds.worlds.people import People

RECOGNISERS = (0, 1, 2)  # their training seeds
# of one recipe, its twin, and another family
SCENE_CLASSIFIERS = ("scenes-resnet-w16-d1", "scenes-convnext-w16-d1-plain", "scenes-vit-w32-d4")


class Source(Protocol):
    """Where labelled images come from."""

    world: World
    classes: tuple[str, ...]

    def sample(
        self, n: int, seed: int, given: Mapping[str, bool] | None = None
    ) -> tuple[Attributes, Tensor]:
        """n attribute rows that agree with `given`, and their classes (n,) int64."""
        ...


class SceneClasses:
    """Scenes in which every class meets every shift; the answer is the class of the object."""

    world = scenes
    classes = scenes.classes

    def sample(
        self, n: int, seed: int, given: Mapping[str, bool] | None = None
    ) -> tuple[Attributes, Tensor]:
        """As `Source.sample`. Raises InputError for an unknown attribute."""
        attributes = scenes.sample(n, seed, given=given)
        return attributes, scenes.groups(attributes)["class"]


class Labelled(Protocol):
    """Images whose right answers and attributes are known, wherever the images are."""

    answers: Tensor  # (N,) int64, the right class
    labels: Tensor  # (N, A) bool

    def __len__(self) -> int: ...

    def pictures(self, rows: Tensor | slice = slice(None)) -> Tensor:
        """(len(rows), 3, H, W) float32 in [0, 1]."""
        ...


@dataclass(frozen=True)
class Examples:
    """Rendered images, kept as bytes, with all that the world knows of them."""

    images: Tensor  # (N, 3, 64, 64) uint8
    attributes: Attributes
    answers: Tensor  # (N,) int64, the right class
    labels: Tensor  # (N, A) bool, the world's binary attributes

    def __len__(self) -> int:
        return len(self.answers)

    def pictures(self, rows: Tensor | slice = slice(None)) -> Tensor:
        """(len(rows), 3, 64, 64) float32 in [0, 1]."""
        return self.images[rows].float() / 255


def render_examples(source: Source, attributes: Attributes, answers: Tensor) -> Examples:
    """Draw these rows, with a progress bar."""
    parts = [
        (source.world.render(part) * 255).round().byte()
        for part in tqdm(
            list(attributes.split(256)), desc=f"{source.world.name} drawn", mininterval=1.0
        )
    ]
    return Examples(torch.cat(parts), attributes, answers, source.world.labels(attributes))


def draw_examples(source: Source, count: int, seed: int) -> Examples:
    """`count` images of a source, everything as the world has it."""
    return render_examples(source, *source.sample(count, seed))


def split_examples(source: Source, train: int, test: int, seed: int) -> dict[str, Examples]:
    """A loss model's images: {"train": so many, "test": so many}, two separate draws."""
    return {
        name: draw_examples(source, count, step_seed(seed, place))
        for name, count, place in (("train", train, 101), ("test", test, 102))
    }


@torch.no_grad()
def log_probabilities(target: Target, examples: Labelled, batch: int = 250) -> Tensor:
    """(N, classes) float32 on the CPU: what a multiclass target answers, on its own device."""
    device = device_of(target)
    rows = torch.arange(len(examples)).split(batch)
    return torch.cat(
        [target.logits(examples.pictures(part).to(device)).log_softmax(1).cpu() for part in rows]
    )


def example_losses(target: Target, examples: Labelled, batch: int = 250) -> Tensor:
    """(N,) float32: the categorical cross-entropy of each image, in nats.

    Raises:
        InputError: a target of another task, or with fewer classes than the answers have.
    """
    if int(examples.answers.max()) >= len(target.labels):
        raise InputError(
            f"The answers go up to class {int(examples.answers.max())}, but the target has "
            f"{len(target.labels)} classes: give the images of its own source."
        )
    log_p = log_probabilities(target, examples, batch)
    return F.nll_loss(log_p, examples.answers, reduction="none")


def load_black_boxes(world: str = "faces") -> tuple[Source, dict[str, Target]]:
    """The embedded black boxes of a world by name, and the source of their images.

    Args:
        world: "faces" for three recognisers of the same people, which learned from different
            photographs; "scenes" for three classifiers of different families.
    """
    if world == "faces":
        return People.load(), {f"recogniser-{seed}": load_recogniser(seed) for seed in RECOGNISERS}
    if world == "scenes":
        return SceneClasses(), {name: Target.load(name) for name in SCENE_CLASSIFIERS}
    raise InputError(f"No black boxes of {world!r}: choose faces or scenes.")
