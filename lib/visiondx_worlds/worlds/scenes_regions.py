"""Which part of a scene's background is grass, sky, sea, …: the lines of `scenes_backdrop`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from visiondx_worlds.worlds.base import Attributes
from visiondx_worlds.worlds.scenes_backdrop import (
    Ground,
    drifts,
    firs,
    heap,
    lane,
    lawn_edge,
    palm,
    peaks,
    sea_line,
    shore,
)
from visiondx_worlds.worlds.scenes_shapes import by_group, inside
from visiondx_worlds.worlds.sdf import union

REGIONS = (*("sky", "wall", "floor", "grass", "sand", "forest", "water", "road", "rocks", "snow"),)


def _below(b: Ground, line: Tensor) -> Tensor:
    """(B, H, W): share of each pixel under a line."""
    return inside(line - b.v)[:, 0]


def _plain(b: Ground) -> dict[str, Tensor]:
    floor = _below(b, b.h)
    return {"wall": 1 - floor, "floor": floor}


def _grass(b: Ground) -> dict[str, Tensor]:
    lawn = _below(b, lawn_edge(b))
    return {"sky": 1 - lawn, "grass": lawn}


def _beach(b: Ground) -> dict[str, Tensor]:
    sand, low = _below(b, shore(b)), _below(b, b.h)
    clear = 1 - inside(union(*palm(b)))[:, 0]
    sea = low * (1 - sand)
    return {"sky": (1 - low) * (1 - sand) * clear, "water": sea * clear, "sand": sand * clear}


def _forest(b: Ground) -> dict[str, Tensor]:
    return {"forest": torch.ones_like(b.u)}


def _water(b: Ground) -> dict[str, Tensor]:
    sea = _below(b, sea_line(b))
    return {"sky": 1 - sea, "water": sea}


def _road(b: Ground) -> dict[str, Tensor]:
    across, wide = lane(b)
    asphalt = inside(torch.maximum((across.abs() - 1) * wide, b.h - b.v))[:, 0]
    return {"sky": 1 - _below(b, b.h), "road": asphalt}


def _rocks(b: Ground) -> dict[str, Tensor]:
    stones = torch.maximum(_below(b, heap(b)), inside(peaks(b))[:, 0])
    return {"sky": 1 - stones, "rocks": stones}


def _snow(b: Ground) -> dict[str, Tensor]:
    ground = _below(b, drifts(b))
    return {"sky": (1 - ground) * (1 - inside(firs(b))[:, 0]), "snow": ground}


_OF: tuple[Callable[[Ground], dict[str, Tensor]], ...] = (
    *(_plain, _grass, _beach, _forest, _water, _road, _rocks, _snow),
)


def regions(a: Attributes, u: Tensor, v: Tensor) -> dict[str, Tensor]:
    """{one of REGIONS: coverage (B, H, W)}, before anything stands in the picture.

    The forest is all of its background; a palm, firs and a road's verges are none of the regions.
    """

    def draw(kind: int, rows: Tensor) -> tuple[Tensor, ...]:
        ground = Ground(a[rows], u, v)
        nothing = torch.zeros_like(ground.u)
        found = _OF[kind](ground)
        return tuple(found.get(name, nothing) for name in REGIONS)

    return dict(zip(REGIONS, by_group(a["background"].long(), draw), strict=True))
