"""Weights are read from safetensors alone: a pickle could run any code."""

from __future__ import annotations

from pathlib import Path

from visiondx.core.errors import InputError

PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")


def check_weights(folder: Path) -> None:
    """Raise InputError unless a model's folder holds safetensors; a pickle is named."""
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES)
    if pickles:
        raise InputError(
            f"{folder} holds {pickles[0]}, a pickle, which could run any code: have its weights "
            "saved as safetensors (save_pretrained does so)."
        )
    raise InputError(f"{folder} holds no weights: a file *.safetensors belongs there.")
