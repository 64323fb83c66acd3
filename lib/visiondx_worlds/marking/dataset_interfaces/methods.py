"""Ways to get images of a data set's classes under a shift, side by side (section 4, Fig. 5).

methods = {"tokens": painted(interface, 10, 100, "runs/kept"), "retrieval": retrieved(…), …}
rows, pictures = compare(methods, shifts, interface, judges)

A method is a function: shift -> images (C, n, 3, S, S) in [0, 1], C the interface's classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import compress
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.core.errors import InputError
from visiondx.core.seeds import step_seed
from visiondx.core.stats import Estimate
from visiondx.dataset_interfaces.clip_filter import class_scores, embedded, shift_scores
from visiondx.dataset_interfaces.interface import DatasetInterface
from visiondx.dataset_interfaces.retrieval import Pool
from visiondx.dataset_interfaces.shifts import Shift
from visiondx_worlds.marking.dataset_interfaces.means import mean_share
from visiondx_worlds.marking.dataset_interfaces.own import home_of, load_images
from visiondx_worlds.marking.dataset_interfaces.pool import RenderPool
from visiondx_worlds.marking.dataset_interfaces.selection import select
from visiondx_worlds.marking.dataset_interfaces.truth import WORLD_SHIFTS, true_images
from visiondx_worlds.models.judges import Judges

Method = Callable[[Shift], Tensor]
FILTER = " + filter"
MEASURES = ("class", "state", "shift", "both", "right")


def painted(interface: DatasetInterface, n: int, seed: int, folder: str | Path) -> Method:
    """What an interface paints, filtered or not; kept in a folder, see ``own.home_of``."""
    home = home_of(interface, seed, folder)

    def get(shift: Shift) -> Tensor:
        interface.generate(shift, n=n, seed=seed, folder=home)
        files = [f"{kind}/{k:04}.png" for kind in interface.classes for k in range(n)]
        images = load_images(home / shift.folder, files, interface.painter.size)
        return images.unflatten(0, (-1, n))

    return get


def retrieved(pool: RenderPool, index: Pool, interface: DatasetInterface, n: int) -> Method:
    """The n images of a pool whose CLIP embeddings are nearest to the prompt of each class.

    Args:
        index: the pool as the interface's encoder sees it.
    """

    def get(shift: Shift) -> Tensor:
        texts = [shift.asks(interface.words[kind]) for kind in interface.classes]
        return _of(pool, index.nearest(texts, interface.encoder, n)[0])

    return get


def searched(
    pool: RenderPool, index: Pool, interface: DatasetInterface, n: int, seed: int
) -> Method:
    """n images of a pool that bear the name of each class, others for each shift.

    Nobody says on a page what the weather was: the shift is not asked for, and there by chance.
    """

    def get(shift: Shift) -> Tensor:
        own = step_seed(seed, _place(shift))
        rows = [index.named(interface.words[kind], n, own) for kind in interface.classes]
        return _of(pool, torch.stack(rows))

    return get


def drawn(interface: DatasetInterface, n: int, seed: int) -> Method:
    """The control: the data set's own images under the shift, as the renderer draws them."""

    def get(shift: Shift) -> Tensor:
        images = true_images(shift, n, step_seed(seed, _place(shift)), interface.classes)
        return torch.stack([images[kind] for kind in interface.classes])

    return get


def judged(
    method: str,
    images: Tensor,
    shift: Shift,
    interface: DatasetInterface,
    judges: Judges | None = None,
) -> pd.DataFrame:
    """A row an image: what CLIP, the filter and the judges say of it.

    Args:
        images: (C, n, 3, S, S), what `method` gave. judges: None where nobody can be asked.

    Returns:
        method, shift, class, number, class_score, shift_score (NaN for `base`), kept: whether it
        would pass the filter; of judges also seen_class, seen_state, seen_shift, asked: whether its
        class has a state of its own, and both and right, see ``selection.Selected``.

    Raises:
        InputError: images of other classes, or a shift without a threshold.
    """
    if images.ndim != 5 or len(images) != len(interface.classes):
        raise InputError(
            f"Images of {len(interface.classes)} classes must be (C, n, 3, S, S), got "
            f"{tuple(images.shape)}."
        )
    n = images.shape[1]
    kinds = [kind for kind in interface.classes for _ in range(n)]
    interface.clip.check(shift, kinds)
    flat = images.flatten(0, 1)
    found = embedded(flat, interface.encoder, f"CLIP {method}, {shift.name}")
    of_class = class_scores(
        found, [interface.words[kind] for kind in kinds], shift, interface.encoder
    )
    of_shift = shift_scores(found, shift, interface.encoder)
    columns = {
        "method": method,
        "shift": shift.name,
        "class": kinds,
        "number": list(range(n)) * len(images),
        "class_score": of_class,
        "shift_score": of_shift,
        "kept": interface.clip.keeps(shift, kinds, of_class, of_shift),
    }
    if judges is not None:
        seen = select(judges, flat, kinds, shift)
        columns |= {f"seen_{name}": seen.values[name] for name in ("class", "state", "shift")}
        columns |= {"asked": seen.asked, "both": seen.both, "right": seen.right}
    return pd.DataFrame(columns)


