"""ZOOM's notebooks with the preset "pretrained", cell by cell, on models that no world knows.

The embedded generator, in an official pickle, stands in for FFHQ's, open_clip reads the embedded
encoder in the place of ViT-B-32, and the classifier, from a file, has a planted weakness for bangs.
So what is found without any world can be held against what is known.
"""

import contextlib
import io
import json
from pathlib import Path

import matplotlib.pyplot as plt
import open_clip
import pytest
from safetensors.torch import save_file

from visiondx.core.errors import InputError
from visiondx.models.encoder import Encoder
from visiondx.models.generator import StyleGenerator
from visiondx.run import notebooks
from visiondx.run.presets import settings
from visiondx.zoom import estimate
from visiondx_worlds.ground import NO_TRUTH, WORLDS
from visiondx_worlds.models.official import write_official
from visiondx_worlds.models.tiny_encoder import TINY
from visiondx_worlds.models.tokenizer import Tokenizer

TARGET = """
from visiondx.models.target import Target

def load():
    module = Target.load("young-biased-bangs").module
    return Target(module, labels=("old", "young"))

def whiskers():
    module = Target.load("cat-biased-whiskers").module
    return Target(module, labels=("dog", "cat"))

def points():
    found = Target.load("face-keypoints", "keypoints")
    return Target(found.module, "keypoints", labels=found.labels)
"""
OF_ANIMALS = ("zoom/11_cat_dog",)
OF_POINTS = ("zoom/10_keypoints_and_segmentation",)
SMALL = {
    "zoom/11_cat_dog": {
        "attributes": ["whiskers", "collar"],
        "seeds": [1, 2],
        "images": 2,
        "looked": 4,
        "multi_images": 2,
        "multi_steps": 2,
    },
    "zoom/10_keypoints_and_segmentation": {
        "attributes": ["smiling", "beard", "hat"],
        "seeds": [1, 2],
        "images": 2,
        "steps": 1,
        "multi_steps": 3,
    },
    "zoom/12_search_steps": {
        "attributes": ["bangs", "smiling", "eyeglasses"],
        "rules": ["sign"],
        "seeds": [1, 2],
        "images": 2,
        "steps": 12,
        "tuning_seeds": [0],
        "tuning_images": 2,
        "tuning_steps": 2,
        "etas": [],
        "alphas": [],
        "betas": [0.0],
        "gammas": [],
    },
    "zoom/07_multi_attribute": {
        "steps": 12,
        "grid_points": 2,
        "tuning_seeds": [0],
        "tuning_images": 1,
        "seeds": [1, 2],
        "images": 2,
        "sac_images": 2,
        "sac_steps": 2,
    },
    "zoom/08_attribute_spaces": {
        "added": ["smiling"],
        "table_steps": [4, 8],
        "steps": 8,
        "seeds": [1, 2],
        "table_images": 2,
        "images": 2,
        "pair_space": ["bangs", "smiling", "young"],
        "pair_images": 2,
        "pair_steps": 2,
        "wide_images": 4,
        "wide_steps": 1,
    },
    "zoom/06_disentanglement": {
        "attributes": ["bangs", "beard"],
        "seeds": [1, 2],
        "images": 2,
        "steps": 1,
        "tried": [[8.0, 4.0, 1.0]],
        "tuning_images": 2,
    },
    "zoom/02_single_attribute_counterfactuals": {
        "attributes": ["bangs", "smiling"],
        "images": 4,
        "steps": 1,
    },
    "zoom/03_sensitivity": {
        "attributes": ["bangs", "smiling", "young"],
        "seeds": [100, 101],
        "images": 2,
        "steps": 1,
    },
    "zoom/01_edit_directions": {
        "attributes": ["eyeglasses", "lipstick"],
        "sweep_channels": [1, 20],
        "sweep_images": 4,
        "tune_channels": [20],
        "tune_weights": [16.0],
        "tune_images": 4,
        "seeds": [100, 101],
        "images": 2,
    },
    "explore/edit_weights": {"prompts": ["bangs", "smiling"], "steps": 2, "frames": 3, "moves": 2},
}
RECORDED = {  # what must be found: (least, most)
    "zoom/11_cat_dog": {
        "h.whiskers": (0.2, 1),
        "h.collar": (0, 0.2),
        "flips.single.raw": (0.25, 1),
        "flips.multi.raw": (0, 1),
    },
    "zoom/10_keypoints_and_segmentation": {
        "keypoints.displacement_ratio": (1.1, 20),
        "keypoints.displacement_ratio.auto": (1.1, 20),
        "keypoints.flips_raw": (0, 1),
    },
    "zoom/12_search_steps": {
        "steps.raw_12.own.sign": (0.25, 1),
        "estimators.raw.auto": (0.25, 1),
    },
    "zoom/07_multi_attribute": {
        "multi.raw.own": (0.25, 1),
        "multi.flip_gain_over_any_raw.own": (-1, 1),
        "single.raw.own": (0.25, 1),
    },
    "zoom/08_attribute_spaces": {
        "table1.own.row3.raw": (0.25, 1),
        "flip.all_200": (0.25, 1),
    },
    "zoom/06_disentanglement": {
        "disentangle.clip_ratio": (1.2, 500),
        "disentangle.clip_own.own": (0.02, 0.9),
        "flips.raw.own.auto": (0, 1),
    },
    "zoom/02_single_attribute_counterfactuals": {
        "h.a face with bangs": (0.2, 1),
        "h.a smiling face": (0, 0.2),
        "seen.a face with bangs": (0, 1),
        "flip_rate.target alone": (0, 1),
    },
    "zoom/03_sensitivity": {"h.bangs": (0.2, 1), "h.smiling": (0, 0.2), "apart": (0, 1)},
    "zoom/01_edit_directions": {"edits.seen.eyeglasses": (0.5, 1), "lambda.gain.two.20": (0.2, 4)},
    "explore/edit_weights": {
        "explorer.saved_pixel_difference": (0, 0),
        "change.a face with bangs": (0.2, 1),
        "change.a smiling face": (0, 0.2),
    },
}
FIGURES = {
    "zoom/11_cat_dog": {"fig4a", "fig3", "fig8"},
    "zoom/10_keypoints_and_segmentation": {
        *("histograms", "ratios", "estimators", "own_cases", "strips"),
    },
    "zoom/12_search_steps": {
        *("raw_own", "one_path", "sweeps", "estimators", "best", "worst"),
    },
    "zoom/07_multi_attribute": {
        *("fig7_best", "fig7_worst", "weights", "visibility", "raw", "fig9"),
    },
    "zoom/08_attribute_spaces": {
        *("table1", "raw_by_steps", "best", "worst", "fig10a", "fig10b", "own_words"),
    },
    "zoom/06_disentanglement": {"fig6", "estimators", "visibility", "leaks_own"},
    "zoom/02_single_attribute_counterfactuals": {
        *("strips", "strips_median", "trajectories", "losses"),
    },
    "zoom/03_sensitivity": {"fig4a_balanced", "counterfactuals"},
    "zoom/01_edit_directions": {
        *("lambda", "lambda_by_attribute", "grid", "seen", "best_and_worst", "instant"),
    },
    "explore/edit_weights": {"sliders", "search"},
}
JUDGED = ("truth", "judged", "kept", "success", "controls", "planted")  # what a world alone tells


