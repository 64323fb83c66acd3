"""Do the edit directions edit? Tuned by CLIP on some seeds, judged by others on other seeds.

CLIP chooses λ and w for each attribute; judges that never saw CLIP then say whether the attribute
appeared, and what else changed. So CLIP does not mark its own work.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.core.errors import InputError
from visiondx.core.files import atomic_write
from visiondx.core.memory import keep_memory
from visiondx.core.stats import Estimate, bootstrap
from visiondx.zoom.directions import Directions, from_relevance, text_directions, threshold_for
from visiondx.zoom.estimate import edit_relevance, settle
from visiondx.zoom.toggle import clip_scores
from visiondx.zoom.visibility import Visibility, by_scores


@dataclass(frozen=True)
class Edits:
    """Directions with one fixed weight each, and what CLIP saw of them on the tuning images."""

    directions: Directions
    w: Tensor  # (N,)
    reached: Tensor  # (N,) share of tuning images on which, to CLIP, the edit works
    others: Tensor  # (N,) mean |change| of the other attributes' scores, in their deviations

    def apply(self, generator, styles: Tensor, attribute: int, batch: int = 128) -> Tensor:
        """Edited images (B, 3, H, W) of one attribute."""
        step = self.w[attribute] * self.directions.delta_s[attribute]
        parts = (styles + step.to(styles)).split(batch)
        with torch.no_grad():
            return torch.cat([generator.synthesize(part) for part in parts])

    def to_frame(self) -> pd.DataFrame:
        return self.directions.to_frame().assign(
            w=self.w.numpy(), clip_reached=self.reached.numpy(), clip_others=self.others.numpy()
        )


@torch.no_grad()
def tune(
    generator,
    encoder,
    M: Tensor | None,
    attributes: Sequence[str],
    neutral: str,
    styles: Tensor,
    channels: Sequence[int] = (20, 80, 320, 800),
    weights: Sequence[float] = (3.0, 4.5, 7.0, 10.0, 14.0, 20.0, 28.0),
    wanted: float = 0.9,
    templates: Sequence[str] | None = None,
    batch: int = 128,
    estimator: str = "relevance",
) -> Edits:
    """Choose λ (as a number of channels) and w for each attribute, by CLIP alone.

    CLIP's score of attribute n is e(x)·Δt_n; above 0, an image fits the attribute's sentence better
    than the neutral one. An edit has worked on an image that was not above 0 if its score then is
    typical of those that were: their median. Of the choices that work on a share ``wanted`` of the
    images, the one that changes the other attributes' scores least is taken; if none does, the one
    that works most often, and of several, the one that comes nearest on average.

    Args:
        styles: (B, c_S) of the tuning images.
        M, estimator: (c_S, c_T) and "relevance", or None and "gradient", see ``zoom.estimate``.
        channels, weights: what is tried; len(channels) * len(weights) * N * B images.
    """
    delta_t = text_directions(encoder, attributes, neutral, templates)
    keep_memory()  # on the CPU, halves the time
    estimator, M = settle(generator, encoder, estimator, M)
    strength = edit_relevance(generator, encoder, delta_t, estimator, M)

    def directions(thresholds: Sequence[float]) -> Directions:
        std = generator.style_std
        return from_relevance(
            strength, attributes, neutral, delta_t, std, thresholds, estimator=estimator
        )

    options = [directions(threshold_for(strength, count)) for count in channels]

    scores = partial(clip_scores, generator, encoder, delta_t, batch=batch)
    before = scores(styles)  # (B, N)
    goal = before.masked_fill(before <= 0, float("nan")).nanmedian(0).values
    goal = torch.where(goal.isnan(), before.amax(0), goal)
    lacking = (before <= 0) | (before > 0).all(0)  # all count where none lacks it
    scale = before.std(0).clamp_min(1e-6)
    n, tried = len(attributes), len(options) * len(weights)
    reached, near, others = (torch.zeros(n, tried) for _ in range(3))
    with tqdm(total=n * tried, desc="tuning edits", unit="edit") as bar:
        for i in range(n):
            rest = torch.arange(n) != i
            for j in range(tried):
                option, w = options[j // len(weights)], weights[j % len(weights)]
                after = scores(styles + w * option.delta_s[i].to(styles))
                own = after[lacking[:, i], i]
                reached[i, j] = (own >= goal[i]).float().mean()
                near[i, j] = own.minimum(goal[i]).mean()
                moved = ((after - before).abs() / scale).mean(0)[rest]
                others[i, j] = moved.mean() if n > 1 else 0
                bar.update()
    best = _choose(reached, near, others, wanted)
    picked = [options[j // len(weights)] for j in best.tolist()]
    thresholds = [option.threshold[i] for i, option in enumerate(picked)]
    return Edits(
        directions=directions(thresholds),
        w=torch.tensor([float(weights[j % len(weights)]) for j in best.tolist()]),
        reached=reached.gather(1, best[:, None]).squeeze(1),
        others=others.gather(1, best[:, None]).squeeze(1),
    )


def _choose(reached: Tensor, near: Tensor, others: Tensor, wanted: float) -> Tensor:
    """Per row: the least change of others among what works, else the most reached, the nearest."""
    works = reached >= wanted
    least = others.masked_fill(~works, float("inf")).argmin(1)
    fewer = reached < reached.amax(1, keepdim=True)
    return torch.where(works.any(1), least, near.masked_fill(fewer, float("-inf")).argmax(1))


@dataclass(frozen=True)
class EditReport:
    """What the judges saw, image by image. B counts the images of all reporting seeds."""

    attributes: tuple[str, ...]  # the judges' names
    gained: np.ndarray  # (B, N) 1 gained, 0 not, NaN: the image had it, or the judges abstained
    change: np.ndarray  # (B, N edited, N judged) signed change of the judges' probability
    abstained: np.ndarray  # (B, N) the judges disagree about the edited attribute afterwards
    seeds: np.ndarray  # (B,)

    @cached_property
    def success(self) -> dict[str, Estimate]:
        """Per attribute, the share of images without it that gain it.

        An attribute that no image lacks is left out.
        """
        found = {}
        for name, column in zip(self.attributes, self.gained.T, strict=True):
            asked = np.isfinite(column)
            if asked.any():
                found[name] = bootstrap(column[asked])
        return found

    @property
    def success_mean(self) -> Estimate:
        """Mean over attributes; the interval resamples images."""
        return bootstrap(_asked(self.gained), _mean_success)

    @property
    def success_min(self) -> Estimate:
        """The worst attribute's."""
        return min(self.success.values(), key=lambda estimate: estimate.value)

    @property
    def matrix(self) -> pd.DataFrame:
        """Mean |change|, edited (rows) x judged (columns); the diagonal is signed.

        Only images that lacked the edited attribute count.
        """
        lacking = np.isfinite(self.gained)[:, :, None]
        size = np.where(lacking, np.abs(self.change), np.nan)
        mean = np.nanmean(size, axis=0)
        n = range(len(self.attributes))
        own = np.nanmean(np.where(lacking[:, :, 0], self.change[:, n, n], np.nan), axis=0)
        mean[n, n] = own
        return pd.DataFrame(mean, index=self.attributes, columns=self.attributes)

    @property
    def diagonal_ratio(self) -> Estimate:
        """Mean judged change of the edited attribute over the mean |change| of the others."""
        lacking = np.isfinite(self.gained)
        n = len(self.attributes)
        own = np.where(lacking, self.change[:, range(n), range(n)], 0).sum(1)
        size = np.abs(self.change).sum(2) - np.abs(self.change[:, range(n), range(n)])
        others = np.where(lacking, size / max(n - 1, 1), 0).sum(1)
        table = np.stack([own, others], 1)

        def statistic(rows: np.ndarray) -> float:
            own_sum, others_sum = rows.sum(0)
            return float(own_sum / max(others_sum, 1e-12))

        return bootstrap(table, statistic)

    def to_frame(self) -> pd.DataFrame:
        """One row an attribute: success with its interval, the worst seed, own and other change."""
        matrix = self.matrix.to_numpy()
        rows = []
        for i, name in enumerate(self.attributes):
            if name not in self.success:
                continue
            column = self.gained[:, i]
            asked = np.isfinite(column)
            seeds = np.unique(self.seeds[asked])
            by_seed = [column[asked & (self.seeds == seed)].mean() for seed in seeds]
            estimate = self.success[name].as_dict()
            rows.append(
                {
                    "attribute": name,
                    "success": estimate.pop("value"),
                    **estimate,
                    "worst_seed": min(by_seed),
                    "change": matrix[i, i],
                    "others": np.delete(matrix[i], i).mean() if len(matrix) > 1 else np.nan,
                    "abstained": self.abstained[:, i].mean(),
                }
            )
        return pd.DataFrame(rows)

    def save(self, folder: str | Path) -> None:
        """Write edits.csv and edit_matrix.csv."""
        for name, frame in (("edits", self.to_frame()), ("edit_matrix", self.matrix)):
            with atomic_write(Path(folder) / f"{name}.csv") as path:
                frame.to_csv(path, index=name == "edit_matrix")


