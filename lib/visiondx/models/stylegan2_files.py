"""A generator from a file of anybody's: which format it is, and our own, which needs no pickle.

Ours is a safetensors file with all weights and statistics, written by ``visiondx convert``; its
header tells what it was made of.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from visiondx.core.errors import InputError, reason
from visiondx.core.files import atomic_write, reading, sha256
from visiondx.models.pickles import FIX as AGAIN
from visiondx.models.pickles import TFNetwork, read_pickle
from visiondx.models.stylegan2_ada import read_ada
from visiondx.models.stylegan2_rosinality import read_rosinality
from visiondx.models.stylegan2_tf import read_tf
from visiondx.models.stylegan2_weights import Weights, finish

if TYPE_CHECKING:
    from visiondx.models.generator import StyleGenerator

KEY = "visiondx"  # of the header of a file of ours
ZIP = b"PK"  # what torch.save writes
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # what it wrote before, also a pickle
FIX = "convert it again with 'visiondx convert'"


@dataclass
class GeneratorFile:
    """What was read: ``tensors`` by the names of ``StyleGenerator`` or, without the statistics,
    by ``network.*``; the ``settings`` of its ``Generator``; and the ``card``.
    """

    tensors: dict[str, Tensor]
    settings: dict[str, object]
    card: dict[str, object]


def read_generator(path: str | Path, class_index: int | None = None) -> GeneratorFile:
    """Read a generator's file of any known format: the first bytes tell which.

    Args:
        class_index: of a conditional network, from 0; what is read is then that class's.

    Raises:
        InputError: no such file, damage, another architecture, or a class that there is not.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise InputError(f"{path} is a folder: name a file in it.")
    digest = sha256(path)
    with reading(path, "check the path"), path.open("rb") as stream:
        start = stream.read(len(LEGACY))
    if start[8:9] == b"{":
        return _read_ours(path, class_index)
    found = _weights(path, start)
    tensors, settings = finish(path, found, class_index)
    card = {
        "source": path.name,
        "sha256": digest,
        "format": found.source,
        "architecture": "StyleGAN2, configuration F",
        "resolution": max(settings["channels"]),
        "classes": found.classes,
        "class": class_index,
    }
    return GeneratorFile({f"network.{n}": t for n, t in tensors.items()}, settings, card)


def _weights(path: Path, start: bytes) -> Weights:
    if start.startswith(ZIP) or start == LEGACY:
        return read_rosinality(path)
    held = read_pickle(path)
    first = held[0] if isinstance(held, tuple) and held else held
    try:
        return read_tf(path, held) if isinstance(first, TFNetwork) else read_ada(path, held)
    except InputError:
        raise
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        # state of another kind than a network has
        raise InputError(f"{path} is damaged ({reason(error)}): {AGAIN}.") from error


def _read_ours(path: Path, class_index: int | None) -> GeneratorFile:
    from safetensors import safe_open

    with reading(path, FIX), safe_open(path, "pt") as stored:
        header = (stored.metadata() or {}).get(KEY)
        if header is None:
            raise InputError(
                f"{path} was not written by 'visiondx convert', so nothing tells what network its "
                "tensors are of: convert the original."
            )
        told = json.loads(header)
        card, settings = dict(told["card"]), dict(told["settings"])
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}
    if class_index is not None and class_index != card.get("class"):
        which = "no class" if card.get("class") is None else f"class {card['class']}"
        raise InputError(f"{path} was converted for {which}, not for class {class_index!r}: {FIX}.")
    return GeneratorFile(tensors, settings, card)


def write_generator(generator: "StyleGenerator", path: str | Path) -> None:
    """Write weights, statistics, settings and card as safetensors, whole or not at all."""
    from safetensors.torch import save_file

    told: Mapping = {"card": generator.card, "settings": generator.settings}
    # fresh plain copies: safetensors refuses other memory formats
    tensors = {n: t.detach().cpu().contiguous().clone() for n, t in generator.state_dict().items()}
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, {KEY: json.dumps(told)})
