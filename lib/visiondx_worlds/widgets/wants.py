"""A `WantSession` on models that have names: embedded ones, or files of one's own."""

from collections.abc import Mapping

import torch

from visiondx.diffexplainer.targets import open_target
from visiondx.models import registry
from visiondx.models.painter import Painter
from visiondx.models.segmenter import Segmenter
from visiondx.run.explain_checks import NOBODY, check_painter, check_segmenter
from visiondx.run.explain_command import command_line, opening_lines, run_name
from visiondx.widgets.wants import WITH_CLASSES, WantSession


def open_wants(
    target: str,
    painter: str = "embedded",
    segmenter: str = "embedded",
    *,
    lora: str = "",
    masks: str = "",
    device: str = "",
    **rest,
) -> WantSession:
    """A session that can tell how its models are opened again.

    Args:
        target, painter, segmenter, lora, masks, device: as of the notebook ``explain``.
        rest: of ``WantSession``.

    Raises:
        InputError: no such model, or as ``WantSession``.
    """
    check_painter(painter), check_segmenter(segmenter)
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    artist = Painter.load(painter, where, lora or None)
    looks = None if segmenter == NOBODY else Segmenter.load(segmenter, masks or None, where)
    names = {"painter": painter, "lora": lora, "segmenter": segmenter, "masks": masks}

    def lines(asked: Mapping[str, object]) -> tuple[str, str]:
        name = run_name(asked["target"])
        given = {**asked, **names, "device": device, "name": name, "preset": "embedded"}
        return opening_lines(given), command_line(given)

    model = open_target(target, artist.size, where)
    return WantSession(model, artist, looks, name=target, lines=lines, **rest)


def classifiers() -> list[str]:
    """Names of the embedded targets that have classes, those of many first."""
    return [n for task in reversed(WITH_CLASSES) for n in registry.offered("targets", task)]
