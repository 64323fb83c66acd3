"""Pickles of NVIDIA's TensorFlow code (NVlabs/stylegan2, stylegan2-ada): a tuple (G, D, Gs).

Arrays lie as TensorFlow has them, (height, width, inputs, outputs); an upsampling convolution is
turned by 180 degrees against PyTorch's; a style's bias is kept without its 1.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.models.pickles import PickledArray, TFNetwork, values
from visiondx.models.stylegan2_weights import Weights

ONLY = "only StyleGAN2 generators are read"


def read_tf(path: str | Path, held: Any) -> Weights:
    """The weights of Gs, the averaged generator, in what ``read_pickle`` found at ``path``.

    Raises:
        InputError: not three networks, a StyleGAN1, or another architecture.
    """
    if not (isinstance(held, tuple) and len(held) == 3 and isinstance(held[2], TFNetwork)):
        raise InputError(
            f"{path} does not hold (G, D, Gs), as official TensorFlow pickles: {ONLY}."
        )
    options = vars(held[2]).get("static_kwargs")
    options = options if isinstance(options, dict) else {}
    arrays = _arrays(held[2], "")
    if "synthesis/4x4/Conv/mod_weight" not in arrays:
        raise InputError(f"{path} is a StyleGAN1 or another architecture: {ONLY}.")
    architecture = options.get("architecture") or "skip"
    if any("ToRGB_lod" in n or "/Skip/" in n for n in arrays) or architecture != "skip":
        raise InputError(
            f"{path} has an architecture other than 'skip', that of configuration F, which alone "
            "has the style space that is used here."
        )
    for name, only in (("nonlinearity", "lrelu"), ("mapping_nonlinearity", "lrelu")):
        if options.get(name) not in (None, only):
            raise InputError(f"{path} has the {name} {options[name]!r}: only {only!r} is known.")
    if list(options.get("resample_kernel") or (1, 3, 3, 1)) != [1, 3, 3, 1]:
        raise InputError(f"{path} resamples with another filter than [1, 3, 3, 1].")
    classes, clamp = options.get("label_size") or 0, options.get("conv_clamp")
    if classes and "mapping/LabelEmbed/weight" not in arrays:
        raise InputError(
            f"{path} draws {classes} classes as the first StyleGAN2 did, which is not known here: "
            "only stylegan2-ada's way is."
        )
    multiplier = options.get("mapping_lrmul")
    return Weights(
        _named(path, values(path, arrays)),
        "stylegan2 in TensorFlow",
        classes=int(classes),
        mapping_lr_multiplier=0.01 if multiplier is None else float(multiplier),
        conv_clamp=None if clamp is None else float(clamp),
    )


def _arrays(network: TFNetwork, prefix: str) -> dict[str, PickledArray | float]:
    """Variables by their full names; one without dimensions is a plain number."""
    found: dict[str, PickledArray | float] = {}
    state = vars(network)
    for name, value in state.get("variables") or ():
        if isinstance(value, PickledArray | float):
            found[prefix + name] = value
    for name, component in dict(state.get("components") or {}).items():
        if isinstance(component, TFNetwork):
            found |= _arrays(component, f"{prefix}{name}/")
    return found


def _named(path: str | Path, read: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by their official names in PyTorch."""
    tensors: dict[str, Tensor] = {}
    try:
        tensors["mapping.w_avg"] = read["dlatent_avg"]
        if "mapping/LabelEmbed/weight" in read:
            tensors["mapping.embed.weight"] = read["mapping/LabelEmbed/weight"].T
            tensors["mapping.embed.bias"] = read["mapping/LabelEmbed/bias"]
        layers = sum(n.startswith("mapping/Dense") and n.endswith("/weight") for n in read)
        for i in range(layers):
            tensors[f"mapping.fc{i}.weight"] = read[f"mapping/Dense{i}/weight"].T
            tensors[f"mapping.fc{i}.bias"] = read[f"mapping/Dense{i}/bias"]
        tensors["synthesis.b4.const"] = read["synthesis/4x4/Const/const"][0]
        size, noise = 4, 0
        while f"synthesis/{size}x{size}/ToRGB/weight" in read:
            convs = {"conv1": "Conv"} if size == 4 else {"conv0": "Conv0_up", "conv1": "Conv1"}
            for ours, theirs in {**convs, "torgb": "ToRGB"}.items():
                to, start = f"synthesis.b{size}.{ours}.", f"synthesis/{size}x{size}/{theirs}/"
                weight = read[start + "weight"]
                weight = torch.flip(weight, (0, 1)) if ours == "conv0" else weight
                tensors[to + "weight"] = weight.permute(3, 2, 0, 1)
                tensors[to + "bias"] = read[start + "bias"]
                tensors[to + "affine.weight"] = read[start + "mod_weight"].T
                tensors[to + "affine.bias"] = read[start + "mod_bias"] + 1
                if ours != "torgb":
                    tensors[to + "noise_strength"] = read[start + "noise_strength"].reshape(())
                    tensors[to + "noise_const"] = read[f"synthesis/noise{noise}"][0, 0]
                    noise += 1
            size *= 2
    except (KeyError, RuntimeError, IndexError) as error:
        raise InputError(f"{path} is another architecture (it has no {error}): {ONLY}.") from error
    return {name: value.contiguous() for name, value in tensors.items()}