@pytest.fixture(autouse=True)
def _its_own_tokenizer(monkeypatch):
    monkeypatch.setattr(open_clip, "get_tokenizer", lambda _: Tokenizer.load())


@pytest.fixture(autouse=True)
def _gradients_of_few_pictures(monkeypatch):
    monkeypatch.setattr(estimate, "STYLES", 8)  # of 32: they are most of what a run takes
    monkeypatch.setattr(estimate, "SAMPLES", 1)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The parameters that name somebody's own files."""
    home = tmp_path_factory.mktemp("own")
    (home / "mine.py").write_text(TARGET)
    for world in WORLDS:
        drawn = StyleGenerator.load(world)
        drawn.network.synthesis.b4.const.data += 1e-4  # nobody has a matrix of this one
        write_official(drawn, home / f"{world}.pkl")
    weights = {k: v.contiguous() for k, v in Encoder.load().clip.state_dict().items()}
    save_file(weights, home / "encoder.safetensors")
    return {
        "generator": str(home / "faces.pkl"),
        "encoder": TINY,
        "encoder_weights": str(home / "encoder.safetensors"),
        "target": f"{home / 'mine.py'}:load",
    }


def run(name: str, given: dict, out: Path) -> tuple[dict, str]:
    """Execute the code cells of a notebook: what was recorded, and what was printed."""
    path = notebooks.find(name)
    chosen = settings(path, "pretrained", given) | {"preset": "pretrained", "out_dir": str(out)}
    found = {"display": lambda *_: None}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for cell in notebooks.read(path).cells:
            if cell.cell_type == "code":
                exec(compile(cell.source, name, "exec"), found)
            if "parameters" in cell.metadata.get("tags", []):
                found.update(chosen)
    plt.close("all")
    return json.loads((out / "metrics.json").read_text("utf-8")), printed.getvalue()


@pytest.mark.parametrize("name", SMALL)
def test_a_notebook_runs_on_models_of_ones_own(name, own, tmp_path):
    declared = notebooks.parameters(notebooks.find(name))
    given = {key: value for key, value in own.items() if key in declared}
    if name in OF_ANIMALS:
        given["generator"] = given["generator"].replace("faces.pkl", "animals.pkl")
        given["target"] = given["target"].replace(":load", ":whiskers")
    if name in OF_POINTS:
        given["target"] = given["target"].replace(":load", ":points")
    metrics, printed = run(name, given | SMALL[name], tmp_path)
    assert NO_TRUTH in printed
    for key, (least, most) in RECORDED[name].items():
        assert least <= metrics[key]["value"] <= most, (key, metrics[key])
    assert not [key for key in metrics if any(word in key for word in JUDGED)]
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == FIGURES[name]


@pytest.mark.parametrize("name", SMALL)
def test_what_is_not_named_is_asked_for(name, own):
    path = notebooks.find(name)
    with pytest.raises(InputError, match="No generator is named"):
        settings(path, "pretrained")
    if "target" not in notebooks.parameters(path):
        return
    with pytest.raises(InputError, match="never saw pictures of this generator: name your own"):
        settings(path, "pretrained", own | {"target": ""})


@pytest.mark.parametrize("name", SMALL)
def test_parameters_come_in_one_order(name):
    declared = notebooks.parameters(notebooks.find(name))
    order = ["generator", "encoder", "encoder_weights", "words"]
    assert [key for key in declared if key in order] == order
    assert declared["generator"] in WORLDS
    assert name == "zoom/01_edit_directions" or "target" in declared  # that one asks nobody
