"""Numbers as people keep them: arrays, and .npy files of them."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from visiondx.core.errors import InputError, reason


def read_numbers(given: str | Path | ArrayLike, what: str) -> Tensor:
    """float32 on the CPU of an array or a .npy file; never of a pickle, which could run anything.

    Args:
        what: it is, for messages.

    Raises:
        InputError: no such file, or what holds no numbers.
    """
    where = f"The {what}"
    if isinstance(given, str | Path):
        path = Path(given)
        if not path.is_file():
            raise InputError(f"No file of {what} at {path}: check the path.")
        try:
            given = np.load(path, allow_pickle=False)
        except Exception:  # a damaged file, a pickle, or text
            given = None
        if not isinstance(given, np.ndarray):  # or an archive of several
            raise InputError(
                f"{path} cannot be read as a .npy file of {what}: write one array of numbers with "
                "np.save."
            )
        where = f"The {what} in {path}"
    if not isinstance(given, Tensor):
        try:
            given = np.asarray(given)
        except Exception as error:  # rows of several lengths, or what is no array at all
            why = reason(error).partition(". ")[0]
            raise InputError(f"{where} are no array ({why}): give an array of numbers.") from error
        if given.dtype.kind not in "fiub":
            kind = {"U": "text", "S": "text", "O": "objects"}.get(given.dtype.kind, given.dtype)
            raise InputError(f"{where} are {kind}, not numbers: give an array of numbers.")
        given = torch.from_numpy(np.array(given, np.float32))
    if given.is_complex():
        raise InputError(f"{where} are complex, not numbers: give an array of numbers.")
    return given.detach().to("cpu", torch.float32)