def compare(
    methods: Mapping[str, Method],
    shifts: Sequence[Shift],
    interface: DatasetInterface,
    judges: Judges | None = None,
    shown: Sequence[str] = (),
) -> tuple[pd.DataFrame, dict[tuple[str, str], Tensor]]:
    """Rows of ``judged``, of every method under every shift.

    Args:
        shown: names of shifts whose images are wanted too.

    Returns:
        the rows, and {(method, shift): images (C, n, 3, S, S)} of those shifts.

    Raises:
        InputError: no method or shift, one without a threshold, or one that cannot be drawn.
    """
    if not methods or not shifts:
        raise InputError("Name one method and one shift at least to compare.")
    for shift in shifts:
        interface.clip.check(shift, interface.classes)
    tables, pictures = [], {}
    with tqdm(total=len(shifts) * len(methods), desc="shifts", mininterval=1.0) as bar:
        for shift in shifts:
            for name, get in methods.items():
                images = get(shift)
                tables.append(judged(name, images, shift, interface, judges))
                if shift.name in shown:
                    pictures[name, shift.name] = images
                bar.update()
    return pd.concat(tables, ignore_index=True), pictures


def with_filter(rows: pd.DataFrame, methods: Sequence[str]) -> pd.DataFrame:
    """Rows of ``judged``, and those that the filter keeps of some methods as methods of their own.

    Raises:
        InputError: a method without rows.
    """
    unknown = [name for name in methods if name not in set(rows["method"])]
    if unknown:
        raise InputError(f"No image is of the method {unknown[0]!r}: judge some first.")
    passed = rows[rows["method"].isin(methods) & rows["kept"]]
    passed = passed.assign(method=passed["method"] + FILTER)
    return pd.concat([rows, passed], ignore_index=True)


def frequency(rows: pd.DataFrame, measure: str) -> Estimate:
    """Selection frequency: the share of images in which the judges see something.

    Of several shifts the mean, each counting alike (see ``means.mean_share``).

    Args:
        rows: of ``judged`` with judges. measure: of MEASURES; "state" is of the classes that have
            one, "both" is class and shift, "right" the state too.

    Raises:
        InputError: another measure.
    """
    if measure not in MEASURES:
        raise InputError(f"No frequency of {measure!r}: choose from {', '.join(MEASURES)}.")
    if measure == "state":
        rows = rows[rows["asked"]]
    column = measure if measure in ("both", "right") else f"seen_{measure}"
    return mean_share(rows[column].to_numpy(dtype=bool), rows["shift"].to_numpy())


def frequencies(rows: pd.DataFrame, measure: str, by: str = "method") -> dict[str, Estimate]:
    """``frequency`` of each value of a column, in the order in which they come."""
    return {name: frequency(own, measure) for name, own in rows.groupby(by, sort=False)}


def seen_words(rows: pd.DataFrame) -> list[str]:
    """What the judges see in each image, such as "class, shift"; "nothing" where that is all.

    Of a class without a state of its own none is named.
    """
    names = ("class", "state", "shift")
    columns = (rows[f"seen_{name}"] for name in names)
    said = [compress(names, seen) for seen in zip(*columns, strict=True)]
    return [", ".join(each) or "nothing" for each in said]


def uncovered(rows: pd.DataFrame, classes: Sequence[str], shifts: Sequence[str]) -> float:
    """The share of the pairs of a class and a shift of which there is no image at all."""
    there = set(zip(rows["class"], rows["shift"], strict=True))
    pairs = [(kind, shift) for kind in classes for shift in shifts]
    return sum(pair not in there for pair in pairs) / len(pairs)


def first_kept(images: Tensor, rows: pd.DataFrame, count: int = 1) -> Tensor:
    """The first images of each class that the filter keeps: (C, count, 3, S, S), white where none.

    Args:
        images: (C, n, 3, S, S). rows: of ``judged``, of these images.

    Raises:
        InputError: not a row an image.
    """
    if len(rows) != images.shape[0] * images.shape[1]:
        raise InputError(f"{len(rows)} rows were given for images {tuple(images.shape)}.")
    shown = torch.ones(len(images), count, *images.shape[2:])
    kept = torch.tensor(rows["kept"].tolist()).view(images.shape[:2])
    for c, passed in enumerate(kept):
        own = images[c, passed][:count]
        shown[c, : len(own)] = own
    return shown


def _of(pool: RenderPool, rows: Tensor) -> Tensor:
    return pool.images(rows.flatten()).unflatten(0, rows.shape)


def _place(shift: Shift) -> int:
    """The number of a shift of Table 1, by which its images are drawn apart from others'."""
    return list(WORLD_SHIFTS).index(shift.name)
