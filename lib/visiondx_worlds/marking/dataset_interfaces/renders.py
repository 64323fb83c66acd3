"""Pictures of each class under each shift, as drawn, in a folder like painted ones.

``<shift>/<class>/0000.png``: whatever measures models on painted pictures measures them on these.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from tqdm.auto import tqdm

from visiondx.core.errors import InputError
from visiondx.core.files import atomic_write
from visiondx.dataset_interfaces.shifted_images import BASE
from visiondx_worlds.worlds import scenes
from visiondx_worlds.worlds.base import Attributes

DATA_SET = "scenes-train"  # on which the classifiers learned


def draw_folder(folder: str | Path, n: int, seed: int, shifts: Sequence[str] = ()) -> Path:
    """Draw n pictures of each class under each shift and under none, "base".

    The scenes are the data set's own, and the same ones under every shift; what is there already is
    not drawn again.

    Args:
        shifts: the world's, such as "grass"; none given, all 23.

    Returns:
        ``renders-<seed>-<n>`` in the folder, with a folder a shift: "bright sunlight" is
        "bright_sunlight".

    Raises:
        InputError: an unknown shift, or fewer than one picture.
    """
    if n < 1:
        raise InputError(f"n is {n}: draw one picture of each class at least.")
    home = Path(folder) / f"renders-{seed}-{n}"
    rows = own_scenes(n, seed)
    names = (BASE, *(shifts or scenes.shifts))
    shifted = {name: rows if name == BASE else scenes.shift(rows, name) for name in names}
    files = [f"{kind}/{k:04}.png" for kind in scenes.classes for k in range(n)]
    for name in tqdm(names, desc="renders", mininterval=1.0):
        own = home / name.replace(" ", "_")
        if all((own / file).is_file() for file in files):
            continue
        pixels = (scenes.render(shifted[name]) * 255).round().byte().permute(0, 2, 3, 1).numpy()
        for file, picture in zip(files, pixels, strict=True):
            with atomic_write(own / file) as path:
                Image.fromarray(picture).save(path)
    return home


def own_scenes(n: int, seed: int) -> Attributes:
    """n scenes of each class, class by class, with the places and states that the data set has."""
    count = 2 * n * len(scenes.classes) + 64
    while True:
        rows = scenes.sample(count, seed, distribution=DATA_SET)
        kinds = rows["class"].long()
        found = [torch.where(kinds == k)[0] for k in range(len(scenes.classes))]
        if min(map(len, found)) >= n:
            return rows[torch.cat([own[:n] for own in found])]
        count *= 2
