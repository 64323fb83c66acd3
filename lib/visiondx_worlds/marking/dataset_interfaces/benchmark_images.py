"""Images of a benchmark by shift and class: painted, drawn, and with one part swapped for another.

What an interface paints and its filter keeps; what the renderer draws in its place. What judges see
in either, for a filter that is never wrong; whether the CLIP filter would keep what it was not made
for; and images as a painter's autoencoder brings them back, for what its decoder alone does to
classifiers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.core.errors import InputError
from visiondx.core.files import atomic_write, digest, result_key
from visiondx.dataset_interfaces.answers import Answers
from visiondx.dataset_interfaces.clip_filter import class_scores, embedded, shift_scores
from visiondx.dataset_interfaces.generation import MADE, open_home, shift_of
from visiondx.dataset_interfaces.interface import DatasetInterface
from visiondx.dataset_interfaces.shifted_images import BASE, ShiftedImages
from visiondx.dataset_interfaces.shifts import Shift
from visiondx.models.painter import Painter
from visiondx.models.pixels import pictures
from visiondx_worlds.marking.dataset_interfaces.own import first_painted, home_of, load_images
from visiondx_worlds.marking.dataset_interfaces.selection import select
from visiondx_worlds.marking.dataset_interfaces.truth import write_truth
from visiondx_worlds.models.judges import Judges

METHOD = 1  # raised with every change that gives other images
BATCH = 64
SIDE = 64  # pixels of the world's images
JUDGES = "judges"


def painted_images(
    interface: DatasetInterface,
    shifts: Sequence[Shift],
    n: int,
    seed: int,
    folder: str | Path,
) -> ShiftedImages:
    """n images of each class and shift as an interface paints them, and which its filter keeps.

    Args:
        shifts: `base` first. folder: keeps them, for other notebooks too (see ``own.home_of``);
            what is there beyond the first n, or was filtered by other thresholds, does not count.

    Raises:
        InputError: no base, a shift without a threshold, before any is painted, and see
            ``DatasetInterface.generate``.
    """
    if len(shifts) < 2 or shifts[0].name != BASE:
        raise InputError(f"A benchmark takes {BASE!r} first, and one shift at least.")
    for shift in shifts:
        interface.clip.check(shift, interface.classes)
    home, tables = home_of(interface, seed, folder), []
    for s, shift in enumerate(tqdm(shifts, desc="shifts", mininterval=1.0)):
        rows, _ = first_painted(interface, shift, n, seed, folder)
        kinds = rows["class"].tolist()
        kept = interface.clip.keeps(shift, kinds, rows["class_score"], rows["shift_score"])
        paths = [f"{shift.folder}/{file}" for file in rows["file"]]
        tables.append(pd.DataFrame({"path": paths, "s": s, "kind": kinds, "kept": kept}))
    table, classes = pd.concat(tables, ignore_index=True), tuple(sorted(interface.classes))
    return ShiftedImages(
        home,
        tuple(shift.folder for shift in shifts),
        classes,
        tuple(table["path"]),
        table["s"].to_numpy(),
        np.array([classes.index(kind) for kind in table["kind"]]),
        table["kept"].to_numpy(dtype=bool),
        "CLIP",
    )


def drawn_images(shifts: Sequence[Shift], n: int, seed: int, folder: str | Path) -> ShiftedImages:
    """n images of each class and shift as the renderer draws them, kept below a folder.

    Raises:
        InputError: see ``truth.write_truth``.
    """
    home = Path(folder) / f"drawn-{seed}-{n}"
    write_truth(home, shifts, n, seed)
    return ShiftedImages.read(home, [shift.folder for shift in shifts])


def pairs(
    images: ShiftedImages, drawn: ShiftedImages, each: int = 8
) -> dict[str, tuple[Tensor, Tensor]]:
    """Images that count, and beside each a drawn one of the same class, to be looked at.

    Args:
        drawn: of the same shifts and classes.

    Returns:
        {shift: (k, 3, 64, 64) twice} of the shifts of which any counts; k is `each`, or all there
        are, evenly spaced among them, so that they are of several classes.
    """
    found = {}
    for s, name in enumerate(images.shifts):
        rows = np.flatnonzero(images.kept & (images.shift == s))
        count = min(each, len(rows))
        if not count:
            continue
        rows = rows[np.arange(count) * len(rows) // count]
        own = np.flatnonzero(drawn.shift == drawn.shifts.index(name))
        beside = []
        for k, kind in enumerate(_kinds(images, rows)):
            same = own[drawn.klass[own] == drawn.classes.index(kind)]
            beside.append(drawn.paths[same[k % len(same)]])
        found[name] = (
            load_images(images.folder, [images.paths[row] for row in rows], SIDE),
            load_images(drawn.folder, beside, SIDE),
        )
    return found


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
def decoded_images(images: ShiftedImages, painter: Painter, folder: str | Path) -> ShiftedImages:
    """Images as a painter's autoencoder brings them back, kept below a folder; all of them count.

    Args:
        images: in folders such as ``truth.write_truth`` and ``DatasetInterface.generate`` write.

    Raises:
        InputError: images that nothing says the origin of.
    """
    weights = digest(**painter.vae.state_dict())
    home = Path(folder) / f"{images.folder.name}-decoded-{weights[:10]}"
    for s, name in enumerate(images.shifts):
        source = images.folder / name
        shift = shift_of(source)
        open_home(home / name, shift, result_key(METHOD, weights, (source / MADE).read_text()))
        paths = [images.paths[row] for row in np.flatnonzero(images.shift == s)]
        # a batch of which some are missing is decoded whole: not even its rounding differs
        parts = [paths[first : first + BATCH] for first in range(0, len(paths), BATCH)]
        todo = [part for part in parts if not all((home / path).is_file() for path in part)]
        for part in tqdm(todo, desc=f"decoded {name}", disable=len(todo) < 2):
            pixels = load_images(images.folder, part, painter.size).to(painter.device)
            made = painter.decode(painter.latents(pixels))
            for path, picture in zip(part, pictures(made), strict=True):
                if not (home / path).is_file():
                    with atomic_write(home / path) as file:
                        picture.save(file)
    return replace(unfiltered(images), folder=home)


def _kinds(images: ShiftedImages, rows: np.ndarray) -> list[str]:
    return [images.classes[k] for k in images.klass[rows]]
