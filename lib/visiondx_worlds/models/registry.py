"""The embedded models by name, as ``visiondx.models.registry`` asks for them.

What is heavy is imported where it is used, so that names alone are known in a moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from visiondx.core.errors import InputError
from visiondx_worlds.models import zoo
from visiondx_worlds.models.embedded_targets import EMBEDDED, embedded, load_embedded
from visiondx_worlds.models.generators import KEPT
from visiondx_worlds.models.planted_targets import planted_names

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from visiondx.models.encoder import Encoder
    from visiondx.models.generator import StyleGenerator
    from visiondx.models.painter import Painter
    from visiondx.models.segmenter import Segmenter
    from visiondx.models.target import Target

ENCODER = "encoder-"  # prefix of an encoder's name in the zoo
SEGMENTER = "segmenter-"
# of the parts of the embedded painter, its UNets: that of its four steps, and that which taught it
PAINTER, TEACHER = "painter-quick", "painter-unet"
PAINTERS = {"embedded": (PAINTER, "quick"), "embedded-teacher": (TEACHER, "teacher")}


def targets(task: str | None = None, world: str | None = None) -> list[str]:
    """Names of the embedded targets, without the many of ``planted_targets``.

    Args:
        task, world: of these alone; None takes all.
    """
    entries, found = zoo.manifest(), []
    for name in embedded():
        card = entries[EMBEDDED + name]["config"]
        own = card.get("world", "scenes" if "family" in card else "faces")
        if task in (None, card.get("task")) and world in (None, own):
            found.append(name)
    return found


def encoders() -> list[str]:
    """Names of the embedded encoders."""
    return [n.removeprefix(ENCODER) for n in sorted(zoo.manifest()) if n.startswith(ENCODER)]


def generators() -> list[str]:
    """Names of the worlds' generators: of those whose relevance matrix is kept."""
    return [n.removesuffix(KEPT) for n in sorted(zoo.manifest()) if n.endswith(KEPT)]


def segmenters() -> list[str]:
    """Names of the embedded segmenters."""
    return [n.removeprefix(SEGMENTER) for n in sorted(zoo.manifest()) if n.startswith(SEGMENTER)]


def painters() -> list[str]:
    """Names of the embedded painters."""
    entries = zoo.manifest()
    return [name for name, (part, _) in PAINTERS.items() if part in entries]


def unlisted(kind: str) -> list[str]:
    """Names that load as well, but are too many to be shown."""
    return planted_names() if kind == "target" else []


def check_texts(encoder: str, texts: list[str]) -> None:
    """Raise InputError for a text that an embedded encoder does not read whole; none is loaded."""
    from visiondx_worlds.models.tokenizer import Tokenizer

    if encoder in encoders():
        tokenizer = Tokenizer.load()
        tokenizer.ids(texts, tokenizer.context_length)


def target(name: str) -> Target:
    """An embedded target in eval mode; its ``config`` is its card.

    Raises:
        InputError: no such target, or its file is missing or altered.
    """
    from visiondx.models.target import Target

    module, card = load_embedded(name)
    found = Target(module, card["task"], card["labels"], mean=card["mean"], std=card["std"])
    found.config = card
    return found


def encoder(name: str, device: str | torch.device = "cpu") -> Encoder:
    """See ``tiny_encoder.load_encoder``."""
    from visiondx_worlds.models.tiny_encoder import load_encoder

    zoo.choose("encoder", name, encoders())
    return load_encoder(name, device)


def generator(name: str) -> StyleGenerator:
    """The generator of a world, see ``StyleGenerator.build``.

    Raises:
        InputError: the weights are missing, altered or of another model.
    """
    from visiondx.models.generator import StyleGenerator

    if name not in zoo.manifest():
        zoo.choose("generator", name, generators())
    with zoo.opened(name) as (tensors, settings):
        return StyleGenerator.build(tensors, settings)


def segmenter(name: str) -> Segmenter:
    """See ``segmenter.load_segmenter``."""
    from visiondx_worlds.models.segmenter import load_segmenter

    return load_segmenter(name)


def painter(name: str, device: str | torch.device = "cpu") -> Painter:
    """The embedded painter in four steps, or its teacher; see ``painter.load_painter``."""
    from visiondx_worlds.models.painter import load_painter

    zoo.choose("painter", name, painters())
    return load_painter(PAINTERS[name][1], device)


def painter_size(name: str) -> int:
    """Pixels of the pictures that an embedded painter paints; none of its parts is loaded."""
    from visiondx.models.painter_files import folder_size

    zoo.choose("painter", name, painters())
    return folder_size(zoo.vouched(TEACHER).parents[1])


def relevance(generator: str, encoder: str) -> Tensor | None:
    """The kept M (c_S, c_T) of a generator and an encoder's image tower, by their fingerprints.

    None where none is theirs, or none is here. One that is missing or altered is no error:
    computing it is the fix.
    """
    try:
        entries = zoo.manifest()
    except InputError:
        return None  # such as without a checkout
    for name, entry in entries.items():
        config = entry["config"]
        theirs = (config.get("generator"), config.get("encoder"))
        if name.endswith(KEPT) and theirs == (generator, encoder):
            try:
                return zoo.load(name)[0]["M"]
            except InputError:
                continue
    return None
