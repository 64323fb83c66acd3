"""Which files under a folder are images. Without torch: a wrong folder is refused at once."""

import os
from collections.abc import Sequence
from pathlib import Path

from visiondx.core.errors import InputError

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm"}


def files(folder: str | Path) -> list[Path]:
    """The image files under a folder, sorted by path; hidden ones are left out.

    A file without a suffix is one if it begins as an image does. A link to nothing stays in the
    list: it stands for an image that cannot be read.

    Raises:
        InputError: no such folder, or no image in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"No folder of images at {folder}: check the path.")
    found = sorted(
        path
        for path in folder.rglob("*")
        if (path.suffix.lower() in SUFFIXES or not path.suffix)
        and not any(part[0] == "." for part in path.relative_to(folder).parts)
        and (path.is_file() or (path.is_symlink() and not path.exists()))
        and (path.suffix or _begins_as_image(path))
    )
    if not found:
        raise InputError(
            f"No image in {folder}: files must end in {', '.join(sorted(SUFFIXES))}, or have no "
            "suffix and be images."
        )
    return found


def _begins_as_image(path: Path) -> bool:
    from PIL import Image

    try:
        with Image.open(path):
            return True
    except Exception:  # a decoder that does not know it
        return False


def check_there(paths: Sequence[Path]) -> None:
    """Raises InputError unless there is something at each path."""
    absent = [str(path) for path in paths if not os.path.lexists(path)]
    if absent:
        raise InputError(
            f"{len(absent)} of {len(paths)} images do not exist, such as {absent[0]}: "
            "check the paths, and the folder that they start from."
        )
