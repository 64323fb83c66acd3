"""Is it the attribute, or just any edit? Counterfactuals beside random edits of the same size.

Any edit moves a detector's points a little. The control of a counterfactual takes its edit, w Δs,
and hands its values out to other style channels, at random: the same number of channels, the same
amounts in standard deviations of style, so the same norm, but another meaning. What the attributes
do beyond that is the ratio of the two changes.
"""

from dataclasses import dataclass
from functools import cached_property

import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.core.errors import InputError
from visiondx.core.stats import Estimate, bootstrap
from visiondx.zoom.multi_result import MultiResult
from visiondx.zoom.result import SearchResult
from visiondx.zoom.tasks import original
from visiondx_worlds.marking.zoom.kept import ALL, Realism


@dataclass(frozen=True)
class Control:
    """B images x N searches, and random edits of their size. All tensors are on the CPU."""

    names: tuple[str, ...]  # attributes, or "all attributes"
    change: Tensor  # (B, N) of the counterfactuals
    random: Tensor  # (B, N) of the random edits, their mean
    pixels: Tensor  # (B, N) mean |x̂ - x| of the counterfactuals
    random_pixels: Tensor  # (B, N)
    flipped: Tensor  # (B, N) bool
    real: Tensor | None  # (B, N) bool, the counterfactual is as real as renders are; if known

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of flips that are known."""
        return ("raw",) if self.real is None else ("raw", "kept")

    @cached_property
    def ratio(self) -> Estimate:
        """Mean change of the counterfactuals over that of the random edits, of all searches."""
        return _ratio(self.change.mean(1), self.random.mean(1))

    @cached_property
    def ratios(self) -> dict[str, Estimate]:
        """The same of each search."""
        columns = zip(self.names, self.change.T, self.random.T, strict=True)
        return {name: _ratio(one, other) for name, one, other in columns}

    @cached_property
    def pixel_ratio(self) -> Estimate:
        """The same for the pixels: how much more the picture changes, whatever the target says."""
        return _ratio(self.pixels.mean(1), self.random_pixels.mean(1))

    @cached_property
    def rates(self) -> dict[str, dict[str, Estimate]]:
        """Shares of images that flipped: "raw", and "kept" of those that are real, if known."""
        flips = {"raw": self.flipped}
        if self.real is not None:
            flips["kept"] = self.flipped & self.real
        return {
            kind: {
                name: bootstrap(column)
                for name, column in zip(self.names, found.double().T.numpy(), strict=True)
            }
            for kind, found in flips.items()
        }

    def to_frame(self) -> pd.DataFrame:
        """One row a search: both changes, their ratio with its interval, pixels, flips."""
        return pd.DataFrame(
            {
                "name": self.names,
                "change": self.change.mean(0).numpy(),
                "random": self.random.mean(0).numpy(),
                "ratio": [ratio.value for ratio in self.ratios.values()],
                "low": [ratio.low for ratio in self.ratios.values()],
                "high": [ratio.high for ratio in self.ratios.values()],
                "pixels": self.pixels.mean(0).numpy(),
                "random_pixels": self.random_pixels.mean(0).numpy(),
                **{k: [rate.value for rate in rates.values()] for k, rates in self.rates.items()},
            }
        )


def _ratio(one: Tensor, other: Tensor) -> Estimate:
    """Ratio of the means of two (B,), images resampled."""
    rows = torch.stack((one, other), 1).double().numpy()
    return bootstrap(rows, lambda r: r[:, 0].sum() / max(r[:, 1].sum(), 1e-12))


def shuffled(edits: Tensor, style_std: Tensor, editable: Tensor, source: torch.Generator) -> Tensor:
    """Edits of styles (R, c_S) with their values, in deviations of style, on random channels.

    Args:
        edits: zero where ``editable`` (c_S,) is False. source: a CPU generator.

    Raises:
        InputError: an edit of a channel that is not editable.
    """
    if bool(edits[:, ~editable].any()):
        raise InputError("An edit touches channels that are not editable: it cannot be shuffled.")
    std = style_std[editable].clamp_min(1e-12)
    values = edits[:, editable] / std
    order = torch.rand(values.shape, generator=source).argsort(1).to(values.device)
    found = torch.zeros_like(edits)
    found[:, editable] = values.gather(1, order) * std
    return found


@torch.no_grad()
def control(
    result: SearchResult | MultiResult,
    target,
    realism: Realism | None = None,
    draws: int = 2,
    seed: int = 0,
    batch: int = 64,
) -> Control:
    """Random edits beside every counterfactual of a search; B N (2 + draws) images.

    Args:
        target: the one that was searched. realism: says which counterfactuals count as real;
            without it, nobody does.
        draws: random edits of each counterfactual; their changes are averaged.
        seed: of the random edits. batch: images at once; a memory limit.

    Raises:
        InputError: draws below 1.
    """
    multi = isinstance(result, MultiResult)
    names = (ALL,) if multi else result.attributes
    images, n = len(result.w), len(names)
    if draws < 1:
        raise InputError(f"control needs draws of 1 or more, got {draws}.")
    generator = result.generator
    device = generator.style_mean.device
    source = torch.Generator().manual_seed(seed)
    delta_s, styles, w = (
        t.to(device) for t in (result.directions.delta_s, result.styles, result.w)
    )
    sums = torch.zeros(2, 2, images * n)  # (own, random) x (change, pixels)
    real = None if realism is None else torch.zeros(images * n, dtype=torch.bool)
    with tqdm(total=images * n * (1 + draws), desc="control", unit="image") as bar:
        for pairs in torch.arange(images * n).split(batch):
            image, attribute = (pairs // n).to(device), (pairs % n).to(device)
            own = w[image] @ delta_s if multi else w[image, attribute, None] * delta_s[attribute]
            x = generator.synthesize(styles[image])
            side = original(target, x)
            for draw in range(1 + draws):
                edit = own
                if draw:
                    edit = shuffled(own, generator.style_std, generator.editable, source)
                edited = generator.synthesize(styles[image] + edit)
                change = (side.change(side.output(edited)) - side.p).abs()
                pixels = (edited - x).abs().mean((1, 2, 3))
                sums[min(draw, 1), :, pairs] += torch.stack((change, pixels)).cpu()
                if not draw and realism is not None:
                    real[pairs] = realism.real(edited).cpu()
                bar.update(len(pairs))
    sums[1] /= draws
    (change, pixels), (random, random_pixels) = sums.unflatten(2, (images, n))
    return Control(
        names=names,
        change=change,
        random=random,
        pixels=pixels,
        random_pixels=random_pixels,
        flipped=result.flipped.reshape(images, n),
        real=None if real is None else real.view(images, n),
    )
