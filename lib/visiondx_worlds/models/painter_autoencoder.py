"""The painter's autoencoder in data/weights: kept in diffusers' format, vouched for by the zoo."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from diffusers import AutoencoderKL

from visiondx.core.errors import InputError
from visiondx.core.files import data_dir, reading
from visiondx_worlds.models import zoo

NAME = "painter-vae"  # in the zoo
FOLDER = Path("painter", "vae")  # under data/weights


def save_autoencoder(
    net: AutoencoderKL, *, notebook: str, seed: int, quality: dict | None = None
) -> Path:
    """Write ``config.json`` and the weights as fp16, and the manifest entry; returns the folder.

    Raises:
        InputError: a weight is not finite as fp16.
    """
    half = copy.deepcopy(net).half()
    for key, value in half.state_dict().items():
        if not value.isfinite().all():
            raise InputError(f"Tensor '{key}' of the autoencoder does not fit fp16.")
    folder = data_dir() / "weights" / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent) as beside:
        half.save_pretrained(beside)
        for file in sorted(Path(beside).iterdir()):
            os.replace(file, folder / file.name)
    weights = folder / "diffusion_pytorch_model.safetensors"
    zoo.vouch(NAME, weights, {}, notebook=notebook, seed=seed, quality=quality or {})
    return folder


def load_autoencoder(device: str | torch.device = "cpu") -> AutoencoderKL:
    """The embedded autoencoder in float32 and eval mode.

    Raises:
        InputError: missing, altered or damaged weights.
    """
    folder = zoo.vouched(NAME).parent
    with reading(folder, "restore it with 'git checkout data/weights'"):
        net = AutoencoderKL.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    return net.float().to(device).eval().requires_grad_(False)
