"""The interface of a drawn data set, by its kept tokens, with thresholds that judges calibrated.

interface = own_interface(painter, encoder)
interface, table = calibrated(interface, judges, SHIFTS, 10, 50, "runs/kept")
home = home_of(interface, 100, "runs/kept")         # where notebooks share what they paint
interface.generate("in the snow", n=50, seed=100, folder=home)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.core.errors import InputError
from visiondx.core.files import digest, result_key
from visiondx.core.seeds import step_seed
from visiondx.dataset_interfaces.clip_filter import LEAST, ClipFilter, calibrate
from visiondx.dataset_interfaces.interface import DatasetInterface
from visiondx.dataset_interfaces.shifts import Shift
from visiondx.models.encoder import Encoder
from visiondx.models.images import batches
from visiondx.models.painter import Painter
from visiondx.models.preprocess import Preprocess
from visiondx_worlds.marking.dataset_interfaces.selection import select
from visiondx_worlds.marking.dataset_interfaces.truth import world_shift
from visiondx_worlds.models.judges import Judges
from visiondx_worlds.training.class_tokens import class_images, class_tokens, data_set

VALIDATION = 7  # seeds of the validation images are apart from those of other draws
_BATCH = 256


def own_interface(
    painter: Painter,
    encoder: Encoder,
    name: str = "scenes",
    validation: int = 100,
    seed: int = 0,
) -> DatasetInterface:
    """A data set's kept tokens, and t_class from images that they were not learned from.

    Args:
        name: of ``class_tokens.DATA_SETS``. validation: images a class, drawn by `seed`.

    Raises:
        InputError: no such data set, no kept tokens, or fewer than two images a class.
    """
    words, tokens = dict(data_set(name).words), class_tokens(name, painter)
    real = class_images(name, validation, step_seed(seed, VALIDATION))
    return DatasetInterface(painter, encoder, words, ClipFilter.fit(real, encoder, words), tokens)


def home_of(interface: DatasetInterface, seed: int, folder: str | Path) -> Path:
    """The folder of what an interface paints by a seed, below one that notebooks share.

    Its name follows from painter, encoder, words and tokens: others have another.
    """
    tokens = interface.tokens
    kind = "words" if tokens is None else "tokens"
    vectors = None if tokens is None else digest(vectors=tokens.vectors)
    painter = interface.painter
    how = [painter.steps, painter.guidance, sorted(interface.words.items())]
    key = result_key(1, dict(interface.prints), vectors, how)[:10]
    return Path(folder) / f"{kind}-{seed}-{key}"


def first_painted(
    interface: DatasetInterface,
    shift: str | Shift,
    n: int,
    seed: int,
    folder: str | Path,
    classes: Sequence[str] | None = None,
) -> tuple[pd.DataFrame, Path]:
    """The first n images of each class under a shift, painted unless they are there.

    Args:
        classes: None for all. folder: keeps them, see ``home_of``.

    Returns:
        their rows of the manifest, without what an earlier run asked for besides; and the folder
        that its ``file`` column is below.

    Raises:
        InputError: see ``DatasetInterface.generate``.
    """
    shift = shift if isinstance(shift, Shift) else Shift.of(shift)
    home = home_of(interface, seed, folder)
    rows = interface.generate(shift, classes, n, seed, folder=home)
    asked = (rows["number"] < n) & rows["class"].isin(classes or interface.classes)
    return rows[asked], home / shift.folder


def load_images(folder: str | Path, files: Sequence[str], size: int = 64) -> Tensor:
    """Images of a manifest's ``file`` column, below its folder: (N, 3, size, size) in [0, 1].

    Raises:
        InputError: none, or one that cannot be read.
    """
    found = []
    paths = [Path(folder) / file for file in files]
    for part in batches(paths, _BATCH, Preprocess((size, size)))[0]:
        images, why = part.load()
        for row, reason in why.items():
            raise InputError(f"{part.names[row]} cannot be read ({reason}): generate it again.")
        found.append(images)
    return torch.cat(found)


def calibrated(
    interface: DatasetInterface,
    judges: Judges,
    shifts: Iterable[str | Shift],
    n: int,
    seed: int,
    folder: str | Path,
) -> tuple[DatasetInterface, pd.DataFrame]:
    """The interface with t_shift of each shift, where the judges accept 95 % of what is kept.

    Args:
        shifts: that the renderer can draw; `base` needs none and is passed over.
        n: calibration images a class and shift. seed: of these images, on which nothing else is
            to be reported. folder: keeps them, see ``home_of``.

    Returns:
        the interface, and a row a shift: threshold, percentile, accepted (share, with low and
        high), n images, and whether that share was reached (see ``clip_filter.calibrate``).

    Raises:
        InputError: too few images to calibrate on, a shift that no judge knows, or one that is in
            none of the images.
    """
    if n * len(interface.classes) < LEAST:
        raise InputError(
            f"n is {n}, {n * len(interface.classes)} images of a shift: {LEAST} are needed to "
            "calibrate its threshold."
        )
    asked = [shift if isinstance(shift, Shift) else Shift.named(shift) for shift in shifts]
    asked = [shift for shift in asked if shift.caption]
    for shift in asked:
        world_shift(shift)
    found = {}
    for shift in tqdm(asked, desc="calibration", mininterval=1.0, disable=len(asked) < 2):
        rows, home = first_painted(interface, shift, n, seed, folder)
        images = load_images(home, rows["file"], interface.painter.size)
        seen = select(judges, images, rows["class"].tolist(), shift).values["shift"]
        try:
            each = calibrate(rows["shift_score"], seen)
        except InputError as error:
            raise InputError(f"Calibrating {shift.name!r}: {error}") from error
        interface = interface.with_threshold(shift, each.threshold)
        found[shift.name] = {
            "threshold": each.threshold,
            "percentile": each.percentile,
            "accepted": each.accepted.value,
            "low": each.accepted.low,
            "high": each.accepted.high,
            "n": each.accepted.n,
            "reached": each.reached,
        }
    return interface, pd.DataFrame.from_dict(found, orient="index").rename_axis("shift")
