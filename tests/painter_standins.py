"""A tiny randomly initialised Stable Diffusion in the official format."""

import json
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    LCMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from visiondx.models.painter import Painter

CONTEXT = 12
_BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def scheduler(kind: type = DDIMScheduler, **settings: object) -> object:
    """As Stable Diffusion 1.x's, of any kind."""
    still = {"clip_sample": False, "set_alpha_to_one": False} if kind is DDIMScheduler else {}
    return kind(num_train_timesteps=1000, steps_offset=1, **_BETAS, **still, **settings)


def tokenizer(folder: Path, context: int = CONTEXT) -> CLIPTokenizer:
    """Letters and a few whole words; padded with its end, as OpenAI's is."""
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    pieces = [*letters, *(f"{c}</w>" for c in letters), "do", "dog</w>", "<|startoftext|>"]
    vocabulary = {piece: k for k, piece in enumerate([*pieces, "<|endoftext|>"])}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\nd o\ndo g</w>\n")
    files = str(folder / "vocab.json"), str(folder / "merges.txt")
    return CLIPTokenizer(*files, model_max_length=context)


def pipeline(
    folder: Path, told: int | None = None, seed: int = 0, context: int = CONTEXT
) -> StableDiffusionPipeline:
    """Images of 16 px out of 8 x 8 x 4 latents.

    Args:
        folder: for the tokenizer's files. told: the UNet's ``time_cond_proj_dim``. context: tokens
            of a prompt, of which most letters are one each.
    """
    torch.manual_seed(seed)
    words = tokenizer(folder / "words", context)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        sample_size=16,
        scaling_factor=0.18,
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(8, 16),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
        time_cond_proj_dim=told,
    )
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=context,
            bos_token_id=words.bos_token_id,
            eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
        )
    )
    with torch.no_grad():  # the ordinary start makes words matter too little to be seen
        text.embeddings.token_embedding.weight.normal_()
    pipe = StableDiffusionPipeline(
        vae, text, words, unet, scheduler(), None, None, requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def lcm_painter(folder: Path) -> Painter:
    """The pipeline's parts as a painter of four steps."""
    pipe = pipeline(folder)
    parts = pipe.vae, pipe.unet, pipe.text_encoder, pipe.tokenizer
    return Painter(*parts, scheduler(LCMScheduler))
