"""Fine-grained data sets and what judges see of their classes (Dataset Interfaces, appendix D).

`animals`: ten breeds, of which no caption ever spoke, each of one species. `faces`: six age ranges,
each in a tone of skin of its own. Their shifts are what would mean nothing to most classes of a
broader data set: a collar, a smile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.core.stats import Estimate, proportion
from visiondx.dataset_interfaces.interface import DatasetInterface
from visiondx.dataset_interfaces.shifts import BASE
from visiondx.models.encoder import Encoder
from visiondx.models.painter import Painter
from visiondx_worlds.marking.dataset_interfaces.own import first_painted, load_images, own_interface
from visiondx_worlds.marking.dataset_interfaces.selection import Selected
from visiondx_worlds.models.judges import Judges
from visiondx_worlds.training.class_tokens import age_rows, breed_rows, data_set
from visiondx_worlds.worlds.age_groups import own_tones
from visiondx_worlds.worlds.animals import BREEDS, LOOK, animals
from visiondx_worlds.worlds.base import Attributes, World
from visiondx_worlds.worlds.faces import AGE_RANGES, faces

DISAGREE = "they differ"  # of the two judges


@dataclass(frozen=True)
class FineGrained:
    """A data set of one world.

    group: of the judges', whose values are the classes. numbers: {class: its value}. own: another
    group of theirs, which the data set's images of a class have in common. values: {class: what it
    is there}. others: {value: its name}, of values that are no class. shifts: {words that follow
    the class: the world's binary attribute}.
    """

    world: World
    group: str
    numbers: Mapping[str, int]
    own: str
    values: Mapping[str, int]
    others: Mapping[int, str]
    shifts: Mapping[str, str]


FINE = {
    "animals": FineGrained(
        animals,
        "breed",
        {name: number for number, name in enumerate(BREEDS, 1)},
        "fur_colour",
        {name: look[LOOK.index("fur_colour")] for name, look in BREEDS.items()},
        {0: "no breed"},
        {
            "with a collar": "collar",
            "with its tongue out": "tongue",
            "with green eyes": "green_eyes",
        },
    ),
    "faces": FineGrained(
        faces,
        "age_range",
        {name: number for number, name in enumerate(AGE_RANGES)},
        "skin_tone",
        dict(zip(AGE_RANGES, own_tones().tolist(), strict=True)),
        {},
        {"with eyeglasses": "eyeglasses", "with a hat": "hat", "with a smile": "smiling"},
    ),
}


def fine(name: str) -> FineGrained:
    """One of FINE. Raises InputError for another name."""
    if name not in FINE:
        raise InputError(f"No fine-grained data set {name!r}: choose from {', '.join(FINE)}.")
    return FINE[name]


def fine_images(name: str, shift: str, n: int, seed: int) -> dict[str, Tensor]:
    """{class: (n, 3, 64, 64) in [0, 1]}: the data set's images, and the same under a shift.

    Args:
        shift: "base", or of the data set's.

    Raises:
        InputError: no such data set or shift, or n below 1.
    """
    found = fine(name)
    if n < 1:
        raise InputError(f"n is {n}: draw one image of each class at least.")
    attribute = None if shift == BASE else _attribute(found, shift)
    images = {}
    for kind in found.numbers:
        rows = _rows(found, kind, n, seed)
        if attribute is not None:
            rows = found.world.set(rows, attribute, True)
        images[kind] = found.world.render(rows)
    return images


def ways_to_ask(
    name: str, painter: Painter, encoder: Encoder, validation: int = 50, seed: int = 0
) -> dict[str, DatasetInterface]:
    """The same painter asked in a class's kept "token", in its "name", and in the "broad word"
    from which the tokens started.

    Args:
        validation, seed: see ``own_interface``.

    Raises:
        InputError: no such data set, or no kept tokens.
    """
    fine(name)
    token = own_interface(painter, encoder, name, validation, seed)
    broad = dict.fromkeys(token.classes, data_set(name).start)
    return {
        "token": token,
        "name": token.by_name(),
        "broad word": replace(token.by_name(), words=broad),
    }


def ask(
    ways: Mapping[str, DatasetInterface], shift: str, n: int, seed: int, folder: str | Path
) -> dict[str, dict[str, Tensor]]:
    """{way: {class: (n, 3, 64, 64)}}: what each paints of every class, on the same noise.

    Args:
        shift: see ``DatasetInterface.generate``. folder: keeps the images, see ``home_of``.
    """
    found = {}
    for way, interface in ways.items():
        rows, home = first_painted(interface, shift, n, seed, folder)
        found[way] = {
            kind: load_images(home, rows.loc[rows["class"] == kind, "file"].tolist())
            for kind in interface.classes
        }
    return found


def select_fine(
    judges: Judges, images: Mapping[str, Tensor], name: str, shift: str = BASE
) -> Selected:
    """Judge images (n, 3, 64, 64) in [0, 1] that were meant to show each class of a data set.

    Its `class` is what the judges choose among the data set's classes: of breeds they know as well
    that it is none, see ``seen_instead``, and are not asked here. Its `state` is what the data
    set's images of the class have in common besides: the colour of a breed's fur, the tone of an
    age. The shift of `base` is always there.

    Raises:
        InputError: an unknown class, or no such data set or shift.
    """
    found, kinds = fine(name), _kinds(name, images)
    column = None if shift == BASE else judges.column(_attribute(found, shift))
    every = torch.cat(list(images.values()))
    said = {key: value.cpu() for key, value in judges.answers(every).items()}
    own = list(found.numbers.values())
    chosen = judges.group_probabilities(every, found.group).cpu()[..., own].argmax(-1)
    wanted = torch.tensor([list(found.numbers).index(kind) for kind in kinds])
    values = torch.tensor([found.values[kind] for kind in kinds])
    shown = torch.ones(len(kinds), dtype=torch.bool)
    if column is not None:
        shown = said["binary"][..., column].all(0)
    seen = {
        "class": (chosen == wanted).all(0).numpy(),
        "state": (said[found.own] == values).all(0).numpy(),
        "shift": shown.numpy(),
    }
    return Selected(kinds, shift, seen, np.ones(len(kinds), dtype=bool))


def each_class(selected: Selected, what: str = "class") -> dict[str, Estimate]:
    """{class: share of its images in which "class", "state" or "shift" is seen}."""
    kinds = np.array(selected.kinds)
    return {
        kind: proportion(selected.values[what][kinds == kind])
        for kind in dict.fromkeys(selected.kinds)
    }


def seen_instead(judges: Judges, images: Mapping[str, Tensor], name: str) -> pd.DataFrame:
    """Shares of what the judges see (columns) in images of what was asked for (rows).

    Where they differ the image counts under `DISAGREE`.

    Raises:
        InputError: no such data set, or an unknown class.
    """
    found, kinds = fine(name), _kinds(name, images)
    said = dict(zip(found.numbers.values(), found.numbers)) | dict(found.others)
    one, two = judges.answers(torch.cat(list(images.values())))[found.group].tolist()
    seen = [said[a] if a == b else DISAGREE for a, b in zip(one, two, strict=True)]
    table = pd.crosstab(pd.Series(kinds, name="asked"), pd.Series(seen, name="seen"), normalize=0)
    columns = [*found.numbers, *found.others.values(), DISAGREE]
    return table.reindex(index=list(images), columns=columns, fill_value=0.0)


def _kinds(name: str, images: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The class of each image."""
    known = fine(name).numbers
    for kind in images:
        if kind not in known:
            raise InputError(f"There is no class {kind!r}: choose from {', '.join(known)}.")
    return tuple(kind for kind, own in images.items() for _ in own)


def _rows(data: FineGrained, kind: str, n: int, seed: int) -> Attributes:
    if data.world is animals:
        return breed_rows(kind, n, seed)
    rows, number = age_rows(n, seed), data.numbers[kind]
    return rows[torch.arange(number * n, (number + 1) * n)]


def _attribute(data: FineGrained, shift: str) -> str:
    if shift not in data.shifts:
        raise InputError(
            f"There is no shift {shift!r}: choose from {', '.join((BASE, *data.shifts))}."
        )
    return data.shifts[shift]
