"""The LLM2Loss notebooks with the pretrained backend, cell by cell, on a tiny CelebA-shaped folder.

open_clip reads the embedded encoder from a file in the place of ViT-B-32, so that every line runs.
"""

import json

import matplotlib.pyplot as plt
import open_clip
import pytest
from safetensors.torch import save_file

from celeba_standin import write_celeba
from visiondx.core.errors import InputError
from visiondx.models.encoder import Encoder
from visiondx.run import notebooks
from visiondx_worlds.models.tiny_encoder import TINY
from visiondx_worlds.models.tokenizer import Tokenizer

SMALL = {
    "01_train_the_loss_model": {},
    "02_semantic_ood": {"train_images": 60, "heads": ["linear"], "vectors": 20, "world_images": 8},
    "03_ranking_images": {"resamples": 2, "shown": 4},
    "04_comparing_sentences": {"pairs": {"faces": 30}, "images": 4},
    "05_bias_per_attribute": {"phrasings": 2, "resamples": 2},
    "06_how_reliable_is_the_encoder": {"phrasings": 2, "resamples": 2},
}
# what they record, and the least that the planted weakness must bring; None asks for nothing
RECORDED = {
    "01_train_the_loss_model": ("train.ranker.spearman", 0.6),
    "02_semantic_ood": ("ood.auroc.chosen", None),
    "03_ranking_images": ("ranking.ranker.spearman", 0.6),
    "04_comparing_sentences": ("pairs.sign_accuracy", 0.6),
    "05_bias_per_attribute": ("bias.ranker_loss.pearson", 0.9),
    "06_how_reliable_is_the_encoder": ("reliability.spearman", None),
}
RECOGNISER = """
import torch
from torch import nn
from visiondx.models.target import Target

class Blinded(nn.Module):
    # eyeglasses make it take everyone for a seventh person, whom nothing shows
    def __init__(self):
        super().__init__()
        self.eyeglasses = Target.load("eyeglasses")

    def forward(self, images):
        seen = self.eyeglasses(images)
        return torch.stack([*[0 * seen] * 6, 5 * seen], 1)

def load():
    return Target(Blinded(), "multiclass", labels=tuple("1234567"))
"""


@pytest.fixture(autouse=True)
def _its_own_tokenizer(monkeypatch):
    monkeypatch.setattr(open_clip, "get_tokenizer", lambda _: Tokenizer.load())


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The parameters that say where CelebA, a recogniser and the encoder are."""
    root = write_celeba(tmp_path_factory.mktemp("own"), images=300, size=(64, 64))
    (root / "mine.py").write_text(RECOGNISER)
    weights = {k: v.contiguous() for k, v in Encoder.load().clip.state_dict().items()}
    save_file(weights, root / "encoder.safetensors")
    return {
        "root": str(root),
        "recogniser": f"{root / 'mine.py'}:load",
        "encoder_name": TINY,
        "encoder_weights": str(root / "encoder.safetensors"),
        "kept": str(root / "kept"),
    }


def run(name, given):
    """Execute the code cells of a notebook with these parameters."""
    path = notebooks.find(f"llm2loss/{name}")
    assert set(given) <= set(notebooks.parameters(path))
    cells = [cell for cell in notebooks.read(path).cells if cell.cell_type == "code"]
    found = {"display": lambda *_: None}
    for cell in cells:
        exec(compile(cell.source, name, "exec"), found)
        if "parameters" in cell.metadata.get("tags", []):
            found.update(given)
    plt.close("all")


@pytest.mark.parametrize("name", SMALL)
def test_a_notebook_runs_on_celeba(name, own, tmp_path):
    sizes = {"train_images": 160, "test_images": 120}
    declared = notebooks.parameters(notebooks.find(f"llm2loss/{name}"))
    given = {key: value for key, value in sizes.items() if key in declared}
    given |= {"backend": "pretrained", "seed": 1, "out_dir": str(tmp_path), **own, **SMALL[name]}
    run(name, given)
    metrics = json.loads((tmp_path / "metrics.json").read_text("utf-8"))
    key, least = RECORDED[name]
    assert least is None or metrics[key]["value"] > least, metrics[key]
    assert key in metrics
    assert not [key for key in metrics if "scenes" in key or "control" in key]


@pytest.mark.parametrize("name", SMALL)
def test_a_notebook_says_what_is_missing(name, tmp_path):
    given = {"backend": "pretrained", "out_dir": str(tmp_path), "kept": str(tmp_path / "kept")}
    with pytest.raises(InputError, match="needs CelebA and a recogniser: set root to the folder"):
        run(name, given)
    assert not (tmp_path / "kept").exists()
    with pytest.raises(InputError, match="No backend 'real': choose embedded or pretrained"):
        run(name, given | {"backend": "real"})
