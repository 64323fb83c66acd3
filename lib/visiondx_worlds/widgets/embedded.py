"""An `EditSession` on the models that come with the repository."""

from collections.abc import Sequence

import torch

from visiondx.core.errors import InputError
from visiondx.models.encoder import Encoder
from visiondx.models.generator import StyleGenerator
from visiondx.models.target import Target
from visiondx.widgets.explorer import Choices
from visiondx.widgets.session import EditSession
from visiondx_worlds.marking.zoom.truth import label_prompts
from visiondx_worlds.models import zoo
from visiondx_worlds.models.embedded_targets import EMBEDDED, embedded
from visiondx_worlds.models.judges import Judges
from visiondx_worlds.worlds import animals, faces

WORLDS = {"faces": faces, "animals": animals}  # those that have a generator
ASKED = {  # attributes to begin with
    "faces": ("bangs", "hat", "eyeglasses", "smiling", "beard"),
    "animals": ("whiskers", "green_eyes", "pointed_ears", "striped_fur", "tongue"),
}


def open_session(
    world: str = "faces",
    target: str | None = None,
    attributes: Sequence[str] | None = None,
    neutral: str | None = None,
    device: str | torch.device = "cpu",
    **rest,
) -> EditSession:
    """A session on the generator of a world, read by the world's judges.

    Args:
        target: an embedded one's name or "path/to/file.py:function"; None takes the first.
        attributes, neutral: None takes a few prompts of the world.
        rest: ``directions``, ``channels``, ``seed`` and ``settings`` of ``EditSession``.

    Raises:
        InputError: a world without a generator, a target of another world, or as ``EditSession``.
    """
    if world not in WORLDS:
        raise InputError(f"No generator {world!r}: choose one of {', '.join(WORLDS)}.")
    known = WORLDS[world]
    name = target or targets_of(world)[0]
    model = Target.load(name)
    return EditSession(
        StyleGenerator.load(world).to(device),
        Encoder.load("embedded", device),
        model,
        [known.prompt(asked) for asked in ASKED[world]] if attributes is None else attributes,
        known.grammar.neutral if neutral is None else neutral,
        consistency=label_prompts(known, model),
        judges=Judges.load(world, device),
        world=world,
        name=name,
        **rest,
    )


def change_target(session: EditSession, name: str) -> None:
    """Give an embedded session another target, by its name or file; Eq. 8 then holds its label.

    Raises:
        InputError: see ``Target.load``; a target of another world, or one that is not binary.
    """
    model = Target.load(name)
    session.use_target(model, label_prompts(WORLDS[session.world], model), name)


def targets_of(world: str) -> list[str]:
    """Names of the embedded binary targets of a world."""
    cards = {name: zoo.manifest()[EMBEDDED + name]["config"] for name in embedded()}
    return [
        name
        for name, card in cards.items()
        if card["task"] == "binary" and card.get("world", "faces") == world
    ]


CHOICES = Choices(tuple(WORLDS), targets_of, open_session, change_target)
