"""A data set's latents: encoded once for all steps, not in every one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.core.errors import InputError
from visiondx.core.files import atomic_write, digest, read_kept, result_key
from visiondx.core.memory import free_memory
from visiondx.dataset_interfaces.folders import ImagesByClass
from visiondx.models.painter import Painter

METHOD = 1  # raised with every change that gives another result
BATCH = 32
_TEXT = {1: "as they are", 2: "as they are and flipped"}


@dataclass(frozen=True)
class ClassLatents:
    """The means of the VAE's latents of N images of C classes, fp16 on the CPU.

    values: (N, F, C, h, w), F = 2 with those of the images flipped left to right. first: (C + 1,)
    where each class begins; its images lie together.
    """

    classes: tuple[str, ...]
    values: Tensor
    first: Tensor

    @classmethod
    def make(
        cls, painter: Painter, data: ImagesByClass, flip: bool, kept: str | Path | None = None
    ) -> ClassLatents:
        """Encode a data set's images.

        Args:
            kept: a folder that keeps them for the next call with the same images and VAE.

        Raises:
            InputError: images of another size than the painter's, or more than the memory holds.
        """
        if data.size != painter.size:
            raise InputError(
                f"The images are {data.size} pixels wide and the painter paints {painter.size}: "
                f"read them with that size."
            )
        flips, side = 1 + flip, painter.size // painter.factor
        shape = (len(data.labels), flips, painter.unet.config.in_channels, side, side)
        size, free = 2 * math.prod(shape), free_memory()
        if free is not None and size > free:
            raise InputError(
                f"The latents of {shape[0]} images {_TEXT[flips]} take {size / 1e9:.1f} GB and "
                f"{free / 1e9:.1f} are free: take fewer images a class (at_most)."
            )
        counts = torch.bincount(data.labels, minlength=len(data.classes))
        first = torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)])
        file = None
        if kept is not None:
            weights = digest(**painter.vae.state_dict())
            key = result_key(METHOD, weights, data.content, list(shape))
            file = Path(kept) / f"latents-{key}.safetensors"
        values = read_kept(file, lambda path: load_file(path)["latents"])
        if values is None:
            values = _encode(painter, data, shape)
            if file is not None:
                with atomic_write(file) as path:
                    save_file({"latents": values}, path)
        return cls(data.classes, values, first)


@torch.no_grad()
def _encode(painter: Painter, data: ImagesByClass, shape: Sequence[int]) -> Tensor:
    values, done = torch.empty(shape, dtype=torch.float16), 0
    hidden = shape[0] <= BATCH
    with tqdm(total=shape[0], desc="latents", mininterval=1.0, disable=hidden) as bar:
        for images in data.batches(BATCH):
            images = images.to(painter.device)
            both = torch.stack([images, images.flip(3)][: shape[1]], 1).flatten(0, 1)
            made = painter.latents(both).unflatten(0, (-1, shape[1]))
            values[done : done + len(images)] = made.half().cpu()
            done += len(images)
            bar.update(len(images))
    if not values.isfinite().all():
        raise FloatingPointError("The VAE's latents have NaN or infinite values, or overflow fp16.")
    return values
