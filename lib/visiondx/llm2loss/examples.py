"""Images and a black box's losses on them, from wherever a person has them, with the pictures."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from visiondx.llm2loss.data import LossData, read_table
from visiondx.llm2loss.labelled import read_labelled
from visiondx.llm2loss.paths import locate
from visiondx.models.encoder import Encoder
from visiondx.models.pixels import pixels
from visiondx.models.preprocess import Preprocess

SIDE = 128  # pixels of a picture that is shown


@dataclass(frozen=True)
class LossExamples:
    """Losses, and the images that they are of."""

    data: LossData
    pictures: Callable[[Tensor], Tensor]  # rows (k,) -> (k, 3, S, S) in [0, 1]
    about: str  # where the losses come from, a sentence
    accuracy: float | None = None  # of a model that answered a labelled folder


def from_table(
    table: str | Path,
    encoder: Encoder,
    folder: str | Path | None = None,
    *,
    images: str | Path | None = None,
    image: str = "image",
    loss: str = "loss",
    skip_unreadable: bool = False,
) -> LossExamples:
    """A table of losses and the image files that it names; see ``read_table``."""
    data = read_table(
        table, encoder, folder, images=images, image=image, loss=loss,
        skip_unreadable=skip_unreadable,
    )  # fmt: skip
    paths = locate(Path(table).parent if images is None else Path(images), data.names)
    return LossExamples(data, squares(paths), f"The column {loss!r} of {Path(table).name}.")


def from_model(
    spec: str,
    images: str | Path,
    encoder: Encoder,
    folder: str | Path | None = None,
    *,
    device: str | torch.device = "cpu",
    skip_unreadable: bool = False,
) -> LossExamples:
    """A model's cross-entropies on a labelled folder; see ``read_labelled``."""
    found = read_labelled(
        spec, images, encoder, folder, device=device, skip_unreadable=skip_unreadable
    )
    order = ", ".join(f"{k} {name}" for k, name in enumerate(found.classes))
    how = (
        "The folders are the model's labels, by name"
        if found.named
        else f"The model names no labels: its outputs are taken in the folders' order, {order}"
    )
    about = (
        f"The model's cross-entropy on each of {len(found.paths)} images, in nats. {how}; it is "
        f"right on {found.accuracy:.0%}."
    )
    return LossExamples(found.data, squares(found.paths), about, found.accuracy)


def squares(paths: list[Path] | tuple[Path, ...]) -> Callable[[Tensor], Tensor]:
    """Rows (k,) -> the middle squares of these files (k, 3, S, S) in [0, 1]."""
    size = Preprocess((SIDE, SIDE))

    def pictures(rows: Tensor) -> Tensor:
        found = []
        for row in rows.tolist():
            with Image.open(paths[row]) as image:
                found.append(pixels(image, size))
        return torch.stack(found)

    return pictures
