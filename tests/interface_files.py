"""Tiny files of real models and a folder of images, as people have them for an interface."""

import json
from pathlib import Path

import numpy as np
import open_clip
import timm
import torch
from diffusers import PNDMScheduler, StableDiffusionPipeline
from PIL import ExifTags, Image
from safetensors.torch import save_file

from painter_standins import pipeline, scheduler
from test_painter_lora import LAYERS, drawn_lora

WORDS = {"n02084071": "dog", "n03797390": "mug"}
CLIP = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def photographs(home: Path) -> None:
    """Two classes of photographs in the forms that folders hold, a broken one among them."""
    source = np.random.default_rng(0)
    for name in WORDS:
        (home / name).mkdir(parents=True)
        small = source.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        image = Image.fromarray(small).resize((37, 29), Image.Resampling.BICUBIC)
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6
        image.save(home / name / "a.JPEG", exif=exif)
        image.convert("L").save(home / name / "b.jpg")
        image.convert("P").save(home / name / "c.png", transparency=3)
        (home / name / "._a.JPEG").write_bytes(b"of macOS")
    (home / "n02084071" / "d.jpg").write_bytes(b"cut off")


def write_files(home: Path) -> None:
    """``imagenet``, two classes by synset; ``painter``, a Stable Diffusion; ``lora``, its LCM;
    ``clip``, of open_clip; ``net0`` to ``net2``, of timm, which know a third class.
    """
    photographs(home / "imagenet")
    pipe = pipeline(home / "parts", context=77)
    pipe.scheduler = scheduler(PNDMScheduler, skip_prk_steps=True)  # as SD 1.5 has it
    pipe.save_pretrained(home / "painter")
    state = drawn_lora(home / "painter", LAYERS)
    StableDiffusionPipeline.save_lora_weights(home / "lora", unet_lora_layers=state)
    (home / "clip").mkdir()
    torch.manual_seed(0)
    save_file(open_clip.CLIP(**CLIP).state_dict(), home / "clip" / "open_clip_model.safetensors")
    about = {"model_cfg": CLIP, "preprocess_cfg": {"resize_mode": "shortest"}}
    (home / "clip" / "open_clip_config.json").write_text(json.dumps(about))
    for seed in range(3):
        torch.manual_seed(seed)
        net = timm.create_model("test_resnet", num_classes=3).eval()
        told = ["n02084071", "n03797390", "n03958227"]
        net.pretrained_cfg = dict(net.pretrained_cfg, num_classes=3, label_names=told)
        timm.models.save_for_hf(net, home / f"net{seed}", safe_serialization=True)
