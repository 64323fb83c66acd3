"""diffexplainer/03 with the preset "pretrained", cell by cell, on models in official formats.

A Stable Diffusion with an LCM-LoRA, a Grounding DINO with a SAM and a network of torchvision, all
tiny and random: verdicts mean nothing here, but every cell has what it needs and no truth is told.
"""

import contextlib
import io
import json

import matplotlib.pyplot as plt
import pytest
import torch
from diffusers import LCMScheduler, StableDiffusionPipeline
from PIL import Image

from painter_standins import pipeline, scheduler
from segmenter_standins import grounding_dino, sam
from test_painter_lora import drawn_lora
from visiondx.core.errors import InputError
from visiondx.run import notebooks
from visiondx.run.presets import settings

NAME = "diffexplainer/03_spurious_features"
TARGET = """
import torch
from torchvision.models import resnet18
from visiondx.models.target import Target

def load():
    torch.manual_seed(0)
    labels = ["cat", "dog", "hat"]
    return Target(resnet18(num_classes=3).eval(), "multiclass", labels, size=(32, 32))
"""
SMALL = {"steps": 1, "starts": 2, "noises": 1, "held": 1, "k": 3, "pictures": 2, "ranked": 2}


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The parameters that name somebody's own files."""
    home = tmp_path_factory.mktemp("own")
    (home / "mine.py").write_text(TARGET)
    pipe = pipeline(home / "parts")
    pipe.scheduler = scheduler(LCMScheduler)
    pipe.save_pretrained(home / "painter")
    state = drawn_lora(home / "painter", ["to_q", "to_v"])
    StableDiffusionPipeline.save_lora_weights(home / "lora", unet_lora_layers=state)
    for name in ("dog", "hat"):
        (home / "images" / name).mkdir(parents=True)
        for number in range(3):
            values = torch.randint(0, 256, (20, 24, 3), dtype=torch.uint8).numpy()
            Image.fromarray(values).save(home / "images" / name / f"{number}.png")
    return {
        "painter": str(home / "painter"),
        "lora": str(home / "lora"),
        "target": f"{home / 'mine.py'}:load",
        "image_folder": str(home / "images"),
        "segmenter": str(grounding_dino(home / "dino")),
        "masks": str(sam(home / "sam")),
    }


def test_the_notebook_runs_on_models_of_ones_own(own, tmp_path) -> None:
    path = notebooks.find(NAME)
    given = own | SMALL | {"look_for": {"hat": "snow"}}
    chosen = settings(path, "pretrained", given) | {"out_dir": str(tmp_path)}
    cells, printed = {"display": lambda *_: None}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        for cell in notebooks.read(path).cells:
            if cell.cell_type == "code":
                exec(compile(cell.source, NAME, "exec"), cells)
            if "parameters" in cell.metadata.get("tags", []):
                cells.update(chosen)
    plt.close("all")
    metrics = json.loads((tmp_path / "metrics.json").read_text("utf-8"))
    assert metrics["features"]["value"] == 2 * 3
    assert metrics["share.unknown"]["n"] == 6
    assert 0 <= metrics["reached"]["value"] <= 1
    assert not [name for name in metrics if "truth" in name or "control" in name]
    assert [name for name in metrics if name.startswith("agreement")] == ["agreement.delta"]
    assert "there are verdicts and no truth" in printed.getvalue()
    found = cells["found"]["own"]
    assert found.words == ("dog", "snow")
    assert found.images.shape == (2, 3, 2, 3, 16, 16)
    assert torch.isfinite(found.r).all()
    assert {each.stem for each in (tmp_path / "figures").iterdir()} == {"features_0", "features_1"}


def test_what_is_not_named_is_asked_for(own) -> None:
    path = notebooks.find(NAME)
    with pytest.raises(InputError, match="No painter is named"):
        settings(path, "pretrained")
    with pytest.raises(InputError, match="never saw pictures of this painter: name your own"):
        settings(path, "pretrained", own | {"target": ""})
