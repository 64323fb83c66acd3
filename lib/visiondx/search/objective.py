"""What a search minimises: a weighted list of named terms, one value a row each.

An objective turns a variable (weights of edits, prompt tokens) into named tensors, its *state*
(say the image it makes and what a model says of it), and terms read that state:

    terms = [0.2 * Term("structure", structure), 0.8 * Term("class", cross_entropy)]

A row is one search of its own. Rows do not touch each other, so the gradient of the summed loss
holds each row's own, and one backward pass serves them all.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from visiondx.core.errors import InputError

State = Mapping[str, Tensor]  # name -> (R, …)


@dataclass(frozen=True)
class Term:
    """A named loss: state -> (R,). Its weight is multiplied by ``growth`` at every step."""

    name: str
    loss: Callable[[State], Tensor]
    weight: float = 1.0
    growth: float = 1.0

    def __rmul__(self, factor: float) -> "Term":
        return replace(self, weight=factor * self.weight)

    def weight_at(self, step: int) -> float:
        """Its weight in the sum at this step; the first is 0."""
        return self.weight * self.growth**step


class Objective(ABC):
    """Named terms of R rows. Every tensor that belongs to a row is narrowed by ``index``."""

    noisy = False  # whether one variable gives another gradient each time, as fresh noise does

    @property
    @abstractmethod
    def terms(self) -> Sequence[Term]:
        """What is summed and minimised; names differ."""

    @abstractmethod
    def observe(self, variable: Tensor) -> State:
        """What terms and ``read`` look at, from the variable (R, …), with a gradient."""

    @abstractmethod
    def read(self, state: State) -> Tensor:
        """What a search notes beside the variable at every step: (R, …)."""

    @abstractmethod
    def index(self, rows: Tensor) -> "Objective":
        """The same for these rows (indices, or bool (R,)), in this order."""

    def done(self, reading: Tensor) -> Tensor | None:
        """(R,) bool, the rows that need no more steps, of what was read; None: no row ever."""
        return None


def reading_and_gradient(
    objective: Objective,
    variable: Tensor,
    step: int,
    place: Callable[[int], str],
    gradient: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """What is read (R, …), and the gradient of the weighted sum in the variable, of its shape.

    Args:
        step: for the weights and for messages. place: names a row in messages.
        gradient: False looks without one (None).

    Raises:
        InputError: two terms of one name, or a term that is not (R,).
        FloatingPointError: a NaN or infinity, with its name and step.
    """
    when = f"at step {step}"
    with torch.set_grad_enabled(gradient):
        variable = variable.detach().requires_grad_(gradient)
        state = objective.observe(variable)
        check_finite(state, when, place)
        if not gradient:
            return objective.read(state), None
        terms = objective.terms
        values = {term.name: term.loss(state) for term in terms}
        _check_terms(terms, values, len(variable))
        loss = sum(term.weight_at(step) * values[term.name] for term in terms)
        if not bool(torch.isfinite(loss.detach().sum())):  # one look at the device if all is well
            named = {f"{name} loss": value for name, value in values.items()}
            check_finite({**named, "weighted sum": loss}, when, place)
        (slope,) = torch.autograd.grad(loss.sum(), variable)
    check_finite({"gradient": slope}, when, place)
    return objective.read({name: value.detach() for name, value in state.items()}), slope


def check_finite(values: State, when: str, place: Callable[[int], str]) -> None:
    """Raise FloatingPointError at the first row that is NaN or infinite, naming it and its name."""
    if all(bool(torch.isfinite(v.detach().sum())) for v in values.values()):
        return  # a sum over finite values: one number to wait for
    for name, value in values.items():
        bad = (~torch.isfinite(value.detach())).reshape(len(value), -1).any(1)
        if bad.any():
            row = int(bad.nonzero()[0])
            raise FloatingPointError(
                f"The {name} is NaN or infinite {when} for {place(row)} ({int(bad.sum())} of "
                f"{len(bad)} in the batch): lower eta or epsilon, or check that model."
            )


def _check_terms(terms: Sequence[Term], values: State, rows: int) -> None:
    if not values or len(values) < len(terms):
        names = [term.name for term in terms]
        raise InputError(f"An objective needs one or more terms of different names, got {names}.")
    for name, value in values.items():
        if value.shape != (rows,):
            raise InputError(
                f"The term {name!r} must give one value for each of {rows} rows, "
                f"got shape {tuple(value.shape)}."
            )


@contextmanager
def frozen(*modules) -> Iterator[None]:
    """No gradient for the parameters of these modules inside the block; restored after it."""
    parameters = [p for m in modules if isinstance(m, nn.Module) for p in m.parameters()]
    before = [p.requires_grad for p in parameters]
    try:
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, value in zip(parameters, before, strict=True):
            parameter.requires_grad_(value)
