"""A classifier and a class in, a report out: the command, the notebook, what is refused."""

import ast
import contextlib
import html
import io
import json
import re
import shlex

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from diffusers import LCMScheduler
from safetensors.torch import load_file

from painter_standins import pipeline, scheduler
from segmenter_standins import clipseg
from visiondx.core.errors import InputError
from visiondx.diffexplainer import kept
from visiondx.diffexplainer.targets import open_target
from visiondx.models import registry
from visiondx.models.painter import Painter
from visiondx.run import cli, notebooks, runs
from visiondx.run.explain_checks import check_segmenter
from visiondx.run.explain_command import command_line, painted_size
from visiondx.run.presets import settings

TARGET = """
import torch
from torch import nn
from visiondx.models.target import Target

class Light(nn.Module):
    def __init__(self, rows):
        super().__init__()
        self.read = nn.Linear(1, len(rows))
        with torch.no_grad():
            self.read.weight.copy_(torch.tensor(rows)[:, None])
            self.read.bias.copy_(-self.read.weight[:, 0] / 2)

    def forward(self, images):
        return self.read(images.mean((1, 2, 3))[:, None])

def load():
    return Target(Light([-20.0, 20.0]).eval(), "multiclass", ["dark", "dog"])

def bare():
    return Light([-20.0, 0.0, 20.0]).eval()

def one():
    return Light([20.0]).eval()

def square():
    return nn.Sequential(nn.Flatten(), nn.Linear(3, 3)).eval()
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a tiny painter of 16 px in four steps, a CLIPSeg, and a target's file."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "mine.py").write_text(TARGET)
    pipe = pipeline(folder / "parts")
    pipe.scheduler = scheduler(LCMScheduler)
    pipe.save_pretrained(folder / "painter")
    clipseg(folder / "clipseg")
    return folder


@pytest.fixture
def called(monkeypatch, home):
    """The calls of ``run_notebook``, from the folder ``home``."""
    found = []
    monkeypatch.setattr(runs, "run_notebook", lambda *given: found.append(given) or home)
    monkeypatch.chdir(home)
    return found


MODELS = ["--painter", "painter", "--segmenter", "clipseg"]
MINE = ["--target", "mine.py:load", *MODELS]


# ---------------------------------------------------------------- the command


def test_options_become_the_notebooks_parameters(called, home):
    asked = ["--neuron", "read:1", "--class", "dog", "--class", "0", "--word", "0", "a night"]
    how = [
        "--template",
        "a {t} dog",
        "--tokens",
        "2",
        "--starts",
        "3",
        "--steps",
        "4",
        "--eta",
        "0.5",
    ]
    how += ["--pictures", "5", "--delta", "0.2", "--seed", "6", "--device", "cpu"]
    assert cli.main(["explain", *MINE, *asked, *how, "--out", "there"]) == 0
    ((path, preset, parameters, out),) = called
    assert path == notebooks.ROOT / "notebooks" / "explain.ipynb"
    assert (preset, out) == ("embedded", "there")
    assert parameters == {
        "target": f"{home}/mine.py:load",
        "name": "mine",
        "what": ["dog", "0", "read:1"],
        "words": {"0": "a night"},
        "template": "a {t} dog",
        "tokens": 2,
        "starts": 3,
        "steps": 4,
        "eta": 0.5,
        "pictures": 5,
        "delta": 0.2,
        "seed": 6,
        "device": "cpu",
        "painter": f"{home}/painter",
        "segmenter": f"{home}/clipseg",
    }


def test_the_command_that_is_told_asks_the_same(called, home):
    asked = ["--class", "dog - 0.5*read:0", "--neuron", "read:1", "--word", "dog", "a dog's head"]
    assert cli.main(["explain", *MINE, *asked, "--name", "m1", "--seed", "7"]) == 0
    path, preset, parameters, _ = called[0]
    values = notebooks.parameters(path) | parameters | {"preset": preset}
    told = shlex.split(command_line(values).replace("\\\n", ""))
    assert told[:2] == ["visiondx", "explain"]
    assert cli.main(told[1:]) == 0
    again = called[1][2]
    assert again.items() >= parameters.items()
    assert all(values[name] == value for name, value in again.items())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([*MINE], "Nothing is asked: name a class"),
        ([*MINE, "--class", ""], "needs words"),
        ([*MINE, "--class", "dog", "--class", "Dog"], "named twice, 'dog' and 'Dog'"),
        ([*MINE, "--class", "dogg"], "no class 'dogg': the nearest is 'dog'"),
        ([*MINE, "--class", "2"], "no class 2: choose from 0 to 1"),
        ([*MINE, "--neuron", "raed:1"], "no layer 'raed': the nearest is 'read'"),
        ([*MINE, "--neuron", "read:2"], "has channels 0 to 1"),
        ([*MINE, "--neuron", "read"], "is a layer: name one of its 2 channels"),
        ([*MINE, "--class", "dog", "--word", "cat", "dog"], "no class 'cat'"),
        ([*MINE, "--class", "dog", "--word", "dog", " "], "no word to look for, but ' '"),
        ([*MINE, "--class", "dog", "--template", "a dog"], "holds {t} 0 times"),
        ([*MINE, "--class", "dog", "--template", "{t} {t}"], "holds {t} 2 times"),
        ([*MINE, "--class", "dog", "--tokens", "0"], "'tokens' must be 1 or more"),
        ([*MINE, "--class", "dog", "--starts", "0"], "'starts' must be 1 or more"),
        ([*MINE, "--class", "dog", "--steps", "0"], "'steps' must be 1 or more"),
        ([*MINE, "--class", "dog", "--pictures", "1"], "a verdict needs two at least"),
        ([*MINE, "--class", "dog", "--delta", "5"], "between 0 and 1"),
        ([*MINE, "--class", "dog", "--eta", "0"], "eta is 0.0: give a step size above 0"),
        ([*MINE, "--class", "dog", "--seed", "-1"], "'seed' must be a whole number"),
        ([*MINE, "--class", "dog", "--device", "gpu"], "device must be cpu, cuda"),
        ([*MINE, "--class", "dog", "--name", "../x"], "--name '../x'"),
        ([*MINE, "--class", "dog", "--preset", "big"], "Unknown preset 'big'"),
        ([*MINE, "--class", "dog", "--lora", "gone.safetensors"], "There is no file"),
        (["--target", "mine.py", "--class", "1"], "names no function"),
        (["--target", "gone.py:load", "--class", "1"], "there is no file"),
        (["--target", "mine.py:lod", "--class", "1"], "no function 'lod'"),
        (["--target", "scenes-resnet", "--class", "dog"], "No target 'scenes-resnet': choose from"),
        (["--target", "mine.py:load", "--class", "1", "--painter", "gone"], "No painter 'gone'"),
        (["--target", "mine.py:load", "--class", "1", "--painter", "./gone"], "There is no folder"),
        (["--target", "mine.py:load", "--class", "1", "--painter", "clipseg"], "has no vae/"),
        ([*MINE, "--class", "1", "--segmenter", "clipsag"], "No segmenter 'clipsag': choose from"),
        (["--target", "mine.py:square", *MODELS, "--class", "1"], "failed on images of shape"),
    ],
)
def test_bad_input_is_refused_in_one_line_before_a_kernel_starts(called, capsys, arguments, named):
    assert cli.main(["explain", *arguments]) == 2
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1
    assert not called


def test_words_that_the_segmenter_does_not_know_are_told_at_once(called, capsys):
    bare = ["--target", "mine.py:bare", "--painter", "painter", "--class", "2", "--class", "1"]
    assert cli.main(["explain", *bare, "--word", "1", "dog"]) == 0
    assert capsys.readouterr().err == (
        "visiondx: the segmenter has never seen the word 'class 2', so it will not look for it: "
        "give another with --word 2 WORD.\n"
    )
    assert called


def test_the_layers_are_listed(called, capsys):
    assert cli.main(["explain", *MINE, "--layers"]) == 0
    assert capsys.readouterr().out == "read.input  1 channels\nread        2 channels\n"
    assert not called


def test_names_of_models_are_told_from_folders(home, monkeypatch):
    monkeypatch.chdir(home)
    assert check_segmenter("clipseg") == f"{home}/clipseg"
    assert check_segmenter("none") == "none"
    assert check_segmenter("IDEA-Research/grounding-dino-tiny").startswith("IDEA")
    with pytest.raises(InputError, match=r"No segmenter '\./clipsag'"):
        check_segmenter("./clipsag")
    assert painted_size(str(home / "painter")) == Painter.load(home / "painter").size == 16


# ---------------------------------------------------------------- models by name


def test_a_bare_module_has_numbered_classes(home):
    found = open_target(f"{home}/mine.py:bare", 16)
    assert found.labels == ("class 0", "class 1", "class 2")
    bright = torch.ones(1, 3, 16, 16)
    assert found(bright).argmax() == 2
    assert found(0 * bright).argmax() == 0
    assert open_target(f"{home}/mine.py:load", 16).labels == ("dark", "dog")
    assert open_target(f"{home}/mine.py:one", 16).task == "binary"
    with pytest.raises(InputError, match=r"\(1, 3, 16, 16\).*Target with the size"):
        open_target(f"{home}/mine.py:square", 16)


def test_a_painter_by_name_is_asked_for(monkeypatch):
    class Provider:
        painters = staticmethod(lambda: ["embedded"])
        painter = staticmethod(lambda name, device: (name, device))
        painter_size = staticmethod(lambda name: 64)

    monkeypatch.setattr(registry, "providers", lambda: (Provider,))
    assert Painter.load("embedded", "cpu") == ("embedded", "cpu")
    assert painted_size("embedded") == 64
    with pytest.raises(InputError, match="takes no LCM-LoRA: leave out x"):
        Painter.load("embedded", lora="x.safetensors")


# ---------------------------------------------------------------- the notebook


def executed(given: dict, out) -> None:
    """The notebook's code cells, with these parameters."""
    path = notebooks.find("explain")
    chosen = settings(path, "smoke", given) | {"preset": "smoke", "out_dir": str(out)}
    found = {"display": lambda *_: None}
    with contextlib.redirect_stdout(io.StringIO()):
        for cell in notebooks.read(path).cells:
            if cell.cell_type == "code":
                exec(compile(cell.source, "explain", "exec"), found)
            if "parameters" in cell.metadata.get("tags", []):
                found.update(chosen)
    plt.close("all")


