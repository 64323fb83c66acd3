"""What ZOOM pulls at, and what it calls a change, for each kind of target.

A search knows a target by one number an image, p, and by one loss. They depend on the task:

- binary: p = f(x), and Eq. 5 pulls it towards 1 - f(x).
- keypoints: p is the *displacement* of the points from the original's, the mean over points of
  their distance, in sizes of the face: the longer side of the box around the original's points (a
  target need not have eyes to measure between). Eq. 6 pulls the points towards random ones.
- segmentation: p = 1 - mean IoU of the two label maps, over the original's parts. Eq. 5 at each
  pixel pulls its distribution q over P parts towards all that it is not, (1 - q) / (P - 1); with
  two parts, that is Eq. 5.

So an original's own p is f(x), or 0, and |p̂ - p| is what Eq. 11 averages. "Flipped" is a p that
crosses ``LIMITS``: half, and, for points, the 7 % of the face's box at which the area under the
error curve is usually cut.
"""

import copy
from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.core.losses import keypoint_loss, part_loss, target_loss
from visiondx.models.outputs import answers, displacement, extent, mean_iou

LIMITS = {"binary": 0.5, "keypoints": 0.07, "segmentation": 0.5}
SEED = 0  # of Eq. 6's random points


class Original(ABC):
    """The originals' side of a search, computed once. Every tensor here has a row an image.

    Attributes: ``answer`` (B, …), f(x). ``p`` (B,), what the trajectories are compared with.

    Args:
        images: (B, 3, H, W). hard: the loss aims at the opposite label, see ``SearchSettings``.
        first: number of the first image.
    """

    task: ClassVar[str]
    answer: Tensor
    p: Tensor

    def __init__(self, target, images: Tensor, hard: bool = False, first: int = 0):
        self.target, self.hard = target, hard
        self.answer = answers(self.output(images), self.task)

    def index(self, rows: Tensor) -> "Original":
        """The same for these images, in this order; nothing is computed again."""
        some = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(some, name, value[rows])
        return some

    def output(self, images: Tensor) -> Tensor:
        """What ``loss`` and ``change`` take, of edited images."""
        return self.target.output(images, self.task)

    @abstractmethod
    def loss(self, output: Tensor) -> Tensor:
        """L_target of x̂ (B,)."""

    @abstractmethod
    def change(self, output: Tensor) -> Tensor:
        """p of x̂ (B,)."""


class Label(Original):
    """Of a binary target: p is f(x), and Eq. 5."""

    task = "binary"

    def __init__(self, target, images: Tensor, hard: bool = False, first: int = 0):
        super().__init__(target, images, hard, first)
        self.p = self.answer

    def output(self, images: Tensor) -> Tensor:
        return self.target.logit(images)  # all that a search asks of a binary target

    def loss(self, output: Tensor) -> Tensor:
        return target_loss(output, 1 - self.p, self.hard)

    def change(self, output: Tensor) -> Tensor:
        return torch.sigmoid(output)


class Points(Original):
    """Of a keypoint detector: p is the displacement, and Eq. 6.

    The paper does not say around what and how far the random points spread. Here each is drawn
    around the original's own, with the size of the face for deviation, once for each image of a
    search: around one centre for all, they would mostly say "smaller".
    """

    task = "keypoints"

    def __init__(self, target, images: Tensor, hard: bool = False, first: int = 0):
        if hard:
            raise InputError("hard aims at the opposite label, and points have none: leave it out.")
        super().__init__(target, images, hard, first)
        self.size = extent(self.answer)
        self.p = torch.zeros_like(self.size)
        # NumPy's normals: the first n images get the same ones, however many follow
        shape = (first + len(images), *self.answer.shape[1:])
        noise = np.random.default_rng(SEED).standard_normal(shape)[first:]
        self.noise = torch.from_numpy(noise).to(self.answer)

    def loss(self, output: Tensor) -> Tensor:
        moved = (answers(output, self.task) - self.answer) / self.size[:, None, None]
        return keypoint_loss(moved, self.noise)

    def change(self, output: Tensor) -> Tensor:
        return displacement(answers(output, self.task), self.answer, self.size)


class Parts(Original):
    """Of a segmentation network: p is 1 - mean IoU, and Eq. 5 at each pixel."""

    task = "segmentation"

    def __init__(self, target, images: Tensor, hard: bool = False, first: int = 0):
        super().__init__(target, images, hard, first)
        self.labels = self.answer.argmax(1)
        self.p = self.answer.new_zeros(len(images))
        parts = self.answer.shape[1]
        own = self.answer
        if hard:
            own = torch.zeros_like(own).scatter_(1, self.labels[:, None], 1.0)
        self.goal = (1 - own) / (parts - 1)

    def loss(self, output: Tensor) -> Tensor:
        return part_loss(output, self.goal)

    def change(self, output: Tensor) -> Tensor:
        return 1 - mean_iou(self.labels, output.argmax(1), output.shape[1])


KINDS = {kind.task: kind for kind in (Label, Points, Parts)}


def task_of(target) -> str:
    """The target's task; anything that has ``logit`` and names no task is binary.

    Raises:
        InputError: a task that ZOOM has no loss for.
    """
    task = getattr(target, "task", "binary")
    if task not in KINDS:
        raise InputError(
            f"ZOOM explains a keypoints, a segmentation or a binary target, this one is {task} "
            f"with {len(target.labels)} labels: take one of them against the rest, with "
            "target.of_class(k) or, on the command line, --class k."
        )
    return task


def original(target, images: Tensor, hard: bool = False, first: int = 0) -> Original:
    """The originals' side, of the target's task; see ``Original`` and ``task_of``."""
    return KINDS[task_of(target)](target, images, hard, first)


@torch.no_grad()
def compare(target, images: Tensor, edited: Tensor) -> tuple[Tensor, Tensor]:
    """p of originals and of their edited versions, (B, 3, H, W) each: (B,) and (B,)."""
    side = original(target, images)
    return side.p, side.change(side.output(edited))


def crossed(p: Tensor, p_original: Tensor, task: str = "binary") -> Tensor:
    """Whether p has crossed the task's limit, seen from the original's: bool, of their shape."""
    return (p >= LIMITS[task]) != (p_original >= LIMITS[task])
