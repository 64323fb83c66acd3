"""What ``LossModel`` refuses, in a sentence each."""

from collections.abc import Sequence

from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.llm2loss.tables import MINIMUM
from visiondx.models.encoder import Encoder

VARIED = 10  # examples whose loss is not the commonest one: fewer leave nothing to learn
PRECISION = 1e-6  # float32 keeps about seven digits


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


def check_losses(losses: Tensor) -> None:
    """Raises InputError where losses (n,) are so nearly constant that there is nothing to learn."""
    values, counts = losses.unique(return_counts=True)
    low, high = float(values[0]), float(values[-1])
    varied = len(losses) - int(counts.max())
    if varied < VARIED:
        common = float(values[counts.argmax()])
        raise InputError(
            f"All but {varied} of {len(losses)} losses are {common:g}: there is too little to "
            f"learn; give {VARIED} or more examples with another loss."
        )
    if high - low <= PRECISION * max(abs(low), abs(high)):
        raise InputError(
            f"All {len(losses)} losses lie between {low:.9g} and {high:.9g}, no further apart than "
            "rounding: check that they are those of single images."
        )
