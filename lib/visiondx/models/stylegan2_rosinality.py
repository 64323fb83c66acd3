"""Checkpoints of rosinality/stylegan2-pytorch: the state dict ``g_ema``.

The same network under other names. Convolutions multiply their weight by 1 / sqrt(fan-in), which
only moves the epsilon of the demodulation; it is multiplied in here.
"""

import argparse
import math
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from visiondx.core.errors import InputError, reason
from visiondx.models.stylegan2_weights import Weights

FIX = "name a checkpoint of rosinality/stylegan2-pytorch, or an official network pickle"
LR_MULTIPLIER = 0.01  # of its mapping; not in the file
LAYER = {  # theirs, after the layer's name: ours
    "conv.weight": "weight",
    "conv.modulation.weight": "affine.weight",
    "conv.modulation.bias": "affine.bias",
    "noise.weight": "noise_strength",
    "activate.bias": "bias",
}
TORGB = {name: ours for name, ours in LAYER.items() if name.startswith("conv.")} | {"bias": "bias"}


def read_rosinality(path: str | Path) -> Weights:
    """The weights of ``g_ema``; ``latent_avg``, where a converted checkpoint has it, is the mean w.

    Raises:
        InputError: no checkpoint, one that holds more than weights, or of another network.
    """
    held = _load(path)
    state = held.get("g_ema") if isinstance(held, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        names = ", ".join(map(str, list(held)[:5])) if isinstance(held, dict) else type(held)
        raise InputError(f"{path} has no g_ema with weights (it holds {names}): {FIX}.")
    state = {name.removeprefix("module."): v.float() for name, v in state.items()}
    tensors: dict[str, Tensor] = {}
    try:
        _mapping(state, tensors)
        _synthesis(state, tensors)
    except (KeyError, RuntimeError) as error:
        raise InputError(f"g_ema of {path} is no StyleGAN2 (it has no {error}): {FIX}.") from error
    if state:
        raise InputError(f"g_ema of {path} is no StyleGAN2 (it has {next(iter(state))}): {FIX}.")
    if isinstance(held.get("latent_avg"), Tensor):
        tensors["mapping.w_avg"] = held["latent_avg"].float().reshape(-1)
    for name, value in tensors.items():
        if not value.isfinite().all():
            raise InputError(f"{path}: {name} has values that are not finite: {FIX}.")
    return Weights(tensors, "rosinality/stylegan2-pytorch", mapping_lr_multiplier=LR_MULTIPLIER)


def _load(path: str | Path) -> Any:
    """The checkpoint. Besides weights it holds the training's options, which are plain values."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except pickle.UnpicklingError as error:
        if "persistence" in str(error):
            raise InputError(
                f"{path} is a whole network saved by torch.save, as PTI saves its own, and holds "
                "source code: nothing of it was run; name the official pickle that it was made of."
            ) from error
        raise InputError(f"{path} is not read ({reason(error)}): {FIX}.") from error
    except Exception as error:
        raise InputError(f"{path} is not read ({reason(error)}): {FIX}.") from error


def _mapping(state: dict[str, Tensor], tensors: dict[str, Tensor]) -> None:
    layers = sum(name.startswith("style.") and name.endswith(".weight") for name in state)
    for i in range(layers):  # style.0 only normalises
        for kind in ("weight", "bias"):
            tensors[f"mapping.fc{i}.{kind}"] = state.pop(f"style.{i + 1}.{kind}")


def _synthesis(state: dict[str, Tensor], tensors: dict[str, Tensor]) -> None:
    """Take everything out of ``state`` that a generator has."""
    tensors["synthesis.b4.const"] = state.pop("input.input")[0]
    blocks = sum(name.startswith("to_rgbs.") and name.endswith(".bias") for name in state)
    blocks //= 2  # a modulation has a bias, too
    layers = [("conv1", "b4.conv1", 0)]
    rgbs = [("to_rgb1", "b4")]
    for k in range(blocks):
        block = f"b{8 << k}"
        layers += [(f"convs.{2 * k}", f"{block}.conv0", 2 * k + 1)]
        layers += [(f"convs.{2 * k + 1}", f"{block}.conv1", 2 * k + 2)]
        rgbs += [(f"to_rgbs.{k}", block)]
        for theirs, ours in (
            (f"convs.{2 * k}.conv.blur.kernel", f"{block}.conv0"),
            (f"to_rgbs.{k}.upsample.kernel", block),
        ):  # with the gain of an upsampling
            tensors[f"synthesis.{ours}.resample_filter"] = state.pop(theirs) / 4
    drawn = torch.Generator().manual_seed(0)
    for theirs, ours, i in layers:
        for name, official in LAYER.items():
            tensors[f"synthesis.{ours}.{official}"] = state.pop(f"{theirs}.{name}")
        weight = tensors[f"synthesis.{ours}.weight"][0]
        tensors[f"synthesis.{ours}.weight"] = weight / math.sqrt(weight[0].numel())
        strength = tensors[f"synthesis.{ours}.noise_strength"]
        tensors[f"synthesis.{ours}.noise_strength"] = strength.reshape(())
        size = int(ours.partition(".")[0][1:])
        noise = state.pop(f"noises.noise_{i}", None)  # early checkpoints keep none: some is drawn
        noise = torch.randn(size, size, generator=drawn) if noise is None else noise[0, 0]
        tensors[f"synthesis.{ours}.noise_const"] = noise
    for theirs, ours in rgbs:
        for name, official in TORGB.items():
            tensors[f"synthesis.{ours}.torgb.{official}"] = state.pop(f"{theirs}.{name}")
        for kind in ("weight", "bias"):
            value = tensors[f"synthesis.{ours}.torgb.{kind}"]
            tensors[f"synthesis.{ours}.torgb.{kind}"] = (
                value[0] if kind == "weight" else value.reshape(-1)
            )
