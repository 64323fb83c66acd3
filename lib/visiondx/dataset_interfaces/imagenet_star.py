"""The filter of ImageNet*, as its authors release it: ``masks.npy``, beside a folder a shift.

The file is a pickled dictionary ``{shift: uint8 (N,)}``: whether each image of the shift passed, in
torchvision's order of an ``ImageFolder`` (classes by name, each class's files by name; 50 images of
1,000 classes). It is read as data: nothing but arrays may be in it.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from visiondx.core.errors import InputError
from visiondx.models.pickles import FIX, PickledArray, read_saved_object


def read_masks(path: str | Path) -> dict[str, np.ndarray]:
    """What passed: (N,) bool of each shift.

    Raises:
        InputError: no such file, one that holds code, or anything but a 0 or 1 for each image.
    """
    path = Path(path)
    found = read_saved_object(path)
    if not isinstance(found, dict) or not found:
        raise InputError(
            f"{path} holds a {type(found).__name__}, not a dictionary of masks by shift: {FIX}."
        )
    return {_name(path, name): _mask(path, name, mask) for name, mask in found.items()}


def _name(path: Path, name: object) -> str:
    if not isinstance(name, str):
        raise InputError(f"{path} has a mask of {name!r}, which is no shift's name: {FIX}.")
    return name


def _mask(path: Path, name: str, mask: object) -> np.ndarray:
    values = None
    if isinstance(mask, PickledArray):
        try:
            values = mask.array()
        except (TypeError, ValueError, AttributeError):  # of objects, or cut short
            values = None
    if values is None or values.ndim != 1 or values.dtype.kind not in "bui":
        raise InputError(
            f"{path}: the mask of {name!r} is no row of numbers, an image each: {FIX}."
        )
    if not np.isin(values, (0, 1)).all():
        raise InputError(
            f"{path}: the mask of {name!r} has values from {values.min()} to {values.max()}: 0 and "
            "1 alone say which images passed."
        )
    return values.astype(bool)


def check_masks(
    path: str | Path, masks: Mapping[str, np.ndarray], images: Mapping[str, int], every: bool
) -> None:
    """Raise InputError unless the masks are those of these folders.

    Args:
        images: how many each shift's folder has. every: these are all folders that there are, so
            that a mask without one is of an unknown shift, too.
    """
    for name, count in images.items():
        if name not in masks:
            near = get_close_matches(name, masks, 3) or sorted(masks)[:3]
            raise InputError(
                f"{path} has no mask of the shift {name!r}, but of {', '.join(map(repr, near))}: "
                "rename the folder, or leave it out."
            )
        if len(masks[name]) != count:
            raise InputError(
                f"{path}: the mask of {name!r} is {len(masks[name])} long, and its folder has "
                f"{count} images: it was made of others."
            )
    strange = [name for name in masks if name not in images]
    if every and strange:
        raise InputError(
            f"{path} has masks of {len(strange)} unknown shifts, such as {strange[0]!r}, which "
            "have no folder: unpack these as well, or name the shifts that are wanted (--shifts)."
        )
