"""What ``LossModel`` refuses, in a sentence each."""

from collections.abc import Sequence

from visiondx.core.errors import InputError
from visiondx.llm2loss.tables import MINIMUM
from visiondx.models.encoder import Encoder


def check_choice(name: str, given: str, choices: Sequence[str]) -> None:
    """Raises InputError unless ``given`` is one of the choices."""
    if given not in choices:
        raise InputError(f"No {name} {given!r}: choose from {', '.join(choices)}.")


def checked(encoder: Encoder | None, wanted: str | None) -> str | None:
    """The fingerprint that is wanted, of the encoder too if there is one.

    Raises:
        InputError: the encoder is not the one that is wanted, or nobody knows whose the embeddings
            are: another encoder's may well be as wide.
    """
    if encoder is None:
        return wanted
    found = encoder.fingerprint
    if wanted is None:
        raise InputError(
            "Nobody says which encoder made the embeddings: name it where they are read, such as "
            "read_arrays(embeddings, losses, encoder), or ask without an encoder."
        )
    if found != wanted:
        raise InputError(
            f"The embeddings are those of another encoder ({wanted[:12]}) than the one given "
            f"({found[:12]}): ask with the encoder that made them."
        )
    return found


def needed(encoder: Encoder | None) -> Encoder:
    """The encoder. Raises InputError where there is none."""
    if encoder is None:
        raise InputError(
            "This LossModel has no encoder to read sentences with: pass encoder= to fit or load."
        )
    return encoder


def check_distinct(images: int, examples: int) -> None:
    """Raises InputError unless there are enough images among the examples."""
    if images < MINIMUM:
        raise InputError(
            f"The {examples} examples have {images} distinct embeddings: an ensemble needs "
            f"{MINIMUM} or more different images to learn from."
        )
