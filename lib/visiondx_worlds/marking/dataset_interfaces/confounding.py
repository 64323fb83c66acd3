"""A second shift that comes with the one asked for: "a plate in the grass" is painted empty.

Where a classifier goes by the state of a class (the food on the plate), images in another state
than the data set's say of it what is not so. The renderer shows both states, so that what the
state costs, what the shift costs, and what the painter does to a picture can be told apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.core.stats import Estimate, crossed, difference, proportion
from visiondx.dataset_interfaces.interface import DatasetInterface
from visiondx.dataset_interfaces.models import Model
from visiondx.dataset_interfaces.shifts import BASE, PLACE, Shift
from visiondx.models.device import device_of
from visiondx.models.pixels import pictures
from visiondx_worlds.marking.dataset_interfaces.own import first_painted, load_images
from visiondx_worlds.marking.dataset_interfaces.truth import true_rows
from visiondx_worlds.worlds.scenes import STATES, scenes

_BATCH = 250
SIDES = ("absent", "present")  # of a state, as the renderer's column has it


def state_phrase(kind: str, present: bool) -> str:
    """How prompts say a class's state: of a plate "with food" or "with no food".

    Raises:
        InputError: a class without a state.
    """
    if kind not in STATES:
        raise InputError(f"The class {kind!r} has no state: choose from {', '.join(STATES)}.")
    return scenes.grammar.words["states"][kind][SIDES[present]]["with"][0]


def with_phrase(shift: Shift, phrase: str) -> Shift:
    """The shift with words that follow the class: "a photo of a <class> with food in the grass".

    It is of the same caption, so that the filter asks for the same. Raises InputError for no words.
    """
    words = " ".join(phrase.split())
    if not words:
        raise InputError("No words were given to follow the class: say its state.")
    name = words if shift.name == BASE else f"{words} {shift.name}"
    prompt = shift.prompt.replace(PLACE, f"{PLACE} {words}")
    return replace(shift, name=name, prompt=prompt, threshold=None, paper_yield=None)


def painted(
    interface: DatasetInterface, shift: Shift, kind: str, n: int, seed: int, folder: str | Path
) -> tuple[Tensor, np.ndarray]:
    """The first n images of a class under a shift, kept in a shared folder, see ``own.home_of``.

    Args:
        shift: that of the filter's threshold, or one ``with_phrase``, of the same caption.

    Returns:
        images (n, 3, S, S) in [0, 1], and (n,) bool, whether the filter keeps them.

    Raises:
        InputError: see ``DatasetInterface.generate``, or a shift whose caption has no threshold.
    """
    limits = {of: name for name, of in _captions(interface).items()}
    if shift.caption and shift.caption not in limits:
        raise InputError(
            f"The shift {shift.name!r} has no threshold: give one with ClipFilter.with_shift."
        )
    rows, home = first_painted(interface, shift, n, seed, folder, [kind])
    asked = replace(shift, name=limits.get(shift.caption, BASE))
    scores = rows["class_score"], rows["shift_score"]
    passed = interface.clip.keeps(asked, rows["class"].tolist(), *scores)
    images = load_images(home, rows["file"].tolist(), interface.painter.size)
    return images, passed


def _captions(interface: DatasetInterface) -> dict[str, str]:
    """{shift: caption} of the shifts that have a threshold."""
    return {name: Shift.of(name).caption for name in interface.clip.shift}


def drawn_states(shift: Shift | str, kind: str, n: int, seed: int) -> dict[str, Tensor]:
    """The same n scenes of the data set three times: {"own", "absent", "present"}: (n, 3, 64, 64).

    "own" is the truth, with the state as the data set has it; in the others all have the one state.

    Raises:
        InputError: a class without a state, or a shift that cannot be drawn.
    """
    state_phrase(kind, True)
    rows = true_rows(shift, n, seed, [kind])
    shown = {"own": rows} | {
        side: rows.replace(state=float(value)) for value, side in enumerate(SIDES)
    }
    parts = torch.arange(n).split(_BATCH)
    return {
        side: torch.cat([scenes.render(own[part]) for part in parts]) for side, own in shown.items()
    }


@torch.no_grad()
def answers(models: Sequence[Model], images: Tensor) -> np.ndarray:
    """(M, N) int, which output each model gives to images (N, 3, H, W) in [0, 1].

    Images are rounded to bytes, as files of them are.
    """
    shown, found = pictures(images), []
    for model in models:
        said = []
        for first in range(0, len(shown), _BATCH):
            part = [model.picture(each) for each in shown[first : first + _BATCH]]
            said.append(model.answer(torch.stack(part).to(device_of(model.target))))
        found.append(torch.cat(said).numpy())
    return np.stack(found)


def right(models: Sequence[Model], images: Tensor, kind: str) -> np.ndarray:
    """(M, N) bool: whether each model says that the images show the class; see ``answers``.

    Raises:
        InputError: a class that a model does not know.
    """
    columns = np.array([model.columns([kind])[0] for model in models])
    return answers(models, images) == columns[:, None]


def error(estimated: ArrayLike, true: ArrayLike) -> Estimate:
    """|estimated - true accuracy| of one model, from images that were and that should have been.

    The interval of the difference is Newcombe's (see ``stats.difference``). Of the absolute value
    it is what that leaves: from 0 where the difference may be none.

    Args:
        estimated: (N,) bool, right or not. true: (K,) bool.

    Raises:
        InputError: no images, or values that are not (N,) bool.
    """
    one, other = proportion(estimated), proportion(true)
    if not one.n or not other.n:
        raise InputError(
            f"An error needs images of both kinds, got {one.n} estimated and {other.n} true."
        )
    both = [(each.value, each.low, each.high) for each in (one, other)]
    value, low, high = difference(*both).tolist()
    least = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
    return Estimate(abs(value), least, max(abs(low), abs(high)), one.n)


def mean_error(estimated: np.ndarray, true: np.ndarray, seed: int = 0) -> Estimate:
    """The mean over M models of |estimated - true accuracy|, which see the same images.

    Args:
        estimated: (M, N) bool. true: (M, K) bool.

    Raises:
        InputError: no images, or other models.
    """
    if estimated.ndim != 2 or true.ndim != 2 or len(estimated) != len(true):
        raise InputError(
            f"Answers must be (models, images) of the same models, got {estimated.shape} and "
            f"{true.shape}."
        )

    def statistic(one: np.ndarray, other: np.ndarray) -> dict[str, np.ndarray]:
        said = estimated @ one.T / estimated.shape[1]
        return {"error": np.abs(said - true @ other.T / true.shape[1])}

    sizes = (estimated.shape[1], true.shape[1])
    return crossed(statistic, sizes, seed=seed)["error"]


def mixed(present: np.ndarray, absent: np.ndarray, share: float) -> np.ndarray:
    """Answers of prompts of which a share says that the state is there, evenly spread.

    Args:
        present, absent: (…, N) of images by either prompt.

    Returns:
        (…, N), round(share * N) of them from `present`.

    Raises:
        InputError: no share, or not as many of both.
    """
    if not 0 <= share <= 1:
        raise InputError(f"share is {share}: give one from 0 to 1.")
    if present.shape != absent.shape:
        raise InputError(
            f"{present.shape} and {absent.shape} answers were given: paint as many of both states."
        )
    n = present.shape[-1]
    count = int(share * n + 0.5)
    chosen = np.diff(np.arange(n + 1) * count // n) > 0
    return np.where(chosen, present, absent)


def parts(
    estimated: np.ndarray,
    state: np.ndarray,
    drawn: Mapping[str, np.ndarray],
    seed: int = 0,
) -> dict[str, Estimate]:
    """What an error is made of, signed: by the state that images are in, and by all else of them.

    With s the share of the images that are in the state, and a(s) the accuracy on renders of which
    a share s is: "state" is a(s) - true, what the missing state alone does; "rest" is estimated -
    a(s), what the painter does besides; "error" their sum.

    Args:
        estimated: (N,) bool, right or not. state: (N,) bool, whether the image is in the state.
        drawn: {"own", "absent", "present"}: (K,) bool of the same scenes, see ``drawn_states``.

    Raises:
        InputError: not as many answers as states, or no images.
    """
    if estimated.shape != state.shape or estimated.ndim != 1:
        raise InputError(
            f"{estimated.shape} answers and {state.shape} states were given: give one an image."
        )

    def statistic(one: np.ndarray, other: np.ndarray) -> dict[str, np.ndarray]:
        said, share = (one @ each / one.sum(1) for each in (estimated, state))
        true, absent, present = (
            other @ drawn[side] / other.sum(1) for side in ("own", "absent", "present")
        )
        by_state = share * present + (1 - share) * absent
        found = {"error": said - true, "state": by_state - true, "rest": said - by_state}
        return {name: values[None] for name, values in found.items()}

    return crossed(statistic, (len(estimated), len(drawn["own"])), seed=seed)


def share_curve(
    present: np.ndarray, absent: np.ndarray, true: np.ndarray, shares: Sequence[float]
) -> pd.DataFrame:
    """``error`` of one model over the share of prompts that say that the state is there.

    Args:
        present, absent: (N,) bool of either prompt. true: (K,) bool.

    Returns:
        a row a share: share, accuracy, error, low, high.
    """
    rows = []
    for share in shares:
        said = mixed(present, absent, share)
        found = error(said, true)
        rows.append((share, said.mean(), found.value, found.low, found.high))
    return pd.DataFrame(rows, columns=["share", "accuracy", "error", "low", "high"])