@torch.no_grad()
def evaluate(
    edits: Edits,
    generator,
    judges,
    names: Sequence[str],
    seeds: Sequence[int] = (100, 101, 102, 103, 104),
    images: int = 64,
) -> EditReport:
    """Judge every edit on ``images`` fresh images of each seed.

    Args:
        judges: ``binary`` (A names), ``scores(images) -> (B, A)``, ``read(images) -> (labels,
            abstain)``, see ``models.judges``.
        names: the judges' attribute that each edit is about.

    An image counts for an attribute if both judges say that it lacks it; it has gained it if both
    say so afterwards (an abstention is no gain).
    """
    missing = [name for name in names if name not in judges.binary]
    if missing or len(names) != len(edits.w) or len(set(names)) < len(names):
        raise InputError(
            f"{len(edits.w)} edits need as many different names of the judges' attributes, "
            f"got {list(names)}; unknown: {missing}."
        )
    keep_memory()
    columns = [judges.binary.index(name) for name in names]
    n = len(names)
    gained, abstained = np.zeros((2, len(seeds) * images, n))
    change = np.zeros((len(seeds) * images, n, n))
    for k, seed in enumerate(tqdm(seeds, desc="judging edits", unit="seed")):
        rows = slice(k * images, (k + 1) * images)
        styles = generator.sample_styles(images, seed)
        original = torch.cat([generator.synthesize(part) for part in styles.split(128)])
        labels, abstain = (t[:, columns].cpu() for t in judges.read(original))
        before = judges.scores(original)[:, columns].cpu()
        for i in range(n):
            edited = edits.apply(generator, styles, i)
            after, unsure = (t[:, columns[i]].cpu() for t in judges.read(edited))
            lacking = ~labels[:, i] & ~abstain[:, i]
            won = (after & ~unsure).double()
            gained[rows, i] = won.masked_fill(~lacking, float("nan")).numpy()
            change[rows, i] = (judges.scores(edited)[:, columns].cpu() - before).numpy()
            abstained[rows, i] = unsure.double().numpy()
    return EditReport(tuple(names), gained, change, abstained, np.repeat(np.array(seeds), images))


