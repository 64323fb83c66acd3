"""The planted biases that diagnoses are scored on: data/planted.yaml, and its classifiers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn
from tqdm.auto import tqdm

from visiondx.core.errors import InputError
from visiondx.core.files import data_dir, read_yaml, reading
from visiondx_worlds.training.pool import Pool
from visiondx_worlds.training.targets import TargetConfig, train_target

SEEDS = (0, 1, 2)  # of the trainings


@dataclass(frozen=True)
class Planted:
    """What is planted in one world, and what its diagnoses ask about."""

    world: str
    pairs: tuple[tuple[str, str], ...]  # (label, planted attribute)
    attributes: tuple[str, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """Every label once, in the order of the pairs: the balanced controls."""
        return tuple(dict.fromkeys(label for label, _ in self.pairs))

    def recipes(self, base: TargetConfig | None = None) -> list[TargetConfig]:
        """How to train them: the pairs, then a balanced control of each label.

        base: the settings that they share; the default is `SMALL`.
        """
        base = base or SMALL
        biased = [replace(base, label=label, planted=attribute) for label, attribute in self.pairs]
        return biased + [replace(base, label=label, planted=None) for label in self.labels]


SMALL = TargetConfig("", width=8, steps=300)
POOL = 24_000  # renders that all targets of a training seed choose from


def planted(world: str, path: str | Path | None = None) -> Planted:
    """The list of one world.

    Args:
        path: default data/planted.yaml.

    Raises:
        InputError: no such world in the list, or a pair that is not (label, attribute), that plants
            a label in itself, or whose attribute no diagnosis would ask about.
    """
    path = Path(path or data_dir() / "planted.yaml")
    lists = read_yaml(path)
    if world not in lists:
        raise InputError(f"{path} plants nothing in {world!r}: choose from {', '.join(lists)}.")
    with reading(path, f"give {world} its pairs and its attributes"):
        attributes = tuple(lists[world]["attributes"])
        for pair in lists[world]["pairs"]:
            if len(pair) != 2 or pair[0] == pair[1] or pair[1] not in attributes:
                raise InputError(
                    f"{path}: {pair} must be [label, attribute], and the attribute one of those "
                    f"asked about in {world}: {', '.join(attributes)}."
                )
        return Planted(world, tuple(map(tuple, lists[world]["pairs"])), attributes)


def train_planted(
    world,
    recipes: Sequence[TargetConfig],
    directory: str | Path,
    *,
    seeds: Sequence[int] = SEEDS,
    pool: int = POOL,
    device: str = "cpu",
) -> tuple[dict[str, nn.Module], dict[str, dict]]:
    """Train every recipe from every seed, or go on where `directory` ends.

    Args:
        pool: renders made for each seed, far from the seeds that are reported on.

    Returns:
        modules and cards by name ("young-biased-bangs@1"), as ``save_planted`` takes them.
    """
    modules, cards = {}, {}
    with tqdm(total=len(recipes) * len(seeds), desc="planted targets") as bar:
        for seed in seeds:
            renders = Pool(world, pool, 1000 + seed)
            for recipe in recipes:
                name = f"{recipe.name}@{seed}"
                folder = Path(directory) / name
                modules[name] = train_target(
                    world, recipe, folder, pool=renders, seed=seed, device=device
                )
                cards[name] = {
                    "label": recipe.label,
                    "planted": recipe.planted,
                    "world": world.name,
                    "width": recipe.width,
                    "labels": [f"not {recipe.label}", recipe.label],
                }
                bar.update()
    return modules, cards
