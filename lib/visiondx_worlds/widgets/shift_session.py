"""A `ShiftSession` on models that have names: embedded ones, or files of one's own."""

from collections.abc import Generator
from pathlib import Path

import torch
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.dataset_interfaces.interface import DatasetInterface
from visiondx.dataset_interfaces.models import open_model
from visiondx.dataset_interfaces.shifts import Shift
from visiondx.models import registry
from visiondx.models.encoder import Encoder
from visiondx.models.painter import Painter
from visiondx.run.explain_checks import check_painter
from visiondx.widgets.shift_rows import Progress
from visiondx.widgets.shift_session import Calibrate, Chosen, ShiftSession
from visiondx_worlds.marking.dataset_interfaces.own import calibrated, home_of, own_interface
from visiondx_worlds.marking.dataset_interfaces.truth import WORLD_SHIFTS, true_images
from visiondx_worlds.models.judges import Judges
from visiondx_worlds.training.class_tokens import DATA_SETS

SCENES = "scenes"  # the data set that the renderer draws under shifts
_AT_ONCE = 60  # calibration pictures between two looks at the button Stop


def open_shifts(
    model: str,
    interface: str = SCENES,
    painter: str = "embedded",
    encoder: str = "embedded",
    *,
    encoder_weights: str = "",
    lora: str = "",
    device: str = "",
    kept: str | Path = "runs/dataset_interfaces/kept",
    calibration: int = 10,
    calibration_seed: int = 50,
    **rest,
) -> ShiftSession:
    """A session that can tell how its interface is opened again.

    Args:
        model: see ``open_model``. interface: an embedded data set, or a folder of
            ``DatasetInterface.save``. painter, lora: see ``Painter.load``. encoder,
            encoder_weights: see ``Encoder.load``.
        kept: a folder of calibration pictures, which notebooks share.
        calibration, calibration_seed: pictures a class, on which judges choose the t_shift of a
            shift when it is first asked for; only of `scenes`, whose judges read shifts.
        rest: of ``ShiftSession``.

    Raises:
        InputError: no such model, data set or folder, or as ``ShiftSession``.
    """
    check_painter(painter)
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    artist = Painter.load(painter, where, lora or None)
    clip = Encoder.load(encoder, where, encoder_weights)
    painted = f"{painter!r}, lora={lora!r}" if lora else repr(painter)
    read = f"{encoder!r}, weights={encoder_weights!r}" if encoder_weights else repr(encoder)
    models = f"vx.Painter.load({painted}), vx.Encoder.load({read})"
    if interface in DATA_SETS:
        found = own_interface(artist, clip, interface)
        home = "visiondx_worlds.marking.dataset_interfaces.own"
        opening = f"from {home} import own_interface\n\n"
        made = f"own_interface({models}, {interface!r})"
    else:
        found = DatasetInterface.load(interface, artist, clip)
        opening = ""
        made = f"vx.DatasetInterface.load({interface!r}, {models})"
    opening = f"import visiondx as vx\n{opening}interface = {made}"
    if interface == SCENES:
        judges = Judges.load(SCENES, where)
        rest["truth"] = draw
        rest["calibrate"] = by_judges(judges, calibration, calibration_seed, kept)
    return ShiftSession(found, open_model(model, where), opening=opening, **rest)


def classifiers() -> list[str]:
    """Names of the embedded classifiers of scenes."""
    return registry.offered("targets", "multiclass", SCENES)


def draw(kind: str, shift: Shift, count: int, seed: int) -> Tensor | None:
    """(count, 3, 64, 64) of the data set's own class under a shift of Table 1; else None."""
    if shift.name not in WORLD_SHIFTS or shift.style != Shift.named(shift.name).style:
        return None
    return true_images(shift, count, seed, [kind])[kind]


def by_judges(judges: Judges, count: int, seed: int, folder: str | Path) -> Calibrate:
    """t_shift as ``own.calibrated`` chooses it, painted part by part; None for other words.

    Args:
        count: pictures a class. seed: of these. folder: keeps them.
    """

    def choose(interface: DatasetInterface, shift: Shift) -> Generator[Progress, None, Chosen]:
        if shift.name not in WORLD_SHIFTS:
            return None
        classes = len(interface.classes)
        home, each = home_of(interface, seed, folder), max(_AT_ONCE // classes, 1)
        for made in range(0, count, each):
            yield Progress(
                "Painting what judges choose t_shift on", made * classes, count * classes
            )
            many = min(made + each, count)
            interface.generate(shift, n=many, seed=seed, folder=home, batch=each * classes)
        try:
            _, table = calibrated(interface, judges, [shift], count, seed, folder)
        except InputError as error:
            return None, str(error)
        row = table.loc[shift.name]
        short = "" if row["reached"] else ", the most that any threshold reaches"
        why = (
            f"calibrated: of {row['n']:.0f} pictures from there up, the judges see the shift in "
            f"{row['accepted']:.0%}{short}"
        )
        return float(row["threshold"]), why

    return choose
