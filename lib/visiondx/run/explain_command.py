"""``visiondx explain``: a classifier and a class or a channel in; pictures and a verdict out."""

import argparse
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from visiondx.core.errors import InputError
from visiondx.models import registry
from visiondx.models.painter_files import folder_size
from visiondx.run import notebooks
from visiondx.run.checks import absolute, check_target
from visiondx.run.explain_checks import NOBODY, check_painter

Run = Callable[[Path, str, dict[str, Any], Any], Path]  # notebook, preset, parameters, folder
PASSED = ("template", "tokens", "starts", "steps", "eta", "pictures", "delta", "seed", "device")
MODELS = ("painter", "lora", "segmenter", "masks")


def add(commands: Any, run: Run) -> None:
    """Add the subcommand; ``run`` runs a notebook and tells what it found."""
    explain = commands.add_parser(
        "explain", help="what a class or a channel wants to see: pictures and a verdict"
    )
    explain.add_argument(
        "--target",
        required=True,
        metavar="SPEC",
        help="path/to/file.py:function that returns a module, or the name of an embedded target",
    )
    explain.add_argument(
        "--class",
        dest="classes",
        action="append",
        default=[],
        metavar="CLASS",
        help="by its label or number, from 0; or a sum, such as 'dog + fc.input:8'; may be given "
        "again",
    )
    explain.add_argument(
        "--neuron",
        dest="neurons",
        action="append",
        default=[],
        metavar="LAYER:CHANNEL",
        help="a channel of a layer, or LAYER:CHANNEL:ROW:COLUMN; may be given again",
    )
    explain.add_argument(
        "--layers", action="store_true", help="list the layers of the target, and do nothing else"
    )
    explain.add_argument(
        "--word",
        dest="words",
        nargs=2,
        action="append",
        default=[],
        metavar=("CLASS", "WORD"),
        help="what to look for in a class's pictures, where it is not the label",
    )
    explain.add_argument(
        "--template",
        metavar="WORDS",
        help="with {t} in the place of what is searched, such as 'a texture of {t}'; default: {t}",
    )
    explain.add_argument("--tokens", type=int, metavar="N", help="how many stand there; default: 1")
    explain.add_argument("--starts", type=int, metavar="N", help="of each search")
    explain.add_argument("--steps", type=int, metavar="N", help="of each search")
    explain.add_argument("--eta", type=float, metavar="E", help="their first step size")
    explain.add_argument("--pictures", type=int, metavar="N", help="that the verdict stands on")
    explain.add_argument(
        "--delta", type=float, metavar="SHARE", help="of a picture that the object must cover"
    )
    explain.add_argument(
        "--painter",
        metavar="DIR",
        help="embedded (default: 64 pixels, the drawn worlds), or the folder of a Stable Diffusion",
    )
    explain.add_argument("--lora", metavar="FILE", help="an LCM-LoRA for it: four steps")
    explain.add_argument(
        "--segmenter",
        metavar="NAME",
        help="embedded (default), none, a CLIPSeg or a Grounding DINO, by folder or name",
    )
    explain.add_argument(
        "--masks", metavar="NAME", help="of a Grounding DINO: the SAM that makes masks of its boxes"
    )
    explain.add_argument("--seed", type=int, metavar="N")
    explain.add_argument(
        "--device", metavar="D", help="such as cpu; default: a GPU if there is one"
    )
    explain.add_argument("--name", help="of the run; default: the target's")
    explain.add_argument("--out", metavar="DIR", help="default: runs/explain/NAME")
    explain.add_argument("--preset", default="embedded", metavar="P", help="default: embedded")
    explain.set_defaults(command=lambda given: _explain(given, run))


def _explain(given: argparse.Namespace, run: Run) -> None:
    target = check_target(given.target, "multiclass")
    if given.layers:
        list_layers(target, check_painter(given.painter or "embedded"))
        return
    name = given.name or run_name(given.target)
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise InputError(f"--name {name!r}: use letters, digits, '_', '-' and '.' only.")
    asked = {n: getattr(given, n) for n in PASSED if getattr(given, n) is not None}
    asked |= {n: getattr(given, n) for n in MODELS if getattr(given, n)}
    asked |= absolute(asked)
    question = {"what": [*given.classes, *given.neurons], "words": dict(given.words)}
    path = notebooks.ROOT / "notebooks" / "explain.ipynb"
    out = given.out or notebooks.ROOT / "runs" / "explain" / name
    run(path, given.preset, {"target": target, "name": name, **question, **asked}, out)


