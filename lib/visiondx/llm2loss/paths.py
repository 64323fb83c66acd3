"""Image files: those that names stand for, and the classes of a labelled folder.

Without torch, so that what is not there is refused at once.
"""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath

from visiondx.core.errors import InputError
from visiondx.models.image_files import SUFFIXES, files

SHOWN = 5  # rows named in a message


def labelled(folder: str | Path) -> tuple[tuple[str, ...], list[Path], list[int]]:
    """A folder ``<class>/<image>``: the classes, sorted by name, the files, and the class of each.

    Raises:
        InputError: no such folder, an image that lies in no class's folder, fewer than two classes.
    """
    folder, found = Path(folder), files(folder)
    parts = [path.relative_to(folder).parts for path in found]
    loose = [str(path) for path, own in zip(found, parts) if len(own) < 2]
    if loose:
        raise InputError(
            f"{len(loose)} of {len(found)} images lie in no class's folder, such as {loose[0]}: "
            f"sort them as {folder}/<class>/<image>."
        )
    classes = tuple(sorted({own[0] for own in parts}))
    if len(classes) < 2:
        raise InputError(
            f"All {len(found)} images of {folder} are in one class's folder, {classes[0]!r}: give "
            "a folder with one for each class."
        )
    index = {name: k for k, name in enumerate(classes)}
    return classes, found, [index[own[0]] for own in parts]


def locate(folder: Path, names: Sequence[str]) -> list[Path]:
    """The files of images that are named from a folder; a name may lack its image's suffix.

    Raises:
        InputError: an empty name.
    """
    empty = [str(row) for row, name in enumerate(names) if not name.strip()]
    if empty:
        raise InputError(
            f"{len(empty)} of {len(names)} rows name no image ({some(empty)}): name one, or drop "
            "these rows."
        )
    listed: dict[Path, dict[str, list[Path]]] = {}

    def file(name: str) -> Path:
        path = folder / name
        if path.suffix.lower() in SUFFIXES or os.path.lexists(path):
            return path
        if path.parent not in listed:
            stems = listed[path.parent] = {}
            for other in path.parent.iterdir() if path.parent.is_dir() else ():
                if other.suffix.lower() in SUFFIXES:
                    stems.setdefault(other.stem, []).append(other)
        found = listed[path.parent].get(path.name, [])
        return found[0] if len(found) == 1 else path

    return [file(name) for name in names]


def match(images: Sequence[str], names: Sequence[str], folder: str | None) -> list[int]:
    """Which image each name stands for.

    A name is an image's path, from its folder or as it is, or the end of that path; it may lack the
    suffix.

    Raises:
        InputError: a name of no image or of several, or an image that is named twice.
    """
    parts = [PurePath(image) for image in images]
    ends: dict[str, list[int]] = {}
    for index, path in enumerate(parts):
        for end in {path.name, path.stem}:
            ends.setdefault(end, []).append(index)
    root = None if folder is None else PurePath(folder)

    def found(name: str) -> int:
        wanted = PurePath(name)
        length = len(wanted.parts)
        near = [
            i
            for i in ends.get(wanted.name, [])
            if wanted.parts in (parts[i].parts[-length:], parts[i].with_suffix("").parts[-length:])
        ]
        if len(near) > 1:  # the one that is called so from the folder
            whole = {wanted} if root is None else {wanted, root / wanted}
            near = [i for i in near if whole & {parts[i], parts[i].with_suffix("")}] or near
        if len(near) != 1:
            which = "no image" if not near else f"{len(near)} images, such as {images[near[0]]}"
            raise InputError(
                f"The loss of {name!r} belongs to {which}: name each image by its path."
            )
        return near[0]

    rows = [found(str(name)) for name in names]
    for row, count in Counter(rows).most_common(1):
        if count > 1:
            raise InputError(f"Image {images[row]} has {count} losses: give it one.")
    return rows


def some(rows: list[str]) -> str:
    return ", ".join(rows[:SHOWN]) + (", ..." if len(rows) > SHOWN else "")
