"""What a person asks of losses, looked at before any long work and without torch."""

from collections.abc import Sequence

from visiondx.core.errors import InputError
from visiondx.core.words import check_words, plain


def check_question(
    ask: Sequence[str], compare: Sequence[Sequence[str]], attributes: Sequence[str] = ()
) -> None:
    """Look at the sentences, the pairs of sentences and the attributes of an audit.

    Raises:
        InputError: not a single sentence, an empty one, one or a pair that is asked twice, what is
            no pair, or a pair of the same sentence.
    """
    for name, given in (("ask", ask), ("compare", compare), ("attributes", attributes)):
        if isinstance(given, str):
            raise InputError(f"{name} must be a list, got the text {given!r}: put it in brackets.")
    if not (len(ask) or len(compare) or len(attributes)):
        raise InputError(
            'There is no sentence: ask one or more (--ask "a dark picture"), or compare two '
            '(--compare "a dark picture" "a bright picture").'
        )
    check_words(ask, "Sentences")
    check_words(attributes)
    seen = set()
    for pair in compare:
        if isinstance(pair, str) or len(pair) != 2:
            raise InputError(f"compare takes pairs of sentences, got {pair!r}: give two in each.")
        first, second = pair
        for sentence in pair:
            check_words([sentence])
        if plain(first) == plain(second):
            raise InputError(
                f"compare got the same sentence twice, {first!r} and {second!r}: give two that "
                "differ."
            )
        key = frozenset((plain(first), plain(second)))
        if key in seen:
            raise InputError(f"{first!r} and {second!r} are compared twice: name each pair once.")
        seen.add(key)


def check_source(table: str, model: str, folder: str) -> None:
    """Raises InputError for losses that come from two places, or a model without its images."""
    if table and model:
        raise InputError(
            f"Both a table, {table!r}, and a model, {model!r}, were given: the losses come from "
            "one of them."
        )
    if model and not folder:
        raise InputError(
            f"The model {model!r} needs images: give a labelled folder, <class>/<image>, as "
            "image_folder (--images)."
        )
    if folder and not (table or model):
        raise InputError(
            f"Images, {folder!r}, were given without losses: give a table of them, or a model."
        )


def sentences_of(
    ask: Sequence[str], compare: Sequence[Sequence[str]], attributes: Sequence[str] = ()
) -> list[str]:
    """All sentences of a question, each once, in their order."""
    every = [*ask, *(sentence for pair in compare for sentence in pair), *attributes]
    found: dict[str, str] = {}
    for sentence in every:
        found.setdefault(plain(sentence), sentence)
    return list(found.values())
