"""The embedded painter: kept in data/weights/painter in diffusers' format, vouched for by the zoo.

vae/ unet/ text_encoder/ tokenizer/ scheduler/      the teacher, as any Stable Diffusion folder
quick/unet/ quick/scheduler/                        the same painter in four steps

painter = load_painter()                            # four steps
teacher = load_painter("teacher")                   # 25 steps
"""

from __future__ import annotations

import copy
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    SchedulerMixin,
    UNet2DConditionModel,
)
from torch import nn
from transformers import AutoTokenizer, CLIPTextModel

from visiondx.core.errors import InputError
from visiondx.core.files import data_dir, reading
from visiondx.models.encoder import Encoder
from visiondx.models.painter import Painter
from visiondx_worlds.models import zoo
from visiondx_worlds.models.painter_text import text_model, text_tokenizer

FOLDER = Path("painter")  # under data/weights
PARTS = {
    "vae": (Path("vae"), AutoencoderKL),
    "text": (Path("text_encoder"), CLIPTextModel),
    "unet": (Path("unet"), UNet2DConditionModel),
    "quick": (Path("quick", "unet"), UNet2DConditionModel),
}
# painters: UNet, steps, and guidance, chosen by the judges' view of seeds 0-7
KINDS = {"quick": ("quick", 4, 6.0), "teacher": ("unet", 25, 4.0)}


def save_part(
    part: str,
    module: nn.Module,
    *,
    notebook: str,
    seed: int,
    quality: dict | None = None,
    scheduler: SchedulerMixin | None = None,
) -> Path:
    """Write a part's ``config.json``, its weights as fp16, and its manifest entry.

    Args:
        part: a key of ``PARTS``. scheduler: written beside a UNet, which was trained for it.

    Returns:
        the part's folder.

    Raises:
        InputError: a weight is not finite as fp16.
    """
    half = copy.deepcopy(module).half()
    for key, value in half.state_dict().items():
        if not value.isfinite().all():
            raise InputError(f"Tensor '{key}' of the painter's {part} does not fit fp16.")
    folder = data_dir() / "weights" / FOLDER / PARTS[part][0]
    _write(half, folder)
    if scheduler is not None:
        _write(scheduler, folder.parent / "scheduler")
    (weights,) = folder.glob("*.safetensors")
    zoo.vouch(f"painter-{part}", weights, {}, notebook=notebook, seed=seed, quality=quality or {})
    return folder


def save_words(encoder: Encoder, *, notebook: str, seed: int) -> None:
    """Write an embedded encoder's text tower and tokenizer as the painter's."""
    save_part("text", text_model(encoder), notebook=notebook, seed=seed)
    _write(text_tokenizer(encoder.tokenize), data_dir() / "weights" / FOLDER / "tokenizer")


def load_part(part: str, device: str | torch.device = "cpu") -> nn.Module:
    """A part in float32, in eval mode, without gradients for its weights.

    Raises:
        InputError: missing, altered or damaged weights.
    """
    folder = zoo.vouched(f"painter-{part}").parent
    with reading(folder, "restore it with 'git checkout data/weights'"):
        net = PARTS[part][1].from_pretrained(folder, use_safetensors=True, local_files_only=True)
    return net.float().to(device).eval().requires_grad_(False)


def load_words(
    device: str | torch.device = "cpu",
) -> tuple[CLIPTextModel, AutoTokenizer]:
    """The painter's text encoder and tokenizer. Raises InputError as ``load_part``."""
    folder = data_dir() / "weights" / FOLDER / "tokenizer"
    with reading(folder, "restore it with 'git checkout data/weights'"):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return load_part("text", device), tokenizer


def load_painter(kind: str = "quick", device: str | torch.device = "cpu") -> Painter:
    """The embedded painter of 64 px pictures.

    Args:
        kind: "quick", in the four steps that it was distilled for, or "teacher", in 25.

    Raises:
        InputError: another kind, or missing, altered or damaged weights.
    """
    zoo.choose("painter", kind, list(KINDS))
    part, steps, guidance = KINDS[kind]
    folder = data_dir() / "weights" / FOLDER / PARTS[part][0].parent / "scheduler"
    with reading(folder, "restore it with 'git checkout data/weights'"):
        scheduler = DDIMScheduler.from_pretrained(folder, local_files_only=True)
    unet = load_part(part, device)
    painter = Painter(load_part("vae", device), unet, *load_words(device), scheduler)
    painter.steps, painter.guidance = steps, guidance
    return painter


def _write(part: object, folder: Path) -> None:
    """``part.save_pretrained``, each file renamed into place."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent) as beside:
        part.save_pretrained(beside)
        for file in sorted(Path(beside).iterdir()):
            os.replace(file, folder / file.name)
