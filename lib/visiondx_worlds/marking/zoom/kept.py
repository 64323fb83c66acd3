"""Which flips count: a flip is *kept* if the image is real and its label is still what it was.

A search can cheat: it may change the very attribute that the target is about, or leave what images
look like. So a raw flip, as in the paper, is a prediction that changed; a kept flip is, besides,

- one whose label attribute did not change: both judges agree on what it was before, and both say
  that it is the same now. Where they disagree, before or after, nobody can say so: not kept.
- an image as real as renders are, see ``Realism``.

Pictures that no world draws have no judges: of them, raw flips are all that is known.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from sklearn.covariance import ledoit_wolf
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.core.errors import InputError
from visiondx.core.files import atomic_write
from visiondx.core.stats import Estimate, bootstrap
from visiondx.models.device import device_of
from visiondx.show import plots
from visiondx.zoom.multi_result import MultiResult
from visiondx.zoom.result import SearchResult
from visiondx.zoom.visibility import read_pairs

HELD = 4  # one render in so many is held out to set the limit
SHARE = 0.95  # of the held-out renders that count as real
ALL = "all attributes"  # the name of a multi-attribute search's only column
NOT_JUDGED = (
    "No judges were asked, so nobody knows which of these flips are kept: take the raw ones."
)


@dataclass(frozen=True)
class Realism:
    """Is an image as real as renders are? Its distance to them in the judges' features.

    The distance is Mahalanobis', with the covariance shrunk by Ledoit and Wolf (2004): some of the
    512 features hardly vary. Features are taken at unit length. Their length says how much of a
    known thing is seen, so that images of nothing have short ones, near the mean: unscaled, white
    noise is as near to renders as renders are, to their centre or to the nearest one.
    """

    judges: object = field(repr=False)
    mean: Tensor  # (D,) of the renders' unit features
    whitening: Tensor  # (D, D): distance = |(feature - mean) @ whitening|
    limit: float  # the held-out renders' 95th percentile
    n: int
    seed: int

    @classmethod
    @torch.no_grad()
    def fit(cls, judges, world, n: int = 2000, seed: int = 0, batch: int = 256) -> "Realism":
        """Render n images of a world; a quarter of them is held out to set the limit.

        Args:
            judges: ``features(images) -> (B, D)`` and ``read``, see ``models.judges``.
            world: ``sample`` and ``render``, such as ``worlds.faces``. seed: of the renders.

        Raises:
            InputError: n below 40.
        """
        if n < 40:
            raise InputError(f"Realism needs 40 renders or more for a 95th percentile, got {n}.")
        scenes = world.sample(n, seed)
        device = device_of(judges)
        parts = []
        for first in tqdm(range(0, n, batch), desc="renders", unit="batch"):
            images = world.render(scenes[first : first + batch].to(device))
            parts.append(_unit(judges, images))
        features = torch.cat(parts)
        known, held = features[n // HELD :], features[: n // HELD]
        covariance, _ = ledoit_wolf(known.double().cpu().numpy())
        values, vectors = torch.linalg.eigh(torch.as_tensor(covariance))
        whitening = (vectors / values.clamp_min(1e-6 * values.max()).sqrt()).to(known)
        mean = known.mean(0)
        limit = ((held - mean) @ whitening).norm(dim=1).quantile(SHARE)
        return cls(judges, mean, whitening, float(limit), n, seed)

    def distance(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B,)."""
        return ((_unit(self.judges, images) - self.mean) @ self.whitening).norm(dim=1)

    def real(self, images: Tensor) -> Tensor:
        """(B,) bool: not farther than 95 % of held-out renders are."""
        return self.distance(images) <= self.limit


def _unit(judges, images: Tensor) -> Tensor:
    return F.normalize(judges.features(images), dim=1)


