"""What an explanation is to show, by name, and its loss: Eqs. 3-5 of DiffExplainer.

An aim is written as what is wanted: "dog" (a class), "layer4:17" (a channel), "layer4:17:3:5" (its
neuron at row 3, column 5), "fc.input:8" (a feature before the classifier), and sums and differences
of these, such as "dog + fc.input:8" (Eq. 5) or "dog - 0.5*layer4:17". The loss to be minimised is
the cross-entropy of a wanted class and minus a wanted activation.
"""

import copy
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from visiondx.core.errors import InputError, reason
from visiondx.diffexplainer.layers import check_layer, layers, nearest, try_images, watching
from visiondx.models.modes import in_train_mode
from visiondx.models.target import Target
from visiondx.search.objective import frozen

SUM = re.compile(r"\s+([+-])\s+")
WEIGHTED = re.compile(
    r"(?P<sign>-\s*)?((?P<weight>(\d+\.?\d*|\.\d+)(e[+-]?\d+)?)\s*\*\s*)?(?P<name>.+)"
)
UNIT = re.compile(r"(?P<layer>.+?):(?P<numbers>\d+(:\d+)*)")
CLASS = ""  # in place of a layer's name: the answer itself


@dataclass(frozen=True)
class Part:
    """A wanted class (``channel`` None; ``name`` its label or number), or channel or neuron."""

    name: str | int
    channel: int | None = None
    position: tuple[int, ...] = ()  # none: the mean over all positions of the channel
    weight: float = 1.0

    def __str__(self) -> str:
        unit = () if self.channel is None else (self.channel, *self.position)
        return ":".join(map(str, (self.name, *unit)))


@dataclass(frozen=True)
class Aim:
    """What one explanation is to show: a weighted sum of parts, of which more is wanted.

    ``2 * toward("dog") + activation("layer4", 17)``; a minus wants less of it.
    """

    parts: tuple[Part, ...]

    def __post_init__(self):
        for part in self.parts:
            if not (math.isfinite(part.weight) and part.weight):
                raise InputError(f"The weight of '{part}' must be finite and not 0.")

    def __add__(self, other: "Aim") -> "Aim":
        return Aim(self.parts + other.parts)

    def __sub__(self, other: "Aim") -> "Aim":
        return self + -1 * other

    def __rmul__(self, factor: float) -> "Aim":
        return Aim(tuple(replace(part, weight=factor * part.weight) for part in self.parts))

    def __str__(self) -> str:
        """As ``aim`` reads it."""
        text = ""
        for part in self.parts:
            size = "" if abs(part.weight) == 1 else f"{abs(part.weight):.9g}*"
            first, minus = not text, part.weight < 0
            text += ("-" if minus else "") if first else " - " if minus else " + "
            text += f"{size}{part}"
        return text


def toward(wanted: str | int) -> Aim:
    """A class, by its label or number: its cross-entropy is minimised (Eq. 3)."""
    return Aim((Part(wanted),))


def activation(layer: str, channel: int, *position: int) -> Aim:
    """A channel's mean over space, or its neuron at a position (y, x): maximised (Eq. 4)."""
    return Aim((Part(layer, channel, position),))


def aim(what: Aim | str | int, labels: Sequence[str] = ()) -> Aim:
    """The aim that a text or a class's number means.

    Args:
        labels: of the target; a text that is one of them is that class, whatever it looks like.

    Raises:
        InputError: nothing that can be read.
    """
    if isinstance(what, Aim):
        return what
    if isinstance(what, int) and not isinstance(what, bool):
        return toward(what)
    if not isinstance(what, str) or not what.strip():
        raise InputError(f"An aim is a class such as 'dog' or 3, or 'layer:channel', got {what!r}.")
    if what in labels:
        return toward(what)
    first, *rest = SUM.split(what.strip())
    parts = [_part(first, labels)]
    for sign, text in zip(rest[::2], rest[1::2], strict=True):
        part = _part(text, labels)
        parts.append(replace(part, weight=-part.weight) if sign == "-" else part)
    return Aim(tuple(parts))


def _part(text: str, labels: Sequence[str]) -> Part:
    if text in labels:
        return Part(text)
    match = WEIGHTED.fullmatch(text)
    weight, name = float(match["weight"] or 1) * (-1 if match["sign"] else 1), match["name"]
    unit = UNIT.fullmatch(name)
    if name in labels or not unit:
        number = name.isdecimal() and name not in labels
        return Part(int(name) if number else name, weight=weight)
    channel, *position = map(int, unit["numbers"].split(":"))
    return Part(unit["layer"], channel, tuple(position), weight)


