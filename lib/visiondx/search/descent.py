"""The descent loop: a batch of rows, each going down its own objective, step by step."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.core.errors import InputError
from visiondx.search.objective import Objective, reading_and_gradient

UPDATES = ("gradient", "sign", "adam", "unit")


@dataclass(frozen=True)
class Descent:
    """How a variable moves.

    Args:
        steps: T. eta: step size η.
        update: what η multiplies: the "gradient", its "sign", "adam"'s step (Kingma and Ba, 2015),
            or the "unit" vector along each row's gradient.
        epsilon: every entry is clamped to ±ε after each step; None: no bound.
        decay: every step takes ``eta * decay`` of the variable away first: with "adam", AdamW
            (Loshchilov and Hutter, 2019).
        anneal: η falls to 0 over the steps, along half a cosine (Loshchilov and Hutter, 2017).

    Raises:
        InputError: impossible numbers, or an unknown update.
    """

    steps: int = 10
    eta: float = 0.2
    update: str = "gradient"
    epsilon: float | None = None
    decay: float = 0.0
    anneal: bool = False

    def __post_init__(self):
        if self.steps < 1:
            raise InputError(f"steps must be 1 or more, got {self.steps}.")
        for name in ("eta", "epsilon"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} must be above 0, got {value}.")
        if not self.decay >= 0:
            raise InputError(f"decay must be 0 or more, got {self.decay}.")
        if self.update not in UPDATES:
            raise InputError(f"update must be one of {', '.join(UPDATES)}, got {self.update!r}.")

    def eta_at(self, step: int) -> float:
        """η of this step; the first is 0."""
        if not self.anneal:
            return self.eta
        return self.eta * (1 + math.cos(math.pi * step / self.steps)) / 2

    def move(self, variable: Tensor, gradient: Tensor, moments: Tensor, step: int) -> Tensor:
        """The variable after this step; the first is 0.

        Args:
            moments: (2, …), Adam's running means of the gradient and its square, moved in place.
        """
        eta = self.eta_at(step)
        if self.decay:
            variable = variable * (1 - eta * self.decay)
        moved = variable - eta * update_direction(self.update, gradient, moments, step)
        return moved if self.epsilon is None else moved.clamp(-self.epsilon, self.epsilon)


@dataclass(frozen=True)
class Step:
    """Where the R rows that are still searched are at a step, from 0, the start, to T."""

    number: int
    rows: Tensor  # (R,) which of the B rows
    variable: Tensor  # (R, …)
    reading: Tensor  # (R, …) what the objective reads there


def descend(
    objective: Objective,
    variable: Tensor,
    descent: Descent,
    place: Callable[[int], str] = "row {}".format,
    bar: tqdm | None = None,
    first: int = 0,
    moments: Tensor | None = None,
    project: Callable[[Tensor, Tensor, int], Tensor] | None = None,
) -> Iterator[Step]:
    """The start, and the place after every step; the last is looked at without a gradient.

    A row leaves the batch where its objective calls it done, and where a step leaves it as it was
    (at the bound, or without a slope), for good: so not under Adam, whose moments may move it
    again, nor a noisy objective, nor one with a term that grows, which may outweigh at a later
    step what holds a row at this one, nor under a projection, which may be another then. To the
    others, it is as a smaller batch.

    Args:
        objective: of B rows. variable: (B, …), where the search starts.
        place: names a row in messages. bar: moves by one for each row and step.
        first, moments: to go on with a search of all its rows from the variable of a step: its
            number, and the moments (2, B, …) as they were when it was yielded. They are moved in
            place, so who gives zeros at the start can keep them.
        project: (rows moved (R, …), which rows they are (R,), step) -> where they may be.

    Raises:
        FloatingPointError: a NaN or infinity, with its name, step and row.
    """
    rows = torch.arange(len(variable), device=variable.device)
    if moments is None:
        moments = variable.new_zeros(2, *variable.shape)
    grows = any(term.growth != 1 for term in objective.terms)
    settles = not (descent.update == "adam" or objective.noisy or grows or project)
    for step in range(first, descent.steps + 1):
        here, last = rows, step == descent.steps
        reading, gradient = reading_and_gradient(
            objective, variable, step, lambda i, here=here: place(int(here[i])), not last
        )
        if bar is not None:
            bar.update(len(rows))
        yield Step(step, rows, variable, reading)
        if last:
            return
        moved = descent.move(variable, gradient, moments, step)
        if project is not None:
            moved = project(moved, rows, step)
        stay, done = torch.ones_like(rows, dtype=torch.bool), objective.done(reading)
        if settles:
            stay = (moved != variable).reshape(len(rows), -1).any(1)
        if done is not None:
            stay = stay & ~done
        variable = moved
        if not stay.all():
            if bar is not None:
                bar.update(int((~stay).sum()) * (descent.steps - step))
            rows, variable, moments = rows[stay], variable[stay], moments[:, stay]
            objective = objective.index(stay)
        if not len(rows):
            return


def trajectory(
    objective: Objective,
    variable: Tensor,
    descent: Descent,
    place: Callable[[int], str] = "row {}".format,
    bar: tqdm | None = None,
) -> tuple[Tensor, Tensor]:
    """The variable (T + 1, B, …) and what is read (T + 1, B, …) at every step of ``descend``.

    A row that has left repeats its last step.
    """
    for at in descend(objective, variable, descent, place, bar):
        if at.number == 0:
            path = variable.new_empty(descent.steps + 1, *variable.shape)
            readings = at.reading.new_empty(descent.steps + 1, *at.reading.shape)
        path[at.number :, at.rows] = at.variable  # and on, for the rows that leave
        readings[at.number :, at.rows] = at.reading
    return path, readings


def update_direction(update: str, gradient: Tensor, moments: Tensor, step: int) -> Tensor:
    """What η is multiplied by, from the gradient at this step (the first is 0).

    Args:
        moments: (2, …), Adam's running means of the gradient and its square, moved in place.
    """
    if update == "gradient":
        return gradient
    if update == "sign":
        return gradient.sign()
    if update == "unit":
        length = gradient.reshape(len(gradient), -1).norm(dim=1)
        length = length.clamp_min(torch.finfo(gradient.dtype).tiny)
        return gradient / length.view(-1, *[1] * (gradient.ndim - 1))
    first, second = moments
    first.lerp_(gradient, 0.1)
    second.lerp_(gradient.square(), 0.001)
    unbiased = second / (1 - 0.999 ** (step + 1))
    return first / (1 - 0.9 ** (step + 1)) / (unbiased.sqrt() + 1e-8)
