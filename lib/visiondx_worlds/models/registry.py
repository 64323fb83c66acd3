"""The embedded models by name, as ``visiondx.models.registry`` asks for them."""

import torch
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.models.encoder import Encoder
from visiondx.models.generator import StyleGenerator
from visiondx.models.target import Target
from visiondx_worlds.models import zoo
from visiondx_worlds.models.embedded_targets import embedded, load_embedded
from visiondx_worlds.models.generators import KEPT


def targets() -> list[str]:
    """Names of the embedded targets, without the many of ``planted_targets``."""
    return embedded()


def target(name: str) -> Target:
    """An embedded target in eval mode; its ``config`` is its card.

    Raises:
        InputError: no such target, or its file is missing or altered.
    """
    module, card = load_embedded(name)
    found = Target(module, card["task"], card["labels"], mean=card["mean"], std=card["std"])
    found.config = card
    return found


def encoder(name: str, device: str | torch.device = "cpu") -> Encoder:
    """See ``tiny_encoder.load_encoder``."""
    from visiondx_worlds.models.tiny_encoder import load_encoder  # and with it open_clip

    return load_encoder(name, device)


def generator(name: str) -> StyleGenerator:
    """The generator of a world, see ``StyleGenerator.build``.

    Raises:
        InputError: the weights are missing, altered or of another model.
    """
    with zoo.opened(name) as (tensors, settings):
        return StyleGenerator.build(tensors, settings)


def relevance(generator: str, encoder: str) -> Tensor | None:
    """The kept M (c_S, c_T) of a generator and an encoder's image tower, by their fingerprints.

    None where none is theirs. One that is missing or altered is no error: computing it is the fix.
    """
    for name, entry in zoo.manifest().items():
        config = entry["config"]
        theirs = (config.get("generator"), config.get("encoder"))
        if name.endswith(KEPT) and theirs == (generator, encoder):
            try:
                return zoo.load(name)[0]["M"]
            except InputError:
                continue
    return None
