"""How well judges read the animals and the scenes, and how hard scenes are for a linear model.

As in `quality.embedded`: plain tensors in, numbers or Estimates out, so that each can be worked
out by hand for a small case.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import cho_factor, cho_solve
from tqdm.auto import tqdm

from visiondx.core.errors import InputError
from visiondx.core.stats import Estimate, bootstrap
from visiondx_worlds.quality.embedded import RIDGES, balanced, worst
from visiondx_worlds.training.judges import group_accuracy

DRAWS = 400  # resamples of each of the many intervals


@dataclass(frozen=True)
class Readings:
    """What each judge said of N renders, and what was there.

    kinds: the J judges' names. said: (N, J) values. truth: (N,) values, -1 where nothing can be
    seen; such rows count nowhere. seeds: (N,) of each render.

    Raises:
        InputError: no row can be seen.
    """

    kinds: tuple[str, ...]
    said: np.ndarray
    truth: np.ndarray
    seeds: np.ndarray

    def __post_init__(self) -> None:
        if not (self.truth >= 0).any():
            raise InputError("None of these renders shows the attribute: use more of them.")

    def accuracy(self) -> dict[str, Estimate]:
        """{judge: share of the renders that it reads correctly}."""
        right = self.right[self.seen]
        return {kind: bootstrap(right[:, k], n=DRAWS) for k, kind in enumerate(self.kinds)}

    def balanced(self) -> dict[str, Estimate]:
        """{judge: mean of its accuracies where a yes-or-no attribute is there and is not}."""
        right, truth = self.right[self.seen], self.truth[self.seen]
        return {
            kind: bootstrap(np.stack([right[:, k], truth], 1), balanced, n=DRAWS)
            for k, kind in enumerate(self.kinds)
        }

    def abstention(self) -> Estimate:
        """Share of the renders about which the judges disagree."""
        said = self.said[self.seen]
        apart = (said != said[:, :1]).any(1).astype(float)
        return bootstrap(apart, n=DRAWS)

    @property
    def right(self) -> np.ndarray:
        """(N, J): 1 where a judge said what was there."""
        return (self.said == self.truth[:, None]).astype(float)

    @property
    def seen(self) -> np.ndarray:
        """(N,) bool: the rows that count."""
        return self.truth >= 0


def group_readings(
    judges: object, world: object, images: int, seeds: Sequence[int], **sample: object
) -> dict[str, Readings]:
    """Every multi-way attribute of the world, on ``images`` fresh renders of each seed.

    Args:
        sample: further arguments of ``world.sample``.
    """
    found = [
        group_accuracy(judges, world, images, seed, **sample)
        for seed in tqdm(seeds, desc="groups judged")
    ]
    rows = np.repeat(np.array(seeds), images)
    return {
        name: Readings(
            tuple(judges.nets),
            torch.cat([f[name]["said"] for f in found], 1).T.numpy(),
            torch.cat([f[name]["truth"] for f in found]).numpy(),
            rows,
        )
        for name in found[0]
    }


def shift_readings(
    judges: object, world: object, shifts: Sequence[str], images: int, seeds: Sequence[int]
) -> dict[str, Readings]:
    """Each shift's yes-or-no reading, on ``images`` renders of each seed: every other one has it.

    Everything else in these renders, other shifts included, is as the world draws it.

    Raises:
        InputError: a shift that no judge reads.
    """
    columns = [judges.column(shift) for shift in shifts]
    there = torch.arange(images) % 2 == 0
    found = []
    for seed in tqdm(seeds, desc="shifts judged"):
        tables = [world.sample(images, seed, given={shift: there}) for shift in shifts]
        # all shifts in one table: full batches even where there are few images of each
        parts = type(tables[0]).cat(tables).split(512)
        said = torch.cat([judges.answers(world.render(part))["binary"] for part in parts], 1)
        said = said.unflatten(1, (len(shifts), images))  # (J, shifts, images, A)
        found.append([said[:, k, :, column].T.long().numpy() for k, column in enumerate(columns)])
    kinds = tuple(judges.nets)
    truth, rows = np.tile(there.long().numpy(), len(seeds)), np.repeat(np.array(seeds), images)
    return {
        shift: Readings(kinds, np.concatenate(said), truth, rows)
        for shift, said in zip(shifts, zip(*found, strict=True), strict=True)
    }


def scene_judge_figures(
    groups: dict[str, Readings], shifts: dict[str, Readings]
) -> dict[str, Estimate]:
    """The figures of the scenes judges: of the two judges (and 23 shifts) the worst counts.

    Args:
        groups: of `group_readings`. shifts: of `shift_readings`.

    Returns:
        ``scenes.judge_class_accuracy``, ``….judge_state_accuracy`` (classes that have a state),
        ``….judge_shift_accuracy_min`` (balanced), and each judge's own figures under longer names.
    """
    of_class, of_state = groups["class"].accuracy(), groups["state"].accuracy()
    each = {
        f"{shift}.{kind}": estimate
        for shift, readings in shifts.items()
        for kind, estimate in readings.balanced().items()
    }
    return {
        "scenes.judge_class_accuracy": worst(of_class),
        "scenes.judge_shift_accuracy_min": worst(each),
        "scenes.judge_state_accuracy": worst(of_state),
        "scenes.judge_class_abstention": groups["class"].abstention(),
        **{f"scenes.judge_class_accuracy.{kind}": e for kind, e in of_class.items()},
        **{f"scenes.judge_state_accuracy.{kind}": e for kind, e in of_state.items()},
        **{f"scenes.judge_shift_accuracy.{key}": e for key, e in each.items()},
    }


@torch.no_grad()
def class_probe(
    world: object,
    train: int = 4000,
    test: int = 1000,
    seed: int = 100,
) -> np.ndarray:
    """What ridge regression from raw pixels makes of the class of a scene, on fresh renders.

    The targets are one-hot and the largest answer wins; a quarter of the training renders is held
    back to choose the ridge. Cousin of `quality.embedded.pixel_probe`.

    Returns:
        right: (test,) bool.
    """
    attributes = world.sample(train + test, seed)
    x = world.render(attributes).flatten(1)
    truth = world.groups(attributes)["class"].numpy()
    x -= x[:train].mean(0)
    gram = (x @ x[:train].T).double().numpy()  # (train + test, train)
    y = np.eye(truth.max() + 1)[truth]
    fit = train - train // 4

    def said(rows: slice, upto: int, ridge: float) -> np.ndarray:
        mean = y[:upto].mean(0)
        factor = cho_factor(gram[:upto, :upto] + ridge * np.eye(upto), overwrite_a=True)
        return (gram[rows, :upto] @ cho_solve(factor, y[:upto] - mean) + mean).argmax(1)

    held = slice(fit, train)
    best = max(RIDGES, key=lambda ridge: (said(held, fit, ridge) == truth[held]).mean())
    return said(slice(train, None), train, best) == truth[train:]
