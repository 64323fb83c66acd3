"""Does an edit change what it should and nothing else? The confusion matrix of ZOOM's Fig. 6.

CLIP as super-annotator: its zero-shot reading of an attribute is the softmax over two prompts, one
with it and one without. For the counterfactuals of attribute j, after the search, the mean |change|
of the reading of attribute i stands in row i and column j. CLIP made the edits, though, and so
marks its own work; two judges that never saw it read the same images as well.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.core.errors import InputError
from visiondx.core.files import atomic_write
from visiondx.core.stats import Estimate, bootstrap
from visiondx.show import plots
from visiondx.zoom.result import SearchResult

Reader = Callable[[Tensor], Tensor]  # images (B, 3, H, W) -> probabilities (B, N)


@dataclass(frozen=True)
class Disentanglement:
    """How far N readings moved, image by image, when each of N attributes was edited.

    B counts the images of all seeds.
    """

    attributes: tuple[str, ...]
    change: np.ndarray  # (B, N edited, N read) |change| of a probability
    seeds: np.ndarray  # (B,)
    reader: str

    def __post_init__(self):
        n = len(self.attributes)
        if n < 2 or self.change.shape != (len(self.seeds), n, n):
            raise InputError(
                "Disentanglement needs two or more attributes and changes of shape (B, N, N), got "
                f"{n} and {self.change.shape}."
            )

    @property
    def matrix(self) -> pd.DataFrame:
        """Mean |change| of what was read (rows) by what was edited (columns), as in Fig. 6."""
        mean = self.change.mean(0).T
        return pd.DataFrame(mean, index=self.attributes, columns=self.attributes)

    @property
    def _sides(self) -> np.ndarray:
        """(B, 2): of each image, the mean of the diagonal and that of all else."""
        n = len(self.attributes)
        own = self.change[:, range(n), range(n)].mean(1)
        total = self.change.mean((1, 2))
        return np.stack([own, (total * n - own) / (n - 1)], 1)

    @cached_property
    def ratio(self) -> Estimate:
        """Mean diagonal over mean off-diagonal; its interval resamples images."""

        def statistic(rows: np.ndarray) -> float:
            own, others = rows.mean(0)
            return float(own / max(others, 1e-12))

        return bootstrap(self._sides, statistic)

    @cached_property
    def own(self) -> Estimate:
        """Mean of the diagonal."""
        return bootstrap(self._sides[:, 0])

    @cached_property
    def others(self) -> Estimate:
        """Mean of all else."""
        return bootstrap(self._sides[:, 1])

    def leaks(self) -> pd.DataFrame:
        """One row a pair (image, edited attribute), the worst leak first.

        ``own`` is the |change| of the edited attribute; ``leak`` the largest of any other, which
        ``leaked`` names. The best pairs are those with the largest ``own - leak``, ``margin``.
        """
        b, n, _ = self.change.shape
        others = self.change.copy()
        others[:, range(n), range(n)] = -1
        frame = pd.DataFrame(
            {
                "image": np.repeat(np.arange(b), n),
                "edited": list(self.attributes) * b,
                "own": self.change[:, range(n), range(n)].ravel(),
                "leak": others.max(2).ravel(),
                "leaked": [self.attributes[i] for i in others.argmax(2).ravel()],
            }
        )
        frame["margin"] = frame["own"] - frame["leak"]
        return frame.sort_values("leak", ascending=False, kind="stable", ignore_index=True)

    def best(self, count: int) -> pd.DataFrame:
        """The rows of ``leaks`` with the largest margin, best first."""
        return self.leaks().sort_values("margin", ascending=False, kind="stable").head(count)

    def examples(
        self, results: Sequence[SearchResult], rows: pd.DataFrame
    ) -> tuple[Tensor, list[str]]:
        """Pictures of some rows of ``leaks``: the original and the counterfactual of each.

        Args:
            results: the searches that were read, in the same order.

        Returns:
            Images (2 rows, 3, H, W); titles: what was edited, and below x̂ what moved most beside.
        """
        first = np.cumsum([0, *(len(result.styles) for result in results)])
        images, titles = [], []
        for row in rows.itertuples():
            k = int(np.searchsorted(first, row.image, side="right")) - 1
            result, own = results[k], [int(row.image - first[k])]
            edited = result.images(own, self.attributes.index(row.edited))
            images += [result.originals(own), edited]
            titles += [f"{row.edited} {row.own:.2f}", f"{row.leaked} {row.leak:.2f}"]
        return torch.cat(images), titles

    def plot_examples(self, results: Sequence[SearchResult], count: int = 10) -> Figure:
        """The worst leaks beside the best edits: a row of worst pair, best pair, as ``examples``.

        An image stands on a side once, with its worst leak, or its best edit.
        """
        ranked = self.leaks(), self.best(self.change[:, :, 0].size)
        sides = [side.drop_duplicates("image").head(count) for side in ranked]
        rows = pd.concat(sides).iloc[np.arange(2 * len(sides[0])).reshape(2, -1).T.ravel()]
        images, titles = self.examples(results, rows)
        names = [f"{i + 1}: worst, best" for i in range(len(sides[0]))]
        return plots.image_grid(images, titles, columns=4, rows=names)

    def to_frame(self) -> pd.DataFrame:
        """One row a cell of the matrix."""
        return (
            self.matrix.rename_axis(index="changed", columns="edited")
            .stack()
            .rename("variation")
            .reset_index()
            .assign(reader=self.reader, n=len(self.seeds))
        )

    def plot(self, title: str = "") -> Figure:
        title = title or f"{self.reader}: ratio {self.ratio.value:.1f}"
        return plots.matrix(self.matrix, title, "edited", "changed")

    def save(self, folder: str | Path) -> None:
        """Write disentangle-<reader>.csv."""
        with atomic_write(Path(folder) / f"disentangle-{self.reader}.csv") as path:
            self.to_frame().to_csv(path, index=False)


@torch.no_grad()
def clip_reader(encoder, phrases: Sequence[tuple[Sequence[str], Sequence[str]]]) -> Reader:
    """CLIP's zero-shot probability of each attribute; a side's embedding is its phrases' mean.

    Args:
        phrases: of each attribute, so many with it and as many without, see ``Ground.phrases``.
    """
    texts = [text for sides in phrases for side in sides for text in side]
    embedded = encoder.embed_texts(texts).unflatten(0, (len(phrases), 2, -1))
    sides = float(encoder.logit_scale) * F.normalize(embedded.mean(2), dim=-1)

    def read(images: Tensor) -> Tensor:
        logits = torch.einsum("bd,nsd->bns", encoder.embed_images(images), sides)
        return logits.softmax(2)[..., 0]

    return read


def judge_reader(judges, attributes: Sequence[str]) -> Reader:
    """The mean probability of both judges.

    Raises:
        InputError: an attribute that no judge reads.
    """
    columns = [judges.column(name) for name in attributes]
    return lambda images: judges.scores(images)[:, columns]


@torch.no_grad()
def disentanglement(
    results: Sequence[SearchResult],
    attributes: Sequence[str],
    readers: Mapping[str, Reader],
    batch: int = 64,
) -> dict[str, Disentanglement]:
    """Read all originals and counterfactuals of some searches, one a seed, by every reader.

    Args:
        results: of the same attributes, in the order of ``attributes``, the readers' names.
        batch: images at once; a memory limit.

    Raises:
        InputError: no results or readers, or another number of attributes than was searched.
    """
    n = len(attributes)
    if not results or not readers or any(len(r.attributes) != n for r in results):
        raise InputError(
            f"{n} attributes need searches of as many and a reader, got "
            f"{[len(r.attributes) for r in results]} and {list(readers)}."
        )
    changes: dict[str, list[Tensor]] = {name: [] for name in readers}
    total = sum(len(r.styles) for r in results) * (n + 1)
    with tqdm(total=total, desc="reading", unit="image") as bar:
        for result in results:
            device = result.generator.style_mean.device
            for chunk in torch.arange(len(result.styles)).split(batch):
                rows = chunk.tolist()
                images = [result.originals(rows), *(result.images(rows, j) for j in range(n))]
                for name, read in readers.items():
                    seen = torch.stack([read(x.to(device)).cpu() for x in images], 1)
                    changes[name].append((seen[:, 1:] - seen[:, :1]).abs())  # (B, edited, read)
                bar.update(len(rows) * (n + 1))
    seeds = [np.full(len(r.styles), k if r.seed is None else r.seed) for k, r in enumerate(results)]
    return {
        name: Disentanglement(
            tuple(attributes), torch.cat(parts).double().numpy(), np.concatenate(seeds), name
        )
        for name, parts in changes.items()
    }
