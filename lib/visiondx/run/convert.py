"""``visiondx convert``: a StyleGAN2 of anybody's as a safetensors file that needs no pickle."""

import argparse
from pathlib import Path

from visiondx.core.errors import InputError

ENDING = ".safetensors"


def register(commands: argparse._SubParsersAction) -> None:
    """Add the subcommand."""
    convert = commands.add_parser(
        "convert", help="write a StyleGAN2's file as safetensors, with its statistics"
    )
    convert.add_argument("model", metavar="MODEL", help="an official pickle or a checkpoint")
    convert.add_argument("--out", metavar="FILE", help=f"default: MODEL with the ending {ENDING}")
    convert.add_argument(
        "--class",
        dest="class_index",
        type=int,
        metavar="K",
        help="of a conditional generator: its class K, from 0",
    )
    convert.add_argument("--force", action="store_true", help="overwrite an existing file")
    convert.set_defaults(command=_convert)


def _convert(given: argparse.Namespace) -> None:
    model = Path(given.model).expanduser()
    out = Path(given.out).expanduser() if given.out else model.with_suffix(ENDING)
    if out.suffix != ENDING:
        raise InputError(f"--out {given.out!r}: its name must end in {ENDING}.")
    if not model.is_file():
        raise InputError(f"There is no file {model}: name a StyleGAN2's pickle or checkpoint.")
    if out.exists() and not given.force:
        raise InputError(f"{out} exists: name another by --out, or overwrite it with --force.")
    from visiondx.models.generator import StyleGenerator
    from visiondx.models.stylegan2_files import write_generator

    generator = StyleGenerator.open(model, given.class_index)
    write_generator(generator, out)
    card = generator.card
    which = "" if card["class"] is None else f", class {card['class']} of {card['classes']}"
    print(
        f"{model.name}: {card['architecture']} ({card['format']}), {card['resolution']} px, "
        f"{generator.num_styles} styles{which}. Written: {out}"
    )
