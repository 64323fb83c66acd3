"""The weights of a generator by their official names, and what a `Generator` of them is.

Every format of files is brought to `Weights`, with names as in stylegan2-ada-pytorch, such as
"synthesis.b4.conv1.noise_const". From there on there is one way, `finish`.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from visiondx.core.errors import InputError, reason
from visiondx.models.stylegan2 import Generator, normalize_2nd_moment, resample_filter

FILTER = "resample_filter"


@dataclass
class Weights:
    """What a file holds of a generator.

    Attributes:
        tensors: by official names, float32; filters and ``mapping.w_avg`` may be missing.
        source: whose format it is, such as "stylegan2-ada-pytorch".
        classes: of a conditional network, whose mapping has an ``embed``; else 0.
    """

    tensors: dict[str, Tensor]
    source: str
    classes: int = 0
    mapping_lr_multiplier: float = 0.01
    conv_clamp: float | None = None


def finish(
    path: str | Path, found: Weights, class_index: int | None
) -> tuple[dict[str, Tensor], dict[str, object]]:
    """(tensors, settings) for ``Generator``: of one class, complete, and of config F.

    Args:
        path: to be named in messages.

    Raises:
        InputError: no class, or a class that there is not; tensors of another architecture.
    """
    check_class(path, found.classes, class_index)
    tensors = dict(found.tensors)
    try:
        if found.classes:
            _choose_class(tensors, class_index, found.mapping_lr_multiplier)
        settings = _settings(tensors)
    except (KeyError, ValueError, RuntimeError, IndexError) as error:
        why = f"it has no {error}" if isinstance(error, KeyError) else reason(error)
        raise _other(path, why) from error
    settings |= {"mapping_lr_multiplier": found.mapping_lr_multiplier}
    settings |= {} if found.conv_clamp is None else {"conv_clamp": found.conv_clamp}
    wanted = Generator(**settings).state_dict()
    for name in wanted:
        if name.endswith(FILTER):
            stored = tensors.setdefault(name, resample_filter())
            if stored.shape != (4, 4) or not torch.allclose(stored, resample_filter(), atol=1e-6):
                raise InputError(
                    f"{path} resamples with another filter than [1, 3, 3, 1] ({name}): only that "
                    "one is known here."
                )
    extra = sorted(set(tensors) - set(wanted))
    lacks = sorted(set(wanted) - set(tensors) - {"mapping.w_avg"})
    if extra or lacks:
        raise _other(path, f"it {'has' if extra else 'lacks'} {(extra or lacks)[0]}")
    for name, value in tensors.items():
        if value.shape != wanted[name].shape:
            shapes = f"{tuple(value.shape)}, not {tuple(wanted[name].shape)}"
            raise _other(path, f"the shape of {name} is {shapes}")
    return tensors, settings


def check_class(path: str | Path, classes: int, class_index: int | None) -> None:
    """Raise InputError unless ``class_index`` is one of them; None where there are none."""
    if not classes and class_index is not None:
        raise InputError(f"{path} knows no classes: leave out class {class_index!r}.")
    whole = isinstance(class_index, int) and not isinstance(class_index, bool)
    if classes and class_index is None:
        raise InputError(
            f"{path} draws {classes} classes: choose one from 0 to {classes - 1}, by class_index "
            "of StyleGenerator.open or by 'visiondx convert --class'."
        )
    if classes and not (whole and 0 <= class_index < classes):
        raise InputError(
            f"{path} has no class {class_index!r}: choose one from 0 to {classes - 1}."
        )


def _choose_class(tensors: dict[str, Tensor], k: int, lr_multiplier: float) -> None:
    """Make a conditional mapping that of class ``k``: its embedding y goes into the first bias.

    The official fc0 reads [z, y], both normalised, so its part of y is the same for every z.
    """
    weight, bias = tensors.pop("mapping.embed.weight"), tensors.pop("mapping.embed.bias")
    y = weight[:, k].double() / math.sqrt(weight.shape[1]) + bias.double()
    y = normalize_2nd_moment(y)
    first = tensors["mapping.fc0.weight"].double()
    inputs = first.shape[1]
    on_z, on_y = first.split([inputs - len(y), len(y)], dim=1)
    # gains: lr / sqrt(inputs) of the weight, which will be lr / sqrt(z_dim), and lr of the bias
    tensors["mapping.fc0.weight"] = (on_z * math.sqrt(on_z.shape[1] / inputs)).float()
    moved = tensors["mapping.fc0.bias"].double() + on_y @ y / math.sqrt(inputs)
    tensors["mapping.fc0.bias"] = moved.float()


def _settings(tensors: dict[str, Tensor]) -> dict[str, object]:
    """Arguments of ``Generator``, as the shapes tell them."""
    first = tensors["mapping.fc0.weight"]
    layers = sum(n.startswith("mapping.fc") and n.endswith(".weight") for n in tensors)
    last = tensors[f"mapping.fc{layers - 1}.weight"]
    channels, resolution = {}, 4
    while f"synthesis.b{resolution}.conv1.weight" in tensors:
        channels[resolution] = len(tensors[f"synthesis.b{resolution}.conv1.weight"])
        resolution *= 2
    if first.shape[1] < 1:
        raise ValueError("an empty z")
    if not channels:
        raise KeyError("synthesis.b4.conv1.weight")
    return {
        "z_dim": first.shape[1],
        "w_dim": len(last),
        "channels": channels,
        "mapping_layers": layers,
        "mapping_width": len(first),
    }


def _other(path: str | Path, why: str) -> InputError:
    return InputError(
        f"{path} is no StyleGAN2 of configuration F with RGB images ({why}): only those are read."
    )
