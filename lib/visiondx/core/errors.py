"""The one error a person is meant to read."""

import pickle

LONGEST = 160  # characters of another library's message that are quoted


class InputError(ValueError):
    """Bad input: one sentence that names the value and the fix, raised before any long work."""


def reason(error: BaseException) -> str:
    """Kind and first line of another library's error, to be quoted within a sentence of ours."""
    if isinstance(error, pickle.UnpicklingError):  # which advises to run whatever it holds
        return "UnpicklingError: it holds more than plain weights, or is damaged"
    line = (str(error).strip().splitlines() or [""])[0].rstrip(".:; ")
    if len(line) > LONGEST:
        line = line[:LONGEST].rstrip() + " ..."
    kind = type(error).__name__
    return f"{kind}: {line}" if line else kind
