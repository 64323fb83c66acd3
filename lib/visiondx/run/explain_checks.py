"""What is wrong with the question of an explanation, before a kernel starts and without torch."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from visiondx.core.errors import InputError
from visiondx.diffexplainer.question import check_counts, check_question, check_template
from visiondx.models import registry
from visiondx.models.painter_files import check_folder
from visiondx.models.painter_lora import lora_file

COUNTS = ("tokens", "starts", "noises", "held", "batch")
NOBODY = "none"  # in a segmenter's place: nobody looks for the object
DEVICES = r"cpu|mps|cuda(:\d+)?"


def check_explanation(values: Mapping[str, Any]) -> None:
    """Look at the parameters of a notebook that explains: {name: value}.

    Raises:
        InputError: for the first that could not be used.
    """
    if "what" not in values or "template" not in values:
        return
    check_question(values["what"], values["words"])
    check_template(values["template"])
    for name in COUNTS:
        if values[name] < 1:
            raise InputError(f"Parameter {name!r} must be 1 or more, got {values[name]}.")
    if not values["eta"] > 0:
        raise InputError(f"eta is {values['eta']}: give a step size above 0, such as 0.01.")
    check_counts(values["pictures"], values["delta"])
    check_painter(values["painter"])
    if values["lora"]:
        if values["painter"] in registry.offered("painters"):
            raise InputError(
                f"The painter {values['painter']!r} takes no LCM-LoRA: leave out "
                f"{values['lora']!r}, or name the folder of a Stable Diffusion as painter."
            )
        lora_file(values["lora"])
    check_segmenter(values["segmenter"])
    if values["device"] and not re.fullmatch(DEVICES, values["device"]):
        raise InputError(f"device must be cpu, cuda, cuda:1 or mps, got {values['device']!r}.")


def check_painter(spec: str) -> str:
    """The absolute path of a painter's folder, or the name of an embedded painter.

    The small files of a folder are read, its weights are not.

    Raises:
        InputError: no such folder or name, or a folder that holds no painter.
    """
    folder = Path(spec).expanduser()
    if "/" not in spec and not folder.is_dir():
        registry.check_name("painter", spec)
        return spec
    check_folder(folder.resolve())
    return str(folder.resolve())


def check_segmenter(spec: str) -> str:
    """The absolute path of a segmenter's folder, the name of one, or "none".

    Raises:
        InputError: neither an embedded one, nor a folder, nor a name with its maker's.
    """
    if spec == NOBODY or spec in registry.offered("segmenters"):
        return spec
    folder = Path(spec).expanduser()
    if folder.is_dir():
        return str(folder.resolve())
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", spec) or spec.startswith("."):
        known = ", ".join([*registry.offered("segmenters"), NOBODY])
        raise InputError(
            f"No segmenter {spec!r}: choose from {known}, or give a folder or a model's name such "
            "as CIDAS/clipseg-rd64-refined."
        )
    return spec
