"""Images of classes under one shift, painted into a folder and never twice.

    <folder>/<shift>/made.json              what made them
    <folder>/<shift>/<class>/0000.png, …    the images
    <folder>/<shift>/manifest.parquet       a row an image, once they are scored (see `manifest`)

An image follows from the painter, its prompt and its seed, and the seed from the run's, the shift,
the class and the image's number: whatever was painted before, it is the same image.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.core.errors import InputError
from visiondx.core.files import atomic_write, reading
from visiondx.dataset_interfaces.shifts import Shift
from visiondx.models.painter import Painter
from visiondx.models.pixels import pictures

MADE = "made.json"
MOST = 10_000  # images of a class: file names have four digits


@dataclass(frozen=True)
class Asked:
    """One image of a run.

    file: below the shift's folder, "plate/0003.png". prompt: as a person reads it.
    """

    kind: str
    number: int
    prompt: str
    seed: int

    @property
    def file(self) -> str:
        return f"{self.kind}/{self.number:04}.png"


def image_seed(seed: int, shift: Shift, kind: str, number: int) -> int:
    """The seed of image `number` of a class under a shift, 0 to 2⁶³ - 1."""
    said = json.dumps([seed, shift.name, kind, number]).encode()
    return int.from_bytes(hashlib.sha256(said).digest()[:8], "big") >> 1


def asked(shift: Shift, prompts: Mapping[str, str], n: int, seed: int) -> list[Asked]:
    """n images of each class, the first of all classes before the second: batches are mixed.

    Args:
        prompts: {class: prompt}.

    Raises:
        InputError: no class, one whose name is no name of a folder, or an impossible n.
    """
    if not prompts:
        raise InputError("There is no class to paint: name one at least.")
    for name in prompts:
        if not name.strip() or name.startswith(".") or set(name) & set('/\\:*?"<>|\0'):
            raise InputError(f"The class {name!r} cannot name a folder: rename it.")
    if len({name.casefold() for name in prompts}) < len(prompts):
        raise InputError("Two classes have names that differ in letter case alone: rename one.")
    if not 1 <= n <= MOST:
        raise InputError(f"n is {n}: paint 1 to {MOST} images of each class.")
    return [
        Asked(kind, number, prompt, image_seed(seed, shift, kind, number))
        for number in range(n)
        for kind, prompt in prompts.items()
    ]


def open_home(home: Path, shift: Shift, key: str) -> None:
    """Make a shift's folder, or go on in it.

    Args:
        key: of all that its images follow from.

    Raises:
        InputError: it has images of another painter, other words, or another seed.
    """
    file = home / MADE
    if file.is_file():
        with reading(file, f"give another folder, or remove {home}"):
            kept = json.loads(file.read_text("utf-8"))["key"]
        if kept != key:
            raise InputError(
                f"{home} holds images of another painter, encoder, prompt or seed: give another "
                "folder, or remove it."
            )
    elif home.is_dir() and any(home.iterdir()):
        raise InputError(f"{home} holds images that nobody vouches for: give another folder.")
    else:
        about = {"key": key, "shift": {k: asdict(shift)[k] for k in _SAID}}
        with atomic_write(file) as path:
            path.write_text(json.dumps(about, indent=2), "utf-8")
    for left in home.glob("*/.*.png"):  # of a run that was killed while it wrote
        left.unlink(missing_ok=True)


_SAID = ("name", "prompt", "caption", "style")


def shift_of(home: Path) -> Shift:
    """The shift whose images a folder holds. Raises InputError where nothing says so."""
    file = home / MADE
    if not file.is_file():
        raise InputError(f"{home} is no folder of generated images: it has no {MADE}.")
    with reading(file, "generate the images again"):
        said = json.loads(file.read_text("utf-8"))["shift"]
        known = Shift.of(said["name"])
        found = Shift(*(said[name] for name in _SAID))
    return known if all(getattr(known, k) == said[k] for k in _SAID) else found


@torch.no_grad()
def paint(
    painter: Painter,
    condition: Mapping[str, Tensor],
    rows: Sequence[Asked],
    home: Path,
    batch: int,
) -> int:
    """Paint what is not there yet; how many that were.

    A batch of which some are missing is painted whole, as the first time, so that not even its
    rounding differs; what is there stays.

    Args:
        condition: {class: embeddings (L, D) of its prompt}. batch: images at once.

    Raises:
        InputError: no batch.
    """
    if batch < 1:
        raise InputError(f"batch is {batch}: paint one image at once or more.")
    parts = [rows[first : first + batch] for first in range(0, len(rows), batch)]
    missing = [[row for row in part if not (home / row.file).is_file()] for part in parts]
    total = sum(map(len, missing))
    hidden = total <= batch
    with tqdm(total=total, desc=home.name, mininterval=1.0, disable=hidden) as bar:
        for part, wanted in zip(parts, missing, strict=True):
            if not wanted:
                continue
            words = torch.stack([condition[row.kind] for row in part])
            images = painter(words, painter.noise([row.seed for row in part]))
            for row, picture in zip(part, pictures(images), strict=True):
                if row in wanted:
                    with atomic_write(home / row.file) as path:
                        picture.save(path)
            bar.update(len(wanted))
    return total
