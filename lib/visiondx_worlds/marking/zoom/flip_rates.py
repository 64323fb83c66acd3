"""Flip rates of a multi-attribute search (ZOOM, section 4.4), raw and kept, by number of steps.

One search gives the rates after any number of steps. A flip is judged where it first happens: the
mildest edit found that flips the image, which is nearer to the original than the most
counterfactual one. So a flip counts as kept from that step on, or never; what the search does to
the image afterwards changes neither rate. (`notebooks/zoom/12_search_steps` compares the choices.)

Without a jury, such as of photographs, raw flips are all that is known.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.core.stats import Estimate, bootstrap
from visiondx.show import plots
from visiondx.zoom.directions import Directions
from visiondx.zoom.multi import MultiResult
from visiondx.zoom.settings import SearchSettings
from visiondx_worlds.marking.zoom.kept import Flips, clear, judge_flips
from visiondx_worlds.marking.zoom.resistance import BATCH, Jury, search_seeds

KINDS = ("raw", "kept", "kept_of_clear")


@dataclass(frozen=True)
class FlipRates:
    """B images of several seeds, all attributes at once, each at its first flip. On the CPU."""

    result: MultiResult
    flips: Flips  # of one search
    clear: Tensor | None  # (B,) bool, see ``kept.clear``; None where nobody has judged
    seeds: Tensor  # (B,)

    @property
    def kinds(self) -> tuple[str, ...]:
        """What is known: "raw" flips, "kept" ones, both of all images, and "kept_of_clear"."""
        return KINDS if self.flips.judged else KINDS[:1]

    def by(self, kind: str, steps: int | None = None) -> Tensor:
        """Which images flipped within so many steps (None: all): (B,) bool.

        Raises:
            InputError: an unknown kind, or one that nobody has judged.
        """
        if kind not in KINDS:
            raise InputError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}.")
        flipped = getattr(self.flips, kind.removesuffix("_of_clear"))[:, 0]
        flipped = flipped & self.counted(kind)
        return flipped if steps is None else flipped & (self.result.first_flip <= steps)

    def counted(self, kind: str) -> Tensor:
        """Of which images a kind is a share: (B,) bool."""
        return self.clear if kind == "kept_of_clear" else torch.ones(len(self.seeds)).bool()

    def rate(self, kind: str, steps: int | None = None) -> Estimate:
        """Share of the images, or of the clear ones; the interval resamples images."""
        return pooled([self], kind, steps)

    def curve(self, kind: str, steps: Sequence[int]) -> pd.DataFrame:
        """One row a number of steps: the rate with its interval and n, for ``plot_rates``."""
        rows = [{"steps": k, **self.rate(kind, k).as_dict()} for k in steps]
        return pd.DataFrame(rows).rename(columns={"value": "rate"})

    def examples(self, count: int) -> tuple[list[int], list[int]]:
        """The best and the worst images: the strongest kept flips, and what is not kept.

        Among the worst, clear images come first: of the others nobody could tell. Where nobody has
        judged, the strongest flips, and what did not flip.
        """
        good, change = self.by("kept" if self.flips.judged else "raw"), self.result.change
        worst = list(range(len(good)))
        if self.clear is not None:
            worst = torch.argsort((~self.clear).int(), stable=True).tolist()
        best = change.argsort(descending=True, stable=True).tolist()
        return [i for i in best if good[i]][:count], [i for i in worst if not good[i]][:count]


def flip_rates(
    target,
    directions: Directions,
    generator,
    encoder,
    held: Sequence[str] | None = None,
    jury: Jury | None = None,
    label: str | None = None,
    *,
    seeds: Sequence[int],
    images: int,
    settings: SearchSettings,
    folder: str | Path | None = None,
    truncation: float = 1.0,
) -> FlipRates:
    """Search fresh images of every seed, and judge the first flip of each.

    Images leave the search at their first flip.

    Args:
        held: (present, absent) prompts of the target's label, held fixed by Eq. 8, or None.
        jury: says which flips are kept, by ``label``, its name of what the target is about. Without
            one, raw flips are all that is known.
        images: of each seed. folder: finished seeds are kept there, so that a long run resumes.
        truncation: of the styles, see ``StyleGenerator.sample_styles``.

    Raises:
        InputError: a jury without a label that it reads, or what ``multi_search`` refuses.
    """
    if jury:
        jury.judges.column(label)
    settings = replace(settings, stop_when="flipped")
    result, drawn = search_seeds(
        generator, target, encoder, directions, seeds, images, settings, held, folder, truncation
    )
    result = result.at_first_flip()
    if not jury:
        return FlipRates(result, judge_flips(result), None, drawn)
    flips = judge_flips(result, jury.judges, label, jury.realism)
    return FlipRates(result, flips, told(result, label, jury), drawn)


def told(result: MultiResult, label: str, jury: Jury) -> Tensor:
    """Which originals of a search are clear, see ``kept.clear``: (B,) bool."""
    device = result.generator.style_mean.device
    return torch.cat(
        [
            clear(result.originals(rows.tolist()).to(device), jury.judges, label, jury.realism)
            for rows in torch.arange(len(result.p)).split(BATCH)
        ]
    )


def pooled(parts: Sequence[FlipRates], kind: str, steps: int | None = None) -> Estimate:
    """The rate over the images of several targets, or of one.

    The interval resamples the images, which are the same for all targets.

    Raises:
        InputError: no image counts, the targets saw other images, or nobody has judged the kind.
    """
    if any(not torch.equal(part.result.styles, parts[0].result.styles) for part in parts):
        raise InputError("Rates of several targets pool over the same images: search the same.")
    flipped = np.stack([part.by(kind, steps).numpy() for part in parts])  # (P, B)
    counts = np.stack([part.counted(kind).numpy() for part in parts])
    if not counts.any():
        raise InputError("No image is clear: search more images.")
    rows = np.stack([flipped.sum(0), counts.sum(0)], 1)  # of each image, over targets

    def share(rows: np.ndarray) -> float:
        flips, among = rows.sum(0)
        return flips / among if among else np.nan

    return replace(bootstrap(rows, share), n=int(counts.sum()))


def to_frame(parts: dict[str, FlipRates]) -> pd.DataFrame:
    """One row a search: its rates with intervals, and why raw flips were not kept."""
    rows = []
    for name, part in parts.items():
        row: dict = {"search": name}
        for kind in part.kinds:
            rate = part.rate(kind)
            row |= {kind: rate.value, f"{kind}_low": rate.low, f"{kind}_high": rate.high}
        if part.flips.judged:
            row["clear"] = part.clear.double().mean().item()
            lost = part.flips.to_frame().iloc[0]
            row |= {why: lost[why] for why in ("label_changed", "abstained", "unreal")}
        first = part.result.first_flip[part.result.flipped].double()
        row["median_step"] = first.median().item() if len(first) else float("nan")
        rows.append(row | {"n": len(part.seeds)})
    return pd.DataFrame(rows)


def plot_rates(curves: dict[str, pd.DataFrame], title: str = "") -> Figure:
    """Flip rates over the number of steps, on a logarithmic axis, from 1; a line a curve.

    Args:
        curves: name of a line -> ``FlipRates.curve``; the ticks are the steps of the first.
    """
    shown = {name: curve[curve["steps"] > 0] for name, curve in curves.items()}
    figure = plots.curves(shown, "steps", "rate", title, ylabel="flip rate")
    axis, steps = figure.axes[0], next(iter(shown.values()))["steps"].tolist()
    axis.set_xscale("log")
    axis.minorticks_off()
    axis.set_xticks(steps, [str(step) for step in steps], fontsize=8)
    return figure
