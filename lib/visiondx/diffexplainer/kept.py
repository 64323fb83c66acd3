"""Where searches are, in a folder or in memory alone: a killed one goes on to the same result."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.core.files import atomic_write, digest, read_kept, result_key
from visiondx.models.painter import Painter
from visiondx.models.target import Target

METHOD = 2  # raised with every change that gives another result
SAVE_SECONDS = 60.0
_PARTS = ("soft", "moments", "step", "path")


def search_key(painter: Painter, target: Target, *given: object) -> str:
    """What tells one search from another: both models' weights, and all that is `given` as JSON."""
    how = (painter.steps, painter.guidance, dict(painter.scheduler.config), target.size)
    weights = digest(**painter.state_dict()), digest(**target.state_dict())
    seen = digest(mean=target.mean, std=target.std)
    return result_key(METHOD, *(repr(each) for each in how), *weights, seen, *given)


def kept_file(folder: str | Path | None, kind: str, key: str) -> Path | None:
    """Where a folder keeps what belongs to a key; None without a folder.

    Raises:
        InputError: the folder is a file.
    """
    if folder is None:
        return None
    if Path(folder).is_file():
        raise InputError(f"{folder} is a file: give a folder, in which searches are kept.")
    return Path(folder) / f"{kind}-{key}.safetensors"


@dataclass
class Kept:
    """R searches; tensors on the CPU.

    soft: (R, k, ...) the variables. moments: (2, R, k, ...), as they were when the step of each row
    was looked at. step: (R,). path: (T + 1, R) losses.
    """

    file: Path | None
    soft: Tensor
    moments: Tensor
    step: Tensor
    path: Tensor
    saved: float = field(default_factory=time.monotonic)

    @classmethod
    def start(cls, folder: str | Path | None, key: str, soft: Tensor, steps: int) -> Kept:
        """As a file of the folder, named by its key, has them; or at the start where none has.

        Raises:
            InputError: the folder is a file.
        """
        fresh = {
            "soft": soft,
            "moments": soft.new_zeros(2, *soft.shape),
            "step": torch.zeros(len(soft), dtype=torch.long),
            "path": torch.full((steps + 1, len(soft)), torch.nan),
        }
        file = kept_file(folder, "search", key)
        found = read_kept(file, load_file)
        return cls(file, **(fresh if found is None else {name: found[name] for name in _PARTS}))

    def note(self, rows: Tensor, step: int, soft: Tensor, moments: Tensor, loss: Tensor) -> None:
        """Where these rows are at a step; written now and then."""
        self.soft[rows], self.moments[:, rows] = soft.detach().cpu(), moments.cpu()
        self.step[rows], self.path[step, rows] = step, loss.detach().cpu()
        if time.monotonic() - self.saved > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        if self.file is None:
            return
        tensors = {name: getattr(self, name).contiguous() for name in _PARTS}
        with atomic_write(self.file) as path:
            save_file(tensors, path)
        self.saved = time.monotonic()
