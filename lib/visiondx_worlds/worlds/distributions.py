"""Named distributions of a world's categories: small YAML files of marginals and correlations.

    world: scenes
    about: cars belong on the road
    marginals:
      background: {plain: 0.5, grass: 0.3, road: 0.2}
    correlations:
      - {if: {class: car}, then: {background: road}, probability: 0.95}

A declared marginal holds over all images: where a correlation gives one class more of a background,
the classes that no correlation speaks of get less of it. An attribute without a declared marginal
keeps the world's own shares wherever no correlation speaks. What a correlation leaves over is
shared among the other values in proportion to their marginals.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import yaml
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.core.files import data_dir, reading
from visiondx_worlds.worlds.base import Attributes, normals, phi

if TYPE_CHECKING:
    from visiondx_worlds.worlds.base import World

_KEYS = ("world", "about", "marginals", "correlations")


@dataclass(frozen=True)
class Table:
    """The shares of one attribute, (P, V): a row for each value of its parent, or one row."""

    attribute: str
    parent: str | None
    shares: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Distribution:
    """Draws a world's attributes with the declared shares; parents come before children.

    The world must have `categories`, `shares` and `excluded`, as `scenes` has.
    """

    world: World
    name: str
    tables: tuple[Table, ...]
    about: str = ""

    @classmethod
    def load(cls, name: str, world: World) -> Distribution:
        """A distribution of ``data/worlds``, or of a YAML file given by its path.

        Raises InputError if there is none, or naming the line that is wrong and its fix.
        """
        folder = data_dir() / "worlds"
        path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
        if not path.is_file():
            known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml")))
            raise InputError(
                f"No distribution {name!r}: choose from {known}, or give a .yaml path."
            )
        with reading(path, "write it as UTF-8 text"):
            text = path.read_text("utf-8")
        return cls.parse(text, world, path.stem)

    @classmethod
    def parse(cls, text: str, world: World, name: str = "distribution") -> Distribution:
        """A distribution from YAML text; errors as for `load`."""
        return _Reader(text, world, name).read()

    def from_normal(self, u: Tensor) -> Attributes:
        """Attributes at the quantiles of standard normals u (B, latent_dim); see `World`."""
        attributes = self.world.from_normal(u)
        for table in self.tables:
            edges = torch.tensor(table.shares, device=u.device).cumsum(1)[:, :-1]
            row = 0 if table.parent is None else attributes[table.parent].long()
            p = phi(u[:, self.world.names.index(table.attribute)])
            index = (p[:, None] > edges[row].expand(len(u), -1)).sum(1)
            attributes = attributes.replace(**{table.attribute: index.to(u.dtype)})
        return self.world.resolve(attributes)

    def sample(self, n: int, seed: int) -> Attributes:
        """n random rows; the same seed gives the same rows on every device."""
        return self.from_normal(normals(n, self.world.latent_dim, seed))

    def marginal(self, attribute: str) -> dict[str, float]:
        """The share of each value over all images."""
        if attribute not in self.world.categories:
            known = ", ".join(self.world.categories)
            raise InputError(f"Unknown attribute {attribute!r}: choose from {known}.")
        shares = _marginal(attribute, {t.attribute: t for t in self.tables}, self.world)
        return dict(zip(self.world.categories[attribute], shares, strict=True))


def _marginal(attribute: str, tables: dict[str, Table], world: World) -> tuple[float, ...]:
    if attribute not in tables:
        return tuple(world.shares[attribute])
    table = tables[attribute]
    parents = (1.0,) if table.parent is None else _marginal(table.parent, tables, world)
    columns = zip(*table.shares, strict=True)
    return tuple(sum(p * q for p, q in zip(parents, c, strict=True)) for c in columns)


@dataclass
class _Rules:
    """The correlations of one attribute: {parent's value: {value: probability}}."""

    parent: str
    line: int
    rows: dict[int, dict[int, float]] = field(default_factory=dict)


class _Reader:
    """Reads the YAML's nodes, which know their lines, and works out the tables."""

    def __init__(self, text: str, world: World, name: str) -> None:
        self.text, self.world, self.name = text, world, name
        self.declared: dict[str, tuple[float, ...]] = {}
        self.lines: dict[str, int] = {}
        self.rules: dict[str, _Rules] = {}

    def wrong(self, at: int | yaml.Node, what: str) -> InputError:
        line = at if isinstance(at, int) else at.start_mark.line + 1
        return InputError(f"{self.name}, line {line}: {what}")

    def read(self) -> Distribution:
        try:
            root = yaml.compose(self.text, Loader=yaml.SafeLoader)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            what = " ".join(str(getattr(error, "problem", None) or error).split())
            line = mark.line + 1 if mark else 1
            raise self.wrong(line, f"this is not YAML ({what}): correct it.") from error
        about = ""
        for key, node, line in self.items(root, "the file"):
            if key not in _KEYS:
                raise self.wrong(line, f"unknown key {key!r}: use {', '.join(_KEYS)}.")
            own = self.world.name
            if key == "world" and node.value != own:
                raise self.wrong(line, f"the world is {node.value!r}: write {own}, or use its own.")
            if key == "about":
                about = str(node.value)
            if key == "marginals":
                for item in self.items(node, "marginals"):
                    self.marginal(*item)
            if key == "correlations":
                if not isinstance(node, yaml.SequenceNode):
                    raise self.wrong(line, "correlations must be a list: begin each with a dash.")
                for rule in node.value:
                    self.correlation(rule)
        return Distribution(self.world, self.name, self.tables(), about)

    # ---------------------------------------------------------------- nodes

    def items(self, node: yaml.Node | None, what: str) -> list[tuple[str, yaml.Node, int]]:
        if not isinstance(node, yaml.MappingNode):
            raise self.wrong(node or 1, f"{what} must be a mapping: write 'name: value' pairs.")
        found = [(str(k.value), v, k.start_mark.line + 1) for k, v in node.value]
        for index, (key, _, line) in enumerate(found):
            if key in [k for k, *_ in found[:index]]:
                raise self.wrong(line, f"{key!r} stands here twice: remove one.")
        return found

    def values(self, name: str, line: int) -> tuple[str, ...]:
        if name not in self.world.categories:
            known = ", ".join(self.world.categories)
            raise self.wrong(line, f"unknown attribute {name!r}: choose from {known}.")
        return self.world.categories[name]

    def index(self, attribute: str, value: str, line: int) -> int:
        values = self.values(attribute, line)
        if value not in values:
            known = ", ".join(values)
            raise self.wrong(line, f"{attribute} has no value {value!r}: choose from {known}.")
        return values.index(value)

    def probability(self, node: yaml.Node) -> float:
        try:
            value = float(node.value)
        except (TypeError, ValueError):
            what = f"{node.value!r} is not a probability: write a number from 0 to 1."
            raise self.wrong(node, what) from None
        if not 0 <= value <= 1:
            raise self.wrong(node, f"probability {value:g} is outside [0, 1]: bring it inside.")
        return value

    # ---------------------------------------------------------------- sections

    def marginal(self, name: str, node: yaml.Node, line: int) -> None:
        shares = [0.0] * len(self.values(name, line))
        for value, share, at in self.items(node, f"the marginal of {name}"):
            shares[self.index(name, value, at)] = self.probability(share)
        total = sum(shares)
        if abs(total - 1) > 1e-3:
            raise self.wrong(line, f"the shares of {name} sum to {total:g}: make them sum to 1.")
        self.declared[name], self.lines[name] = tuple(s / total for s in shares), line

    def correlation(self, node: yaml.Node) -> None:
        line = node.start_mark.line + 1
        parts = {key: value for key, value, _ in self.items(node, "a correlation")}
        if set(parts) != {"if", "then", "probability"}:
            raise self.wrong(line, "a correlation needs exactly the keys if, then and probability.")
        when, given = self.pair(parts["if"], "if")
        name, value = self.pair(parts["then"], "then")
        probability = self.probability(parts["probability"])
        if when == name:
            raise self.wrong(line, f"impossible correlation of {name} with itself: name another.")
        excluded = self.world.excluded(when, given, name, value)
        if excluded and probability > 0:
            raise self.wrong(line, f"impossible correlation, {excluded}: remove it.")
        rules = self.rules.setdefault(name, _Rules(when, line))
        if rules.parent != when:
            what = f"{name} already follows {rules.parent} (line {rules.line})"
            raise self.wrong(line, f"{what}: begin this one with 'if: {rules.parent}' as well.")
        row = rules.rows.setdefault(self.index(when, given, line), {})
        k = self.index(name, value, line)
        if k in row:
            raise self.wrong(line, f"{given} and {value} are correlated twice: remove one.")
        row[k] = probability
        if sum(row.values()) > 1 + 1e-9:
            what = f"with it the probabilities of {name} for {given} sum to {sum(row.values()):g}"
            raise self.wrong(line, f"impossible correlation: {what}, so lower them to at most 1.")
        self.lines.setdefault(name, line)

    def pair(self, node: yaml.Node, what: str) -> tuple[str, str]:
        items = self.items(node, what)
        if len(items) != 1:
            raise self.wrong(node, f"'{what}' names {len(items)} attributes: name exactly one.")
        name, value, line = items[0]
        self.index(name, str(value.value), line)
        return name, str(value.value)

    # ---------------------------------------------------------------- tables

    def tables(self) -> tuple[Table, ...]:
        done: dict[str, Table] = {}
        waiting = dict.fromkeys([*self.declared, *self.rules])
        while waiting:
            free = (
                n for n in waiting if n not in self.rules or self.rules[n].parent not in waiting
            )
            name = next(free, None)
            if name is None:
                line = max(self.rules[n].line for n in waiting)
                what = f"{' and '.join(waiting)} follow one another in a circle"
                raise self.wrong(line, f"impossible correlation: {what}, so turn one round.")
            done[name] = self.table(name, done)
            del waiting[name]
        return tuple(done.values())

    def table(self, name: str, done: dict[str, Table]) -> Table:
        target = self.declared.get(name, tuple(self.world.shares[name]))
        if name not in self.rules:
            return Table(name, None, (target,))
        rules = self.rules[name]
        parents = _marginal(rules.parent, done, self.world)
        ruled = {k: self.fill(name, row, target) for k, row in rules.rows.items()}
        rest = self.rest(name, target, parents, ruled) if name in self.declared else target
        return Table(name, rules.parent, tuple(ruled.get(k, rest) for k in range(len(parents))))

    def fill(self, name: str, row: dict[int, float], target: tuple[float, ...]) -> tuple:
        """One correlated row: the given probabilities, and the others in proportion."""
        left = 1 - sum(row.values())
        others = sum(share for k, share in enumerate(target) if k not in row)
        if left > 1e-9 and others == 0:
            raise self.wrong(
                self.rules[name].line,
                f"impossible correlation: nothing is left for the other {left:g} of {name}, so "
                "give another of its values a marginal above 0.",
            )
        scale = left / others if others else 0.0
        return tuple(row[k] if k in row else share * scale for k, share in enumerate(target))

    def rest(
        self, name: str, target: tuple, parents: tuple, ruled: dict[int, tuple]
    ) -> tuple[float, ...]:
        """The row of every uncorrelated value of the parent, such that the marginal holds."""
        free = 1 - sum(parents[k] for k in ruled)
        rest = []
        for index, (value, share) in enumerate(zip(self.world.categories[name], target)):
            used = sum(parents[k] * row[index] for k, row in ruled.items())
            if used > share + 1e-6 or (free < 1e-9 and used < share - 1e-6):
                way = "raise" if used > share else "lower"
                raise self.wrong(
                    self.lines[name],
                    f"impossible correlation: the correlations of {name} make {value!r} {used:.3g} "
                    f"of all images, its marginal is {share:.3g}; {way} the marginal, or change "
                    "their probabilities.",
                )
            rest.append(max(0.0, share - used) / free if free > 1e-9 else share)
        return tuple(r / sum(rest) for r in rest)
