"""What an ensemble learns from: embeddings of images and the black box's loss on each.

The black box is never asked for a gradient: its losses may come as an array, as a table beside
image files, or from any model and a loss function.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from visiondx.core.errors import InputError
from visiondx.core.files import atomic_write, reading
from visiondx.llm2loss.arrays import read_numbers
from visiondx.llm2loss.cache import Embedded, embed
from visiondx.llm2loss.paths import locate, match
from visiondx.llm2loss.tables import check_count, read_columns
from visiondx.models.encoder import Encoder
from visiondx.models.modes import evaluating

SHOWN = 5  # rows named in a message


@dataclass(frozen=True)
class LossData:
    """Embeddings (N, D) and losses (N,), float32 on the CPU; a larger loss is worse.

    Raises:
        InputError: what are no tensors, lengths that differ, a value that is NaN or infinite (rows
            are named), fewer than 50 examples, or losses that are all equal.
    """

    embeddings: Tensor
    losses: Tensor
    encoder: str | None = None  # fingerprint of the one that made the embeddings, if known
    names: tuple[str, ...] = ()  # of the images, N or none

    def __post_init__(self) -> None:
        x, losses = self.embeddings, self.losses
        if not isinstance(x, Tensor) or not isinstance(losses, Tensor):
            raise InputError(
                "LossData needs tensors of embeddings and losses, got "
                f"{type(x).__name__} and {type(losses).__name__}: read_arrays takes arrays."
            )
        if x.ndim != 2 or losses.ndim != 1:
            raise InputError(
                "LossData needs embeddings (N, D) and losses (N,), got "
                f"{tuple(x.shape)} and {tuple(losses.shape)}."
            )
        if len(x) != len(losses) or (self.names and len(self.names) != len(x)):
            names = f" and {len(self.names)} names" if self.names else ""
            raise InputError(
                f"There are {len(x)} embeddings and {len(losses)} losses{names}: give one loss "
                "for each image."
            )
        check_count(len(x))
        for name, good in (("loss", losses.isfinite()), ("embedding", x.isfinite().all(1))):
            bad = (~good).nonzero().flatten().tolist()
            if len(bad) == len(x):
                raise InputError(
                    f"The {name} is NaN or infinite in all {len(x)} rows: compute it anew."
                )
            if bad:
                more = ", ..." if len(bad) > SHOWN else ""
                raise InputError(
                    f"The {name} is NaN or infinite in {len(bad)} of {len(x)} rows "
                    f"({', '.join(map(str, bad[:SHOWN]))}{more}): drop these rows."
                )
        if bool((losses == losses[0]).all()):
            raise InputError(
                f"All {len(x)} losses are {float(losses[0]):g}: there is nothing to learn; check "
                "that they are those of single images."
            )

    def __len__(self) -> int:
        return len(self.losses)

    def __getitem__(self, rows: Tensor | slice) -> "LossData":
        """Some rows, by a slice, indices or a mask."""
        names = tuple(np.array(self.names)[rows].tolist()) if self.names else ()
        return LossData(self.embeddings[rows], self.losses[rows], self.encoder, names)

    @classmethod
    def of(
        cls,
        found: Embedded,
        losses: Mapping[str, float] | ArrayLike,
        names: Sequence[str] | None = None,
    ) -> "LossData":
        """Embedded images and their losses, which are paired by name.

        Args:
            losses: {name: loss}; or one loss a name of ``names``; or, for images that came in an
                order of their own and not from a folder, one loss an item of their source.
            names: paths of the images, from their folder or the ends of them, with or without the
                suffix.

        Raises:
            InputError: losses without names for the files of a folder, a name of no image or of
                several, an image without a loss, or what ``LossData`` refuses.
        """
        if isinstance(losses, Mapping):
            names, losses = list(losses), list(losses.values())
        losses = read_numbers(losses, "losses").flatten()
        bad = [name for name, _ in found.unreadable]
        if names is None:
            if found.folder is not None:
                some = ", ".join(Path(name).name for name in found.names[:3])
                raise InputError(
                    f"The files of {found.folder} are sorted by path ({some}, ...), which losses "
                    "need not be: give a dictionary {name: loss}, or names=."
                )
            if len(losses) != len(found) + len(bad):
                raise InputError(
                    f"There are {len(found) + len(bad)} images and {len(losses)} losses: give one "
                    "loss for each image."
                )
            return cls(found.embeddings, losses[found.rows], found.encoder, found.names)
        if len(names) != len(losses):
            raise InputError(
                f"There are {len(names)} names and {len(losses)} losses: give one loss for each."
            )
        rows = match([*found.names, *bad], names, found.folder)
        loss = {row: losses[i] for i, row in enumerate(rows)}
        lost = [name for row, name in enumerate(found.names) if row not in loss]
        if lost:
            raise InputError(
                f"{len(lost)} of {len(found)} images have no loss, such as {lost[0]}: give one "
                "loss for each image."
            )
        paired = torch.stack([loss[row] for row in range(len(found))])
        return cls(found.embeddings, paired, found.encoder, found.names)

    def to_frame(self) -> pd.DataFrame:
        """One row an image: its name, or number, and its loss."""
        names = list(self.names) or list(range(len(self)))
        return pd.DataFrame({"image": names, "loss": self.losses.numpy()})

    def plot(self, title: str = "") -> Figure:
        """How the losses are distributed."""
        figure, axis = plt.subplots(figsize=(5, 2.6), layout="constrained")
        axis.hist(self.losses.numpy(), bins=50)
        axis.set(xlabel="loss", ylabel="images", title=title)
        plt.close(figure)
        return figure

    def save(self, folder: str | Path) -> None:
        """Write losses.safetensors and losses.csv."""
        about = {"encoder": json.dumps(self.encoder), "names": json.dumps(self.names)}
        tensors = {"embeddings": self.embeddings.contiguous(), "losses": self.losses.contiguous()}
        with atomic_write(Path(folder) / "losses.safetensors") as path:
            save_file(tensors, path, about)
        with atomic_write(Path(folder) / "losses.csv") as path:
            self.to_frame().to_csv(path, index=False)

    @classmethod
    def load(cls, folder: str | Path) -> "LossData":
        """Read what ``save`` wrote.

        Raises:
            InputError: nothing there, or a damaged file.
        """
        path = Path(folder) / "losses.safetensors"
        if not path.is_file():
            raise InputError(f"No losses in {folder}: write them with LossData.save.")
        with reading(path, "write it again with LossData.save"):
            with safe_open(path, framework="pt") as file:
                about = {key: json.loads(value) for key, value in file.metadata().items()}
                x, losses = (file.get_tensor(name) for name in ("embeddings", "losses"))
            return cls(x, losses, about["encoder"], tuple(about["names"]))


def read_arrays(
    embeddings: str | Path | ArrayLike,
    losses: str | Path | ArrayLike,
    encoder: Encoder | str | None = None,
) -> LossData:
    """Two arrays, or .npy files of them: (N, D) embeddings and (N,) losses.

    Args:
        encoder: the one that made them, or its fingerprint. Without it, sentences cannot be asked,
            for their embeddings would be another encoder's.

    Raises:
        InputError: a file that cannot be read, what holds no numbers, or what ``LossData`` refuses.
    """
    fingerprint = encoder.fingerprint if hasattr(encoder, "fingerprint") else encoder
    return LossData(
        read_numbers(embeddings, "embeddings"), read_numbers(losses, "losses"), fingerprint
    )


def read_table(
    path: str | Path,
    encoder: Encoder,
    folder: str | Path | None = None,
    *,
    images: str | Path | None = None,
    image: str = "image",
    loss: str = "loss",
    skip_unreadable: bool = False,
) -> LossData:
    """A CSV or Parquet file with a column of image paths and one of losses.

    Commas, semicolons or tabs may separate the fields of a CSV; beside the latter two, decimals may
    be written with a comma.

    Args:
        path: image paths may lack their suffix.
        images: the folder where relative image paths start; None: that of the table.
        folder, skip_unreadable: see ``embed``.
        image, loss: names of the two columns.

    Raises:
        InputError: a file that cannot be read, a missing column, a loss that is no number (rows
            are named), images that do not exist or cannot be read, or what ``LossData`` refuses.
    """
    path = Path(path)
    names, numbers = read_columns(path, image, loss)
    losses = torch.tensor(numbers, dtype=torch.float32)
    # before the images are embedded, which takes long; the embeddings stand in for them
    LossData(torch.zeros(len(losses), 1), losses)
    paths = locate(path.parent if images is None else Path(images), names)
    found = embed(paths, encoder, folder, skip_unreadable=skip_unreadable)
    kept = tuple(names[row] for row in found.rows.tolist())
    return LossData(found.embeddings, losses[found.rows], found.encoder, kept)


@torch.no_grad()
def run_model(
    model: Callable[[Tensor], Tensor],
    loss: Callable[[Tensor, Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    encoder: Encoder,
    folder: str | Path | None = None,
) -> LossData:
    """Losses and embeddings of a model's batches, in one pass and without a gradient.

    Args:
        model: images -> whatever the loss takes; a module, or the one whose method this is, is put
            into eval mode for it, and each of its parts into its own mode again.
        loss: (model's output, answers) -> (B,), one value an image, such as
            ``torch.nn.CrossEntropyLoss(reduction="none")``.
        batches: (images (B, 3, H, W) in [0, 1], answers) each, say of a DataLoader.

    Raises:
        InputError: a loss of another shape, or what ``embed`` and ``LossData`` refuse.
    """
    values = []

    def images() -> Iterator[Tensor]:
        for batch, answers in batches:
            found = loss(model(batch), answers)
            if found.shape != (len(batch),):
                raise InputError(
                    f"The loss of {len(batch)} images has shape {tuple(found.shape)}, not "
                    f"({len(batch)},): one value an image is needed (reduction='none')."
                )
            values.append(found.float().cpu())
            yield batch

    module = model if isinstance(model, nn.Module) else getattr(model, "__self__", None)
    with evaluating(module) if isinstance(module, nn.Module) else nullcontext():
        found = embed(images(), encoder, folder)
    return LossData(found.embeddings, torch.cat(values), found.encoder)
