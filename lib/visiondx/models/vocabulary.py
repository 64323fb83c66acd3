"""Which words of a prompt can an encoder not know?

Every text has an embedding, gibberish too, so a search for an edit "with qwxzk" finds one, and its
bar looks like any other. Of an encoder whose training texts are at hand, it is known what it read.
Of others there is the tokenizer: it keeps frequent words whole, and takes rare ones to a few long
pieces and mere letters to many short ones.
"""

import re
from collections.abc import Callable, Sequence

from torch import Tensor

from visiondx.core.words import plain

PIECES, LETTERS = 3, 2.2  # so many pieces or more, of fewer letters each on average: no word


def words_of(text: str) -> list[str]:
    """The words of a text, made of letters alone, as ``plain`` writes them."""
    return re.findall(r"[^\W\d_]+", plain(text))


def unknown_words(texts: Sequence[str], known: Callable[[str], bool]) -> list[list[str]]:
    """Of each text, the words that are not ``known``, each once and in their order."""
    return [[w for w in dict.fromkeys(words_of(text)) if not known(w)] for text in texts]


def unknown_to(encoder, texts: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Of each text, the words that an encoder cannot know; none, if it cannot tell."""
    tell = getattr(encoder, "unknown_words", lambda texts: [[] for _ in texts])
    return tuple(map(tuple, tell(list(texts))))


def known_by_pieces(tokenize: Callable[[list[str]], Tensor]) -> Callable[[str], bool]:
    """What a tokenizer says of a word, in lower case: is it one, or letters?

    With open_clip's own, nine random strings in ten are none; short ones, and nonsense that can be
    pronounced ("snarfle"), pass.

    Args:
        tokenize: texts -> (N, context_length) ids, padded on the right, as open_clip's.
    """

    def tokens(word: str) -> int:
        row = tokenize([word])[0]
        return int((row != row[-1]).sum())

    def known(word: str) -> bool:
        pieces = 1 + tokens(word) - tokens("a")
        return pieces < PIECES or len(word) / pieces >= LETTERS

    return known
