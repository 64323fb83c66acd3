"""dataset_interfaces/01 to 05 with the preset "pretrained", cell by cell, on files of one's own.

A Stable Diffusion with an LCM-LoRA, a CLIP of open_clip and networks of timm, all tiny and random,
and a folder of images: figures mean nothing here, but every cell has what it needs, and nothing is
recorded that a world alone could tell.
"""

import contextlib
import io
import json
import warnings

import matplotlib.pyplot as plt
import pytest
import yaml

from interface_files import WORDS, write_files
from visiondx.core.errors import InputError
from visiondx.core.files import data_dir
from visiondx.dataset_interfaces import interface as interface_module
from visiondx.dataset_interfaces.inversion import Inversion, learn_tokens
from visiondx.run import notebooks
from visiondx.run.presets import settings
from visiondx.search.descent import Descent

HOME = "dataset_interfaces/"
FEW = Inversion(batch=4, descent=Descent(2, 0.05, "adam", decay=1e-2))
DOG = next(iter(WORDS))
SMALL = {
    "01_class_tokens": {
        "shown_class": DOG,
        "shifts": ["base", "in the snow"],
        "images": 3,
        "pictures": 2,
        "lesson_images": 2,
        "lesson_steps": 2,
        "lesson_batch": 2,
    },
    "02_quality_of_counterfactuals": {
        "shifts": ["in the snow", "pencil sketch"],
        "shown": ["base", "in the snow"],
        "images": 3,
    },
    "03_filter_and_yield": {
        "shifts": ["in the snow", "yellow"],
        "shown": ["in the snow"],
        "images": 10,
    },
    "04_confounding_shift": {
        "kind": DOG,
        "states": ["with a cat", "alone"],
        "images": 3,
        "shown": 3,
    },
    "05_shift_benchmark": {"shifts": ["in the snow", "yellow"], "images": 6, "least": 1},
}
RECORDED = {  # what must be found, and of how many
    "01_class_tokens": {},
    "02_quality_of_counterfactuals": {"passes.tokens": 1, "passes.names": 1},
    "03_filter_and_yield": {"yield.base": 20, "yield.in the snow": 20, "yield.yellow": 20},
    "04_confounding_shift": {"accuracy.name.base": 3, "accuracy.token.shift": 3},
    "05_shift_benchmark": {"slope.yellow": 3, "yield.base": 12, "yield.yellow": 12},
}
TOLD = ("true", "truth", "judge", "state_match", "error", "precision", "recall", "selected")


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The parameters that name somebody's own files."""
    home = tmp_path_factory.mktemp("own")
    write_files(home)
    models = [f"timm:local-dir:{home / f'net{seed}'}" for seed in range(3)]
    return {
        "painter": str(home / "painter"),
        "lora": str(home / "lora"),
        "encoder": f"local-dir:{home / 'clip'}",
        "encoder_weights": "",
        "image_folder": str(home / "imagenet"),
        "called": WORDS,
        "thresholds": {"in the snow": -1.0, "yellow": -1.0, "pencil sketch": -1.0},
        "models": models,
        "classifier": models[0],
        "kept": str(home / "kept"),
    }


def given(name: str, own: dict, **more: object) -> dict:
    """Of a person's files those that a notebook asks for."""
    declared = notebooks.parameters(notebooks.find(HOME + name))
    return {key: value for key, value in own.items() if key in declared} | more


@pytest.mark.parametrize("name", SMALL)
def test_a_notebook_runs_on_files_of_ones_own(name, own, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(
        interface_module,
        "learn_tokens",
        lambda painter, data, _, **more: learn_tokens(painter, data, FEW, **more),
    )
    path = notebooks.find(HOME + name)
    chosen = settings(path, "pretrained", given(name, own, **SMALL[name]))
    cells, printed = {"display": lambda *_: None}, io.StringIO()
    with contextlib.redirect_stdout(printed), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "1 of 7 images", UserWarning)
        for cell in notebooks.read(path).cells:
            if cell.cell_type == "code":
                exec(compile(cell.source, name, "exec"), cells)
            if "parameters" in cell.metadata.get("tags", []):
                cells.update(chosen | {"preset": "pretrained", "out_dir": str(tmp_path)})
    plt.close("all")
    metrics = json.loads((tmp_path / "metrics.json").read_text("utf-8"))
    print(name, metrics)
    assert cells["interface"].painter.distilled
    assert cells["interface"].classes == tuple(WORDS)
    assert {key: metrics[key]["n"] for key in RECORDED[name]} == RECORDED[name]
    assert not [key for key in metrics if any(word in key for word in TOLD)]
    assert (tmp_path / "figures").is_dir()


@pytest.mark.parametrize("name", SMALL)
def test_what_is_not_named_is_asked_for(name, own) -> None:
    path, full = notebooks.find(HOME + name), given(name, own)
    with pytest.raises(InputError, match="No painter is named"):
        settings(path, "pretrained")
    for lacking, said in (
        ({"image_folder": ""}, "name your own images as image_folder"),
        ({"image_folder": "nowhere"}, "No folder of images at nowhere"),
        ({"models": []}, r"never saw pictures of this painter: name your own as models"),
        ({"models": ["timm:local-dir:nowhere"]}, r"no config\.json of timm"),
        ({"lora": "nowhere"}, "nowhere"),
        ({"thresholds": {"in the snow": 21}}, "A threshold is a cosine, from -1 to 1, got 21"),
    ):
        if set(lacking) <= set(full):
            with pytest.raises(InputError, match=said):
                settings(path, "pretrained", full | lacking)
    for more in ({"image_folder": own["image_folder"]}, {"lora": own["lora"]}):
        with pytest.raises(InputError, match="'embedded' knows the drawn worlds alone: leave out"):
            settings(path, "embedded", more)


def test_the_presets_thresholds_belong_to_its_encoder() -> None:
    """Table 1's are of this CLIP alone, so each of these notebooks names it."""
    preset = yaml.safe_load((data_dir() / "presets" / "pretrained.yaml").read_text("utf-8"))
    for name in SMALL:
        chosen = preset["notebooks"][HOME + name]
        assert (chosen["encoder"], chosen["encoder_weights"]) == ("ViT-H-14", "laion2b_s32b_b79k")
