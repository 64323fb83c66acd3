"""What is wrong with the parts of a dataset interface, before a kernel starts and without torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from visiondx.core.errors import InputError
from visiondx.models import registry
from visiondx.models.painter_lora import lora_file
from visiondx.run.benchmark_checks import absolute_model, check_list
from visiondx.run.explain_checks import check_painter


def check_interface(values: Mapping[str, Any]) -> None:
    """Look at the parameters of a notebook that paints a data set's classes: {name: value}.

    Such a one has `painter`, `image_folder` and `called`, {class: what people call it}; and perhaps
    `lora`, `thresholds` and `models`. Images are counted by folder, and none is opened.

    Raises:
        InputError: for the first that could not be used.
    """
    painter, images = values.get("painter"), values.get("image_folder")
    if not isinstance(painter, str) or not isinstance(images, str) or "called" not in values:
        return
    if not painter:
        raise InputError("No painter is named: give the folder of a Stable Diffusion as painter.")
    check_painter(painter)
    if painter in registry.offered("painters"):
        for name in ("image_folder", "lora"):
            if values.get(name):
                raise InputError(
                    f"The painter {painter!r} knows the drawn worlds alone: leave out {name}, or "
                    "name the folder of a Stable Diffusion as painter."
                )
        return
    if not images:
        raise InputError(
            "The drawn classes are nothing that this painter knows: name your own images as "
            "image_folder, with a folder a class."
        )
    if not Path(images).expanduser().is_dir():
        raise InputError(f"No folder of images at {images}: check the path.")
    if values.get("lora"):
        lora_file(values["lora"])
    for shift, value in (values.get("thresholds") or {}).items():
        if not isinstance(value, int | float) or not -1 <= value <= 1:
            raise InputError(f"A threshold is a cosine, from -1 to 1, got {value!r} for {shift}.")
    if "models" in values:
        check_list(values["models"], "models")
        if not values["models"]:
            raise InputError(
                "The embedded classifiers never saw pictures of this painter: name your own as "
                'models, such as ["timm:resnet50"].'
            )
        for spec in values["models"]:
            absolute_model(spec)
