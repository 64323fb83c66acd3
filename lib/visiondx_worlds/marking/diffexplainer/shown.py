"""What explanations show, in the eyes of the target and of others: evidence and realism.

An explanation of a class is evidence if the target takes its pictures for the class, and worth
looking at if they are pictures of the world. A search in pixels gets the first without the second,
a photograph of anything the second without the first. So both are measured on every picture:

    p, taken       the target's probability of the class, and whether the class is its likeliest
    twin           whether a twin takes it, the same network from another seed
    confidence     the judges': the smaller of their two probabilities of what both see, whatever
                   it is; 0 where they see different things
    named          both judges see the class that was asked for
    real           as near to renders as 95 % of held-out renders are, see ``zoom.kept.Realism``
    both           taken and real
    shared         taken, by the twin too, and real
    object         the part of the picture in which the segmenter finds the class's word

A real picture that was changed a little fools the target and stays real: then the twin tells that
the evidence is about the weights of one network. Judges are networks of other kinds, trained on
other renders. Of photographs there are no judges, and what they would say is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.core.stats import Estimate, bootstrap
from visiondx.diffexplainer.explain import Found
from visiondx.diffexplainer.objectives import class_number
from visiondx.diffexplainer.spurious import probabilities
from visiondx.models.segmenter import Segmenter
from visiondx.models.target import Target
from visiondx.show import plots
from visiondx_worlds.marking.zoom.kept import Realism
from visiondx_worlds.models.judges import Judges

WELL = 0.9  # share of pictures from which on a class counts as reached
FALLING = 0.1  # a loss that fell by this part from the third quarter to the last still falls


@dataclass(frozen=True)
class Shown:
    """P pictures of each of E classes by one method, and what is said of them.

    images: (E, P, 3, H, W). said: (E, P) the target's likeliest class. seen: (E, P) the class that
    both judges see, -1 where they differ; None without judges. values: {name: (E, P)}, the measures
    above, those that are known.
    """

    method: str
    classes: tuple[str, ...]
    labels: tuple[str, ...]
    images: Tensor
    said: Tensor
    seen: Tensor | None
    values: dict[str, Tensor]

    def share(self, measure: str, row: int | None = None) -> Estimate:
        """Mean over the classes, or of one of them; noise is resampled, the same for all classes.

        Raises:
            InputError: a measure that is not known of these pictures.
        """
        if measure not in self.values:
            raise InputError(
                f"{measure!r} is not known of {self.method}: choose from {', '.join(self.values)}."
            )
        of = self.values[measure].double()
        return bootstrap((of.mean(0) if row is None else of[row]).numpy())

    def to_frame(self) -> pd.DataFrame:
        """A row a class: the mean of each measure."""
        means = {name: of.double().mean(1).numpy() for name, of in self.values.items()}
        return pd.DataFrame(means, index=pd.Index(self.classes, name="class"))

    def order(self) -> list[int]:
        """The classes from the least to the most often reached."""
        return self.values["taken"].double().mean(1).argsort(stable=True).tolist()

    def plot(self, columns: int = 8, rows: Sequence[int] | None = None) -> Figure:
        """The first pictures of each class, with the target's probability of it."""
        chosen = list(range(len(self.classes)) if rows is None else rows)
        p = self.values["p"][chosen, :columns].flatten().tolist()
        return plots.image_grid(
            self.images[chosen, :columns].flatten(0, 1),
            [f"{value:.2f}" for value in p],
            columns=min(columns, self.images.shape[1]),
            rows=[self.classes[row] for row in chosen],
        )


@torch.no_grad()
def look(
    method: str,
    target: Target,
    classes: Sequence[str | int],
    images: Tensor,
    judges: Judges | None = None,
    realism: Realism | None = None,
    twin: Target | None = None,
    segmenter: Segmenter | None = None,
) -> Shown:
    """Ask target, twin and judges about pictures (E, P, 3, H, W), P of each class.

    Args:
        classes: E labels or numbers of the target.
        judges: of the target's world, whose "class" has the target's labels. realism: of its
            renders. segmenter: of pictures of its kind. What nobody is given to say is left out.

    Raises:
        InputError: another number of classes than of rows, no such class, or one whose word the
            segmenter has never seen.
    """
    if images.ndim != 5 or len(images) != len(classes):
        raise InputError(
            f"Pictures of {len(classes)} classes must have shape ({len(classes)}, P, 3, H, W), got "
            f"{tuple(images.shape)}."
        )
    numbers = torch.tensor([class_number(target, each) for each in classes])
    shape = images.shape[:2]
    every = probabilities(target, images)  # (E, P, K)
    said = every.argmax(-1)
    values = {
        "p": every[torch.arange(len(numbers)), :, numbers],
        "taken": said == numbers[:, None],
    }
    if twin is not None:
        values["twin"] = probabilities(twin, images).argmax(-1) == numbers[:, None]
    seen = None
    if judges is not None:
        both = judges.group_probabilities(images.flatten(0, 1), "class").cpu().unflatten(1, shape)
        one, two = both.argmax(-1)
        seen = torch.where(one == two, one, -1)
        values["confidence"] = torch.where(one == two, both.amax(-1).amin(0), 0)
        values["named"] = seen == numbers[:, None]
    if realism is not None:
        flat = torch.cat([realism.real(part) for part in images.flatten(0, 1).split(128)])
        values["real"] = flat.cpu().view(shape)
        values["both"] = values["taken"] & values["real"]
        if twin is not None:
            values["shared"] = values["both"] & values["twin"]
    labels = tuple(target.labels)
    names = tuple(labels[number] for number in numbers)
    if segmenter is not None:
        found = [segmenter(row, [word]).shares[:, 0] for row, word in zip(images, names)]
        values["object"] = torch.stack(found).cpu()
    return Shown(method, names, labels, images, said, seen, values)


