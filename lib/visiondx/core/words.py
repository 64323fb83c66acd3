"""The words that a person asks about: when two are the same, and which are refused."""

import unicodedata
from collections.abc import Sequence

from visiondx.core.errors import InputError
from visiondx.core.files import data_dir


def plain(words: str) -> str:
    """Words as they are compared: letter case, spaces at the ends and doubled ones do not count.

    Nor does how Unicode writes a letter (NFKC), nor what is invisible, such as a zero-width space.
    """
    text = unicodedata.normalize("NFKC", words)
    seen = (c for c in text if c.isspace() or unicodedata.category(c) not in ("Cc", "Cf"))
    return " ".join("".join(seen).split()).casefold()


def check_words(words: Sequence[str], what: str = "Attributes") -> None:
    """Raise InputError for what is no text, for an empty one, and for one that is named twice."""
    seen: dict[str, str] = {}
    for text in words:
        if not isinstance(text, str) or not plain(text):
            raise InputError(f"Every prompt needs words, got {text!r}: remove or fill it.")
        if (same := seen.get(plain(text))) is not None:
            doubled = repr(text) if same == text else f"{same!r} and {text!r}"
            raise InputError(f"{what} are named twice, {doubled}: name each once.")
        seen[plain(text)] = text


def check_prompts(attributes: Sequence[str], neutral: str) -> None:
    """Raise InputError for an empty list, an empty or repeated prompt, or one equal to neutral."""
    if isinstance(attributes, str) or not len(attributes):
        raise InputError(
            f'attributes must be a list of prompts such as ["a hat"], got {attributes!r}.'
        )
    check_words([neutral])
    check_words(attributes)
    if plain(neutral) in map(plain, attributes):
        raise InputError(
            f"{neutral!r} is both the neutral prompt and an attribute, so its direction is zero: "
            "drop one of them."
        )


def lists() -> list[str]:
    """Names of the lists of words in ``data/prompts`` for pictures that no world draws."""
    return sorted(
        path.stem
        for path in (data_dir() / "prompts").glob("*.yaml")
        if "domain:" in path.read_text("utf-8")
    )


def check_list(name: str) -> None:
    """Raise InputError unless there is a list of words of this name."""
    known = lists()
    if name not in known:
        raise InputError(f"No list of words {name!r}: choose from {', '.join(known)}.")


def no_neutral() -> InputError:
    """What is raised where neither the prompt nor a list says what the attributes share."""
    return InputError(
        "Nothing says what the attributes have in common: give neutral, such as 'a face', or "
        f"words, one of {', '.join(lists())}."
    )