def seen(
    edits: Edits,
    generator,
    encoder,
    seeds: Sequence[int] = (100, 101, 102, 103, 104),
    images: int = 64,
) -> Visibility:
    """On which of ``images`` fresh images of each seed CLIP sees the edits, where nobody judges.

    CLIP made the edits, and so marks its own work; but not on the images that they were tuned on.
    """
    keep_memory()
    delta_t, steps = edits.directions.delta_t, edits.w[:, None] * edits.directions.delta_s.cpu()
    parts = []
    for seed in tqdm(seeds, desc="reading edits", unit="seed"):
        styles = generator.sample_styles(images, seed)
        before = clip_scores(generator, encoder, delta_t, styles)
        after = [
            clip_scores(generator, encoder, delta_t[n, None], styles + step.to(styles))
            for n, step in enumerate(steps)
        ]
        parts.append((before, torch.cat(after, 1)))
    before, after = (torch.cat(scores).cpu() for scores in zip(*parts, strict=True))
    return by_scores(before, after, edits.w.expand_as(before))


def success_change(report: EditReport, baseline: EditReport) -> Estimate:
    """``success_mean`` of a report minus the baseline's, image by image on the same images.

    Raises:
        InputError: the reports are about other attributes or images.
    """
    if report.attributes != baseline.attributes or not np.array_equal(report.seeds, baseline.seeds):
        raise InputError("Two edits are compared on the same attributes, seeds and images.")
    n = len(report.attributes)
    return bootstrap(
        np.hstack([_asked(report.gained), _asked(baseline.gained)]),
        lambda rows: _mean_success(rows[:, :n]) - _mean_success(rows[:, n:]),
    )


def _asked(gained: np.ndarray) -> np.ndarray:
    """With -1 where nothing was asked: the bootstrap takes no NaN."""
    return np.nan_to_num(gained, nan=-1.0)


def _mean_success(rows: np.ndarray) -> float:
    """The mean over columns of their means; -1 does not count."""
    asked = rows >= 0
    means = (rows * asked).sum(0)[asked.any(0)] / asked.sum(0)[asked.any(0)]
    return float(means.mean()) if len(means) else float("nan")
