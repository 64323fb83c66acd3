"""The images nearest to sentences, and the loss that the black box had on them: the evidence.

Nearest by the cosine of CLIP's embeddings, which no loss has entered. A loss model that says of a
sentence what the losses of these images do not say rests on something else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from visiondx.core.files import atomic_write
from visiondx.core.stats import Estimate, bootstrap
from visiondx.llm2loss.answers import unknown_said
from visiondx.llm2loss.checks import needed
from visiondx.llm2loss.data import LossData
from visiondx.models.encoder import Encoder
from visiondx.models.vocabulary import unknown_to
from visiondx.show import plots
from visiondx.show.words import wrapped

NEAR = 0.05  # share of the images that are near to a sentence


@dataclass(frozen=True)
class Nearest:
    """Of P sentences, the nearest of N images.

    ``unknown`` are the words of each sentence that the encoder cannot know: something is nearest
    to gibberish, too.
    """

    sentences: tuple[str, ...]
    rows: Tensor  # (P, k) int64, of the images, the nearest first
    losses: Tensor  # (P, k), in their order
    overall: float  # the mean loss of all N
    unknown: tuple[tuple[str, ...], ...] = ()

    @cached_property
    def estimates(self) -> dict[str, Estimate]:
        """The mean loss of the nearest images, by sentence; the interval resamples them."""
        rows = self.losses.double().numpy()
        return {name: bootstrap(row) for name, row in zip(self.sentences, rows, strict=True)}

    @property
    def heading(self) -> str:
        return "The images nearest to each sentence"

    @property
    def said(self) -> list[str]:
        """On which sentence's images the losses were largest and smallest."""
        unknown = self.unknown or [()] * len(self.sentences)
        known = [name for name, words in zip(self.sentences, unknown) if not words]
        order = sorted(known, key=lambda name: -self.estimates[name].value)
        if not order:
            return unknown_said(self.unknown)
        found = [
            f"{self.estimates[name].value:.2f} on those nearest to “{name}”"
            for name in dict.fromkeys((order[0], order[-1]))
        ]
        said = f"The mean loss of all images is {self.overall:.2f}, {' and '.join(found)}."
        return [said, *unknown_said(self.unknown)]

    def to_frame(self) -> pd.DataFrame:
        """One row a sentence: the mean loss of its nearest images, and that of all images."""
        rows = [{"sentence": name} | e.as_dict() for name, e in self.estimates.items()]
        unknown = [", ".join(words) for words in self.unknown] or ""
        return pd.DataFrame(rows).assign(all_images=self.overall, unknown=unknown)

    def plot(self, title: str = "") -> Figure:
        """The mean losses with their intervals; dashed: that of all images."""
        label = "mean loss of the nearest images (dashed: of all)"
        found = {wrapped(name): estimate for name, estimate in self.estimates.items()}
        return plots.intervals({"nearest": found}, title, label, lines=[self.overall])

    def save(self, folder: str | Path) -> None:
        """Write nearest.csv."""
        with atomic_write(Path(folder) / "nearest.csv") as path:
            self.to_frame().to_csv(path, index=False)


@torch.no_grad()
def nearest(data: LossData, encoder: Encoder, sentences: Sequence[str], least: int = 10) -> Nearest:
    """The nearest twentieth of the images of ``data`` to each sentence, but ``least`` or more.

    Raises:
        InputError: no sentence, or one that the encoder refuses.
    """
    words = needed(encoder).embed_texts(list(sentences)).cpu()
    likeness = words @ F.normalize(data.embeddings, dim=1).T  # (P, N)
    count = min(len(data), max(least, round(NEAR * len(data))))
    rows = likeness.topk(count, dim=1).indices
    overall, unknown = float(data.losses.mean()), unknown_to(encoder, sentences)
    return Nearest(tuple(sentences), rows, data.losses[rows], overall, unknown)
