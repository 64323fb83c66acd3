"""A small face recogniser: which of the enrolled people is this?"""

from __future__ import annotations

from torch import Tensor, nn

from visiondx.models.target import Target
from visiondx_worlds.models import zoo

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
NAME = "recogniser-{}"  # in the zoo, with its seed


class Recogniser(nn.Module):
    """Images (B, 3, 64, 64) -> logits (B, people).

    Convolutions down to 4 px, then a linear layer over all of its places: a face differs from
    another in where its parts sit, which an average over places would blur.
    """

    def __init__(self, people: int, width: int = 16, dim: int = 64) -> None:
        super().__init__()
        shapes = [(1, 2, 2), (2, 2, 1), (2, 4, 2), (4, 4, 1), (4, 4, 2)]  # in, out (widths), stride
        self.body = nn.Sequential(
            *_convolution(3, width, 5, 2),
            *[
                layer
                for inputs, outputs, stride in shapes
                for layer in _convolution(inputs * width, outputs * width, 3, stride)
            ],
            nn.Flatten(),
            nn.Linear(4 * width * 16, dim, bias=False),
            nn.BatchNorm1d(dim),
        )
        self.head = nn.Linear(dim, people)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images))


def _convolution(inputs: int, outputs: int, size: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    ]


def recogniser_target(people: int, width: int = 16, dim: int = 64) -> Target:
    """An untrained recogniser as a multiclass target; in train mode."""
    labels = tuple(f"person {k}" for k in range(people))
    return Target(Recogniser(people, width, dim), "multiclass", labels, mean=MEAN, std=STD)


def save_recogniser(seed: int, target: Target, *, notebook: str, quality: dict, **card) -> None:
    """Keep a trained recogniser as "recogniser-<seed>".

    Args:
        notebook, quality: for the manifest, see ``zoo.save``. card: its width, dim and recipe.
    """
    config = {"people": len(target.labels), **card}
    tensors = target.module.state_dict()
    zoo.save(NAME.format(seed), tensors, config, notebook=notebook, seed=seed, quality=quality)


def load_recogniser(seed: int = 0) -> Target:
    """An embedded recogniser, in eval mode.

    Raises:
        InputError: none of that seed, or its file is missing or altered.
    """
    with zoo.opened(NAME.format(seed)) as (tensors, card):
        target = recogniser_target(card["people"], card["width"], card["dim"])
        target.module.load_state_dict(tensors)
    target.config = card
    return target.eval().requires_grad_(False)
