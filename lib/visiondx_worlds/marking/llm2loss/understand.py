"""What a sentence says, where it is one that a world's grammar could have made.

The reverse of ``Grammar.sentence``, for worlds of named attributes: phrases are looked up, longest
first, and every other word must be one that only joins them. A sentence with any word beyond that
is not understood, rather than understood in part.
"""

import re
from functools import cache

from visiondx_worlds.worlds import animals, faces

WORLDS = {"faces": faces, "animals": animals}  # of named attributes


def understand(world: str, text: str) -> dict[str, bool] | None:
    """{attribute: whether it is there}, {} of a neutral sentence, None of one not understood.

    Of a sentence that says two opposite things of one attribute, None.
    """
    if world not in WORLDS:
        return None
    phrases, joints = _vocabulary(world)
    left, said = f" {' '.join(_words(text))} ", {}
    for phrase, name, present in phrases:
        if f" {phrase} " not in left:
            continue
        left = left.replace(f" {phrase} ", " ")
        if said.setdefault(name, present) != present:
            return None
    rest = left.split()
    return said if _words(text) and all(word in joints for word in rest) else None


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9'-]+", text.lower())


@cache
def _vocabulary(world: str) -> tuple[list[tuple[str, str, bool]], frozenset[str]]:
    """(phrase, attribute, there) of both halves, the longest first, and the words between them."""
    grammar = WORLDS[world].grammar
    found = {}
    for name, sides in grammar.words["attributes"].items():
        if name not in grammar.heldout["phrases"]:
            continue
        for present, side in ((True, "present"), (False, "absent")):
            forms = sides[side]
            said = [p for kind in ("with", "adjective", "noun") for p in forms.get(kind, ())]
            for phrase in [*said, *grammar.heldout["phrases"][name][side]]:
                found[" ".join(_words(phrase))] = name, present
    between = [*grammar.templates(False), *grammar.templates(True), *grammar.words["nouns"]]
    between += grammar.words["joins"]
    joints = {word for part in between for word in _words(part.replace("{}", " "))}
    ordered = sorted(found, key=lambda phrase: (-len(phrase.split()), -len(phrase)))
    return [(p, *found[p]) for p in ordered], frozenset(joints | {"a", "an", "and", "with", "the"})