def run_name(target: str) -> str:
    """What a run is called that was given no name: after the target, or its file."""
    return re.sub(r"\W+", "-", Path(target.rpartition(":")[0] or target).stem)


def list_layers(target: str, painter: str) -> None:
    """Print every layer of a target, with what it returns for a picture of the painter's size."""
    from visiondx.diffexplainer.layers import layers
    from visiondx.diffexplainer.targets import open_target

    size = painted_size(painter)
    found = layers(open_target(target, size), size)
    wide = max(map(len, found), default=0)
    for name, (channels, *sides) in found.items():
        print(f"{name:<{wide}}  {channels} channels{_over(sides)}")


def _over(sides: list[int]) -> str:
    return f" of {' x '.join(map(str, sides))}" if sides else ""


def painted_size(painter: str) -> int:
    """Pixels of the pictures of an embedded painter, or of one in a folder; neither is loaded."""
    if painter in registry.offered("painters"):
        return registry.ask("painter_size", painter)
    return folder_size(Path(painter))


def try_question(values: Mapping[str, Any]) -> None:
    """Ask a target once for what is wanted, here, in seconds: a kernel takes longer.

    Words that an embedded segmenter does not know are told at once; the verdict says it again.

    Raises:
        InputError: a target that cannot be used, or a class, layer or channel that it has not.
    """
    from visiondx.diffexplainer.objectives import Objectives, aim, one_class
    from visiondx.diffexplainer.spurious import words_of
    from visiondx.diffexplainer.targets import open_target
    from visiondx.models.segmenter import Segmenter

    size = painted_size(values["painter"])
    target = open_target(values["target"], size)
    Objectives(target, values["what"], size)
    numbers = [one_class(target, aim(each, target.labels)) for each in values["what"]]
    asked = [number for number in numbers if number is not None]
    words = words_of(target, asked, values["words"])
    if values["segmenter"] not in registry.offered("segmenters"):
        return
    segmenter = Segmenter.load(values["segmenter"])
    for number, word in zip(asked, words, strict=True):
        if not segmenter.knows(word):
            print(
                f"visiondx: the segmenter has never seen the word {word!r}, so it will not look "
                f"for it: give another with --word {number} WORD.",
                file=sys.stderr,
            )


def command_line(values: Mapping[str, Any]) -> str:
    """The command that asks what a notebook's parameters ask, a line an option."""
    options = [["--target", values["target"]], ["--name", values["name"]]]
    for what in values["what"]:
        unit = re.fullmatch(r"[^+*]+:\d[\d:]*", str(what))
        options.append(["--neuron" if unit else "--class", what])
    options += [["--word", name, word] for name, word in values["words"].items()]
    for name in (*PASSED, *MODELS):
        if values[name] not in ("", None):
            options.append([f"--{name}", values[name]])
    if values["preset"] != "embedded":
        options.append(["--preset", values["preset"]])
    lines = [shlex.join(map(str, option)) for option in options]
    return " \\\n    ".join(["visiondx explain", *lines])


def opening_lines(values: Mapping[str, Any]) -> str:
    """The lines of Python that open what a notebook's parameters name."""
    device = f", {values['device']!r}" if values["device"] else ""
    lora = f", lora={values['lora']!r}" if values["lora"] else ""
    masks = f", {values['masks']!r}" if values["masks"] else ""
    where = f", device={values['device']!r}" if values["device"] else ""
    lines = [
        "from visiondx.diffexplainer.targets import open_target",
        f"painter = vx.Painter.load({values['painter']!r}{device}{lora})",
        f"target = open_target({values['target']!r}, painter.size{device})",
    ]
    if values["segmenter"] != NOBODY:
        lines.append(f"segmenter = vx.Segmenter.load({values['segmenter']!r}{masks}{where})")
    return "\n".join(lines)
