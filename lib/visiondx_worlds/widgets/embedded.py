"""An `EditSession` on a ground: an embedded world, or files of one's own."""

from collections.abc import Sequence

from visiondx.models.target import Target
from visiondx.widgets.explorer import Choices
from visiondx.widgets.session import EditSession
from visiondx_worlds.ground import WORLDS, Ground
from visiondx_worlds.marking.zoom.truth import label_prompts
from visiondx_worlds.models import zoo
from visiondx_worlds.models.embedded_targets import EMBEDDED, embedded

ASKED = {  # attributes to begin with
    "faces": ("bangs", "hat", "eyeglasses", "smiling", "beard"),
    "animals": ("whiskers", "green_eyes", "pointed_ears", "striped_fur", "tongue"),
}


def open_session(
    ground: Ground,
    target: str = "",
    attributes: Sequence[str] = (),
    neutral: str | None = None,
    **rest,
) -> EditSession:
    """A session on a ground, read by the judges of its world if it has one.

    Args:
        target: an embedded one's name or "path/to/file.py:function"; empty takes the world's first.
        attributes: names that the words have, or phrases; none takes a few of the world's.
        neutral: None takes that of the words.
        rest: ``directions``, ``channels``, ``seed`` and ``settings`` of ``EditSession``.

    Raises:
        InputError: no target where no world has one, a target of another world, or as
            ``EditSession``.
    """
    world = ground.world.name if ground.world else None
    name = ground.chosen(targets_of(world)[:1] if world else (), target)[0]
    model = ground.target(name)
    return EditSession(
        ground.generator,
        ground.encoder,
        model,
        ground.prompts(attributes or ASKED.get(world, ())),
        ground.neutral if neutral is None else neutral,
        consistency=ground.held(model),
        judges=ground.judges,
        world=world,
        name=name,
        **rest,
    )


def choices(ground: Ground) -> Choices:
    """What the menus offer: the embedded worlds and their targets, with this ground's encoder."""

    def opened(world: str, **rest) -> EditSession:
        return open_session(ground.on(world), **rest)

    return Choices(tuple(WORLDS), targets_of, opened, change_target)


def change_target(session: EditSession, name: str) -> None:
    """Give a session of a world another target, by its name or file; Eq. 8 then holds its label.

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
