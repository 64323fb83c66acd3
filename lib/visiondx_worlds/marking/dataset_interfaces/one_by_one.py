"""The usual way of learning words and of painting, which a speedup is held against.

As the paper's public code goes about it: one class after another, an image a step, which is read
from its file and encoded in every step anew; and one call of the painter for each picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.dataset_interfaces.folders import ClassFolder
from visiondx.dataset_interfaces.generation import Asked, paint
from visiondx.dataset_interfaces.inversion import Lesson
from visiondx.dataset_interfaces.tokens import ClassTokens, encode_prompts
from visiondx.models.painter import Painter
from visiondx.models.pixels import pixels
from visiondx.models.preprocess import Preprocess


class EncodedAgain:
    """In the place of ``ClassLatents.values``: an image is read and encoded when it is drawn.

    Latents come in fp16 as the kept ones do, so that the same words are learned.
    """

    def __init__(self, painter: Painter, data: ClassFolder, flips: int) -> None:
        self.painter, self.data = painter, data
        self.shape = (len(data.paths), flips)

    @torch.no_grad()
    def __getitem__(self, drawn: tuple[Tensor, Tensor]) -> Tensor:
        """(n,) images and (n,) whether mirrored -> (n, C, h, w)."""
        how = Preprocess((self.data.size, self.data.size))
        images = []
        for row, mirror in zip(*(part.tolist() for part in drawn), strict=True):
            with Image.open(self.data.paths[row]) as file:
                image = pixels(file, how)
            images.append(image.flip(2) if mirror else image)
        return self.painter.latents(torch.stack(images).to(self.painter.device)).half().cpu()


def encoding_again(lesson: Lesson, data: ClassFolder) -> Lesson:
    """The same lesson, without its latents.

    Raises:
        InputError: images of other classes.
    """
    if data.classes != lesson.latents.classes:
        raise InputError("The lesson is of other classes than the images: give those it is of.")
    values = EncodedAgain(lesson.painter, data, lesson.latents.values.shape[1])
    return replace(lesson, latents=replace(lesson.latents, values=values))


def one_by_one(lesson: Lesson) -> list[Lesson]:
    """A lesson for each class alone: what it draws is the same."""
    latents, found = lesson.latents, []
    for row, name in enumerate(latents.classes):
        own = replace(latents, classes=(name,), first=latents.first[row : row + 2])
        found.append(replace(lesson, latents=own, seeds=lesson.seeds[row : row + 1]))
    return found


def paint_one_by_one(
    painter: Painter, tokens: ClassTokens, rows: Sequence[Asked], home: str | Path
) -> None:
    """A call of the painter for each picture, its prompt included; files as ``paint`` writes."""
    for row in rows:
        words: Mapping[str, Tensor] = {row.kind: encode_prompts(painter, [row.prompt], tokens)[0]}
        paint(painter, words, [row], Path(home), 1)
