"""Every notebook, start to end, with the smoke preset: two at a time, one thread each."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import visiondx
from visiondx.run import notebooks

NOTEBOOKS = notebooks.paths()
AT_A_TIME = 2
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
SOURCES = {"PYTHONPATH": str(Path(visiondx.__file__).resolve().parents[1])}


def execute(path: Path, out: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "visiondx.run.cli", "run", str(path), "--preset", "smoke"]
    return subprocess.run(
        [*command, "--out", str(out)],
        env=os.environ | ONE_THREAD | SOURCES,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="session")
def running(request, tmp_path_factory):
    """{notebook: (folder, future)} of all notebooks that were selected; two run at any time."""
    selected = [i.callspec.params["path"] for i in request.session.items if hasattr(i, "callspec")]
    home = tmp_path_factory.mktemp("runs")
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        started = {}
        for path in (p for p in selected if p in NOTEBOOKS):
            out = home / notebooks.key(path)
            started[path] = out, pool.submit(execute, path, out)
        yield started
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=map(notebooks.key, NOTEBOOKS))
def test_notebook_runs(path, running):
    out, future = running[path]
    done = future.result()
    assert done.returncode == 0, done.stderr[-4000:]
    metrics = json.loads((out / "metrics.json").read_text("utf-8"))
    assert metrics, "the last cell recorded nothing"
    for name, entry in metrics.items():
        assert set(entry) == {"value", "low", "high", "n"}, name
    assert json.loads((out / "run.json").read_text("utf-8"))["status"] == "complete"
    assert (out / "executed.ipynb").stat().st_size > 0
    assert (out / "report.html").stat().st_size > 0
