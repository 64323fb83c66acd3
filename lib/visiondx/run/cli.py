"""The command ``visiondx``: run or list notebooks, diagnose or explain a model of one's own."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visiondx.core.errors import InputError
from visiondx.models import registry
from visiondx.run import (
    benchmark_command,
    convert,
    explain_command,
    folders,
    losses_command,
    notebooks,
    presets,
    runs,
)
from visiondx.run.checks import DIRECTIONS, TEMPLATES, absolute, check_target


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, 1 where a cell failed, 2 for bad input, 130 when interrupted."""
    given = _parser().parse_args(arguments)
    try:
        given.command(given)
    except InputError as error:
        print(f"visiondx: {error}", file=sys.stderr)
        return 2
    except runs.RunError as error:
        print(f"visiondx: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            f"visiondx: interrupted; what ran until then is in the run's {folders.FAILED}.",
            file=sys.stderr,
        )
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="visiondx", description="Ask in words what a vision model is sensitive to."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run a notebook headless")
    run.add_argument("notebook", metavar="NOTEBOOK", help="path, or name as `visiondx list` shows")
    run.add_argument("--preset", default="embedded", metavar="P", help="default: embedded")
    run.add_argument(
        "-p",
        dest="parameters",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="set a parameter; VALUE is text where its default is, else a Python literal",
    )
    run.add_argument("--out", metavar="DIR", help="default: runs/<notebook>/<preset>")
    run.add_argument(
        "--store", action="store_true", help="copy the outputs back into the notebook itself"
    )
    run.set_defaults(command=_run)

    show = commands.add_parser("list", help="list the notebooks")
    show.set_defaults(command=_list)

    diagnose = commands.add_parser("diagnose", help="diagnose a model: words in, a report out")
    diagnose.add_argument(
        "--target",
        required=True,
        metavar="SPEC",
        help="path/to/file.py:function that returns a module, or the name of an embedded target",
    )
    diagnose.add_argument(
        "--class",
        dest="class_index",
        type=int,
        metavar="K",
        help="of a multiclass model: class K, from 0, against all others",
    )
    diagnose.add_argument("--attributes", required=True, nargs="*", metavar="WORDS")
    diagnose.add_argument(
        "--neutral",
        metavar="WORDS",
        help="what the attributes have in common; default: the world's",
    )
    diagnose.add_argument(
        "--generator",
        metavar="SPEC",
        help="faces (default), animals, or the file of a StyleGAN2: path/to/network.pkl",
    )
    diagnose.add_argument(
        "--encoder", metavar="NAME", help="embedded (default), or of open_clip, such as ViT-B-32"
    )
    diagnose.add_argument(
        "--encoder-weights", metavar="W", help="of open_clip: a tag such as openai, or a file"
    )
    diagnose.add_argument(
        "--words", metavar="LIST", help="of a generator of photographs: such as human_faces"
    )
    diagnose.add_argument(
        "--directions",
        choices=DIRECTIONS,
        default="auto",
        help="relevance (the matrix, days for a large generator), gradient (without, minutes), or "
        "auto (default): relevance where there is a matrix, else gradient",
    )
    diagnose.add_argument(
        "--templates",
        choices=TEMPLATES,
        help="average the words over CLIP's templates; default: none",
    )
    diagnose.add_argument("--consistency", nargs="*", metavar="WORDS", help="what must not change")
    diagnose.add_argument(
        "--images",
        metavar="N|FOLDER",
        help="so many of the generator's own, or photographs of yours to start from",
    )
    diagnose.add_argument(
        "--truncation",
        type=float,
        metavar="PSI",
        help="of the generator, above 0, at most 1; default: 1, of photographs .7 suits better",
    )
    diagnose.add_argument("--steps", type=int, metavar="N")
    diagnose.add_argument("--seed", type=int, metavar="N")
    diagnose.add_argument("--name", help="of the run; default: the target's")
    diagnose.add_argument("--out", metavar="DIR", help="default: runs/diagnose/NAME")
    diagnose.add_argument("--preset", default="embedded", metavar="P", help="default: embedded")
    diagnose.set_defaults(command=_diagnose)

    convert.register(commands)
    losses_command.add(commands, _run_and_tell)
    explain_command.add(commands, _run_and_tell)
    benchmark_command.add(commands, _run_and_tell)
    return parser


