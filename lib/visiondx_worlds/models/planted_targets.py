"""Many small classifiers in one file: the targets with planted biases, of several training seeds.

They answer to ``Target.load("young-biased-bangs@1")``, where 1 is the training seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from visiondx.core.errors import InputError
from visiondx_worlds.models import zoo

if TYPE_CHECKING:
    from torch import nn

FILE = "planted"  # its name in the zoo


def save_planted(
    modules: Mapping[str, nn.Module], cards: Mapping[str, dict], *, notebook: str, quality: dict
) -> None:
    """Keep all of them, in eight bits.

    Args:
        modules: by name, such as "young-biased-bangs@1"; from ``build_classifier``.
        cards: name -> what ``Target.load`` needs: ``label``, ``planted``, ``world``, ``width``,
            and ``labels``, the two words.
    """
    tensors = {
        f"{name}/{key}": value
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }
    config = {"cards": {name: cards[name] for name in modules}}
    zoo.save(FILE, tensors, config, notebook=notebook, seed=0, quality=quality, eight_bits=True)


def planted_names() -> list[str]:
    """Names of the kept classifiers; none if the file is not there."""
    entry = zoo.manifest().get(FILE)
    return sorted(entry["config"]["cards"]) if entry else []


def load_planted(name: str) -> tuple[nn.Module, dict]:
    """A classifier's module, in eval mode, and its card.

    Raises:
        InputError: no classifier of that name, or the file is missing or altered.
    """
    known = planted_names()
    if name not in known:
        raise InputError(
            f"No planted target {name!r}: data/planted.yaml lists the pairs, and @0, @1, … names "
            f"the training seed, such as {known[0] if known else 'young-biased-bangs@0'!r}."
        )
    from visiondx_worlds.models.classifier import build_classifier

    with zoo.opened(FILE) as (tensors, config):
        card = config["cards"][name]
        module = build_classifier(card["width"])
        prefix = f"{name}/"
        own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        module.load_state_dict(own)
    return module.eval(), {
        "task": "binary",
        "mean": [0.0, 0.0, 0.0],
        "std": [1.0, 1.0, 1.0],
        **card,
    }
