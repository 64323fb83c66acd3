"""The targets that come with the repository: kept in the zoo, built again from their card."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visiondx.core.errors import InputError
from visiondx_worlds.models import zoo
from visiondx_worlds.models.planted_targets import FILE, load_planted

if TYPE_CHECKING:
    from torch import nn

    from visiondx.models.target import Target

EMBEDDED = "target-"  # prefix of an embedded target's name in the zoo


def save_target(
    name: str, target: Target, *, notebook: str, seed: int, quality: dict, **card: object
) -> None:
    """Keep an embedded target.

    Args:
        notebook, seed, quality: for the manifest, see ``zoo.save``.
        card: kept in ``target.config``. With ``family``, ``width`` and ``depth`` the module came
            from ``build_scene_classifier``, with ``width`` alone from ``build_classifier``, or, for
            keypoints and parts, from ``build_keypoint_net`` or ``build_part_net``; beside them
            facts for readers, such as ``label``, the world's attribute it was trained on, and
            ``planted``, the attribute of its planted bias.
    """
    config = {
        "task": target.task,
        "labels": list(target.labels),
        **card,
        "mean": target.mean.flatten().tolist(),
        "std": target.std.flatten().tolist(),
    }
    tensors = target.module.state_dict()
    zoo.save(EMBEDDED + name, tensors, config, notebook=notebook, seed=seed, quality=quality)


def embedded() -> list[str]:
    """Names of the embedded targets."""
    return [n.removeprefix(EMBEDDED) for n in sorted(zoo.manifest()) if n.startswith(EMBEDDED)]


def load_embedded(name: str) -> tuple[nn.Module, dict]:
    """An embedded target's module, in eval mode, and its card.

    A name with @, such as "young-biased-bangs@1", is one of ``models.planted_targets``.

    Raises:
        InputError: no embedded target of that name, or its file is missing or altered.
    """
    if "@" in name:
        return load_planted(name)
    if name not in embedded():
        raise InputError(
            f"No embedded target {name!r}: choose from {', '.join(embedded()) or 'none'}, or name "
            'your own as "path/to/file.py:function".'
        )
    from visiondx_worlds.models.classifier import build_classifier
    from visiondx_worlds.models.scene_classifier import build_scene_classifier
    from visiondx_worlds.models.unet import build_keypoint_net, build_part_net

    with zoo.opened(EMBEDDED + name) as (tensors, card):
        if "family" in card:
            shape = (card["family"], card["width"], card["depth"])
            module = build_scene_classifier(*shape, len(card["labels"]))
        elif card["task"] == "keypoints":
            module = build_keypoint_net(len(card["labels"]), card["width"])
        elif card["task"] == "segmentation":
            module = build_part_net(len(card["labels"]), card["width"])
        else:
            module = build_classifier(card["width"])
        module.load_state_dict(tensors)
    return module.eval(), card


def fingerprint(name: str) -> str:
    """Of an embedded target: sha256 of the file that holds it, and which one in that file it is."""
    if "@" in name:
        return f"{zoo.manifest()[FILE]['sha256']}/{name}"
    return zoo.manifest()[EMBEDDED + name]["sha256"]
