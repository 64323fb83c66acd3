"""`import visiondx as vx`: its names, imported when they are used, on anybody's objects."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import visiondx as vx
from visiondx.models import registry
from visiondx.run import cli, notebooks
from visiondx.zoom.relevance import relevance_matrix
from zoom_standins import NEUTRAL, GridClassifier, GridEncoder, GridGenerator, prompt

FAST = {"images": 4, "threshold": 0.7}
WORDS = [prompt(0), prompt(3)]
NAMES = {
    "ClassFolder", "ClassTokens", "DatasetInterface", "Diagnosis", "Encoder", "Explanation",
    "InputError", "Inversion", "LossData", "LossModel", "Painter", "Photographs", "SearchSettings",
    "Segmenter", "Sensitivity", "Shift", "ShiftedImages", "StyleGenerator", "Target", "ask_models",
    "diagnose", "embed", "explain", "measure", "project", "write_diagnosis", "write_explanation",
    "write_page", "write_report", "write_robustness",
}  # fmt: skip


def test_importing_takes_no_torch_and_names_nothing_but_the_list():
    code = "import sys, visiondx; print(*sys.modules); print(*dir(visiondx))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(Path(vx.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    modules, names = map(str.split, done.stdout.splitlines())
    assert not {"torch", "numpy", "matplotlib"} & set(modules)
    assert set(names) >= NAMES


def test_every_name_is_there():
    assert set(vx.__all__) == NAMES | {"__version__"}
    for name in NAMES:
        assert getattr(vx, name).__name__ == name
    assert vx.InputError is registry.InputError
    with pytest.raises(AttributeError, match="no attribute 'diagnos'"):
        _ = vx.diagnos


def test_a_bare_module_is_diagnosed_with_objects_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.setenv("VISIONDX_DATA", str(tmp_path))  # nothing of the repository's is needed
    monkeypatch.chdir(tmp_path)
    module, settings = GridClassifier({0: 5.0, 3: 20.0}), vx.SearchSettings(steps=3, eta=3.0)
    found = vx.diagnose(
        module, WORDS, NEUTRAL, generator=GridGenerator(), encoder=GridEncoder(),
        settings=settings, **FAST,
    )  # fmt: skip
    assert found.sensitivity.rank[0] == prompt(3)
    page = vx.write_diagnosis(found, tmp_path / "out", title="Mine")
    assert prompt(3) in page.read_text("utf-8")


def test_models_known_by_name_are_loaded(monkeypatch):
    kept = {"target": GridClassifier({3: 20.0}), "encoder": GridEncoder()}
    kept |= {"generator": GridGenerator()}
    asked = []
    monkeypatch.setattr(registry, "ask", lambda *given: asked.append(given) or kept[given[0]])
    kept["target"] = vx.Target(kept["target"])
    monkeypatch.setattr(registry, "check_name", lambda *_: None)
    M = relevance_matrix(kept["generator"], kept["encoder"], 4, cache=None)
    found = vx.diagnose("mine", WORDS, NEUTRAL, settings=vx.SearchSettings(steps=1), M=M, **FAST)
    assert found.result.attributes == tuple(WORDS)
    cpu = torch.device("cpu")
    assert asked == [("target", "mine"), ("generator", "faces"), ("encoder", "embedded", cpu)]


def test_words_are_refused_before_a_model_is_loaded(monkeypatch):
    monkeypatch.setattr(registry, "ask", lambda *given: pytest.fail(f"loaded {given}"))
    with pytest.raises(vx.InputError, match="named twice"):
        vx.diagnose("mine", ["a hat", "A hat"], "a face")
    with pytest.raises(vx.InputError, match=r"a torch\.nn\.Module or the name of one, got 3"):
        vx.diagnose(3, ["a hat"], "a face")


def test_without_a_checkout_the_embedded_models_say_what_they_need(tmp_path, monkeypatch):
    monkeypatch.setenv("VISIONDX_DATA", str(tmp_path / "none"))
    with pytest.raises(
        vx.InputError, match="the embedded models and the notebooks need a checkout"
    ):
        vx.Encoder.load()
    assert registry.kept("relevance", "a", "b") is None  # then it is computed


def test_without_a_checkout_the_command_says_where_the_notebooks_are(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    for arguments in (["list"], ["run", "diagnose"]):
        assert cli.main(arguments) == 2
        assert "run them in a checkout of visiondx" in capsys.readouterr().err


def test_embedded_names_are_known_and_others_are_not():
    for kind, name in (
        ("target", "young"),
        ("target", "young-biased-bangs@1"),
        ("encoder", "embedded"),
    ):
        registry.check_name(kind, name)
    assert registry.offered("generators") == ["animals", "faces"]
    with pytest.raises(
        vx.InputError, match=r"No target .yuong.: choose from .*young.*, or name your"
    ):
        registry.check_name("target", "yuong")
    with pytest.raises(vx.InputError, match="the encoder reads 48"):
        registry.check_texts("embedded", ["a hat", "long words " * 40])
