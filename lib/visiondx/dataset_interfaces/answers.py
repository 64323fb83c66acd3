"""What models say of images by shift and class: each image answered once by each model, and kept.

A model's answers are kept in one file, under a key of its weights; an image is known there by its
path, size and time of change. So a killed run goes on, and images that are added are all that is
asked about.
"""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from safetensors.numpy import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.core.errors import InputError, reason
from visiondx.core.files import atomic_write, read_kept
from visiondx.dataset_interfaces.models import Model, open_model, short_names
from visiondx.dataset_interfaces.shifted_images import ShiftedImages
from visiondx.models.device import device_of
from visiondx.models.images import THREADS
from visiondx.models.pixels import rgb

SAVE_SECONDS = 60.0
UNREAD = -1  # the answer to an image that cannot be read


@dataclass(frozen=True)
class Answers:
    """Whether M models are right about N images.

    Attributes:
        shifts: 1 + S, the base first. classes: C.
        right: (M, N) bool. shift, klass: (N,) int, which of these each image is of.
        drawn: (1 + S, C) how many images there were before any was left out.
    """

    models: tuple[str, ...]
    shifts: tuple[str, ...]
    classes: tuple[str, ...]
    right: np.ndarray
    shift: np.ndarray
    klass: np.ndarray
    drawn: np.ndarray

    def counts(self) -> np.ndarray:
        """(1 + S, C) images that were answered."""
        found = np.zeros(self.drawn.shape, dtype=np.int64)
        np.add.at(found, (self.shift, self.klass), 1)
        return found


def ask_models(
    specs: Sequence[str],
    images: ShiftedImages,
    *,
    kept: str | Path | None = None,
    device: str | torch.device = "cpu",
    batch: int = 64,
) -> Answers:
    """Let each model answer the images that passed the filter, among all of its own classes.

    An image that cannot be read is left out for all models, with a warning.

    Args:
        specs: see ``models.open_model``. kept: a folder for the answers; None keeps none.
        batch: images that a model answers together.

    Raises:
        InputError: what ``check_models`` refuses, or no image that passed.
    """
    names, rows = short_names(specs), np.flatnonzero(images.kept)
    if not len(rows):
        raise InputError(f"No image of {images.folder} passed the filter: lower its thresholds.")
    check_batch(batch)
    found = np.full((len(specs), len(rows)), UNREAD, dtype=np.int64)
    right = np.zeros(found.shape, dtype=bool)
    why: dict[str, str] = {}
    with tqdm(total=found.size, desc="answers", unit="image", mininterval=1.0) as bar:
        for m, spec in enumerate(specs):
            bar.set_postfix_str(names[m])
            model = open_model(spec, device)
            columns = np.array(model.columns(images.classes))
            found[m] = _answers(model, images, rows, kept, batch, bar, why)
            right[m] = found[m] == columns[images.klass[rows]]
    read = (found != UNREAD).all(0)
    if not read.all():
        name, text = next(iter(why.items()))
        warnings.warn(
            f"{int((~read).sum())} of {len(read)} images in {images.folder} cannot be read and are "
            f"left out, such as {name} ({text}).",
            stacklevel=2,
        )
    if not read.any():
        raise InputError(f"None of {len(read)} images in {images.folder} can be read: repair them.")
    rows = rows[read]
    shift, klass = images.shift[rows], images.klass[rows]
    return Answers(
        names, images.shifts, images.classes, right[:, read], shift, klass, images.counts()
    )


def check_batch(batch: int) -> None:
    """Raise InputError for a batch of no image."""
    if batch < 1:
        raise InputError(f"batch is {batch}: answer one image at once or more.")


def check_models(
    specs: Sequence[str], images: ShiftedImages, device: str | torch.device = "cpu"
) -> None:
    """Open each model and let it answer one image of each shift: seconds, before any long work.

    Raises:
        InputError: no model, one that cannot be loaded, whose classes are not the folder's, or that
            fails on these images; it names the model and the fix.
    """
    short_names(specs)
    firsts = [images.paths[np.flatnonzero(images.shift == s)[0]] for s in range(len(images.shifts))]
    for spec in tqdm(specs, desc="models", mininterval=1.0):
        model = open_model(spec, device)
        model.columns(images.classes)
        seen = [_picture(model, images.folder / path) for path in firsts]
        _together(model, [image for image in seen if isinstance(image, Tensor)])


