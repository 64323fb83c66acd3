"""What a person asks of an explanation, looked at before any long work and without torch."""

from collections.abc import Mapping, Sequence

from visiondx.core.errors import InputError
from visiondx.core.words import check_words

PLACE = "{t}"


def check_question(what: Sequence[str | int], words: Mapping[str, str]) -> None:
    """Look at what is to be explained, and at the words that are looked for.

    Raises:
        InputError: nothing is asked, or something that is empty, or a class without its word.
    """
    if isinstance(what, str):
        raise InputError(f"what must be a list, got the text {what!r}: put it in brackets.")
    if not len(what):
        raise InputError(
            "Nothing is asked: name a class (--class dog, --class 3), or a channel of a layer "
            "(--neuron layer4:17; --layers lists the layers)."
        )
    check_words([str(each) for each in what], "What is asked")
    for name, word in words.items():
        try:
            check_words([word])
        except InputError:
            raise InputError(
                f"Of class {name!r}, there is no word to look for, but {word!r}: give one."
            ) from None


def check_template(template: str) -> None:
    """Raise InputError unless the place of the searched tokens stands once in a template."""
    if template.count(PLACE) != 1:
        raise InputError(
            f"The template {template!r} holds {PLACE} {template.count(PLACE)} times: write it "
            'once, where the searched word belongs, as in "a texture of {t}".'
        )


def check_counts(pictures: int, delta: float) -> None:
    """Raise InputError for too few pictures, or a delta that is no share of a picture."""
    if pictures < 2:
        raise InputError(f"pictures is {pictures}: a verdict needs two at least.")
    if not 0 < delta < 1:
        raise InputError(f"delta is {delta}: give the share of a picture, between 0 and 1.")
