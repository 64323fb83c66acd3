"""What a multi-attribute search found: flips by steps, and the images on demand."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure
from safetensors.torch import save_file
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.core.files import atomic_write
from visiondx.core.stats import Estimate, bootstrap
from visiondx.show import plots
from visiondx.zoom.directions import Directions
from visiondx.zoom.tasks import crossed


def effect(p: Tensor, p_original: Tensor, task: str = "binary") -> Tensor:
    """How counterfactual each step is: |f(x) - f(x̂)|, and any flip is above all that are none.

    p is (…, B, T + 1), p_original (B,).
    """
    p_original = p_original[:, None]
    return (p - p_original).abs() + crossed(p, p_original, task)


@dataclass(frozen=True)
class MultiResult:
    """B images, N attributes at once; the kept step of an image is its most counterfactual one.

    That is the step with the largest |f(x) - f(x̂)| among those whose prediction has flipped, or
    among all if none has. Images are not kept: ``images`` makes them again from styles and weights.
    All tensors are on the CPU.
    """

    directions: Directions
    styles: Tensor  # (B, c_S) of the originals
    p_original: Tensor  # (B,) f(x)
    w: Tensor  # (B, N) at the kept step
    p: Tensor  # (B,) f(x̂) at the kept step
    step: Tensor  # (B,), 0 is the start
    trajectory_w: Tensor  # (B, T + 1, N)
    trajectory_p: Tensor  # (B, T + 1)
    settings: dict
    consistency: tuple[str, str] | None
    seed: int | None
    generator: object = field(repr=False, compare=False)
    task: str = "binary"  # what stands for f(x) and f(x̂) in others, see ``zoom.tasks``

    @classmethod
    def from_trajectories(
        cls,
        *,
        p_original: Tensor,
        trajectory_w: Tensor,
        trajectory_p: Tensor,
        task: str = "binary",
        **rest,
    ) -> "MultiResult":
        """Keep the most counterfactual step of each image, the earliest of equals."""
        step = effect(trajectory_p, p_original, task).argmax(1)
        rows = torch.arange(len(step))
        return cls(
            p_original=p_original,
            w=trajectory_w[rows, step],
            p=trajectory_p[rows, step],
            step=step,
            trajectory_w=trajectory_w,
            trajectory_p=trajectory_p,
            task=task,
            **rest,
        )

    def upto(self, steps: int) -> "MultiResult":
        """What the same search had found after fewer steps.

        Raises:
            InputError: more steps than were made, or a negative number.
        """
        made = self.trajectory_p.shape[1] - 1
        if not 0 <= steps <= made:
            raise InputError(f"The search made {made} steps: choose steps from 0 to {made}.")
        known = {part.name: getattr(self, part.name) for part in fields(self)}
        for name in ("w", "p", "step"):
            del known[name]
        for name in ("trajectory_w", "trajectory_p"):
            known[name] = known[name][:, : steps + 1]
        known["settings"] = {**self.settings, "steps": steps}
        return MultiResult.from_trajectories(**known)

    def of(self, rows: slice, seed: int | None) -> "MultiResult":
        """The same search of some of the images, which came from this seed."""
        names = ("styles", "p_original", "w", "p", "step", "trajectory_w", "trajectory_p")
        return replace(self, seed=seed, **{name: getattr(self, name)[rows] for name in names})

    def at(self, step: Tensor) -> "MultiResult":
        """The same search, each image at a step (B,) of choice in place of its kept one."""
        rows = torch.arange(len(step))
        return replace(
            self, w=self.trajectory_w[rows, step], p=self.trajectory_p[rows, step], step=step
        )

    def at_first_flip(self) -> "MultiResult":
        """The same search, each image at its first flip; at its kept step if it has none.

        The first flip is the mildest edit found that flips the image: nearer to the original than
        the most counterfactual one, so that label and realism are more often what they were.
        """
        return self.at(torch.where(self.flipped, self.first_flip, self.step))

    @property
    def attributes(self) -> tuple[str, ...]:
        return self.directions.attributes

    @property
    def change(self) -> Tensor:
        """|f(x) - f(x̂)| (B,)."""
        return (self.p - self.p_original).abs()

    @property
    def flipped(self) -> Tensor:
        """Whether the predicted label changed, or moved beyond the task's limit, (B,) bool."""
        return crossed(self.p, self.p_original, self.task)

    @cached_property
    def flipped_by(self) -> Tensor:
        """Whether it had changed at this step or at one before, (B, T + 1) bool."""
        flips = crossed(self.trajectory_p, self.p_original[:, None], self.task)
        return flips.cummax(1).values

    @property
    def first_flip(self) -> Tensor:
        """The step of the first flip (B,), -1 where there is none."""
        return torch.where(self.flipped, self.flipped_by.int().argmax(1), -1)

    def flip_rate(self, steps: int | None = None) -> Estimate:
        """Share of images that flipped within so many steps (None: all); the interval is theirs."""
        found = self if steps is None else self.upto(steps)
        return bootstrap(found.flipped.double().numpy())

    def flip_resistance(self, steps: int | None = None) -> Estimate:
        """1 - flip rate: the share of images that the target withstood (FR-25 after 25 steps)."""
        rate = self.flip_rate(steps)
        return Estimate(1 - rate.value, 1 - rate.high, 1 - rate.low, rate.n)

    def rates(self) -> pd.DataFrame:
        """One row a number of steps: flip rate and flip resistance with their intervals and n."""
        rows = []
        for steps, flips in enumerate(self.flipped_by.double().T.numpy()):
            rate = bootstrap(flips)
            row = {"steps": steps, "flip_rate": rate.value, "low": rate.low, "high": rate.high}
            row["flip_resistance"] = 1 - rate.value
            rows.append({**row, "resistance_low": 1 - rate.high, "resistance_high": 1 - rate.low})
        return pd.DataFrame(rows).assign(n=len(self.p))

    def strongest(self, count: int) -> list[int]:
        """The most counterfactual images, flipped ones first."""
        kept = effect(self.p[:, None], self.p_original, self.task).squeeze(1)
        return kept.argsort(descending=True, stable=True)[:count].tolist()

    def originals(self, images: Sequence[int]) -> Tensor:
        """x of these images: (len, 3, H, W)."""
        return self._synthesize(self.styles[list(images)])

    def images(self, images: Sequence[int], step: Tensor | None = None) -> Tensor:
        """x̂ of these images at the kept step, or at the steps given: (len, 3, H, W)."""
        rows = list(images)
        w = self.w[rows] if step is None else self.trajectory_w[rows, step]
        return self._synthesize(self.styles[rows] + w @ self.directions.delta_s.cpu())

    def path(self, image: int, frames: int = 5) -> tuple[Tensor, list[float]]:
        """How one counterfactual came about: images (frames, 3, H, W) and f(x̂) at even steps."""
        end = int(self.step[image])
        steps = torch.linspace(0, end, min(frames, end + 1)).round().long()
        return self.images([image] * len(steps), steps), self.trajectory_p[image, steps].tolist()

    def to_frame(self) -> pd.DataFrame:
        """One row an image; the weight of each attribute stands under its prompt."""
        frame = pd.DataFrame(
            {
                "image": range(len(self.p)),
                "p_original": self.p_original.numpy(),
                "p": self.p.numpy(),
                "change": self.change.numpy(),
                "flipped": self.flipped.numpy(),
                "step": self.step.numpy(),
                "first_flip": self.first_flip.numpy(),
            }
        )
        weights = pd.DataFrame(self.w.numpy(), columns=list(self.attributes))
        return pd.concat((frame, weights), axis=1)

    def plot(self, title: str = "") -> Figure:
        """The flip rate over the number of steps, with its interval."""
        return plots.curves({"": self.rates()}, "steps", "flip_rate", title, ylabel="flip rate")

    def plot_pairs(
        self,
        pairs: int = 16,
        columns: int = 4,
        which: Sequence[int] | None = None,
        words: Sequence[str] | None = None,
    ) -> Figure:
        """Original, edited, original, ... with f(x) and f(x̂) in the corner (Figs. 7, 8).

        Args:
            pairs: how many of the strongest counterfactuals. which: these images instead.
            words: one text for each image of the result, such as ``Flips.why()``, above x̂.
        """
        shown = self.strongest(pairs) if which is None else list(which)
        images = torch.stack((self.originals(shown), self.images(shown)), 1).flatten(0, 1)
        corners = [f"{p:.2f}" for i in shown for p in (self.p_original[i], self.p[i])]
        titles = [text for i in shown for text in ("", words[i])] if words is not None else None
        return plots.image_grid(images, titles, 2 * columns, corners=corners)

    def save(self, folder: str | Path) -> None:
        """Write multi.csv, flip_rates.csv and multi.safetensors (styles, directions, paths)."""
        folder = Path(folder)
        for name, frame in (("multi", self.to_frame()), ("flip_rates", self.rates())):
            with atomic_write(folder / f"{name}.csv") as path:
                frame.to_csv(path, index=False)
        tensors = {
            "styles": self.styles,
            "delta_s": self.directions.delta_s.cpu(),
            "p_original": self.p_original,
            "w": self.trajectory_w,
            "p": self.trajectory_p,
        }
        with atomic_write(folder / "multi.safetensors") as path:
            save_file({name: t.contiguous() for name, t in tensors.items()}, path)

    @torch.no_grad()
    def _synthesize(self, styles: Tensor) -> Tensor:
        return self.generator.synthesize(styles.to(self.generator.style_mean.device)).cpu()