def evidence(shown: Sequence[Shown]) -> pd.DataFrame:
    """The evidence-realism table: a row a method, a column a measure, each with its interval.

    A measure that is not known of a method is left empty. Add a method by adding its ``Shown``.
    """
    names = list(dict.fromkeys(name for each in shown for name in each.values))
    rows = {
        each.method: {name: each.share(name) for name in names if name in each.values}
        for each in shown
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=names).rename_axis("method")


def reasons(found: Found, shown: Shown, words: Shown) -> pd.DataFrame:
    """Why explanations fall short: a row a class, the least often reached first.

    reached; by_word, how often the target takes what the painter makes of the class's word;
    fell, the part of the loss that went from the third to the last quarter of the best start's
    steps; instead, what the target says most often where it does not say the class; judges, what
    they see most often; why, in words.

    Args:
        found: of the classes of ``shown``. words: pictures of the classes' words.
    """
    steps = len(found.path)
    rows = []
    for row in shown.order():
        reached, by_word = (
            float(each.values["taken"][row].double().mean()) for each in (shown, words)
        )
        path = found.path[:, row, found.best[row]]
        third, last = path[-2 * steps // 4 : -steps // 4], path[-steps // 4 :]
        fell = float(1 - last.mean() / third.mean().clamp_min(1e-9)) if len(third) else 0.0
        number = shown.labels.index(shown.classes[row])
        missed = shown.said[row][shown.said[row] != number]
        rows.append(
            {
                "class": shown.classes[row],
                "reached": reached,
                "by_word": by_word,
                "fell": fell,
                "instead": _most(missed, shown.labels),
                "judges": "" if shown.seen is None else _most(shown.seen[row], shown.labels),
                "why": _why(reached, by_word, fell),
            }
        )
    return pd.DataFrame(rows).set_index("class")


def _most(numbers: Tensor, labels: Sequence[str]) -> str:
    """The commonest label; "?" where the judges differ."""
    if not len(numbers):
        return ""
    number = int(numbers.mode().values)
    return labels[number] if number >= 0 else "?"


def _why(reached: float, by_word: float, fell: float) -> str:
    if reached >= WELL:
        return ""
    if by_word > reached:
        return "the search ends below the word, in a bad place: more starts"
    if fell > FALLING:
        return "the loss still falls: more steps"
    return "its word does no better: the painter does not paint what the target knows"


def seen_shares(judges: Judges, images: Tensor, name: str) -> np.ndarray:
    """How often both judges see each value of a multi-way attribute: (values + 1,), sums to 1.

    The last is how often they differ.

    Args:
        images: (P, 3, H, W).
    """
    seen, unsure = judges.read_groups(images)[name]
    counts = torch.bincount(
        torch.where(unsure, judges.groups[name], seen), minlength=judges.groups[name] + 1
    )
    return counts.double().numpy() / len(images)


def moved(judges: Judges, before: Tensor, after: Tensor, name: str, draws: int = 200) -> Estimate:
    """How much what the judges see of an attribute differs between two sets of P pictures.

    The total variation distance of ``seen_shares``, in [0, 1]. Rows of both are resampled together:
    the same noise. Two finite samples of one distribution are some way apart too.

    Args:
        before, after: (P, 3, H, W).
    """
    many = judges.groups[name] + 1
    tables = []
    for images in (before, after):
        seen, unsure = judges.read_groups(images)[name]
        tables.append(torch.where(unsure, many - 1, seen).cpu().numpy())
    return bootstrap(np.stack(tables, 1), _distance(many), n=draws)


def _distance(many: int) -> Callable[[np.ndarray], float]:
    def distance(rows: np.ndarray) -> float:
        one, two = (np.bincount(column.astype(int), minlength=many) for column in rows.T)
        return float(np.abs(one - two).sum() / (2 * len(rows)))

    return distance
