"""Every notebook, start to end, with the smoke preset: two at a time, one thread each.

Two run as a person runs them, by the command, each part a process of its own; the others by the
function behind it, in kernels that are forked from one process, and without the HTML page.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
import torch
import yaml
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image

import forked_kernel
from visiondx.models.generator import StyleGenerator
from visiondx.run import notebooks, runs

NOTEBOOKS = notebooks.paths()
BY_COMMAND = ("explore/edit_weights", "train/01_world")  # widgets; pictures
BOUNDS = yaml.safe_load((Path(__file__).parent / "notebook_bounds.yaml").read_text("utf-8"))
AT_A_TIME = 2


def by_command(path: Path, out: Path) -> None:
    command = [sys.executable, "-m", "visiondx.run.cli", "run", str(path), "--preset", "smoke"]
    done = subprocess.run(
        [*command, "--out", str(out)],
        env=forked_kernel.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "image/png" in (out / "report.html").read_text("utf-8")


def execute(path: Path, out: Path) -> None:
    if notebooks.key(path) in BY_COMMAND:
        by_command(path, out)
    else:
        manager = forked_kernel.ForkedKernel
        runs.run_notebook(path, "smoke", out=out, manager=manager, export=False)


@pytest.fixture(scope="session")
def running(request, tmp_path_factory):
    """{notebook: (folder, future)} of all notebooks that were selected; two run at any time."""
    selected = [
        i.callspec.params.get("path") for i in request.session.items if hasattr(i, "callspec")
    ]
    home = tmp_path_factory.mktemp("runs")
    os.chdir(notebooks.ROOT)  # papermill changes there and back, here from two threads
    with forked_kernel.fork_server(), ThreadPoolExecutor(AT_A_TIME) as pool:
        started = {}
        for path in (p for p in selected if p in NOTEBOOKS):
            out = home / notebooks.key(path)
            started[path] = out, pool.submit(execute, path, out)
        yield started
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=map(notebooks.key, NOTEBOOKS))
def test_notebook_runs(path, running):
    out, future = running[path]
    future.result()
    metrics = json.loads((out / "metrics.json").read_text("utf-8"))
    assert metrics, "the last cell recorded nothing"
    for name, entry in metrics.items():
        assert set(entry) == {"value", "low", "high", "n"}, name
    for name, (low, high, *n) in BOUNDS[notebooks.key(path)].items():
        assert low <= metrics[name]["value"] <= high, name
        assert n in ([], [metrics[name]["n"]]), name
    assert json.loads((out / "run.json").read_text("utf-8"))["status"] == "complete"
    assert (out / "executed.ipynb").stat().st_size > 0


def test_a_diagnosis_starts_from_photographs(running, tmp_path):
    generator = StyleGenerator.load("faces")
    pictures = (255 * generator.synthesize(generator.sample_styles(3, 3))).byte()
    noise = torch.randint(0, 256, (1, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    for i, picture in enumerate([*pictures, noise[0].byte()]):
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(tmp_path / f"{i}.png")
    words = ["a face with long hair", "a smiling face"]
    given = {"photographs": str(tmp_path), "projection_steps": 60, "attributes": words}
    path, manager = notebooks.ROOT / "notebooks" / "diagnose.ipynb", forked_kernel.ForkedKernel
    out = tmp_path / "out"
    runs.run_notebook(path, "smoke", given, out, manager=manager, export=False)
    metrics = json.loads((out / "metrics.json").read_text("utf-8"))
    assert metrics["photographs.reached"]["value"] == 0.75
    assert metrics[f"h.{words[0]}"]["n"] == 3
    page = (out / "report.html").read_text("utf-8")
    assert "The generator reaches 3 of 4 photographs." in page
    assert "Left out: 3.png" in page


@pytest.mark.parametrize(
    ("source", "told"),
    [("left = 0\n1 / left", "1 / left"), ("import os\nos._exit(1)", "its kernel died")],
)
def test_what_fails_in_a_forked_kernel_is_told(running, tmp_path, source, told):
    tagged = new_code_cell("preset = out_dir = ''", metadata={"tags": ["parameters"]})
    path = tmp_path / "failing.ipynb"
    nbformat.write(new_notebook(cells=[tagged, new_code_cell(source)]), path)
    with pytest.raises(runs.RunError, match=told):
        execute(path, tmp_path / "out")