@dataclass(frozen=True)
class Flips:
    """Raw and kept flips of B images by each of N searches. All tensors are on the CPU.

    Of the last five, all are there, or none: then nobody has judged the flips.
    """

    names: tuple[str, ...]  # attributes, or "all attributes"
    raw: Tensor  # (B, N) bool, the prediction changed
    same: Tensor | None = None  # (B, N) bool, both judges say that the label is what it was
    abstained: Tensor | None = None  # (B, N) bool, they disagree about it, before or after
    distance: Tensor | None = None  # (B, N) from renders
    limit: float | None = None
    label: str | None = None

    @property
    def judged(self) -> bool:
        return self.same is not None

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of flips that are known."""
        return ("raw", "kept") if self.judged else ("raw",)

    @property
    def real(self) -> Tensor:
        """(B, N) bool.

        Raises:
            InputError: nobody has judged.
        """
        if not self.judged:
            raise InputError(NOT_JUDGED)
        return self.distance <= self.limit

    @property
    def kept(self) -> Tensor:
        """(B, N) bool.

        Raises:
            InputError: nobody has judged.
        """
        return self.real & self.raw & self.same

    def why(self, search: int = 0) -> list[str]:
        """For each image, what became of one search: "kept", or why its flip is not.

        Where nobody has judged, "flipped" or "not flipped".
        """
        if not self.judged:
            return ["flipped" if raw else "not flipped" for raw in self.raw[:, search].tolist()]
        columns = (t[:, search].tolist() for t in (self.raw, self.abstained, self.same, self.real))
        return [
            "not flipped" if not raw
            else "judges disagree" if abstained
            else "label changed" if not same
            else "kept" if real
            else "unlike renders"
            for raw, abstained, same, real in zip(*columns, strict=True)
        ]  # fmt: skip

    @cached_property
    def rates(self) -> dict[str, dict[str, Estimate]]:
        """The shares of all images: {"raw": {name: share}, "kept": {name: share}}.

        Images whose label the judges cannot read count as not kept, too. Only raw ones where nobody
        has judged.
        """
        return {
            kind: {
                name: bootstrap(column)
                for name, column in zip(
                    self.names, getattr(self, kind).double().T.numpy(), strict=True
                )
            }
            for kind in self.kinds
        }

    def to_frame(self) -> pd.DataFrame:
        """One row a search: its rates with intervals, and why raw flips were not kept.

        ``label_changed``, ``abstained`` and ``unreal`` are shares of all images; an image may be
        in ``unreal`` and in one of the others.
        """
        lost = {}
        if self.judged:
            lost = {
                "label_changed": self.raw & ~self.same & ~self.abstained,
                "abstained": self.raw & self.abstained,
                "unreal": self.raw & ~self.real,
            }
        rows = []
        for i, name in enumerate(self.names):
            row: dict = {"name": name}
            for kind in self.kinds:
                rate = self.rates[kind][name]
                row |= {kind: rate.value, f"{kind}_low": rate.low, f"{kind}_high": rate.high}
            row |= {why: flips[:, i].double().mean().item() for why, flips in lost.items()}
            rows.append(row)
        return pd.DataFrame(rows).assign(n=len(self.raw))

    def plot(self, title: str = "") -> Figure:
        """Raw and kept flip rates side by side."""
        return plots.intervals(self.rates, title, "flip rate")

    def save(self, folder: str | Path) -> None:
        """Write flips.csv."""
        with atomic_write(Path(folder) / "flips.csv") as path:
            self.to_frame().to_csv(path, index=False)


@torch.no_grad()
def label_kept(result: SearchResult, judges, label: str) -> Tensor:
    """Of each pair, whether the judges' mean still gives the counterfactual the label that it gave
    the original: (B, N) bool.

    Args:
        judges: ``scores(images) -> (B, A)`` and ``column``, see ``models.judges``.

    Raises:
        InputError: no judge reads the label.
    """
    column = judges.column(label)
    before, after = read_pairs(result, lambda images: judges.scores(images)[:, [column]] > 0.5)
    return after[:, :, 0] == before


def same_label(
    before: Tensor, unsure_before: Tensor, after: Tensor, unsure_after: Tensor
) -> Tensor:
    """Whether both judges say of an image what both said before: bool, of what they read."""
    return (after == before) & ~unsure_before & ~unsure_after


@torch.no_grad()
def flips(
    originals: Tensor,
    counterfactuals: Tensor,
    p_original: Tensor,
    p: Tensor,
    judges,
    label: str,
    realism: Realism,
    names: tuple[str, ...] = (ALL,),
) -> Flips:
    """Judge counterfactual images.

    Args:
        originals: (B, 3, H, W). counterfactuals: (B, N, 3, H, W).
        p_original: (B,) f(x). p: (B, N) f(x̂). names: of the N searches.
        label: the judges' attribute that the target is about.

    Raises:
        InputError: shapes that do not fit, or a label that no judge reads.
    """
    column = judges.column(label)
    shape = (len(originals), len(names))
    if counterfactuals.shape[:2] != shape or p.shape != shape or p_original.shape != shape[:1]:
        raise InputError(
            f"{shape[0]} originals and {shape[1]} names need counterfactuals and p of shape "
            f"{shape}, got {tuple(counterfactuals.shape[:2])} and {tuple(p.shape)}."
        )
    edited = counterfactuals.flatten(0, 1)
    before, unsure_before = (t[:, column, None].cpu() for t in judges.read(originals))
    after, unsure_after = (t[:, column].unflatten(0, shape).cpu() for t in judges.read(edited))
    abstained = unsure_before | unsure_after
    return Flips(
        names=tuple(names),
        raw=((p >= 0.5) != (p_original >= 0.5)[:, None]).cpu(),
        same=same_label(before, unsure_before, after, unsure_after),
        abstained=abstained,
        distance=realism.distance(edited).unflatten(0, shape).cpu(),
        limit=realism.limit,
        label=label,
    )


@torch.no_grad()
def clear(originals: Tensor, judges, label: str, realism: Realism) -> Tensor:
    """Of which images (B, 3, H, W) a kept flip can be told at all: (B,) bool.

    Both judges read the same label, and the image is as real as renders are, before any search.
    The share of kept flips among these images is about the search; among all images it is about
    generator and judges, too.

    Raises:
        InputError: no judge reads the label.
    """
    _, unsure = judges.read(originals)
    return (~unsure[:, judges.column(label)] & realism.real(originals)).cpu()


def judge_flips(
    result: SearchResult | MultiResult,
    judges=None,
    label: str | None = None,
    realism: Realism | None = None,
    batch: int = 128,
) -> Flips:
    """``flips`` of all images that a search kept; a column for each attribute, or one for all.

    Args:
        judges, label, realism: see ``flips``. Without judges, raw flips are all that is known.
        batch: counterfactuals at once; a memory limit.

    Raises:
        InputError: a search of keypoints or parts, which have no label that judges read.
    """
    multi = isinstance(result, MultiResult)
    names = (ALL,) if multi else result.attributes
    if judges is None:
        return Flips(names, result.flipped[:, None] if multi else result.flipped)
    if result.task != "binary":
        raise InputError(
            f"Judges read labels, and this search is about {result.task}: ask Realism alone."
        )
    p = result.p[:, None] if multi else result.p
    device = result.generator.style_mean.device
    parts = []
    chunks = torch.arange(len(p)).split(max(1, batch // len(names)))
    for rows in tqdm(chunks, desc="judging flips", unit="batch"):
        some = rows.tolist()
        edited = [result.images(some)] if multi else [
            result.images(some, n) for n in range(len(names))
        ]  # fmt: skip
        parts.append(
            flips(
                result.originals(some).to(device),
                torch.stack(edited, 1).to(device),
                result.p_original[rows],
                p[rows],
                judges,
                label,
                realism,
                names,
            )
        )
    joined = {
        name: torch.cat([getattr(part, name) for part in parts])
        for name in ("raw", "same", "abstained", "distance")
    }
    return Flips(names=names, limit=realism.limit, label=label, **joined)
