"""Where searches are, in a file or in memory alone: a killed one goes on to the same result."""

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


@dataclass
class Kept:
    """R searches; tensors on the CPU.

    soft: (R, k, ...) the variables. moments: (2, R, k, ...), as they were when the step of each row
    was looked at. step: (R,). path: (T + 1, R) losses.
    """

    file: Path | None
    key: str
    soft: Tensor
    moments: Tensor
    step: Tensor
    path: Tensor
    saved: float = field(default_factory=time.monotonic)

    @classmethod
    def start(cls, file: str | Path | None, key: str, soft: Tensor, steps: int) -> Kept:
        """As the file has them, or at the start where there is none.

        Raises:
            InputError: the file keeps something else, or is a folder.
        """
        fresh = {
            "soft": soft,
            "moments": soft.new_zeros(2, *soft.shape),
            "step": torch.zeros(len(soft), dtype=torch.long),
            "path": torch.full((steps + 1, len(soft)), torch.nan),
        }
        if file is not None and Path(file).is_dir():
            raise InputError(f"{file} is a folder: give a file, in which the search is kept.")
        found = read_kept(file, load_file)
        if found is None:
            return cls(None if file is None else Path(file), key, **fresh)
        stored = found.pop("key", torch.empty(0, dtype=torch.uint8))
        if bytes(stored.tolist()).decode("utf-8", "replace") != key or set(found) != set(_PARTS):
            raise InputError(f"{file} keeps another search: give another file, or remove it.")
        return cls(Path(file), key, **found)

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
        tensors["key"] = torch.tensor(list(self.key.encode()), dtype=torch.uint8)
        with atomic_write(self.file) as path:
            save_file(tensors, path)
        self.saved = time.monotonic()
