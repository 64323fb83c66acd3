"""What takes seconds to import is imported where it is used: help and refusals come at once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import visiondx

HEAVY = {"nbformat", "open_clip", "pandas", "papermill", "scipy.stats", "seaborn", "timm", "torch"}
REFUSED = """
from visiondx.run import cli
assert cli.main(["run", "zoom/03_sensitivity", "-p", "imagse", "3"]) == 2
diagnose = ["diagnose", "--target", "young-biased-bangs@1", "--attributes"]
for wrong in (["a hat", "A hat"], ["long words " * 40], ["a hat", "--generator", "dogs"]):
    assert cli.main([*diagnose, *wrong]) == 2
assert cli.main(["explain", "--target", "young", "--class", "young", "--template", "old"]) == 2
"""
SOURCES = str(Path(visiondx.__file__).resolve().parents[1])


def loaded(code: str) -> set[str]:
    """Names of the modules that a fresh interpreter holds after ``code``."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        env=os.environ | {"PYTHONPATH": SOURCES},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import visiondx.run.cli", HEAVY | {"numpy"}),
        (REFUSED, HEAVY | {"numpy"}),
        (
            "import visiondx.show.report, visiondx.zoom.diagnose, visiondx.llm2loss.model, "
            "visiondx_worlds.models.registry",
            {"open_clip", "scipy.stats", "seaborn", "timm", "torchvision"},
        ),
    ],
)
def test_a_fresh_interpreter_holds_no(code, absent):
    assert not loaded(code) & absent
