"""What a search found: weights and probabilities of every step, and the images on demand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from safetensors.torch import save_file
from torch import Tensor

from visiondx.core.files import atomic_write
from visiondx.show import plots
from visiondx.zoom.directions import Directions
from visiondx.zoom.tasks import compare, crossed


@dataclass(frozen=True)
class SearchResult:
    """B images x N attributes; the kept step of a pair is the one with the largest |f(x) - f(x̂)|.

    f(x) is a probability; of other tasks than "binary", 0 stands in its place, and the displacement
    or 1 - IoU in that of f(x̂) (see ``zoom.tasks``). Images are not kept: ``images`` makes them
    again from styles and weights. All tensors are on the CPU.
    """

    directions: Directions
    styles: Tensor  # (B, c_S) of the originals
    p_original: Tensor  # (B,) f(x)
    w: Tensor  # (B, N) at the kept step
    p: Tensor  # (B, N) f(x̂) at the kept step
    step: Tensor  # (B, N), 0 is the start
    trajectory_w: Tensor  # (T + 1, B, N)
    trajectory_p: Tensor  # (T + 1, B, N)
    settings: dict
    consistency: tuple[str, str] | None
    seed: int | None
    generator: object = field(repr=False, compare=False)
    task: str = "binary"

    @classmethod
    def from_trajectories(
        cls, *, p_original: Tensor, trajectory_w: Tensor, trajectory_p: Tensor, **rest
    ) -> "SearchResult":
        """Keep the most counterfactual step of each pair (section 3.4), the earliest of equals."""
        step = (trajectory_p - p_original[None, :, None]).abs().argmax(0)
        w, p = (t.gather(0, step[None]).squeeze(0) for t in (trajectory_w, trajectory_p))
        return cls(
            p_original=p_original,
            w=w,
            p=p,
            step=step,
            trajectory_w=trajectory_w,
            trajectory_p=trajectory_p,
            **rest,
        )

    @property
    def attributes(self) -> tuple[str, ...]:
        return self.directions.attributes

    @property
    def change(self) -> Tensor:
        """|f(x) - f(x̂)| (B, N), what Eq. 11 averages."""
        return (self.p - self.p_original[:, None]).abs()

    @property
    def flipped(self) -> Tensor:
        """Whether the predicted label changed, or moved beyond the task's limit, (B, N) bool.

        At the kept step: a milder edit that flips counts for nothing if another one, to the far
        side of the same label, moves f(x) more. ``MultiResult`` puts flips first.
        """
        return crossed(self.p, self.p_original[:, None], self.task)

    def strongest(self, attribute: int, count: int) -> list[int]:
        """The images that this attribute moves most, strongest first."""
        return self.change[:, attribute].argsort(descending=True, stable=True)[:count].tolist()

    def originals(self, images: Sequence[int]) -> Tensor:
        """x of these images: (len, 3, H, W)."""
        return self._synthesize(self.styles[list(images)])

    def images(self, images: Sequence[int], attribute: int) -> Tensor:
        """x̂ of these images at the kept step of one attribute: (len, 3, H, W)."""
        rows = list(images)
        delta_s = self.directions.delta_s[attribute].cpu()
        return self._synthesize(self.styles[rows] + self.w[rows, attribute, None] * delta_s)

    def path(self, image: int, attribute: int, frames: int = 5) -> tuple[Tensor, list[float]]:
        """How one counterfactual came about: images (frames, 3, H, W) and f(x̂) at even steps."""
        end = int(self.step[image, attribute])
        steps = torch.linspace(0, end, min(frames, end + 1)).round().long()
        w = self.trajectory_w[steps, image, attribute, None]
        edited = self.styles[image] + w * self.directions.delta_s[attribute].cpu()
        return self._synthesize(edited), self.trajectory_p[steps, image, attribute].tolist()

    def to_frame(self) -> pd.DataFrame:
        """One row a pair."""
        b, n = self.w.shape
        return pd.DataFrame(
            {
                "image": torch.arange(b).repeat_interleave(n).numpy(),
                "attribute": list(self.attributes) * b,
                "w": self.w.flatten().numpy(),
                "p_original": self.p_original.repeat_interleave(n).numpy(),
                "p": self.p.flatten().numpy(),
                "change": self.change.flatten().numpy(),
                "flipped": self.flipped.flatten().numpy(),
                "step": self.step.flatten().numpy(),
            }
        )

    def plot(self, pairs: int = 4) -> Figure:
        """Counterfactuals: a row an attribute, strongest first; original, edited, original, ...

        The last pair of a row is a random one; no image stands twice. See ``examples``.
        """
        return pairs_grid(self, examples(self.change, pairs, self.seed))

    @torch.no_grad()
    def plot_paths(self, pairs: Sequence[tuple[int, int]], target, frames: int = 6) -> Figure:
        """Progressive counterfactuals (Fig. 3): a row for each pair (image, attribute).

        From the original to the kept weight in even parts; above each stands p, for a binary
        target its probability.
        """
        parts = torch.linspace(0, 1, frames)[:, None]
        images = torch.cat(
            [
                self._synthesize(self.styles[i] + parts * self.w[i, n] * delta_s)
                for i, n in pairs
                for delta_s in [self.directions.delta_s[n].cpu()]
            ]
        )
        images = images.to(self.generator.style_mean.device)
        _, p = compare(target, images[::frames].repeat_interleave(frames, 0), images)
        rows = [self.attributes[n] for _, n in pairs]
        return plots.image_grid(images, [f"{value:.2f}" for value in p.tolist()], frames, rows=rows)

    def save(self, folder: str | Path) -> None:
        """Write search.csv and search.safetensors (styles, directions and trajectories)."""
        folder = Path(folder)
        with atomic_write(folder / "search.csv") as path:
            self.to_frame().to_csv(path, index=False)
        tensors = {
            "styles": self.styles,
            "delta_s": self.directions.delta_s.cpu(),
            "p_original": self.p_original,
            "w": self.trajectory_w,
            "p": self.trajectory_p,
        }
        with atomic_write(folder / "search.safetensors") as path:
            save_file({name: t.contiguous() for name, t in tensors.items()}, path)

    @torch.no_grad()
    def _synthesize(self, styles: Tensor) -> Tensor:
        return self.generator.synthesize(styles.to(self.generator.style_mean.device)).cpu()


def examples(change: Tensor, pairs: int, seed: int | None = None) -> dict[int, list[int]]:
    """Which images to show of each attribute, the most influential first: {attribute: images}.

    An attribute's strongest images, and last of all one drawn among the others, by ``seed`` (None
    is 0): the strongest alone show what an edit can do, not what it mostly does. No image stands
    twice: the attributes take turns, each the strongest that is left. (Where there are too few
    images for that, none stands twice in a row.)

    Args:
        change: (B, N). pairs: images of each, fewer where there are fewer.
    """
    count = min(pairs, len(change))
    best, rng = max(count - 1, 1), np.random.default_rng(seed or 0)
    order = change.mean(0).argsort(descending=True, stable=True).tolist()
    ranked = change.argsort(dim=0, descending=True, stable=True).T.tolist()
    found: dict[int, list[int]] = {n: [] for n in order}
    used: set[int] = set()
    for place in range(count):
        for n in order:
            left = [i for i in ranked[n] if i not in used and i not in found[n]]
            left = left or [i for i in ranked[n] if i not in found[n]]
            found[n].append(left[0] if place < best else int(rng.choice(left)))
            used.add(found[n][-1])
    return found


def pairs_grid(found, chosen: Mapping[int, Sequence[int]]) -> Figure:
    """A row an attribute, of anything that makes its images again and knows their p.

    Args:
        chosen: of ``examples``; the last image of a row is titled as random.
    """
    images, titles = [], []
    for n, row in chosen.items():
        made = zip(row, found.originals(row), found.images(row, n), strict=True)
        for place, (i, x, edited) in enumerate(made):
            images += [x, edited]
            drawn = 0 < place == len(row) - 1
            titles += [f"{found.p_original[i]:.2f}", f"→ {found.p[i, n]:.2f}" + drawn * " random"]
    rows = [found.attributes[n] for n in chosen]
    return plots.image_grid(torch.stack(images), titles, len(images) // len(rows), rows=rows)
