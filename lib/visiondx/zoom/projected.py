"""What a projection found: photographs, what the generator makes of them, and which are left out.

The rule. Of 256 random images of the generator, each has a nearest other one; the median of these
distances is the generator's *spacing*. A photograph is *reached* if its reconstruction is at most
half the spacing away, nearer than to what a neighbour would look like,

- in pixels, by their RMS difference at 64 pixels a side or fewer, and
- in the encoder's vectors of both pictures *mirrored*: the descent was rewarded for what the
  encoder sees, which can be had by a pattern that nobody else sees; in a view that it never had, a
  face and such a pattern part;

and if it shows something: a wall of one colour is drawn well. Its contrast, the RMS of its pixels
around their mean colour, must be at least half of the lowest of the 256.

On the embedded generator of faces, 15 of 16 renders of faces are reached, 1 of 8 of animals, and
none of 6 of scenes, nor noise, a colour, or a face upside down. A smooth ramp of grey passes: it
is drawn well, and has contrast.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure
from safetensors.torch import save_file
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.core.files import atomic_write
from visiondx.core.stats import Estimate, proportion
from visiondx.models.photographs import Photographs
from visiondx.show import plots

HALF = 0.5  # of the generator's spacing, and of its lowest contrast
FEWEST = 2  # images that a diagnosis needs


@dataclass(frozen=True)
class Projection:
    """B photographs in W+. All tensors are on the CPU."""

    photographs: Photographs
    w: Tensor  # (B, num_ws, w_dim)
    styles: Tensor  # (B, c_S)
    reconstructions: Tensor  # (B, 3, R, R)
    rms: Tensor  # (B,) of the pixels, in levels of 0-255, at 64 pixels a side or fewer
    contrast: Tensor  # (B,) of the photograph, in the same levels
    cosine: Tensor  # (B,) the encoder's, of photograph and reconstruction
    mirrored: Tensor  # (B,) the same of both mirrored
    limits: Mapping[str, float]  # "rms" at most, "contrast" and "mirrored" at least
    answers: tuple[Tensor, Tensor] | None  # (B,) the target's p of both, see ``tasks.compare``
    settings: dict
    seed: int  # of the random images

    @property
    def reached(self) -> Tensor:
        """(B,) bool, see the rule above."""
        return torch.tensor([not why for why in self.reasons])

    @property
    def reasons(self) -> tuple[str, ...]:
        """Of each photograph, why it is not reached; "" where it is."""
        figures = torch.stack([self.contrast, self.rms, self.mirrored], 1)
        return tuple(self._reason(*row) for row in figures.tolist())

    def _reason(self, contrast: float, rms: float, mirrored: float) -> str:
        limits = self.limits
        if not contrast >= limits["contrast"]:
            return (
                f"it is nearly of one colour (contrast {contrast:.0f} levels, at least "
                f"{limits['contrast']:.0f})"
            )
        if not mirrored >= limits["mirrored"]:
            return (
                "to the encoder the reconstruction is another picture (mirrored cosine "
                f"{mirrored:.3f}, at least {limits['mirrored']:.3f})"
            )
        if not rms <= limits["rms"]:
            return f"the pixels are {rms:.0f} levels off (RMS, at most {limits['rms']:.0f})"
        return ""

    @property
    def left_out(self) -> dict[str, str]:
        """Name -> reason, of all that no diagnosis can start from, unreadable files among them."""
        named = zip(self.photographs.names, self.reasons, strict=True)
        return {name: why for name, why in named if why} | {
            name: f"it cannot be read: {why}" for name, why in self.photographs.unreadable.items()
        }

    def reached_styles(self) -> Tensor:
        """(B', c_S) of those that are reached, what ``diagnose(styles=…)`` takes.

        Raises:
            InputError: fewer than 2 are.
        """
        if int(self.reached.sum()) < FEWEST:
            some = "; ".join(f"{name}: {why}" for name, why in list(self.left_out.items())[:3])
            raise InputError(
                f"The generator reaches {int(self.reached.sum())} of {len(self.photographs)} "
                f"photographs, and a diagnosis needs {FEWEST} ({some}): give photographs like "
                "those it was trained on, cropped and aligned as those were."
            )
        return self.styles[self.reached]

    @property
    def heading(self) -> str:
        return "Your photographs, as the generator draws them"

    @property
    def said(self) -> list[str]:
        """How many are reached and how nearly, then a line for each that is left out."""
        reached, total = self.reached, len(self.photographs) + len(self.photographs.unreadable)
        lines = [f"The generator reaches {int(reached.sum())} of {total} photographs."]
        if reached.any():
            rms, cosine = self.rms[reached].median(), self.cosine[reached].median()
            lines.append(
                f"Their reconstructions differ from them by {rms:.0f} of 255 levels (RMS, median); "
                f"the encoder's cosine is {cosine:.3f}."
            )
        if reached.any() and self.answers is not None:
            before, after = (p[reached] for p in self.answers)
            off = (before - after).abs()
            lines.append(
                f"The model's answer to a reconstruction is off by {off.mean():.2f} on average, "
                f"at most {off.max():.2f}."
            )
        return lines + [f"Left out: {name}; {why}." for name, why in self.left_out.items()]

    def to_frame(self) -> pd.DataFrame:
        """One row a photograph; unreadable ones come last, without numbers."""
        rows = {
            "name": self.photographs.names,
            "reached": self.reached.tolist(),
            "rms": self.rms.tolist(),
            "contrast": self.contrast.tolist(),
            "cosine": self.cosine.tolist(),
            "mirrored": self.mirrored.tolist(),
        }
        if self.answers is not None:
            rows["p_photograph"], rows["p_reconstruction"] = (p.tolist() for p in self.answers)
        frame = pd.DataFrame(rows | {"left_out": self.reasons})
        gone = [
            {"name": name, "reached": False, "left_out": why}
            for name, why in self.photographs.unreadable.items()
        ]
        return pd.concat([frame, pd.DataFrame(gone)], ignore_index=True) if gone else frame

    def metrics(self) -> dict[str, Estimate | float]:
        """Flat, for ``runs.record``: the share that is reached, and how nearly, as medians."""
        found = {"photographs.reached": proportion(self.reached.numpy())}
        if self.reached.any():
            for name in ("rms", "cosine"):
                value = float(getattr(self, name)[self.reached].median())
                found[f"photographs.{name}"] = value
        return found

    def plot(self, title: str = "", columns: int = 8) -> Figure:
        """Photographs above their reconstructions, with p and the RMS; a cross where left out."""
        total, rows, images, titles = len(self.photographs), [], [], []
        columns = min(columns, total)
        for first in range(0, total, columns):
            row = list(range(first, min(first + columns, total)))
            blank = columns - len(row)
            for pictures, texts in self._pictures():
                images += [pictures[row], torch.ones(blank, *pictures.shape[1:])]
                titles += [texts[i] for i in row] + [""] * blank
            rows += ["photograph", "reconstruction"]
        figure = plots.image_grid(torch.cat(images), titles, columns, rows=rows)
        if title:
            figure.suptitle(title, fontsize=10)
        return figure

    def _pictures(self) -> list[tuple[Tensor, list[str]]]:
        p = [[f"{value:.2f}" for value in each.tolist()] for each in self.answers or ()]
        above = p[0] if p else [Path(name).name[:14] for name in self.photographs.names]
        marks = ["" if reached else " ✗" for reached in self.reached.tolist()]
        below = [f"±{rms:.0f}{mark}" for rms, mark in zip(self.rms.tolist(), marks, strict=True)]
        if p:
            below = [f"{answer} {text}" for answer, text in zip(p[1], below, strict=True)]
        return [(self.photographs.images, above), (self.reconstructions, below)]

    def save(self, folder: str | Path) -> None:
        """Write projection.csv, projection.txt and projection.safetensors (w and styles of all)."""
        with atomic_write(Path(folder) / "projection.txt") as path:
            path.write_text("\n".join(self.said) + "\n", encoding="utf-8")
        with atomic_write(Path(folder) / "projection.csv") as path:
            self.to_frame().to_csv(path, index=False)
        with atomic_write(Path(folder) / "projection.safetensors") as path:
            save_file({"w": self.w.contiguous(), "styles": self.styles.contiguous()}, path)
