"""The gap between CLIP's two modalities, and two ways to close it.

CLIP puts images and texts into two separate cones of the sphere (Liang et al., Mind the Gap, 2022).
A head that was trained on images meets texts from outside of what it knows; what all texts share
moves its answers. Subtracting each modality's mean takes that part away. What is left is where
sentences differ and images hardly do; a head has learned nothing there, but answers. A sentence
that is projected onto images has no such part.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.core.files import atomic_write


def placed(embeddings: Tensor, mean: Tensor | None) -> Tensor:
    """What the heads take: unit rows, less the modality's mean and at unit length again, times √D.

    The factor gives the entries of a random direction unit variance, which the heads' initial
    weights expect.

    Args:
        embeddings: (N, D). mean: (D,) of unit rows, or None for none.
    """
    x = F.normalize(embeddings, dim=1)
    if mean is not None:
        x = F.normalize(x - mean, dim=1)
    return x * x.shape[1] ** 0.5


def project(texts: Tensor, memory: Tensor, temperature: float = 0.1) -> Tensor:
    """Move texts among images: Σ_i softmax_i(cos(t, m_i) / temperature) m_i for each text t.

    The projection of DeCap (Li et al., ICLR 2023), the other way round and much softer: where it
    is nearly linear in t, it weighs directions by how much the images vary along them.

    Args:
        texts: (P, D). memory: (K, D) images. temperature: chosen on tuning seeds, by pairs of
            sentences of two worlds.

    Returns:
        (P, D), in the span of the images.
    """
    m = F.normalize(memory, dim=1)
    weights = torch.softmax(F.normalize(texts, dim=1) @ m.T / temperature, dim=1)
    return weights @ m


@dataclass(frozen=True)
class Gap:
    """How far apart images and texts lie, in unit vectors."""

    distance: float  # |mean of images - mean of texts| (Liang et al., Eq. 1)
    image_cosine: float  # mean cosine of two images
    text_cosine: float  # of two texts
    cross_cosine: float  # of an image and a text
    images: int
    texts: int
    plane: Tensor  # (images + texts, 2) principal components of all, for the figure

    def to_frame(self) -> pd.DataFrame:
        """One row."""
        return pd.DataFrame([{k: v for k, v in asdict(self).items() if k != "plane"}])

    def plot(self, title: str = "") -> Figure:
        """Both modalities in the plane of their two largest principal components."""
        figure, axis = plt.subplots(figsize=(4.6, 3.6), layout="constrained")
        for name, part in zip(("images", "texts"), self.plane.split([self.images, self.texts])):
            axis.scatter(*part.T.numpy(), s=6, alpha=0.6, label=name)
        axis.set(xlabel="first component", ylabel="second component")
        axis.set_title(title or f"distance of the means {self.distance:.2f}")
        axis.legend()
        plt.close(figure)
        return figure

    def save(self, folder: str | Path) -> None:
        """Write gap.csv."""
        with atomic_write(Path(folder) / "gap.csv") as path:
            self.to_frame().to_csv(path, index=False)


def modality_gap(images: Tensor, texts: Tensor) -> Gap:
    """Measure the gap between image embeddings (N, D) and text embeddings (P, D).

    Raises:
        InputError: fewer than two of either, or another width.
    """
    if images.ndim != 2 or texts.ndim != 2 or images.shape[1] != texts.shape[1]:
        raise InputError(
            "modality_gap needs embeddings (N, D) and (P, D), got "
            f"{tuple(images.shape)} and {tuple(texts.shape)}."
        )
    if min(len(images), len(texts)) < 2:
        raise InputError(
            f"modality_gap needs two images and two texts, got {len(images)} and {len(texts)}."
        )
    x, t = (F.normalize(part.double(), dim=1) for part in (images, texts))
    mean_x, mean_t = x.mean(0), t.mean(0)
    both = torch.cat((x, t)) - torch.cat((x, t)).mean(0)
    plane = both @ torch.linalg.svd(both, full_matrices=False).Vh[:2].T
    return Gap(
        distance=float((mean_x - mean_t).norm()),
        image_cosine=_within(x),
        text_cosine=_within(t),
        cross_cosine=float(mean_x @ mean_t),
        images=len(x),
        texts=len(t),
        plane=plane.float(),
    )


def _within(x: Tensor) -> float:
    """Mean cosine of two different unit rows: |sum|² counts every pair, and each with itself."""
    n = len(x)
    return float((x.sum(0).square().sum() - n) / (n * (n - 1)))
