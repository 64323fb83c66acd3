"""What is wrong with the question of a benchmark, before a kernel starts and without torch."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from visiondx.core.errors import InputError
from visiondx.run.explain_checks import DEVICES

EMBEDDED = "embedded"  # in the place of a folder: pictures that the notebook draws


def check_benchmark(values: Mapping[str, Any]) -> None:
    """Look at the parameters of a notebook that measures models on a folder: {name: value}.

    The folder is listed, no image of it is opened, and no model is loaded.

    Raises:
        InputError: for the first that could not be used.
    """
    if not isinstance(values.get("images"), str) or "models" not in values:
        return
    check_list(values["models"], "models")
    if values["images"] != EMBEDDED:
        if not values["models"]:
            raise InputError('No model is named: give models, such as ["timm:resnet50"].')
        from visiondx.dataset_interfaces.shifted_images import ShiftedImages  # and NumPy

        ShiftedImages.read(values["images"], values["shifts"], values["masks"])
    elif values["masks"]:
        raise InputError(
            f"The pictures that are drawn here have no filter: leave out {values['masks']!r}, or "
            "name a folder of images."
        )
    for name in ("least", "batch"):
        if values[name] < 1:
            raise InputError(f"Parameter {name!r} must be 1 or more, got {values[name]}.")
    if values["device"] and not re.fullmatch(DEVICES, values["device"]):
        raise InputError(f"device must be cpu, cuda, cuda:1 or mps, got {values['device']!r}.")


def check_list(names: Any, what: str) -> None:
    """Raise InputError for what is no list of words, and for a word that is named twice."""
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"{what} must be a list of names, got {name!r} in it.")
        if names.count(name) > 1:
            raise InputError(f"{name!r} is named twice in {what}: name it once.")


def absolute_model(spec: str) -> str:
    """A model's name, with the path of its folder or file made absolute.

    Raises:
        InputError: no such file or function, or a name that nobody knows.
    """
    from visiondx.run.checks import check_target

    kind, _, rest = spec.partition(":")
    if kind == "timm" and rest.startswith("local-dir:"):
        folder = Path(rest.removeprefix("local-dir:")).expanduser().resolve()
        if not (folder / "config.json").is_file():
            raise InputError(f"Model {spec!r}: there is no config.json of timm in {folder}.")
        return f"timm:local-dir:{folder}"
    if kind in ("timm", "torchvision"):
        if not rest:
            raise InputError(f"Model {spec!r} names none: write {kind}:resnet50, for example.")
        return spec
    return check_target(spec, "multiclass", "scenes")
