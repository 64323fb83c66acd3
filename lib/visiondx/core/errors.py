"""The one error a person is meant to read."""


class InputError(ValueError):
    """Bad input: one sentence that names the value and the fix, raised before any long work."""
