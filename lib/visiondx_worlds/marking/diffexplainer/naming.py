"""Do a search's likeliest words name what they should (DiffExplainer, section 4.4)?

Which words name a place is read off the world's grammar, from which the painter learned them: of
each phrase for the place, those that most of its phrases share, out of the words that the grammar
uses for nothing else. "on a heap of stones" and "on stones" give "stones"; "in the sea" gives none,
for there is a sea at the beach, too.

    names = naming(scenes.grammar.words)                 # {"snow": ("snow", "snowy"), ...}
    table = told(likelihood, words.texts, ["rabbit"], {"rabbit": "snow"}, names)
    shares(table)
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from math import comb, nan

import pandas as pd
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.core.stats import proportion

TOP = 5  # words that count as told
OBJECTS = ("classes", "superclasses", "states")  # tables of a grammar that say what is shown
_NEVER_SAID = ("table1",)  # in captions


def naming(grammar: Mapping, table: str = "background") -> dict[str, tuple[str, ...]]:
    """{value: the words that name it}, of one table of a grammar's words.

    Args:
        grammar: see ``worlds.grammar.Grammar.words``. table: of phrases for each of its values.

    Raises:
        InputError: the grammar has no such table.
    """
    if not isinstance(grammar.get(table), Mapping):
        tables = ", ".join(name for name, part in grammar.items() if isinstance(part, Mapping))
        raise InputError(f"The grammar has no table {table!r}: choose from {tables}.")
    return {value: _naming(grammar, table, value) for value in grammar[table]}


def _naming(grammar: Mapping, table: str, value: str) -> tuple[str, ...]:
    phrases = [_words(phrase) for phrase in _texts(grammar[table][value])]
    about = ("absent", "states", table)  # they may speak of the value under its own name
    elsewhere: set[str] = set()
    for name, part in _said(grammar):
        for text in _texts(_without(part, value) if name in about else part):
            elsewhere |= set(_words(text))
    count = Counter(word for phrase in phrases for word in phrase if word not in elsewhere)
    found: dict[str, None] = {}
    for phrase in phrases:
        own = [word for word in phrase if word in count]
        most = max((count[word] for word in own), default=0)
        found |= dict.fromkeys(word for word in own if count[word] == most)
    return tuple(found)


def object_words(grammar: Mapping) -> tuple[str, ...]:
    """The words that a grammar uses for objects and their states, and for nothing else."""
    objects = spoken({name: part for name, part in grammar.items() if name in OBJECTS})
    others = spoken({name: part for name, part in grammar.items() if name not in OBJECTS})
    return tuple(word for word in objects if word not in others)


def spoken(grammar: Mapping) -> tuple[str, ...]:
    """Every word that captions in a grammar may use."""
    texts = (text for _, part in _said(grammar) for text in _texts(part))
    return tuple(dict.fromkeys(word for text in texts for word in _words(text)))


def _said(grammar: Mapping) -> Iterator[tuple[str, object]]:
    return ((name, part) for name, part in grammar.items() if name not in _NEVER_SAID)


def _without(table: object, key: str) -> object:
    return {name: part for name, part in table.items() if name != key}


def _texts(table: object) -> Iterator[str]:
    """All texts of nested mappings and lists."""
    if isinstance(table, str):
        yield table
    elif isinstance(table, Mapping | list):
        for part in table.values() if isinstance(table, Mapping) else table:
            yield from _texts(part)


def _words(text: str) -> list[str]:
    return list(dict.fromkeys(re.findall(r"[a-z]+", text.lower())))


def chance(words: int, right: int, top: int = TOP) -> float:
    """How often one of `right` words is among `top` that are drawn at random out of `words`.

    Raises:
        InputError: counts that do not fit into one another.
    """
    if not (0 <= right <= words and 1 <= top <= words):
        raise InputError(f"Of {words} words, {right} cannot be right and {top} be told.")
    return 1 - comb(words - right, top) / comb(words, top)


def told(
    likelihood: Tensor,
    texts: Sequence[str],
    classes: Sequence[str],
    answers: Mapping[str, str],
    names: Mapping[str, Sequence[str]],
    top: int = TOP,
    among: Collection[str] | None = None,
) -> pd.DataFrame:
    """A row a class with an answer: whether a word that names it is among the likeliest.

    Columns: class, answer; words, the `top` likeliest; rank, from 1, of the first that names the
    answer; told, whether it is one of `top`; by_chance, see `chance`; elsewhere, the share of the
    other classes' answers of which a word is among them, NaN where all have the same.

    Args:
        likelihood: (E, W) of E classes and W words, the larger the likelier. texts: the W words.
        classes: E labels. answers: of those that have one. names: {answer: the words that name
            it}, see `naming`; of these, words that could not be chosen do not count.
        among: words that could be chosen, of the W; None for all.

    Raises:
        InputError: a likelihood of another shape, fewer words than are to be told, or an answer
            of whose words none could be chosen.
    """
    if likelihood.shape != (len(classes), len(texts)):
        raise InputError(
            f"The likelihood of {len(texts)} words for {len(classes)} classes must have shape "
            f"({len(classes)}, {len(texts)}), got {tuple(likelihood.shape)}."
        )
    chosen = [at for at, word in enumerate(texts) if among is None or word in among]
    texts, likelihood = [texts[at] for at in chosen], likelihood[:, chosen]
    able = {
        answer: [word for word in names[answer] if word in set(texts)]
        for answer in dict.fromkeys(answers[name] for name in classes if name in answers)
    }
    for answer, own in able.items():
        if not own:
            raise InputError(
                f"No word for {answer!r} can be chosen: put {' or '.join(names[answer])} into the "
                "vocabulary."
            )
    rows = []
    for name, scores in zip(classes, likelihood, strict=True):
        if name not in answers:
            continue
        order = [texts[at] for at in scores.argsort(descending=True, stable=True).tolist()]
        place = {word: number for number, word in enumerate(order, 1)}
        rank = {answer: min(place[word] for word in own) for answer, own in able.items()}
        answer = answers[name]
        others = [at <= top for other, at in rank.items() if other != answer]
        rows.append(
            {
                "class": name,
                "answer": answer,
                "words": " ".join(order[:top]),
                "rank": rank[answer],
                "told": rank[answer] <= top,
                "by_chance": chance(len(texts), len(able[answer]), top),
                "elsewhere": sum(others) / len(others) if others else nan,
            }
        )
    return pd.DataFrame(rows)


def shares(table: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """A row a group of the rows of `told`: the share told, with Wilson's interval; chance's, too.

    Args:
        by: columns that tell groups apart, such as ["way", "strength"].
    """
    rows = {}
    for key, group in table.groupby(list(by), sort=False):
        rows[key] = {
            "told": proportion(group["told"].to_numpy()),
            "by chance": group["by_chance"].mean(),
            "elsewhere": group["elsewhere"].mean(),
            "median rank": group["rank"].median(),
        }
    index = pd.MultiIndex.from_tuples(rows, names=list(by))
    return pd.DataFrame(list(rows.values()), index)


def causes(found: pd.DataFrame, tried: pd.DataFrame, rendered: Mapping[str, int]) -> pd.Series:
    """Why each row of `told` does not tell the place; "" where it does.

    Args:
        found: of a search. tried: of every word tried by itself, the same classes in one order.
        rendered: {class: the rank, from 1, of its place among all places, rendered without an
            object, by the target's loss}.
    """

    def cause(name: str, told: bool, by_itself: bool) -> str:
        if told:
            return ""
        if rendered[name] > 1:
            return "the target: another place, rendered, speaks more for the class"
        if not by_itself:
            return "the painter: of the words, its pictures say less than renders"
        return "the search: tried by itself, the word is among the likeliest"

    columns = found["class"], found["told"], tried["told"]
    return pd.Series([cause(*row) for row in zip(*columns, strict=True)], found.index)