def _answers(
    model: Model,
    images: ShiftedImages,
    rows: np.ndarray,
    kept: str | Path | None,
    batch: int,
    bar: tqdm,
    why: dict[str, str],
) -> np.ndarray:
    """(len(rows),) the output of each image, `UNREAD` where it cannot be read."""
    file = None if kept is None else Path(kept) / f"{model.fingerprint}.safetensors"
    paths = [images.paths[row] for row in rows]
    keys = np.array([_key(images.folder, path) for path in paths])
    known = read_kept(file, load_file) or {"image": keys[:0], "answer": keys[:0]}
    before = dict(zip(known["image"].tolist(), known["answer"].tolist()))
    found = np.array([before.get(key, UNREAD) for key in keys.tolist()])
    todo = np.flatnonzero(found == UNREAD)
    bar.update(len(rows) - len(todo))
    saved = time.monotonic()

    def save() -> None:
        if file is None:
            return
        here = {key: a for key, a in zip(keys.tolist(), found.tolist()) if a != UNREAD}
        every = before | here
        arrays = {"image": np.array(list(every)), "answer": np.array(list(every.values()))}
        with atomic_write(file) as path:
            save_file({name: values.astype(np.int64) for name, values in arrays.items()}, path)

    try:
        with ThreadPoolExecutor(THREADS) as pool:
            for part in np.array_split(todo, -(-len(todo) // batch)) if len(todo) else ():
                own = [images.folder / paths[i] for i in part]
                seen = list(pool.map(lambda path: _picture(model, path), own))
                for i, image in zip(part, seen):
                    if isinstance(image, str):
                        why.setdefault(paths[i], image)
                good = [i for i, image in zip(part, seen) if isinstance(image, Tensor)]
                if good:
                    found[good] = _together(model, [s for s in seen if isinstance(s, Tensor)])
                bar.update(len(part))
                if time.monotonic() - saved > SAVE_SECONDS:
                    save()
                    saved = time.monotonic()
    finally:
        if len(todo):
            save()
    return found


def _together(model: Model, seen: list[Tensor]) -> np.ndarray:
    """What a model answers to a few images; none, none.

    Raises:
        InputError: images of several sizes, or a model that fails on them.
    """
    sizes = sorted({tuple(image.shape[1:]) for image in seen})
    if len(sizes) > 1:
        some = " and ".join(f"{height} x {width}" for height, width in sizes[:2])
        raise InputError(
            f"The images come in several sizes, such as {some} (height x width): let {model.spec} "
            "return Target(module, size=…), the size that the model takes."
        )
    if not seen:
        return np.empty(0, dtype=np.int64)
    try:
        return model.answer(torch.stack(seen).to(device_of(model.target))).numpy()
    except InputError as error:
        raise InputError(f"{model.spec}: {error}") from error
    except Exception as error:  # modules raise many kinds
        height, width = sizes[0]
        raise InputError(
            f"{model.spec} failed on {len(seen)} images of {height} x {width} pixels "
            f"({reason(error)}): let it return Target(module, size=…, mean=…, std=…), what the "
            "model takes, or make the batch smaller."
        ) from error


def _picture(model: Model, path: Path) -> Tensor | str:
    """(3, H, W), or why the image cannot be read."""
    try:
        with Image.open(path) as image:
            return model.picture(rgb(image))
    except UnidentifiedImageError:  # its own text names the path again
        return "it is no image, or a damaged one"
    except Exception as error:  # a damaged file makes decoders raise many kinds
        return reason(error)


def _key(folder: Path, path: str) -> int:
    """Of a file: its path in the folder, its size, and when it was changed. 0 to 2⁶³ - 1."""
    try:
        state = (folder / path).stat()
        about = f"{path}|{state.st_size}|{state.st_mtime_ns}"
    except OSError:  # a link to nothing; reading it tells why
        about = path
    return int.from_bytes(hashlib.sha256(about.encode()).digest()[:8], "big") >> 1
