"""Images by shift and class with a part of what made or chose them swapped for another.

What judges see in them, for a filter that is never wrong; whether the CLIP filter would pass them,
for images that it was not made for; and the same images as a painter's autoencoder brings them
back, for what its decoder alone does to classifiers.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from tqdm.auto import tqdm

from visiondx.core.errors import InputError
from visiondx.core.files import atomic_write, digest, result_key
from visiondx.dataset_interfaces.answers import Answers
from visiondx.dataset_interfaces.clip_filter import class_scores, embedded, shift_scores
from visiondx.dataset_interfaces.generation import MADE, open_home, shift_of
from visiondx.dataset_interfaces.interface import DatasetInterface
from visiondx.dataset_interfaces.shifted_images import ShiftedImages
from visiondx.models.painter import Painter
from visiondx_worlds.marking.dataset_interfaces.own import load_images
from visiondx_worlds.marking.dataset_interfaces.selection import select
from visiondx_worlds.models.judges import Judges

METHOD = 1  # raised with every change that gives other images
BATCH = 64
SIDE = 64  # pixels of the world's images
JUDGES = "judges"


def unfiltered(images: ShiftedImages) -> ShiftedImages:
    """The same images, all of which count."""
    return replace(images, kept=np.ones(len(images), dtype=bool), filtered="")


def seen(images: ShiftedImages, judges: Judges) -> pd.DataFrame:
    """What both judges see in each of N images, whether it passed a filter or not.

    Returns:
        N rows of bool: class, state (the data set's own; False where the class has none), shift,
        both (class and shift), right (the state too, where there is one).

    Raises:
        InputError: folders that nothing says the shift of, or a shift that no judge knows.
    """
    parts = []
    for s, name in enumerate(tqdm(images.shifts, desc="judges", mininterval=1.0)):
        rows = np.flatnonzero(images.shift == s)
        shift, kinds = shift_of(images.folder / name), _kinds(images, rows)
        pixels = load_images(images.folder, [images.paths[row] for row in rows], SIDE)
        found = select(judges, pixels, kinds, shift)
        columns = {name: found.values[name] for name in ("class", "state", "shift")}
        columns |= {"both": found.both, "right": found.right}
        parts.append(pd.DataFrame(columns, index=rows))
    return pd.concat(parts).sort_index()


def judges_answers(images: ShiftedImages, found: pd.DataFrame) -> Answers:
    """The judges as a classifier: right where both see the class. It loses what is not painted.

    Args:
        found: of ``seen``, of all images.
    """
    right = found["class"].to_numpy(dtype=bool)[None]
    return Answers(
        (JUDGES,), images.shifts, images.classes, right, images.shift, images.klass, images.counts()
    )


def clip_passes(images: ShiftedImages, interface: DatasetInterface) -> np.ndarray:
    """(N,) bool: which images an interface's filter would keep.

    Raises:
        InputError: folders that nothing says the shift of, or a shift or class without a threshold.
    """
    passed = np.zeros(len(images), dtype=bool)
    for s, name in enumerate(images.shifts):
        rows = np.flatnonzero(images.shift == s)
        shift, kinds = shift_of(images.folder / name), _kinds(images, rows)
        interface.clip.check(shift, kinds)
        files = [images.folder / images.paths[row] for row in rows]
        found = embedded(files, interface.encoder, f"CLIP {name}")
        words = [interface.words[kind] for kind in kinds]
        of_class = class_scores(found, words, shift, interface.encoder)
        of_shift = shift_scores(found, shift, interface.encoder)
        passed[rows] = interface.clip.keeps(shift, kinds, of_class, of_shift)
    return passed


@torch.no_grad()
def write_decoded(folder: str | Path, images: ShiftedImages, painter: Painter) -> None:
    """Write images as a painter's autoencoder brings them back, below a folder by the same names.

    What is there stays.

    Args:
        images: in folders such as ``truth.write_truth`` and ``DatasetInterface.generate`` write.

    Raises:
        InputError: images that nothing says the origin of, or a folder with other images.
    """
    folder = Path(folder)
    if folder.resolve() == images.folder.resolve():
        raise InputError(f"{folder} holds the images themselves: give another folder.")
    weights = digest(**painter.vae.state_dict())
    for s, name in enumerate(images.shifts):
        source = images.folder / name
        shift = shift_of(source)
        open_home(folder / name, shift, result_key(METHOD, weights, (source / MADE).read_text()))
        paths = [images.paths[row] for row in np.flatnonzero(images.shift == s)]
        # a batch of which some are missing is decoded whole: not even its rounding differs
        parts = [paths[first : first + BATCH] for first in range(0, len(paths), BATCH)]
        todo = [part for part in parts if not all((folder / path).is_file() for path in part)]
        for part in tqdm(todo, desc=f"decoded {name}", disable=len(todo) < 2):
            pixels = load_images(images.folder, part, painter.size).to(painter.device)
            made = painter.decode(painter.latents(pixels)).float().cpu()
            pictures = (made * 255).round().byte().permute(0, 2, 3, 1).numpy()
            for path, picture in zip(part, pictures, strict=True):
                if not (folder / path).is_file():
                    with atomic_write(folder / path) as file:
                        Image.fromarray(picture).save(file)


def _kinds(images: ShiftedImages, rows: np.ndarray) -> list[str]:
    return [images.classes[k] for k in images.klass[rows]]
