"""What judges see of class, own state and shift: the selection frequencies of Fig. 5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.core.stats import Estimate, proportion
from visiondx.dataset_interfaces.shifts import BASE, Shift
from visiondx_worlds.marking.dataset_interfaces.truth import own_states, world_shift
from visiondx_worlds.models.judges import Judges
from visiondx_worlds.worlds.scenes import CLASSES, SHIFTS, STATES


@dataclass(frozen=True)
class Selected:
    """What both judges see in N images, as the paper's workers select them (appendix A.4).

    kinds: N classes that were asked for. values: {"class", "state", "shift": (N,) bool}. The state
    is the data set's own; `asked` says where there is one to see, and the shift of `base` is always
    there. Where the judges differ they abstain, which counts as not seen.
    """

    kinds: tuple[str, ...]
    shift: str
    values: Mapping[str, np.ndarray]
    asked: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """(N,) bool: the class, the shift, and the state where the class has one of its own."""
        seen = self.values["class"] & self.values["shift"]
        return seen & (self.values["state"] | ~self.asked)

    @property
    def both(self) -> np.ndarray:
        """(N,) bool: the class and the shift, of which the filter asks."""
        return self.values["class"] & self.values["shift"]

    def frequency(self) -> dict[str, Estimate]:
        """Selection frequencies: "class", "shift", "state" (of the images that are asked for it),
        "both" and "right", with Wilson's intervals.
        """
        found = {name: proportion(self.values[name]) for name in ("class", "shift")}
        found["state"] = proportion(self.values["state"][self.asked])
        return found | {"both": proportion(self.both), "right": proportion(self.right)}


def select(
    judges: Judges,
    images: Tensor,
    kinds: Sequence[str],
    shift: Shift | str,
    own: Mapping[str, bool] | None = None,
) -> Selected:
    """Judge images (N, 3, 64, 64) in [0, 1] that were meant to show N classes under a shift.

    Args:
        own: {class: whether its state is there}; None for ``own_states``.

    Raises:
        InputError: not one class an image, or a shift that no judge knows.
    """
    if len(images) != len(kinds):
        raise InputError(f"{len(images)} images were given and {len(kinds)} classes: give as many.")
    name, own = world_shift(shift), own_states() if own is None else own
    said = judges.answers(images)
    wanted = torch.tensor([CLASSES.index(kind) for kind in kinds])
    seen = (said["class"].cpu() == wanted).all(0).numpy()
    shown = np.ones(len(kinds), dtype=bool)
    if name != BASE:
        factor, value = SHIFTS[name]
        shown = (said[factor].cpu() == int(value)).all(0).numpy()
    there = said["binary"].cpu()  # (2, N, A)
    asked = np.array([kind in own for kind in kinds], dtype=bool)
    columns = [judges.column(STATES[kind]) if kind in own else 0 for kind in kinds]
    two = there[:, torch.arange(len(kinds)), torch.tensor(columns)]
    state = two.all(0).numpy()
    bare = ~two.any(0).numpy() & seen  # nothing is bare of harness but a dog
    present = np.array([own.get(kind, False) for kind in kinds], dtype=bool)
    values = {"class": seen, "shift": shown, "state": np.where(present, state, bare) & asked}
    return Selected(tuple(kinds), str(getattr(shift, "name", shift)), values, asked)
