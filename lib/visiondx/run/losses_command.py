"""``visiondx losses``: a table of losses, or a model and a labelled folder, and sentences."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from visiondx.core.errors import InputError
from visiondx.llm2loss.paths import labelled, locate
from visiondx.llm2loss.question import check_question, check_source
from visiondx.llm2loss.tables import check_count, check_losses, read_columns
from visiondx.models.image_files import check_there
from visiondx.run import notebooks
from visiondx.run.checks import absolute

Run = Callable[[Path, str, dict[str, Any], Any], Path]  # notebook, preset, parameters, folder
PASSED = ("image_column", "loss_column", "skip_unreadable", "encoder", "encoder_weights", "seed")


def add(commands: Any, run: Run) -> None:
    """Add the subcommand; ``run`` runs a notebook and tells what it found."""
    losses = commands.add_parser(
        "losses", help="where a model will do worse: a table of losses and sentences in"
    )
    losses.add_argument(
        "table", nargs="?", metavar="TABLE", help="CSV or Parquet: a row an image, and its loss"
    )
    losses.add_argument(
        "--model",
        metavar="SPEC",
        help="instead of a table: path/to/file.py:function, whose cross-entropy is the loss",
    )
    losses.add_argument(
        "--images",
        metavar="DIR",
        help="where the table's paths start (default: beside it); of a model, <class>/<image>",
    )
    losses.add_argument(
        "--ask", nargs="*", action="extend", default=[], metavar="WORDS", help="sentences"
    )
    losses.add_argument(
        "--compare",
        nargs=2,
        action="append",
        default=[],
        metavar=("A", "B"),
        help="on which of two sentences is it worse? may be given again",
    )
    losses.add_argument(
        "--attributes",
        nargs="*",
        action="extend",
        default=[],
        metavar="WORDS",
        help="each against its absence, the largest difference first",
    )
    losses.add_argument("--image-column", metavar="NAME", help="of the table; default: image")
    losses.add_argument("--loss-column", metavar="NAME", help="of the table; default: loss")
    losses.add_argument(
        "--skip-unreadable", action="store_true", default=None, help="leave out damaged images"
    )
    losses.add_argument(
        "--encoder", metavar="NAME", help="embedded (default), or of open_clip, such as ViT-B-32"
    )
    losses.add_argument(
        "--encoder-weights", metavar="W", help="of open_clip: a tag such as openai, or a file"
    )
    losses.add_argument("--seed", type=int, metavar="N")
    losses.add_argument("--name", help="of the run; default: the table's or the model's")
    losses.add_argument("--out", metavar="DIR", help="default: runs/losses/NAME")
    losses.add_argument("--preset", default="embedded", metavar="P", help="default: embedded")
    losses.set_defaults(command=lambda given: _losses(given, run))


def _losses(given: argparse.Namespace, run: Run) -> None:
    asked = {name: getattr(given, name) for name in ("ask", "compare", "attributes")}
    if not (given.table or given.model):
        raise InputError(_no_source(given))
    check_source(given.table or "", given.model or "", given.images or "")
    check_question(**asked)
    source = {"table": given.table, "model": given.model, "image_folder": given.images}
    passed = {name: value for name, value in source.items() if value}
    passed |= {name: getattr(given, name) for name in PASSED if getattr(given, name) is not None}
    passed |= absolute(passed)
    folder = Path(passed["image_folder"]) if given.images else None
    if given.table:
        named = Path(passed["table"])
        _check_table(given, named, folder)
    else:
        check_count(len(labelled(folder)[1]))
        named = Path(passed["model"].rpartition(":")[0] or passed["model"])
    name = given.name or re.sub(r"\W+", "-", named.stem).strip("-")
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise InputError(f"--name {name!r}: use letters, digits, '_', '-' and '.' only.")
    path = notebooks.ROOT / "notebooks" / "losses.ipynb"
    out = given.out or notebooks.ROOT / "runs" / "losses" / name
    run(path, given.preset, {"name": name, **passed, **asked}, out)


def _no_source(given: argparse.Namespace) -> str:
    """What is missing; a table that stands behind the sentences was read as one of them."""
    words = [*given.ask, *given.attributes]
    taken = [word for word in words if Path(word).suffix.lower() in (".csv", ".parquet")]
    if taken:
        return f"{taken[0]!r} was read as a sentence: name the table first, before --ask."
    return (
        "There are no losses: name a table, such as losses.csv with the columns image and loss, or "
        "--model path/to/file.py:function with --images."
    )


def _check_table(given: argparse.Namespace, table: Path, folder: Path | None) -> None:
    """Raises InputError where its columns, losses or images are not there."""
    if folder is not None and not folder.is_dir():
        raise InputError(f"No folder of images at {folder}: check the path.")
    names, losses = read_columns(table, given.image_column or "image", given.loss_column or "loss")
    check_count(len(losses))
    check_losses(losses)
    check_there(locate(table.parent if folder is None else folder, names))
