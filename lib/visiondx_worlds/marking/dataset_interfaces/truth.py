"""What a dataset interface should have returned: the renderer draws the data set under each shift.

The data set is `scenes-train`, on which the classifiers of `scenes` learned, each class equally
often. Its classes have states of their own: plates hold food, boats carry sails, birds fold their
wings. Under a shift one thing changes in the same scenes; `base` changes nothing, for base images
are to be in the distribution (appendix A.5).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.core.errors import InputError
from visiondx.core.files import atomic_write, digest, result_key
from visiondx.core.seeds import step_seed
from visiondx.dataset_interfaces.generation import open_home
from visiondx.dataset_interfaces.shifts import BASE, BY_NAME, PLACE, Shift
from visiondx.models.pixels import pictures
from visiondx_worlds.worlds.base import Attributes, normals
from visiondx_worlds.worlds.distributions import Distribution
from visiondx_worlds.worlds.scenes import CLASSES, STATES, scenes

METHOD = 1  # raised where renders of the same rows look otherwise
DATA_SET = "scenes-train"
_CHUNK = 1024
# {a shift's name in Table 1: its name in the world}, one to one, by the prompt
WORLD_SHIFTS = {
    shift.name: name
    for name in (BASE, *scenes.shifts)
    for shift in BY_NAME.values()
    if shift.prompt == scenes.grammar.table1(name, PLACE).lower()
}


def world_shift(shift: Shift | str) -> str:
    """The world's name for a shift of Table 1: "in the grass" is "grass".

    Raises:
        InputError: a shift that the renderer cannot draw.
    """
    name = shift if isinstance(shift, str) else shift.name
    if name not in WORLD_SHIFTS:
        raise InputError(
            f"The renderer cannot draw {name!r}: choose from {', '.join(WORLD_SHIFTS)}."
        )
    return WORLD_SHIFTS[name]


def own_rows(
    n: int,
    seed: int,
    classes: Sequence[str] = CLASSES,
    distribution: str | Distribution = DATA_SET,
) -> Attributes:
    """n scenes of each class, class by class, from the data set's own distribution.

    A class's scenes are the same whichever others are asked for.

    Raises:
        InputError: n below 1, no class, or an unknown one.
    """
    unknown = [name for name in classes if name not in CLASSES]
    if unknown or not classes:
        raise InputError(
            f"There is no class {unknown[0]!r}: choose from {', '.join(CLASSES)}."
            if unknown
            else "Name one class at least."
        )
    if isinstance(distribution, str):
        distribution = Distribution.load(distribution, scenes)
    shares = list(distribution.marginal("class").values())
    column = scenes.names.index("class")
    rows = []
    for name in classes:
        k = CLASSES.index(name)
        if not shares[k]:
            raise InputError(f"The distribution {distribution.name} has no {name}: leave it out.")
        # the middle of the class's stretch of the normal: its other columns follow from it
        middle = sum(shares[:k]) + shares[k] / 2
        own = normals(n, scenes.latent_dim, step_seed(seed, k))
        own[:, column] = math.sqrt(2) * torch.erfinv(torch.tensor(2 * middle - 1))
        rows.append(distribution.from_normal(own))
    return Attributes.cat(rows)


def own_states(least: float = 0.75, distribution: str = DATA_SET) -> dict[str, bool]:
    """{class: whether its state is there}, of the classes of which `least` of all are of one kind.

    With a state as often there as not no image is out of the distribution.
    """
    own = {}
    found = Distribution.load(distribution, scenes)
    table = next(table for table in found.tables if table.attribute == "state")
    for name in STATES:
        absent, present = table.shares[CLASSES.index(name)]
        if max(absent, present) >= least:
            own[name] = present > absent
    return own


def true_rows(
    shift: Shift | str, n: int, seed: int, classes: Sequence[str] = CLASSES
) -> Attributes:
    """``own_rows`` under a shift of Table 1. Raises InputError for one that cannot be drawn."""
    name = world_shift(shift)
    rows = own_rows(n, seed, classes)
    return rows if name == BASE else scenes.shift(rows, name)


def true_images(
    shift: Shift | str, n: int, seed: int, classes: Sequence[str] = CLASSES
) -> dict[str, Tensor]:
    """{class: (n, 3, 64, 64) in [0, 1]} of ``true_rows``: what an interface should return."""
    rows = true_rows(shift, n, seed, classes)
    parts = torch.arange(len(rows)).split(_CHUNK)
    hidden = len(parts) < 2
    images = [
        scenes.render(rows[part]) for part in tqdm(parts, desc=f"renders {shift}", disable=hidden)
    ]
    return dict(zip(classes, torch.cat(images).split(n), strict=True))


def write_truth(
    folder: str | Path,
    shifts: Sequence[Shift | str],
    n: int,
    seed: int,
    classes: Sequence[str] = CLASSES,
) -> None:
    """Write ``true_images`` as ``<shift>/<class>/0000.png``, the folders of an interface's images.

    A shift whose images are there already is not drawn again.

    Raises:
        InputError: a shift that cannot be drawn, before any is, or a folder with other images.
    """
    asked = [Shift.named(name) if isinstance(name, str) else name for name in shifts]
    for shift in asked:
        world_shift(shift)
    key = result_key(METHOD, digest(rows=own_rows(n, seed).values))
    for shift in tqdm(asked, desc="truth", disable=len(asked) < 2):
        home = Path(folder) / shift.folder
        open_home(home, shift, key)
        lacking = [
            kind
            for kind in classes
            if not all((home / kind / f"{k:04}.png").is_file() for k in range(n))
        ]
        if not lacking:
            continue
        for kind, images in true_images(shift, n, seed, lacking).items():
            for k, picture in enumerate(pictures(images)):
                with atomic_write(home / kind / f"{k:04}.png") as path:
                    picture.save(path)