@pytest.fixture(scope="module")
def given(home):
    return {
        "target": f"{home}/mine.py:load",
        "what": ["dog", "read:0"],
        "painter": f"{home}/painter",
        "segmenter": f"{home}/clipseg",
        "steps": 6,
        "seed": 3,
    }


@pytest.fixture(scope="module")
def run(given, tmp_path_factory):
    """The folder of a run of the notebook."""
    out = tmp_path_factory.mktemp("run")
    executed(given, out)
    return out


def test_the_notebook_explains_a_model_of_ones_own(run):
    metrics = json.loads((run / "metrics.json").read_text("utf-8"))
    assert set(metrics) == {
        *("reached.dog", "r.dog", "loss.dog", "spread.dog", "loss.read:0", "spread.read:0")
    }
    assert metrics["reached.dog"]["n"] == 4
    verdict = (run / "verdict.txt").read_text("utf-8").splitlines()
    assert len(verdict) == 2
    assert "the target takes" in verdict[0]
    page = html.unescape((run / "report.html").read_text("utf-8"))
    assert all(line in page for line in verdict)
    assert {path.stem for path in (run / "figures").iterdir()} == {
        *("words", "pictures", "masks", "search_1", "search_2")
    }


def test_the_pages_lines_of_python_make_the_same_again(run):
    page = (run / "report.html").read_text("utf-8")
    lines = html.unescape(re.findall(r"<pre><code>(import .*?)</code>", page, re.DOTALL)[0])
    ast.parse(lines)
    made = {}
    exec(lines, made)
    columns = ["aim", "reached", "p", "r", "loss"]
    first, again = pd.read_csv(run / "explanation.csv"), made["found"].to_frame()
    pd.testing.assert_frame_equal(again[columns], first[columns])


def test_a_run_that_is_killed_goes_on_to_the_same_result(given, run, tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "SAVE_SECONDS", 0.0)
    noted, note = [], kept.Kept.note

    def dies(self, rows, step, *rest):
        note(self, rows, step, *rest)
        noted.append(step)
        if step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(kept.Kept, "note", dies)
        with pytest.raises(KeyboardInterrupt):
            executed(given, tmp_path)
    assert noted == [0, 1, 2, 3]
    (file,) = (tmp_path / "kept").glob("search-*")
    assert load_file(file)["step"].tolist() == [3] * 4
    noted.clear()

    def goes_on(self, rows, step, *rest):
        noted.append(step)
        note(self, rows, step, *rest)

    monkeypatch.setattr(kept.Kept, "note", goes_on)
    executed(given, tmp_path)
    assert noted == [3, 4, 5, 6]
    for name in ("metrics.json", "explanation.csv", "verdict.txt"):
        assert (tmp_path / name).read_text() == (run / name).read_text()
