"""People of the `faces` world who are enrolled in a face recogniser, and photographs of them.

A person keeps the identity columns of `Faces` and a few more; everything else varies from one
photograph to the next. The photographs for training can be uneven: some attributes are rare, some
are seen only blurred or turned away. Photographs for an audit are as the world is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.core.files import data_dir, read_yaml, reading
from visiondx_worlds.worlds.base import Attributes
from visiondx_worlds.worlds.faces import Faces, faces

# what a bad pose moves, and how far out of its range's middle (0) to its ends (1) at least
_POSE = ("yaw", "tilt", "shift_x")
_TURNED = 0.7


@dataclass(frozen=True)
class Album:
    """Training photographs: attribute rows, who is on each, and how blurred it is."""

    attributes: Attributes
    answers: Tensor  # (N,) int64, the person
    blur: Tensor  # (N,) deviation of a Gaussian, in pixels of 64; 0 is sharp

    def __len__(self) -> int:
        return len(self.answers)

    def __getitem__(self, rows: slice | Tensor) -> Album:
        return Album(self.attributes[rows], self.answers[rows], self.blur[rows])


class People:
    """Enrolled persons, and photographs of them.

    Args:
        recipe: as in ``data/llm2loss/recogniser.yaml``.
        world: whose people they are.

    Raises:
        InputError: a recipe that names an unknown attribute or column, or has no person.
    """

    def __init__(self, recipe: Mapping, world: Faces = faces) -> None:
        self.world, self.recipe = world, recipe
        count = recipe["people"]
        if count < 2:
            raise InputError(f"The recipe enrols {count} people: a recogniser needs two or more.")
        self.kept = (*world.identity, *recipe["persistent"])
        # with hair: its colour is a person's own even where a bald head hides it
        self.persons = world.sample(count, recipe["seed"], given={"bald": False})
        self.columns = [self.persons.column(name) for name in self.kept]
        training = recipe["training"]
        named = [entry["attribute"] for entry in training["photographs"]]
        for name in (*named, *training["shares"], *training["blurred"], *training["posed"]):
            if name not in world.binary:
                known = ", ".join(world.binary)
                raise InputError(f"Unknown attribute {name!r} in the recipe: choose from {known}.")
        self.classes = tuple(f"person {k}" for k in range(count))
        self.fixed = self._fixed()

    @classmethod
    def load(cls, name: str = "recogniser") -> People:
        """The people of ``data/llm2loss/<name>.yaml``."""
        path = data_dir() / "llm2loss" / f"{name}.yaml"
        if not path.is_file():
            raise InputError(f"No recipe at {path}: choose a file of {path.parent}.")
        recipe = read_yaml(path)
        with reading(path, "restore it with 'git checkout data', or write what it lacks"):
            return cls(recipe)

    def __len__(self) -> int:
        return len(self.classes)

    def sample(
        self, n: int, seed: int, given: Mapping[str, bool] | None = None
    ) -> tuple[Attributes, Tensor]:
        """n photographs of people drawn alike often, everything else as the world has it.

        Args:
            given: binary attributes that all of them show or lack; of what a person keeps, only
                people who agree are drawn.

        Returns:
            attributes (n rows), and who is on each, (n,) int64.

        Raises:
            InputError: an unknown attribute, or one that nobody agrees with.
        """
        given = dict(given or {})
        matching = torch.ones(len(self), dtype=torch.bool)
        for name in [name for name in given if name in self.fixed]:
            matching &= self.labels_of_persons()[:, self.world.binary.index(name)] == given[name]
        candidates = matching.nonzero()[:, 0]
        if not len(candidates):
            raise InputError(f"Nobody who is enrolled can be {given}: name fewer attributes.")
        source = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(candidates), generator=source)
        turns = torch.randperm(n, generator=source) % len(candidates)  # all as often, to within one
        who = candidates[order[turns]]
        attributes = self.photograph(who, seed)
        for name, value in given.items():  # of what is kept, only what hides it can change
            attributes = self.world.switch(attributes, name, value)
        return attributes, who

    def training(self, n: int, seed: int) -> Album:
        """n photographs as the recipe has them taken: uneven, some blurred, some turned away."""
        recipe, world = self.recipe["training"], self.world
        source = torch.Generator().manual_seed(seed)
        labels = self.labels_of_persons()
        weight = torch.ones(len(self))
        for entry in recipe["photographs"]:
            has = labels[:, world.binary.index(entry["attribute"])] == entry["present"]
            weight = torch.where(has, weight * entry["times"], weight)
        who = torch.multinomial(weight, n, replacement=True, generator=source)
        attributes = self.photograph(who, seed)
        for name, share in recipe["shares"].items():
            wanted = torch.rand(n, generator=source) < share
            attributes = world.switch(attributes, name, wanted)
        labels = world.labels(attributes)
        blur = torch.zeros(n)
        for name, sigma in recipe["blurred"].items():
            blur = torch.where(labels[:, world.binary.index(name)], blur.clamp_min(sigma), blur)
        for name in recipe["posed"]:
            attributes = self._turn(attributes, labels[:, world.binary.index(name)], source)
        return Album(attributes, who, blur)

    def photograph(self, who: Tensor, seed: int) -> Attributes:
        """One photograph of each of the persons `who` (n,), as the world has them."""
        attributes = self.world.sample(len(who), seed)
        values = attributes.values.clone()
        values[:, self.columns] = self.persons.values[who][:, self.columns]
        return Attributes(values, attributes.names)

    def labels_of_persons(self) -> Tensor:
        """(people, A) bool, binary attributes; only the columns of `fixed` mean anything."""
        return self.world.labels(self.persons)

    def _fixed(self) -> tuple[str, ...]:
        """The binary attributes that cannot change without changing what a person keeps."""
        kept = self.persons.values[:, self.columns]
        return tuple(
            name
            for name in self.world.binary
            if any(
                (self.world.switch(self.persons, name, on).values[:, self.columns] != kept).any()
                for on in (True, False)
            )
        )

    def _turn(self, attributes: Attributes, rows: Tensor, source: torch.Generator) -> Attributes:
        """The same photographs, `rows` of them (n,) bool in a pose near the ends of its range."""
        turned = {}
        for name in _POSE:
            now = attributes[name]
            end = now.abs().max()
            away = _TURNED + (1 - _TURNED) * torch.rand(len(now), generator=source)
            side = torch.where(torch.rand(len(now), generator=source) < 0.5, -1.0, 1.0)
            turned[name] = torch.where(rows, side * away * end, now)
        return attributes.replace(**turned)
