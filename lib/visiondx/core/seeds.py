"""Seeds: whole numbers that torch and numpy take, and those that follow from others."""

from visiondx.core.errors import InputError

SEEDS = 2**63  # as many as there are


def check_seed(seed: int, name: str = "seed") -> None:
    """Raise InputError unless the seed is a whole number from 0 to 2⁶³ - 1."""
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < SEEDS:
        raise InputError(f"{name} must be a whole number from 0 to {SEEDS - 1}, got {seed!r}.")


def step_seed(seed: int, step: int) -> int:
    """A seed for step ``step`` of a run; runs with different seeds share no step's seed."""
    return (seed * 1_000_003 + step) % 2**31
