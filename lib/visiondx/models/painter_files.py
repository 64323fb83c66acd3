"""Reading a painter from a folder in the format of diffusers' ``save_pretrained``.

    vae/  unet/  text_encoder/    config.json and weights as safetensors
    tokenizer/                    of transformers
    scheduler/                    scheduler_config.json

Every Stable Diffusion 1.x or 2.x has this form; what else lies there (a safety checker, say) is
left alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visiondx.core.errors import InputError
from visiondx.core.files import reading
from visiondx.models.safe_weights import check_weights

if TYPE_CHECKING:
    import torch

PARTS = {
    "vae": ("config.json", "AutoencoderKL"),
    "unet": ("config.json", "UNet2DConditionModel"),
    "text_encoder": ("config.json", "CLIPTextModel"),
    "tokenizer": ("tokenizer_config.json", None),
    "scheduler": ("scheduler_config.json", None),
}
WEIGHTS = ("vae", "unet", "text_encoder")
# Schedulers that draw no noise of their own while they denoise, and the one whose draws are known.
STILL = (
    "DDIMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
)
LCM = "LCMScheduler"
DRAWING = ("sde-dpmsolver", "sde-dpmsolver++")  # kinds of DPMSolver that do draw


def read_painter(folder: str | Path, device: str | torch.device) -> dict[str, Any]:
    """The five parts of a painter by name, in eval mode, without gradients for their weights.

    Raises:
        InputError: a part is missing, a pickle, damaged, of another kind or does not fit another.
    """
    folder = Path(folder)
    configs = check_folder(folder)
    import diffusers
    from transformers import AutoTokenizer, CLIPTextModel

    kinds = {
        "vae": diffusers.AutoencoderKL,
        "unet": diffusers.UNet2DConditionModel,
        "text_encoder": CLIPTextModel,
    }
    parts: dict[str, Any] = {}
    for name in WEIGHTS:
        path = folder / name
        with reading(path, "save this part again with save_pretrained, or fetch it again"):
            half = not any(f for f in path.glob("*.safetensors") if ".fp16." not in f.name)
            part, told = kinds[name].from_pretrained(
                path,
                use_safetensors=True,
                variant="fp16" if half else None,
                local_files_only=True,
                output_loading_info=True,
            )
        if missing := sorted(told["missing_keys"]):  # which would be left at random
            raise InputError(
                f"{path} has no tensor {missing[0]}: save this part again with save_pretrained, or "
                "fetch it again."
            )
        parts[name] = part.float().to(device).eval().requires_grad_(False)
    with reading(folder / "tokenizer", "save it again with save_pretrained"):
        parts["tokenizer"] = AutoTokenizer.from_pretrained(
            folder / "tokenizer", local_files_only=True
        )
    with reading(folder / "scheduler", "save it again with save_pretrained"):
        kind = getattr(diffusers, configs["scheduler"]["_class_name"])
        parts["scheduler"] = kind.from_pretrained(folder / "scheduler", local_files_only=True)
    return parts


def check_folder(folder: Path) -> dict[str, dict]:
    """Refuse what cannot be a painter by its small files alone; returns each part's config.

    Raises:
        InputError: see ``read_painter``.
    """
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}: give one that save_pretrained wrote.")
    configs = {}
    for name, (file, kind) in PARTS.items():
        path = folder / name / file
        if not path.is_file():
            raise InputError(
                f"{folder} has no {name}/{file}: a painter has the parts {', '.join(PARTS)}."
            )
        with reading(path, "save this part again with save_pretrained"):
            config = json.loads(path.read_text("utf-8"))
            found = config.get("_class_name") or (config.get("architectures") or [kind])[0]
        if kind and found != kind:
            raise InputError(
                f"{folder / name} holds a {found}, but a painter needs a {kind}: give a Stable "
                "Diffusion 1.x or 2.x."
            )
        configs[name] = config
    for name in WEIGHTS:
        check_weights(folder / name)
    check_scheduler(configs["scheduler"])
    check_sizes(configs["vae"], configs["unet"], configs["text_encoder"])
    return configs


def folder_size(folder: Path) -> int:
    """Pixels of the images that a painter was trained for, by its small files alone.

    Raises:
        InputError: see ``check_folder``.
    """
    configs = check_folder(folder)
    with reading(folder, "save it again with save_pretrained"):
        halvings = len(configs["vae"]["block_out_channels"]) - 1
        return int(configs["unet"]["sample_size"]) * 2**halvings


def check_scheduler(config: dict) -> None:
    """Raise InputError for a scheduler that draws noise which cannot be given to it."""
    kind = config.get("_class_name")
    drawing = config.get("algorithm_type") in DRAWING
    if kind not in (*STILL, LCM) or drawing:
        also = f" as {config['algorithm_type']}" if drawing else ""
        raise InputError(
            f"The scheduler {kind}{also} draws its own noise or is unknown, so a picture could not "
            f"be repeated: save one of {', '.join((*STILL, LCM))} in its place."
        )


def check_sizes(vae: dict, unet: dict, text: dict) -> None:
    """Raise InputError unless the three parts' tensors fit together.

    Args:
        vae, unet, text: their configs.
    """
    pairs = (
        ("unet", "in_channels", unet, 4, "vae", "latent_channels", vae, 4),
        ("unet", "out_channels", unet, 4, "vae", "latent_channels", vae, 4),
        ("unet", "cross_attention_dim", unet, 1280, "text_encoder", "hidden_size", text, 512),
    )
    for name, key, config, usual, other, their_key, theirs, their_usual in pairs:
        one, two = config.get(key, usual), theirs.get(their_key, their_usual)
        if one != two:
            raise InputError(
                f"The {name}'s {key} is {one} and the {other}'s {their_key} is {two}: they are "
                "parts of different painters."
            )