def class_number(target: Target, wanted: str | int) -> int:
    """The number of a class of a binary or multiclass target, by its label or number, also as text.

    Raises:
        InputError: a target without classes, or no such class; it suggests the nearest.
    """
    if target.task not in ("binary", "multiclass"):
        raise InputError(
            f"A {target.task} target has no classes, so {wanted!r} is none: name a channel of one "
            "of its layers, as 'layer:channel'."
        )
    known = list(target.labels)
    if wanted in known:
        return known.index(wanted)
    if isinstance(wanted, str) and wanted.isdecimal():
        wanted = int(wanted)
    if isinstance(wanted, int):
        if not 0 <= wanted < len(known):
            raise InputError(f"There is no class {wanted}: choose from 0 to {len(known) - 1}.")
        return wanted
    every = f"target.labels has all {len(known)}"
    raise InputError(f"The target has no class {wanted!r}: " + nearest(wanted, known, every))


def one_class(target: Target, wanted: Aim) -> int | None:
    """The number of the one class that an aim asks for; None if it asks for none, or for several.

    Raises:
        InputError: see ``class_number``.
    """
    kinds = {
        class_number(target, part.name)
        for part in wanted.parts
        if part.channel is None and part.weight > 0
    }
    return kinds.pop() if len(kinds) == 1 else None


@dataclass(frozen=True)
class Readings:
    """T parts of aims that read one layer, or the answer: whose they are, and where they look."""

    layer: str
    row: Tensor  # (T,) which aim
    channel: Tensor  # (T,) or the class
    position: tuple[Tensor, ...]  # of each axis of the position (T,); none: the mean
    weight: Tensor  # (T,)

    def index(self, rows: Tensor) -> "Readings":
        new, old = (rows[:, None] == self.row).nonzero(as_tuple=True)
        position = tuple(axis[old] for axis in self.position)
        return Readings(self.layer, new, self.channel[old], position, self.weight[old])

    def of(self, out: Tensor, shape: tuple[int, int]) -> Tensor:
        """Activations (E·B, C, …), or (B, C, …) of pictures shared -> what is read, (T, B)."""
        row = self.row if shape[0] > 1 else torch.zeros_like(self.row)
        own = out.unflatten(0, shape)[row, :, self.channel, *self.position]
        return own if own.ndim == 2 else own.flatten(2).mean(2)

    def sum(self, values: Tensor, rows: int) -> Tensor:
        """(T, B) -> (E, B), weighted."""
        weighted = self.weight[:, None].to(values) * values
        return values.new_zeros(rows, values.shape[1]).index_add(0, self.row, weighted)


