"""``visiondx benchmark``: images by shift and class, and models in; accuracies and a report out."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from visiondx.core.errors import InputError
from visiondx.run import notebooks
from visiondx.run.checks import absolute

Run = Callable[[Path, str, dict[str, Any], Any], Path]  # notebook, preset, parameters, folder
PASSED = ("images", "models", "shifts", "masks", "least", "batch", "seed", "device")


def add(commands: Any, run: Run) -> None:
    """Add the subcommand; ``run`` runs a notebook and tells what it found."""
    benchmark = commands.add_parser(
        "benchmark", help="how models do under shifts: images by shift and class in, a report out"
    )
    benchmark.add_argument(
        "--images",
        required=True,
        metavar="DIR",
        help="<shift>/<class>/<image>, one of the shifts being base; or ImageNet*",
    )
    benchmark.add_argument(
        "--models",
        required=True,
        nargs="+",
        metavar="SPEC",
        help="path/to/file.py:function that returns a Target, timm:resnet50, torchvision:resnet50, "
        "timm:local-dir:DIR, or the name of an embedded target",
    )
    benchmark.add_argument(
        "--shifts", nargs="+", metavar="NAME", help="folders of these alone; default: all"
    )
    benchmark.add_argument(
        "--masks",
        metavar="FILE",
        help="which images passed the filter, as ImageNet*'s masks.npy; default: what DIR holds",
    )
    benchmark.add_argument(
        "--least", type=int, metavar="N", help="images that a class must have left; default: 5"
    )
    benchmark.add_argument("--batch", type=int, metavar="N", help="images at once; default: 64")
    benchmark.add_argument("--seed", type=int, metavar="N", help="of the intervals")
    benchmark.add_argument(
        "--device", metavar="D", help="such as cpu; default: a GPU if there is one"
    )
    benchmark.add_argument("--name", help="of the run; default: the folder's")
    benchmark.add_argument("--out", metavar="DIR", help="default: runs/robustness/NAME")
    benchmark.add_argument("--preset", default="embedded", metavar="P", help="default: embedded")
    benchmark.set_defaults(command=lambda given: _benchmark(given, run))


def _benchmark(given: argparse.Namespace, run: Run) -> None:
    asked = {name: getattr(given, name) for name in PASSED if getattr(given, name) is not None}
    asked |= absolute(asked)
    name = given.name or re.sub(r"\W+", "-", Path(asked["images"]).name).strip("-")
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise InputError(f"--name {name!r}: use letters, digits, '_', '-' and '.' only.")
    path = notebooks.ROOT / "notebooks" / "robustness.ipynb"
    out = given.out or notebooks.ROOT / "runs" / "robustness" / name
    run(path, given.preset, {"name": name, **asked}, out)
