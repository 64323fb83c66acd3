"""An LCM-LoRA: low-rank changes of a UNet's weights that make a painter of few steps out of it.

Each changed layer has two matrices, A (r, inputs) and B (outputs, r), and W becomes
W + (alpha / r) B A: the file is a hundredth of the model's size. It is read and added once, and
then the UNet is an ordinary one. Source: Luo et al. 2023, LCM-LoRA; Hu et al. 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from visiondx.core.errors import InputError
from visiondx.core.files import reading
from visiondx.models.safe_weights import PICKLES

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel
    from torch import Tensor

USUAL_NAME = "pytorch_lora_weights.safetensors"
FIX = "give an LCM-LoRA made for this painter, in the form of diffusers or kohya"


def lora_file(path: str | Path) -> Path:
    """The file that holds an LCM-LoRA: `path` itself, or the one in the folder `path`.

    Raises:
        InputError: no such file, several to choose from, or a pickle.
    """
    path = Path(path)
    found = path
    if path.is_dir():
        files = sorted(path.glob("*.safetensors")) or sorted(
            file for file in path.iterdir() if file.suffix in PICKLES
        )
        if not files:
            raise InputError(f"The folder {path} holds no LCM-LoRA: {USUAL_NAME} belongs there.")
        named = [file for file in files if file.name == USUAL_NAME]
        if len(files) > 1 and not named:
            names = ", ".join(file.name for file in files)
            raise InputError(f"The folder {path} holds {names}: give the path of one of them.")
        found = (named or files)[0]
    if not found.is_file():
        raise InputError(f"There is no file {path}: give an LCM-LoRA's, {USUAL_NAME} as a rule.")
    if found.suffix in PICKLES:
        raise InputError(
            f"{found} is a pickle, which could run any code: have the LCM-LoRA saved as "
            "safetensors (save_lora_weights does so)."
        )
    return found


def fuse_lora(unet: UNet2DConditionModel, file: Path) -> None:
    """Add an LCM-LoRA's changes to a UNet's weights, in place.

    Args:
        file: see ``lora_file``.

    Raises:
        InputError: damaged, no plain LoRA, one that changes a text encoder too, or one of another
            model.
    """
    from diffusers import StableDiffusionPipeline
    from safetensors import safe_open

    with reading(file, FIX):
        with safe_open(file, "pt") as content:
            names = list(content.keys())
        if not any("lora" in name for name in names):
            raise InputError(
                f"{file} holds no LoRA, but {names[0] if names else 'nothing'}: {FIX}."
            )
        if any("dora_scale" in name for name in names):  # diffusers would leave its scales out
            raise InputError(f"{file} is a DoRA and no plain LoRA: {FIX}.")
        state, alphas, metadata = StableDiffusionPipeline.lora_state_dict(
            str(file.parent),
            weight_name=file.name,
            use_safetensors=True,
            local_files_only=True,
            return_lora_metadata=True,
        )
        check_lora(unet, state, file)
        unet.load_lora_adapter(
            state, prefix="unet", network_alphas=alphas, metadata=metadata, adapter_name="lcm"
        )
        unet.fuse_lora(safe_fusing=True)
        unet.unload_lora()


def check_lora(unet: UNet2DConditionModel, state: dict[str, Tensor], file: Path) -> None:
    """Refuse what diffusers would leave out with a warning, or find out too late.

    Args:
        state: tensors in diffusers' names.

    Raises:
        InputError: a tensor of another part, of a layer that the UNet has not, of other size, or
            without its other half; the first is named.
    """
    from diffusers.utils import convert_unet_state_dict_to_peft

    others = [name for name in state if not name.startswith("unet.")]
    if any(name.startswith("text_encoder") for name in others):
        raise InputError(
            f"{file} changes the text encoder too ({len(others)} tensors), which no LCM-LoRA does: "
            "save its UNet part alone."
        )
    if others:
        raise InputError(f"{file} holds {others[0]}, which is no LoRA of a UNet: {FIX}.")
    pairs = convert_unet_state_dict_to_peft(
        {name.removeprefix("unet."): value for name, value in state.items()}
    )
    layers, ranks = dict(unet.named_modules()), {}
    for name, value in pairs.items():
        layer, _, kind = name.removesuffix(".weight").rpartition(".lora_")
        weight = getattr(layers.get(layer), "weight", None)
        if kind not in ("A", "B") or weight is None:
            raise InputError(
                f"{file} is an LCM-LoRA of another model: it has {name}, for which this UNet has "
                "no layer."
            )
        r = value.shape[0 if kind == "A" else 1]
        ranks.setdefault(layer, {})[kind] = r
        # B of a convolution is 1 x 1, A has its kernel
        fits = (r, *weight.shape[1:]) if kind == "A" else (len(weight), r, *[1] * (weight.ndim - 2))
        if value.shape != fits:
            raise InputError(
                f"{file} is an LCM-LoRA of another model: {name} is {_times(value.shape)}, and "
                f"this UNet's layer would need {_times(fits)}."
            )
    for layer, found in ranks.items():
        if found.get("A") != found.get("B"):
            raise InputError(f"{file} is damaged: {layer} has not two matrices of one rank: {FIX}.")


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
