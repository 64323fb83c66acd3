"""Attribute sensitivity: Eq. 11 of ZOOM, with intervals; the true one has the same type."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.core.files import atomic_write
from visiondx.core.stats import Estimate, bootstrap
from visiondx.models.vocabulary import unknown_to
from visiondx.show import plots
from visiondx.zoom.result import SearchResult
from visiondx.zoom.visibility import Visibility, clip_visibility

MOVES = 0.02  # a mean change that is surely as large as this is worth a name


@dataclass(frozen=True)
class Sensitivity:
    """How far each attribute moved the target's probability, image by image.

    Of a keypoint detector, its points; of a segmentation network, its parts (see ``zoom.tasks``).
    ``source`` says how: "search" (ZOOM's counterfactuals), "supervised" (the same search through
    the renderer), "intervention" (the renderer switches it), or "drawing" (the points or parts
    themselves). ``seen`` and ``judged`` say in which pairs the edit showed, to CLIP and to a
    world's judges; None where nobody was asked.
    """

    attributes: tuple[str, ...]
    change: Tensor  # (B, N) |f(x) - f(x̂)|
    flipped: Tensor  # (B, N) bool, the predicted label changed
    source: str
    seed: int | None = None
    seen: Visibility | None = None
    judged: Visibility | None = None
    unknown: tuple[tuple[str, ...], ...] = ()  # of each attribute, words that CLIP does not know

    def __post_init__(self):
        if self.change.ndim != 2 or self.change.shape[1] != len(self.attributes):
            raise InputError(
                f"Changes of {len(self.attributes)} attributes must have shape "
                f"(B, {len(self.attributes)}), got {tuple(self.change.shape)}."
            )

    @classmethod
    def from_search(cls, result: SearchResult, encoder=None) -> "Sensitivity":
        """Of the kept counterfactuals; an encoder is asked in which of them the edit shows."""
        found = cls(result.attributes, result.change, result.flipped, "search", result.seed)
        if encoder is None:
            return found
        unknown = unknown_to(encoder, result.attributes)
        return replace(found, seen=clip_visibility(result, encoder), unknown=unknown)

    @classmethod
    def pool(cls, parts: Sequence["Sensitivity"]) -> "Sensitivity":
        """The images of several together, say of all seeds.

        Raises:
            InputError: none, or other attributes or sources among them.
        """
        if len({(part.attributes, part.source) for part in parts}) != 1:
            raise InputError(
                "Only sensitivities of the same attributes and source pool, got "
                f"{len(parts)} of {sorted({part.source for part in parts})}."
            )
        change, flipped = (torch.cat([getattr(p, k) for p in parts]) for k in ("change", "flipped"))
        readers = (Visibility.pool([getattr(p, k) for p in parts]) for k in ("seen", "judged"))
        return cls(
            parts[0].attributes, change, flipped, parts[0].source, None, *readers, parts[0].unknown
        )

    @cached_property
    def h(self) -> tuple[Estimate, ...]:
        """h_i = mean |f(x) - f(x̂)| (Eq. 11), its interval over images, in the attributes' order."""
        return tuple(bootstrap(column) for column in self.change.double().T.numpy())

    @property
    def raw(self) -> np.ndarray:
        """h (N,)."""
        return np.array([estimate.value for estimate in self.h])

    @property
    def share(self) -> np.ndarray:
        """h / Σh (N,), what the figures show; zeros if nothing moved the target."""
        return self.raw / max(self.raw.sum(), 1e-12)

    @property
    def rank(self) -> tuple[str, ...]:
        """Attributes, the most influential first."""
        return tuple(self.attributes[i] for i in np.argsort(-self.raw, kind="stable"))

    def place(self, attribute: str) -> int:
        """Rank of one attribute, 1 is the most influential; of equals, all have the last rank."""
        return int((self.raw >= self.raw[self.attributes.index(attribute)]).sum())

    @cached_property
    def behind(self) -> tuple[Estimate, ...]:
        """How far h of each attribute lies behind that of the first, in the attributes' order.

        A mean over images of the first's change minus its own: all attributes are tried in the
        same images, so what these have in common is no part of the interval. 0 for the first.
        """
        change = self.change.double()
        gaps = change[:, [self.attributes.index(self.rank[0])]] - change
        return tuple(bootstrap(column) for column in gaps.T.numpy())

    @property
    def apart(self) -> bool:
        """Whether every other attribute is surely behind the first (True for a single one).

        Surely: the interval of the paired difference, image by image, lies above 0.
        """
        rest = (self.behind[self.attributes.index(name)] for name in self.rank[1:])
        return bool(self.raw.max() > 0) and all(gap.low > 0 for gap in rest)

    @property
    def needed(self) -> np.ndarray:
        """At how many images each attribute would be surely behind the first, (N,): (1.96 s / d)².

        d is the mean paired difference and s its standard deviation over images, both as measured
        here; infinite where d is 0.
        """
        change = self.change.double().numpy()
        gaps = change[:, [self.attributes.index(self.rank[0])]] - change
        gap = gaps.mean(0)
        ratio = np.divide(gaps.std(0), gap, out=np.full_like(gap, np.inf), where=gap > 0)
        return np.ceil((1.96 * ratio) ** 2)

    @property
    def shown(self) -> tuple[bool, ...]:
        """Whether an attribute's edit shows what its words say: to CLIP, which must know the words,
        and to the judges. True where nobody was asked.
        """
        readers = [reader.shown for reader in (self.seen, self.judged) if reader is not None]
        if self.unknown:
            readers.append(tuple(not words for words in self.unknown))
        return tuple(all(reader[n] for reader in readers) for n in range(len(self.attributes)))

    @property
    def winner(self) -> str | None:
        """The attribute that the target may be said to hang on most, or None.

        The first, if every other is surely behind it (``apart``), it surely moves the target by
        ``MOVES`` or more, flips an image or more, and its edit shows it (``shown``). Without the
        others, an untrained network has a winner, and so has an edit that shows something else.
        """
        first = self.attributes.index(self.rank[0])
        moves = self.h[first].low >= MOVES and bool(self.flipped[:, first].any())
        return self.rank[0] if self.apart and moves and self.shown[first] else None

    def of(self, attributes: Sequence[str]) -> "Sensitivity":
        """The same for some of the attributes, in the given order."""
        columns = [self.attributes.index(name) for name in attributes]
        return replace(
            self,
            attributes=tuple(attributes),
            change=self.change[:, columns],
            flipped=self.flipped[:, columns],
            seen=self.seen and self.seen.of(columns),
            judged=self.judged and self.judged.of(columns),
            unknown=tuple(self.unknown[column] for column in columns if self.unknown),
        )

    def renamed(self, attributes: Sequence[str]) -> "Sensitivity":
        """The same under other names (a prompt for the renderer's attribute)."""
        return replace(self, attributes=tuple(attributes))

    def to_frame(self) -> pd.DataFrame:
        """One row an attribute, strongest first: h with its interval and n, share, flip rate.

        ``behind_low`` is the lower end of ``behind``'s interval: above 0, the attribute moved the
        target less than the first, image by image. ``seen`` and ``judged``, with intervals, are the
        shares of pairs in which CLIP and the judges see the edit, if they were asked (NaN: of words
        that no judge reads); ``shown`` says whether it surely shows at all.
        """
        frame = pd.DataFrame([estimate.as_dict() for estimate in self.h])
        frame = frame.rename(columns={"value": "h"})
        frame.insert(0, "attribute", self.attributes)
        frame["behind_low"] = [gap.low for gap in self.behind]
        frame["share"] = self.share
        frame["flip_rate"] = self.flipped.double().mean(0).numpy()
        for name, reader in (("seen", self.seen), ("judged", self.judged)):
            if reader is not None:
                frame[name] = [share.value if share.n else np.nan for share in reader.share]
                frame[f"{name}_low"] = [share.low for share in reader.share]
                frame[f"{name}_high"] = [share.high for share in reader.share]
        frame["shown"] = self.shown
        frame["source"] = self.source
        return frame.sort_values("h", ascending=False, kind="stable", ignore_index=True)

    def plot(self, truth: "Sensitivity | None" = None, title: str = "") -> Figure:
        return plots.histogram(self, truth, title)

    def save(self, folder: str | Path) -> None:
        """Write sensitivity.csv, the raw h among it."""
        with atomic_write(Path(folder) / "sensitivity.csv") as path:
            self.to_frame().to_csv(path, index=False)