def _run(given: argparse.Namespace) -> None:
    path = notebooks.find(given.notebook)
    parameters = presets.read_values(path, dict(given.parameters))
    parameters |= absolute(parameters)
    if given.store and given.preset not in ("embedded", "full"):
        raise InputError(
            f"--store with preset {given.preset!r}: committed notebooks show embedded or full runs."
        )
    out = _run_and_tell(path, given.preset, parameters, given.out)
    if given.store:
        notebooks.store(out / "executed.ipynb", path, given.preset)
        print(f"Outputs stored in {path}")


def _list(given: argparse.Namespace) -> None:
    rows = [("NOTEBOOK", "PRESETS", "TITLE")]
    for path in notebooks.paths():
        usable = [preset for preset in presets.presets() if _can_run(path, preset)]
        rows.append((notebooks.key(path), " ".join(usable), notebooks.title(path)))
    wide = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, usable, title in rows:
        print(f"{name:<{wide[0]}}  {usable:<{wide[1]}}  {title}".rstrip())


def _can_run(path: Path, preset: str) -> bool:
    try:
        presets.settings(path, preset)
    except InputError:
        return False
    return True


def _diagnose(given: argparse.Namespace) -> None:
    if not given.attributes:
        raise InputError('--attributes is empty: name at least one, such as "a face with bangs".')
    target = check_target(given.target, "binary", given.generator or "faces")
    name = given.name or re.sub(r"\W+", "-", Path(given.target.rpartition(":")[0] or target).stem)
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise InputError(f"--name {name!r}: use letters, digits, '_', '-' and '.' only.")
    names = ("attributes", "neutral", "generator", "directions", "consistency")
    names += ("steps", "seed", "class_index", "encoder", "encoder_weights")
    names += ("words", "templates", "truncation")
    asked = {n: getattr(given, n) for n in names if getattr(given, n) is not None}
    if given.images is not None:
        asked |= _images(given.images)
    asked |= absolute(asked)
    path = notebooks.ROOT / "notebooks" / "diagnose.ipynb"
    out = given.out or notebooks.ROOT / "runs" / "diagnose" / name
    _run_and_tell(path, given.preset, {"target": target, "name": name, **asked}, out)


def _images(text: str) -> dict[str, Any]:
    """The parameter that is meant by ``--images``: how many, or a folder."""
    if re.fullmatch(r"[+-]?\d+", text.strip()):
        return {"images": int(text)}
    if re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?", text.strip()) and not Path(text).exists():
        raise InputError(f"--images takes a whole number or a folder, got {text!r}.")
    return {"photographs": text}


def _try_target(values: dict[str, Any]) -> None:
    """Let a target of one's own answer a few pictures here, in seconds: a kernel takes longer.

    Only where the notebook says of what task it is; others find that out themselves.
    """
    if "what" in values and isinstance(values.get("painter"), str):
        explain_command.try_question(values)
        return
    generator, spec = values.get("generator"), values.get("target")
    if not isinstance(spec, str) or ":" not in spec or "task" not in values:
        return
    from visiondx.models.target import Target

    target = Target.load(spec, values["task"], values.get("class_index"))
    if generator in registry.offered("generators"):
        from visiondx.models.generator import StyleGenerator
        from visiondx.zoom.diagnose import try_on

        try_on(target, StyleGenerator.load(generator), values.get("seed", 0))


def _run_and_tell(path: Path, preset: str, parameters: dict[str, Any], out: Any) -> Path:
    chosen = presets.settings(path, preset, parameters)  # refused before it is said to run
    _try_target(notebooks.parameters(path) | chosen)
    print(f"Running {notebooks.key(path)} with preset {preset}", flush=True)
    out = runs.run_notebook(path, preset, parameters, out)
    print(f"Done: {out / 'report.html'}")
    for name in ("projection.txt", "verdict.txt"):  # of a diagnosis
        if (said := Path(out) / name).is_file():
            print(f"\n{said.read_text('utf-8').strip()}")
    return out


if __name__ == "__main__":
    sys.exit(main())