class Objectives:
    """The losses of E aims for one target, each of its own images, in one pass.

    Attributes: ``names``, the E aims as text.

    Args:
        aims: each an ``Aim``, a text (see the top of this file), or the number of a class.
        resolution: of the images to come, for a target without a size.

    Raises:
        InputError: an aim that cannot be read, a class, layer, channel or position that there is
            not, or a target that fails, is in train mode or has no gradient.
    """

    def __init__(self, target: Target, aims: Sequence[Aim | str | int], resolution: int = 64):
        if isinstance(aims, str | int | Aim) or not len(aims):
            raise InputError(f"aims must be a list of one or more, got {aims!r}.")
        name = in_train_mode(target.module)
        if name is not None:
            raise InputError(
                "The target is in train mode, so dropout and batch norm would change its answers: "
                "call .eval() on it."
            )
        self.target = target
        found = [aim(what, target.labels) for what in aims]
        self.names = tuple(map(str, found))
        known = layers(target, resolution)
        parts: dict[tuple[str, bool], list] = {}
        for row, wanted in enumerate(found):
            for part in wanted.parts:
                layer, channel = _resolve(target, part, known)
                key = (layer, bool(part.position))
                parts.setdefault(key, []).append((row, channel, part.position, part.weight))
        self._readings = [_readings(layer, own, target) for (layer, _), own in parts.items()]
        self._try(resolution)

    def __len__(self) -> int:
        return len(self.names)

    def index(self, rows: Tensor) -> "Objectives":
        """The same for these rows (indices, which may repeat, or bool (E,)), in this order."""
        rows = rows.nonzero().flatten() if rows.dtype == torch.bool else rows
        rows = rows.to(self.target.mean.device)
        some = copy.copy(self)
        some.names = tuple(self.names[row] for row in rows.tolist())
        some._readings = [r for own in self._readings if len((r := own.index(rows)).row)]
        return some

    def __call__(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The losses (E, B) of images (E, B, 3, H, W) in [0, 1], B of each aim; differentiable.

        Of images (1, B, 3, H, W), all aims see the same.

        Also the terms that they are sums of, (E, B) each: "cross-entropy", weighted, and
        "activation", weighted and negative; those that no aim has are left out.

        Raises:
            InputError: images of another shape.
        """
        if images.ndim != 5 or images.shape[0] not in (1, len(self)):
            many = "1" if len(self) == 1 else f"1 or {len(self)}"
            raise InputError(
                f"Images for {len(self)} aims must have shape ({many}, B, 3, H, W), got "
                f"{tuple(images.shape)}."
            )
        terms: dict[str, Tensor] = {}
        for own, values in self._read(images):
            name, sign = ("activation", -1) if own.layer != CLASS else ("cross-entropy", 1)
            summed = sign * own.sum(values, len(self))
            terms[name] = terms[name] + summed if name in terms else summed
        return sum(terms.values()), terms

    def _read(self, images: Tensor) -> list[tuple[Readings, Tensor]]:
        """Every reading with its values (T, B): activations, or cross-entropies."""
        shape, flat = images.shape[:2], images.flatten(0, 1)
        values: dict[int, Tensor] = {}
        by_layer: dict[str, list[int]] = {}
        for number, own in enumerate(self._readings):
            if own.layer != CLASS:
                by_layer.setdefault(own.layer, []).append(number)

        def reader(numbers: list[int]):
            def read(out: Tensor) -> None:
                for number in numbers:
                    values[number] = self._readings[number].of(out, shape).to(images.dtype)

            return read

        with watching(self.target, {name: reader(own) for name, own in by_layer.items()}):
            out = self.target.raw(flat)
        for number, own in enumerate(self._readings):
            if own.layer == CLASS:
                values[number] = -own.of(_log_probabilities(self.target, out, flat), shape)
        return [(own, values[number]) for number, own in enumerate(self._readings)]

    def _try(self, resolution: int) -> None:
        """Raise InputError where no gradient comes from something that is read to the images."""
        firsts = sorted({int(own.row[0]) for own in self._readings})
        noise = try_images(self.target, len(firsts), resolution)[:, None].requires_grad_(True)
        with frozen(self.target), torch.enable_grad():
            for own, values in self.index(torch.tensor(firsts))._read(noise):
                what = f"layer {own.layer!r}" if own.layer != CLASS else "its answer"
                _check_gradient(what, values, noise)


def _resolve(target: Target, part: Part, known: Mapping[str, tuple[int, ...]]) -> tuple[str, int]:
    """Layer and channel of a part, or ``CLASS`` and the class's number."""
    if part.channel is None:
        if part.name in known and part.name not in target.labels:
            raise InputError(
                f"{part.name!r} is a layer: name one of its {known[part.name][0]} channels, such "
                f"as '{part.name}:0'."
            )
        return CLASS, class_number(target, part.name)
    check_layer(part.name, known)
    channels, *sides = known[part.name]
    if not 0 <= part.channel < channels:
        raise InputError(
            f"'{part}' is not there: layer {part.name!r} has channels 0 to {channels - 1}."
        )
    inside = len(part.position) == len(sides) and all(
        0 <= at < side for at, side in zip(part.position, sides, strict=True)
    )
    if part.position and not inside:
        place = f"positions up to {':'.join(str(side - 1) for side in sides)}" if sides else "none"
        raise InputError(f"'{part}' is not there: a channel of layer {part.name!r} has {place}.")
    return part.name, part.channel


def _readings(layer: str, parts: list, target: Target) -> Readings:
    rows, channels, positions, weights = zip(*parts, strict=True)
    device = target.mean.device
    axes = zip(*positions, strict=True)  # none, where no part has a position
    return Readings(
        layer,
        torch.tensor(rows, device=device),
        torch.tensor(channels, device=device),
        tuple(torch.tensor(axis, device=device) for axis in axes),
        torch.tensor(weights, device=device),
    )


def _log_probabilities(target: Target, out: object, images: Tensor) -> Tensor:
    """log p (B, K) of all classes, of what ``target.raw`` returned."""
    logits = target.read(out, images)
    if target.task == "binary":
        return F.logsigmoid(torch.stack([-logits, logits], 1))
    return F.log_softmax(logits, 1)


def _check_gradient(what: str, values: Tensor, images: Tensor) -> None:
    gradient = None
    if values.requires_grad:
        try:
            (gradient,) = torch.autograd.grad(
                values.sum(), images, retain_graph=True, allow_unused=True
            )
        except RuntimeError as error:
            raise InputError(
                f"The target's gradient cannot be computed ({reason(error)}): write its forward "
                "pass without operations in place, and with such as have a gradient."
            ) from error
    if gradient is None:
        raise InputError(
            f"The target has no gradient from {what} to its images, which the search needs: remove "
            "torch.no_grad, inference_mode, detach or NumPy from its forward pass."
        )
    if not torch.isfinite(gradient).all():
        raise InputError(
            f"The target's gradient from {what} is NaN or infinite: look for a log or square root "
            "of zero in its forward pass."
        )
