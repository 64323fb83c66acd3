"""The notebook on hard prompts with the preset "pretrained", on a tiny Stable Diffusion's files."""

import contextlib
import io
import json
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from diffusers import LCMScheduler

from painter_standins import pipeline, scheduler
from visiondx.run import notebooks
from visiondx.run.presets import settings

TARGET = """
import torch
from visiondx.models.target import Target

class Brightness(torch.nn.Module):
    def forward(self, images):
        light = 20 * (images.mean((1, 2, 3)) - 0.5)
        return torch.stack([-light, light, 0 * light], 1)

def load():
    return Target(Brightness().eval(), "multiclass", ["dark", "dog, hound", "neither"])
"""
SMALL = {
    "template": "a {t}",
    "starts": 2,
    "steps": 2,
    "noises": 1,
    "held": 2,
    "pictures": 2,
    "shortlist": 3,
    "tried_noises": 2,
}


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The parameters that name somebody's own files."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "mine.py").write_text(TARGET)
    pipe = pipeline(folder / "parts")
    pipe.scheduler = scheduler(LCMScheduler)
    pipe.save_pretrained(folder / "painter")
    return {"painter": str(folder / "painter"), "target": f"{folder / 'mine.py'}:load"}


def run(given: dict, out: Path) -> tuple[dict, str, dict]:
    """Execute the code cells: what was recorded, printed, and left as variables."""
    path = notebooks.find("diffexplainer/04_hard_prompts")
    chosen = settings(path, "pretrained", given) | {"preset": "pretrained", "out_dir": str(out)}
    left = {"display": lambda *_: None}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for cell in notebooks.read(path).cells:
            if cell.cell_type == "code":
                exec(compile(cell.source, str(path), "exec"), left)
            if "parameters" in cell.metadata.get("tags", []):
                left.update(chosen)
    plt.close("all")
    return json.loads((out / "metrics.json").read_text("utf-8")), printed.getvalue(), left


def test_words_for_ones_own_classifier(own, tmp_path):
    metrics, printed, left = run(own | SMALL, tmp_path)
    assert "3 classes of" in printed
    assert left["classes"] == ["dark", "dog, hound", "neither"]
    # all whole words of its tokenizer, without the class's own
    assert set(left["words"].texts) == set("abcdefghijklmnopqrstuvwxyz")
    found = left["found"][own["target"]]
    for way in ("drawn", "projected", "soft, read"):
        assert {word for e in found[way].words for s in e for word in s} <= set(left["words"].texts)
    assert set(metrics) == {
        *("loss.drawn", "loss.projected", "loss.soft", "loss.soft, read", "hard.words"),
        "loss.drawn, then tried",
    }
    assert metrics["hard.words"]["value"] == 26
    # of each class three words were tried, and the one of the least loss is painted
    likelihood, losses = found["drawn"].likelihood, left["losses"][own["target"]]
    for row, (told,) in enumerate(zip(left["titles"]["drawn, then tried"], strict=True)):
        three = [left["words"].texts[at] for at in likelihood[row].topk(3).indices.tolist()]
        assert told == min(three, key=lambda w: losses[row, left["every"].texts.index(w)])
    figures = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert figures == {"temperature", "losses", "fig_8"}
    again, _, _ = run(own | SMALL, tmp_path)  # from what it kept
    assert again == metrics


def test_several_words_and_a_list_to_choose_from(own, tmp_path):
    among = {"among": ["a", "b", "dog", "c"], "without": ["c"], "tokens": 2, "classes": ["dark"]}
    metrics, _, left = run(own | SMALL | among, tmp_path)
    assert left["words"].texts == ("a", "b", "dog")  # the dog is not explained here
    (row,) = left["titles"]["drawn"]
    assert len(row.split()) == 2
    assert metrics["hard.words"]["value"] == 3
    assert not left["losses"]  # pairs of words are not tried
