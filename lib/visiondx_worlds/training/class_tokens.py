"""Data sets whose classes have words of their own, and the words that were learned of them.

`scenes`: the 12 classes as the classifiers of `scenes` know them, with places and states of their
own. `animals`: ten breeds, of which no caption ever spoke. `faces`: six age ranges, each in a tone
of skin of its own (`worlds.age_groups`). The last two are fine-grained, and start from one broad
word (Dataset Interfaces, appendix D).

tokens = class_tokens("scenes", painter)        # kept in data/weights/tokens
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.core.files import data_dir
from visiondx.core.seeds import step_seed
from visiondx.dataset_interfaces.shifts import BASE
from visiondx.dataset_interfaces.tokens import ClassTokens
from visiondx.models.painter import Painter
from visiondx_worlds.marking.dataset_interfaces.truth import true_images
from visiondx_worlds.models import zoo
from visiondx_worlds.worlds.age_groups import own_tones, people
from visiondx_worlds.worlds.animals import BREEDS, animals
from visiondx_worlds.worlds.base import Attributes, normals
from visiondx_worlds.worlds.faces import AGE_RANGES, faces
from visiondx_worlds.worlds.scenes import CLASSES

TOKENS = "tokens-"  # prefix of a data set's tokens in the zoo
_SPECIES = len(BREEDS) // 2  # breeds of cats, which come first
_LOOKS = ("rosy cheeks", "freckles", "a young adult look")
_LOOKS += ("a middle-aged look", "an older look", "a very old look")


@dataclass(frozen=True)
class DataSet:
    """Images by class, and what people call the classes.

    words: {class: its name in captions}. start: one broad word from which all tokens start; "" for
    `words`. draw: (n, seed) -> {class: (n, 3, 64, 64) in [0, 1]}.
    """

    words: Mapping[str, str]
    start: str
    draw: Callable[[int, int], dict[str, Tensor]]


def _scenes(n: int, seed: int) -> dict[str, Tensor]:
    return true_images(BASE, n, seed)


def _animals(n: int, seed: int) -> dict[str, Tensor]:
    return {name: animals.render(breed_rows(name, n, seed)) for name in BREEDS}


def _faces(n: int, seed: int) -> dict[str, Tensor]:
    images = faces.render(age_rows(n, seed))
    return dict(zip(AGE_RANGES, images.split(n), strict=True))


DATA_SETS = {
    "scenes": DataSet({name: name for name in CLASSES}, "", _scenes),
    "animals": DataSet(
        {name: f"{name} {('cat', 'dog')[k >= _SPECIES]}" for k, name in enumerate(BREEDS)},
        "animal",
        _animals,
    ),
    "faces": DataSet(
        {age: f"face with {look}" for age, look in zip(AGE_RANGES, _LOOKS, strict=True)},
        "face",
        _faces,
    ),
}


def breed_rows(name: str, n: int, seed: int) -> Attributes:
    """n animals of a breed, in all else as animals of its species are."""
    number = list(BREEDS).index(name)
    own = normals(n, animals.latent_dim, step_seed(seed, number))
    cat, breed = animals.names.index("cat"), animals.names.index("breed")
    own[:, cat] = own[:, cat].abs() * (1 if number < _SPECIES else -1)
    # half are of no breed; then each has a stretch of the normal, whose middle this is
    share = 0.5 + 0.5 * (number % _SPECIES + 0.5) / _SPECIES
    own[:, breed] = torch.special.ndtri(torch.tensor(share))
    return animals.from_normal(own)


def age_rows(n: int, seed: int) -> Attributes:
    """n people of each age range, class by class, each in the tone of its age."""
    ages = torch.arange(len(AGE_RANGES)).repeat_interleave(n)
    return people(ages, own_tones()[ages], seed)


def data_set(name: str) -> DataSet:
    """One of DATA_SETS. Raises InputError for another name."""
    if name not in DATA_SETS:
        raise InputError(f"No data set {name!r} has tokens: choose from {', '.join(DATA_SETS)}.")
    return DATA_SETS[name]


def class_images(name: str, n: int, seed: int) -> dict[str, Tensor]:
    """{class: (n, 3, 64, 64) in [0, 1]} of a data set: its own images, drawn by the seed.

    Raises:
        InputError: no such data set, or n below 1.
    """
    found = data_set(name)
    if n < 1:
        raise InputError(f"n is {n}: draw one image of each class at least.")
    return found.draw(n, seed)


def words_of(name: str) -> dict[str, str] | str:
    """What tokens start from, as ``learn_tokens`` takes it: a word a class, or one for all.

    Raises:
        InputError: no such data set.
    """
    found = data_set(name)
    return found.start or dict(found.words)


def class_tokens(name: str, painter: Painter | None = None) -> ClassTokens:
    """The kept tokens of a data set.

    Args:
        painter: that is to read them, see ``ClassTokens.check``.

    Raises:
        InputError: no such data set, a missing or altered file, or tokens of another text encoder.
    """
    data_set(name)
    return ClassTokens.load(zoo.vouched(TOKENS + name), painter)


def save_class_tokens(
    name: str, tokens: ClassTokens, *, notebook: str, seed: int, quality: dict, settings: dict
) -> Path:
    """Keep a data set's tokens in ``data/weights/tokens``, with their manifest entry.

    Args:
        notebook, seed, quality: see ``zoo.save``. settings: how they were learned, JSON values.

    Raises:
        InputError: no such data set, or tokens of other classes.
    """
    wanted = tuple(data_set(name).words)
    if tokens.classes != wanted:
        raise InputError(
            f"The tokens are of {', '.join(tokens.classes)} and {name} has {', '.join(wanted)}: "
            "learn those of the data set."
        )
    path = data_dir() / "weights" / "tokens" / f"{name}.safetensors"
    tokens.save(path)
    zoo.vouch(TOKENS + name, path, settings, notebook=notebook, seed=seed, quality=quality)
    return path
