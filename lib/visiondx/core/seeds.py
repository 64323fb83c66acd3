"""Seeds: whole numbers that torch and numpy take."""

from visiondx.core.errors import InputError

SEEDS = 2**63  # as many as there are


def check_seed(seed: int, name: str = "seed") -> None:
    """Raise InputError unless the seed is a whole number from 0 to 2⁶³ - 1."""
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < SEEDS:
        raise InputError(f"{name} must be a whole number from 0 to {SEEDS - 1}, got {seed!r}.")
