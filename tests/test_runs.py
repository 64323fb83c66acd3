"""Running, recording and storing, on small notebooks in a small house of their own."""

import base64
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from visiondx.core.errors import InputError
from visiondx.models import registry
from visiondx.models.generator import StyleGenerator
from visiondx.run import checks, cli, folders, notebooks, presets, runs
from visiondx.zoom.estimate import CHOICES
from visiondx.zoom.templates import BANKS

PARAMETERS = (
    'preset = "smoke"\nout_dir = "runs/x"\nseed = 7\nimages = 64\nrate = 0.5\nwords = ["a"]'
)
WORK = (
    "import json, os, sys, pathlib\n"
    "values = dict(preset=preset, seed=seed, images=images, rate=rate, words=words)\n"
    "values |= dict(cwd=os.getcwd(), python=sys.executable)\n"
    'pathlib.Path(out_dir, "seen.json").write_text(json.dumps(values))'
)


def make(path, *code, tagged=PARAMETERS, title="# A small one"):
    cells = [new_markdown_cell(title)]
    if tagged is not None:
        cells.append(new_code_cell(tagged, metadata={"tags": ["parameters"]}))
    notebook = new_notebook(cells=cells + [new_code_cell(source) for source in code])
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def too_long(encoder, texts):
    assert encoder == "small"
    if long := [text for text in texts if len(text) > 30]:
        raise InputError(f"{long[0]!r} is too long.")


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A repository with notebooks/sub/small.ipynb and two presets."""
    presets = tmp_path / "data" / "presets"
    presets.mkdir(parents=True)
    (presets / "smoke.yaml").write_text(
        "defaults: {seed: 3, unheard_of: 1}\nnotebooks:\n  sub/small: {images: 4}\n"
    )
    (presets / "pretrained.yaml").write_text("requires: [backend]\ndefaults: {backend: real}\n")
    monkeypatch.setenv("VISIONDX_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    offers = {"targets": ["young"], "generators": ["faces"], "encoders": ["small"]}
    provider = SimpleNamespace(**{kind: lambda *_, n=names: n for kind, names in offers.items()})
    provider.check_texts = too_long
    monkeypatch.setattr(registry, "providers", lambda: (provider,))
    make(tmp_path / "notebooks" / "sub" / "small.ipynb", WORK, "1 + 1")
    return tmp_path


def test_a_run_gets_preset_values_then_those_given(house, monkeypatch):
    monkeypatch.chdir(house.parent)  # the working directory of the person is not the kernel's
    out = runs.run_notebook("sub/small", "smoke", {"rate": 2, "words": ["b", "c"]})
    assert out == house / "runs" / "sub" / "small" / "smoke"
    seen = json.loads((out / "seen.json").read_text())
    assert seen == {
        "preset": "smoke",
        "seed": 3,
        "images": 4,
        "rate": 2,
        "words": ["b", "c"],
        "cwd": str(house),
        "python": sys.executable,
    }
    run = json.loads((out / "run.json").read_text())
    assert (run["notebook"], run["preset"], run["seed"]) == ("sub/small", "smoke", 3)
    assert run["status"] == "complete"
    assert run["versions"]["numpy"] == np.__version__
    executed = nbformat.read(out / "executed.ipynb", as_version=4)
    assert executed.cells[-1].outputs[0].data["text/plain"] == "2"
    assert "A small one" in (out / "report.html").read_text("utf-8")
    assert sorted(run["files"]) == ["executed.ipynb", "report.html", "seen.json"]
    assert {p.name for p in out.iterdir()} == {*run["files"], "run.json", ".lock"}
    assert 'out_dir = "runs/sub/small/smoke"' in executed.cells[2].source  # where it is now


def test_a_notebooks_own_report_is_kept(house):
    own = 'import pathlib; pathlib.Path(out_dir, "report.html").write_text("my own")'
    make(house / "notebooks" / "own.ipynb", own)
    out = runs.run_notebook("own", "smoke", out=house / "elsewhere")
    assert out == house / "elsewhere"
    assert (out / "report.html").read_text() == "my own"


def test_a_failing_cell_leaves_what_ran_and_tells_why(house):
    path = make(house / "notebooks" / "bad.ipynb", "print('before')", "left = 0\n1 / left")
    failed = house / "runs" / "bad" / "smoke" / "failed_run"
    with pytest.raises(runs.RunError) as caught:
        runs.run_notebook(path, "smoke")
    message = str(caught.value)
    assert "bad.ipynb failed" in message
    assert "ZeroDivisionError: division by zero" in message
    assert "1 / left" in message
    assert "\x1b" not in message
    assert message.endswith(f"What ran until then: {failed / 'executed.ipynb'}")
    assert "before" in (failed / "executed.ipynb").read_text()
    assert json.loads((failed / "run.json").read_text())["status"] == "failed"
    assert {p.name for p in failed.parent.iterdir()} == {"failed_run", ".lock"}


KEEPING = """
import pathlib
kept = pathlib.Path(out_dir, "kept")
kept.mkdir(exist_ok=True)
pathlib.Path(out_dir, f"seen{images}.csv").write_text(" ".join(p.name for p in kept.iterdir()))
(kept / str(images)).touch()
1 / images
"""


def test_only_a_whole_run_takes_the_place_of_the_earlier_one(house):
    make(house / "notebooks" / "small.ipynb", KEEPING)
    out = runs.run_notebook("small", "smoke", {"images": 4}, house / "out")
    (out / "mine.txt").write_text("a person's own")
    before = {p.name: p.read_bytes() for p in out.iterdir() if p.is_file()}
    tagged = PARAMETERS.replace("images = 64", "images = 0")  # its own default is not looked at
    make(house / "elsewhere" / "small.ipynb", KEEPING, tagged=tagged)
    with pytest.raises(runs.RunError, match="ZeroDivisionError"):
        runs.run_notebook(house / "elsewhere" / "small.ipynb", "smoke", out=out)
    assert {p.name: p.read_bytes() for p in out.iterdir() if p.is_file()} == before
    assert (out / "failed_run" / "seen0.csv").read_text() == "4"
    assert {p.name for p in (out / "kept").iterdir()} == {"4", "0"}
    runs.run_notebook("small", "smoke", {"images": 5}, out)
    assert set((out / "seen5.csv").read_text().split()) == {"4", "0"}
    assert {p.name for p in (out / "kept").iterdir()} == {"4", "0", "5"}
    assert not (out / "seen4.csv").exists()  # the earlier run's
    assert not (out / "failed_run").exists()
    assert (out / "mine.txt").read_text() == "a person's own"


def test_an_interrupted_run_leaves_the_earlier_one(house, monkeypatch, capsys):
    out = runs.run_notebook("sub/small", "smoke")

    def interrupted(path, executed, injected, manager):
        executed.write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "_execute", interrupted)
    assert cli.main(["run", "sub/small", "--preset", "smoke"]) == 130
    assert "failed_run" in capsys.readouterr().err
    assert json.loads((out / "run.json").read_text())["status"] == "complete"
    assert (out / "failed_run" / "executed.ipynb").read_text() == "half"


def test_one_run_at_a_time_works_in_a_folder(house, capsys):
    out = house / "out"
    with folders.claimed(out) as work:
        (work / "half").write_text("")
        assert cli.main(["run", "sub/small", "--preset", "smoke", "--out", str(out)]) == 2
        assert f"(process {os.getpid()})" in capsys.readouterr().err
        assert (work / "half").exists()


def test_what_a_killed_run_left_is_taken_over(house):
    killed = house / "out" / "unfinished_run"
    (killed / "kept").mkdir(parents=True)
    (killed / "kept" / "long work").touch()
    (killed / "half").touch()
    (house / "out" / ".lock").write_text("1\n")  # a process that runs, but holds no lock
    out = runs.run_notebook("sub/small", "smoke", out=house / "out")
    assert (out / "kept" / "long work").exists()
    assert (out / ".lock").read_text() == f"{os.getpid()}\n"
    assert not list(out.rglob("half"))


def test_a_record_cannot_name_files_outside_of_its_folder(house):
    (house / "mine").touch()
    out = house / "out"
    out.mkdir()
    (out / "run.json").write_text(json.dumps({"files": ["../mine", str(house / "mine"), 3]}))
    runs.run_notebook("sub/small", "smoke", out=out)
    assert (house / "mine").exists()


@pytest.mark.parametrize("inside", ["", "below"])
def test_a_folder_that_cannot_be_written_is_refused_in_one_line(house, capsys, inside):
    (house / "file").touch()
    out = house / "file" / inside
    assert cli.main(["run", "sub/small", "--preset", "smoke", "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert "cannot be written to" in error
    assert error.count("\n") == 1


def test_bad_input_in_a_cell_stays_one_sentence(house, capsys):
    raising = (
        "class InputError(ValueError): pass\nraise InputError('the prompt is empty: say more')"
    )
    make(house / "notebooks" / "bad.ipynb", raising)
    assert cli.main(["run", "bad", "--preset", "smoke"]) == 2
    assert capsys.readouterr().err == "visiondx: the prompt is empty: say more\n"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (
            ["sub/small", "--preset", "huge"],
            "Unknown preset 'huge': choose one of pretrained, smoke",
        ),
        (["sub/small", "--preset", "smoke", "-p", "image", "3"], "Unknown parameter 'image'"),
        (["sub/small", "--preset", "smoke", "-p", "images", "many"], "'images' must be int"),
        (["sub/small", "--preset", "smoke", "-p", "images", "True"], "'images' must be int"),
        (["sub/small", "--preset", "smoke", "-p", "words", "a"], "'words' must be list"),
        (["sub/small", "--preset", "smoke", "-p", "preset", "x"], "use --preset"),
        (["sub/small", "--preset", "smoke", "-p", "out_dir", "x"], "use --out"),
        (["sub/small", "--preset", "smoke", "-p", "images", "1"], "'images' must be 2 or more"),
        (["sub/small", "--preset", "smoke", "-p", "seed", "-1"], "from 0 to 9223372036854775807"),
        (["sub/small", "--preset", "smoke", "-p", "seed", f"{2**63}"], "a whole number from 0"),
        (["sub/small", "--preset", "smoke", "-p", "rate", "1e999"], "'rate' must be finite"),
        (["broken", "--preset", "smoke"], "the cell tagged 'parameters' is not Python"),
        (["sub/small", "--preset", "pretrained"], "no such parameter"),
        (["sub/tall", "--preset", "smoke"], "No notebook 'sub/tall'"),
        (["untagged", "--preset", "smoke"], "no cell tagged 'parameters'"),
        (["sub/small", "--preset", "smoke", "--store"], "show embedded or full runs"),
    ],
)
def test_bad_settings_are_one_line_before_anything_runs(house, capsys, arguments, named):
    make(house / "notebooks" / "untagged.ipynb", "1", tagged=None)
    make(house / "notebooks" / "broken.ipynb", "1", tagged="images = = 3")
    assert cli.main(["run", *arguments]) == 2
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1
    assert not (house / "runs").exists()


def test_parameters_are_read_as_python_reads_them(tmp_path):
    source = 'words = [\n    "a = b",  # c = d\n]\nn: int = 3\nother = n + 1\nnothing = None'
    source = f"%matplotlib inline\n!ls\n{source}"
    path = make(tmp_path / "n.ipynb", tagged=source)
    expected = {"words": ["a = b"], "n": 3, "other": ..., "nothing": None}
    assert notebooks.parameters(path) == expected


def test_values_are_read_in_the_type_of_the_default(tmp_path):
    path = make(tmp_path / "n.ipynb", tagged='name = "a"\nn = 1\nwords = ["a"]\nany = None')
    read = [
        ("name", "2024_01_05", "2024_01_05"),
        ("name", "None", "None"),
        ("name", "'a'", "'a'"),
        ("n", "1_000", 1000),
        ("words", '["a b", "c"]', ["a b", "c"]),
        ("any", "2024_01_05", "2024_01_05"),
        ("any", "None", None),
        ("any", '["a"]', ["a"]),
        ("any", "a hat", "a hat"),
        ("unknown", "3", 3),
    ]
    for name, text, value in read:
        assert presets.read_values(path, {name: text}) == {name: value}


def test_directions_are_those_of_the_estimators():
    assert checks.DIRECTIONS == CHOICES
    assert checks.TEMPLATES == BANKS


def test_list_shows_names_titles_and_usable_presets(house, capsys):
    assert cli.main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["sub/small", "smoke", "A", "small", "one"]
    assert len(lines) == 2


def with_diagnose(house):
    """The house with a notebook of the parameters that a diagnosis has."""
    (house / "data" / "presets" / "embedded.yaml").write_text("{}")
    words = 'target = "young"\nattributes = ["a"]\nneutral = None\nconsistency = None'
    words += '\nphotographs = ""\ntruncation = 1.0\ntask = "binary"'
    names = 'name = ""\ngenerator = "faces"\nencoder = "small"\ndirections = "relevance"'
    tagged = f"{PARAMETERS}\nsteps = 4\nclass_index = None\n{words}\n{names}"
    make(house / "notebooks" / "diagnose.ipynb", tagged=tagged)


def test_diagnose_passes_words_on_and_makes_the_target_absolute(house, monkeypatch, capsys):
    with_diagnose(house)
    calls = []
    monkeypatch.setattr(runs, "run_notebook", lambda *given: calls.append(given) or Path("out"))
    monkeypatch.setattr(cli, "_try_target", lambda values: None)
    (house / "my model.py").write_text("def load(): ...")
    monkeypatch.chdir(house)
    words = ["--attributes", "a face with bangs", "a smiling face", "--images", "8"]
    assert cli.main(["diagnose", "--target", "my model.py:load", *words]) == 0
    path, preset, parameters, out = calls[0]
    assert path == house / "notebooks" / "diagnose.ipynb"
    assert preset == "embedded"
    assert out == house / "runs" / "diagnose" / "my-model"
    assert parameters == {
        "target": f"{house}/my model.py:load",
        "name": "my-model",
        "attributes": ["a face with bangs", "a smiling face"],
        "images": 8,
        "directions": "auto",  # the command never computes a matrix unasked
    }
    assert capsys.readouterr().out.endswith("Done: out/report.html\n")
    (house / "out").mkdir()
    (house / "out" / "verdict.txt").write_text("No attribute is named: “bangs”.\n", "utf-8")
    (house / "out" / "projection.txt").write_text("Left out: 6.png; another picture.\n", "utf-8")
    how = ["--name", "y1", "--directions", "gradient", "--out", "there", "--class", "3"]
    assert cli.main(["diagnose", "--target", "young", *words, *how]) == 0
    assert calls[1][2]["target"] == "young"
    assert calls[1][2]["directions"] == "gradient"
    assert calls[1][2]["name"] == "y1"
    assert calls[1][2]["class_index"] == 3
    assert calls[1][3] == "there"
    told = "report.html\n\nLeft out: 6.png; another picture.\n\nNo attribute is named: “bangs”.\n"
    assert capsys.readouterr().out.endswith(told)


YOUNG = ["--target", "young", "--attributes"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--target", "young", "--attributes"], "--attributes is empty"),
        (["--target", "gone.py:load", "--attributes", "a"], "there is no file"),
        (["--target", "gone.py", "--attributes", "a"], "names no function"),
        (["--target", "old", "--attributes", "a"], "No target 'old': choose from young, or name"),
        (["--target", "mine.py:laod", "--attributes", "a"], "has no function 'laod'"),
        (["--target", "half.py:load", "--attributes", "a"], "the file is not Python"),
        ([*YOUNG, "a hat", "A  hat "], "named twice, 'a hat' and 'A  hat '"),
        ([*YOUNG, "a hat", ""], "needs words"),
        ([*YOUNG, "a face", "--neutral", "A face"], "both the neutral prompt"),
        ([*YOUNG, "a", "--consistency", "b"], "takes two prompts"),
        ([*YOUNG, "a", "--consistency", "b", "B"], "consistency are named twice"),
        ([*YOUNG, "a" * 31], "too long"),
        ([*YOUNG, "a", "--neutral", "b" * 31], "too long"),
        ([*YOUNG, "a", "--consistency", "b", "c" * 31], "too long"),
        ([*YOUNG, "a", "--generator", "dogs"], "No generator 'dogs': choose from faces, or name"),
        ([*YOUNG, "a", "--images", "1"], "'images' must be 2 or more"),
        ([*YOUNG, "a", "--images", "0"], "'images' must be 2 or more"),
        ([*YOUNG, "a", "--images", "-3"], "'images' must be 2 or more"),
        ([*YOUNG, "a", "--steps", "0"], "'steps' must be 1 or more"),
        ([*YOUNG, "a", "--seed", "-3"], "'seed' must be a whole number"),
        ([*YOUNG, "a", "--truncation", "0"], "'truncation' must be above 0, at most 1"),
        (["--target", "young", "--attributes", "a", "--name", "../x"], "--name '../x'"),
    ],
)
def test_diagnose_refuses_bad_input_in_one_line(house, capsys, monkeypatch, arguments, named):
    monkeypatch.chdir(house)
    monkeypatch.setattr(runs, "_execute", lambda *_: pytest.fail("a kernel was started"))
    with_diagnose(house)
    (house / "mine.py").write_text("def load(): ...")
    (house / "half.py").write_text("def load(:")
    assert cli.main(["diagnose", *arguments]) == 2
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1


def test_a_target_answers_before_a_kernel_starts(house, capsys, monkeypatch):
    monkeypatch.chdir(house)
    monkeypatch.setattr(runs, "_execute", lambda *_: pytest.fail("a kernel was started"))
    with_diagnose(house)
    drawn = SimpleNamespace(
        sample_styles=lambda n, seed, truncation=1.0: torch.full((n, 1), float(seed)),
        synthesize=lambda s: torch.rand(
            len(s), 3, 8, 8, generator=torch.Generator().manual_seed(0)
        ),
    )
    monkeypatch.setattr(StyleGenerator, "load", lambda name: drawn)
    lines = (
        "from torch import nn\ndef load(): return nn.Sequential(nn.Flatten(), nn.Linear(192, 5))"
    )
    (house / "wide.py").write_text(f"{lines}.eval()")
    (house / "fails.py").write_text("def load(): raise ValueError('no weights')")
    for name, told in (("wide", "it returned (4, 5)"), ("fails", "no weights")):
        given = ["--target", f"{name}.py:load", "--attributes", "a"]
        assert cli.main(["diagnose", *given]) == 2
        assert told in capsys.readouterr().err
    wide = {"generator": "faces", "target": f"{house}/wide.py:load"}
    with pytest.raises(InputError, match=r"it returned \(4, 5\)"):  # a notebook may have no seed
        cli._try_target(wide | {"task": "binary"})
    cli._try_target(wide)  # nor say of what task a target is: it finds that out itself


def test_the_module_runs_as_a_command():
    done = subprocess.run(
        [sys.executable, "-m", "visiondx.run.cli", "run", "no_such"],
        env={"PYTHONPATH": str(Path(runs.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("visiondx: No notebook 'no_such'")


# ---------------------------------------------------------------- record and figure


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def executed_copy(source, target, outputs):
    """As papermill leaves it: one more cell, and outputs under the last."""
    notebook = nbformat.read(source, as_version=4)
    injected = new_code_cell("seed = 1", metadata={"tags": ["injected-parameters"]})
    notebook.cells.insert(2, injected)
    notebook.cells[-1].outputs = outputs
    notebook.cells[-1].execution_count = 9
    nbformat.write(notebook, target)
    return target


def test_stored_outputs_are_slim_and_go_stale_with_any_edit(house):
    source = house / "notebooks" / "sub" / "small.ipynb"
    smooth = np.linspace(0, 255, 200 * 200 * 3).reshape(200, 200, 3)
    noisy = (smooth + np.random.default_rng(0).normal(0, 9, smooth.shape)).clip(0, 255)
    data = {"image/png": png(noisy.astype(np.uint8)), notebooks.WIDGET: {"model_id": "x"}}
    bar = {notebooks.WIDGET: {"model_id": "y"}, "text/plain": "search:   0%|          | 0/8"}
    outputs = [
        new_output("display_data", data=bar),
        new_output("display_data", data=data),
        new_output("stream", name="stderr", text="12% of a progress bar"),
        new_output("stream", name="stdout", text=f"wrote {house}/runs/x"),
    ]
    executed = executed_copy(source, house / "executed.ipynb", outputs)
    assert not notebooks.is_stale(notebooks.read(source))  # nothing stored, nothing stale
    notebooks.store(executed, source, "embedded")

    stored = notebooks.read(source)
    assert [c.source for c in stored.cells] == ["# A small one", PARAMETERS, WORK, "1 + 1"]
    picture, text = stored.cells[-1].outputs
    assert Image.open(io.BytesIO(base64.b64decode(picture.data["image/png"]))).mode == "P"
    assert len(picture.data["image/png"]) < len(data["image/png"]) / 2
    assert notebooks.WIDGET not in picture.data
    assert text.text == "wrote runs/x"
    assert stored.metadata.visiondx.preset == "embedded"
    assert not notebooks.is_stale(stored)
    stored.cells[0].source += " edited"
    assert notebooks.is_stale(stored)


def test_outputs_of_other_cells_are_not_stored(house):
    source = house / "notebooks" / "sub" / "small.ipynb"
    executed = executed_copy(source, house / "executed.ipynb", [])
    make(source, "something else")
    with pytest.raises(InputError, match="changed while it ran"):
        notebooks.store(executed, source, "embedded")


def test_outputs_over_a_megabyte_are_refused_and_the_source_kept(house):
    source = house / "notebooks" / "sub" / "small.ipynb"
    before = source.read_bytes()
    huge = new_output("stream", name="stdout", text="x" * notebooks.SIZE_LIMIT)
    executed = executed_copy(source, house / "executed.ipynb", [huge])
    with pytest.raises(InputError, match=r"1\.0 MB"):
        notebooks.store(executed, source, "embedded")
    assert source.read_bytes() == before


def test_a_real_run_stores_its_outputs(house, capsys):
    (house / "data" / "presets" / "embedded.yaml").write_text("defaults: {seed: 100}\n")
    assert cli.main(["run", "sub/small", "--store"]) == 0
    stored = notebooks.read(house / "notebooks" / "sub" / "small.ipynb")
    assert stored.cells[-1].outputs[0].data["text/plain"] == "2"
    assert not notebooks.is_stale(stored)
    assert "report.html" in capsys.readouterr().out


def test_an_import_makes_no_output_stale():
    """Where a thing lives is not what it does; whatever else changes in a cell does count."""
    cells = [new_code_cell(source) for source in ("import os\nx = 1", "%magic\nimport os")]
    before = notebooks.source_hash(new_notebook(cells=cells))
    cells[0].source = "from os import (\n    path,\n)\nx = 1"
    assert notebooks.source_hash(new_notebook(cells=cells)) == before
    cells[0].source = "import os\nx = 2"
    assert notebooks.source_hash(new_notebook(cells=cells)) != before
