"""CLIP embeddings of images, computed once and kept: a file a batch, named by what it was made of.

The name is a hash of the encoder, the batch's content and its order. So an interrupted run finds
the batches that it had finished, bit for bit; two runs that share a folder write the same bytes to
the same names, each file whole or not there; and an image that changed is embedded again.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.figure import Figure
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.core.errors import InputError
from visiondx.core.files import atomic_write, read_kept, reading, result_key
from visiondx.models.encoder import Encoder
from visiondx.models.images import Batch, Source, batches
from visiondx.models.pixels import METHOD

SHORT = 16  # hex digits of a fingerprint in a file's name
SHOWN = 3  # unreadable images named in a message


@dataclass(frozen=True)
class Embedded:
    """Embeddings of the images of a source, in its order; unreadable ones are left out."""

    embeddings: Tensor  # (N, D) unit rows, float32 on the CPU
    names: tuple[str, ...]  # N paths, or numbers of items
    rows: Tensor  # (N,) int64, which items of the source these are
    unreadable: tuple[tuple[str, str], ...]  # name and reason
    encoder: str  # its fingerprint
    folder: str | None = None  # whose files these are, sorted by path; else the source's own order

    def __len__(self) -> int:
        return len(self.embeddings)

    def to_frame(self) -> pd.DataFrame:
        """One row an item of the source: name, and why it could not be read, if so."""
        read = pd.DataFrame({"name": self.names, "unreadable": ""}, index=self.rows.tolist())
        bad = sorted(set(range(len(self) + len(self.unreadable))) - set(self.rows.tolist()))
        lost = pd.DataFrame(self.unreadable, columns=["name", "unreadable"], index=bad)
        return pd.concat((read, lost)).sort_index().rename_axis("item").reset_index()

    def plot(self) -> Figure:
        """The embeddings in the plane of their two largest principal components."""
        x = self.embeddings - self.embeddings.mean(0)
        plane = x @ torch.linalg.svd(x, full_matrices=False).Vh[:2].T
        figure, axis = plt.subplots(figsize=(4, 4), layout="constrained")
        axis.scatter(*plane.T.numpy(), s=4, alpha=0.5)
        axis.set(title=f"{len(self)} embeddings", xlabel="first component", ylabel="second")
        plt.close(figure)
        return figure

    def save(self, folder: str | Path) -> None:
        """Write embeddings.safetensors and embeddings.csv."""
        about = {"encoder": self.encoder, "names": self.names, "unreadable": self.unreadable}
        about["folder"] = self.folder
        tensors = {"embeddings": self.embeddings.contiguous(), "rows": self.rows}
        with atomic_write(Path(folder) / "embeddings.safetensors") as path:
            save_file(tensors, path, {key: json.dumps(value) for key, value in about.items()})
        with atomic_write(Path(folder) / "embeddings.csv") as path:
            self.to_frame().to_csv(path, index=False)

    @classmethod
    def load(cls, folder: str | Path, encoder: Encoder | None = None) -> "Embedded":
        """Read what ``save`` wrote.

        Raises:
            InputError: nothing there, a damaged file, or embeddings of another encoder than the
                one given.
        """
        path = Path(folder) / "embeddings.safetensors"
        if not path.is_file():
            raise InputError(f"No embeddings in {folder}: write them with Embedded.save.")
        with reading(path, "embed the images again"):
            with safe_open(path, framework="pt") as file:
                about = {key: json.loads(value) for key, value in file.metadata().items()}
                embeddings, rows = (file.get_tensor(name) for name in ("embeddings", "rows"))
            names, bad = tuple(about["names"]), tuple(map(tuple, about["unreadable"]))
            found = cls(embeddings, names, rows, bad, about["encoder"], about.get("folder"))
        if encoder is not None:
            _check_encoder(path.parent, found.encoder, encoder.fingerprint)
        return found


@torch.no_grad()
def embed(
    source: Source,
    encoder: Encoder,
    folder: str | Path | None = None,
    *,
    batch: int = 256,
    skip_unreadable: bool = False,
) -> Embedded:
    """Embed images by CLIP's image tower, and keep what was computed.

    Args:
        source: a folder, searched for image files; a sequence of paths; a data set whose items are
            images (PIL, or tensors (3, H, W)) or tuples that begin with one; a tensor
            (N, 3, H, W), uint8 or in [0, 1]; or an iterator of such batches. Files and PIL images
            are read as a viewer shows them: upright, over white where they are transparent.
        folder: where batches are kept; None keeps none.
        batch: images that are embedded together; an iterator's batches stay as they are.
        skip_unreadable: leave out what cannot be read, listed in ``Embedded.unreadable``.

    Raises:
        InputError: nothing to embed; values beyond [0, 1]; a folder with embeddings of another
            encoder; or, once all else is embedded and kept, images that cannot be read.
    """
    if batch < 1:
        raise InputError(f"batch must be 1 or more, got {batch}.")
    fingerprint = encoder.fingerprint
    folder = None if folder is None else Path(folder)
    if folder is not None:
        for path in folder.glob(f"{'?' * SHORT}-*.safetensors"):
            _check_encoder(folder, path.name[:SHORT], fingerprint[:SHORT])
    parts, number = batches(source, batch, encoder.preprocess)
    embeddings, names, rows, unreadable, first = [], [], [], [], 0
    for part in tqdm(parts, total=number, desc="embeddings", unit="batch"):
        values, why = _kept(part, encoder, fingerprint, folder)
        good = [i for i in range(len(part.names)) if i not in why]
        embeddings.append(values)
        names += [part.names[i] for i in good]
        rows += [first + i for i in good]
        unreadable += [(part.names[i], text) for i, text in sorted(why.items())]
        first += len(part.names)
    if unreadable and (not skip_unreadable or not names):
        some = "; ".join(f"{name} ({why})" for name, why in unreadable[:SHOWN])
        more = f"; and {len(unreadable) - SHOWN} more" if len(unreadable) > SHOWN else ""
        raise InputError(
            f"{len(unreadable)} of {first} images cannot be read: {some}{more}. "
            "Repair them, or leave them out with skip_unreadable=True."
        )
    if not first:
        raise InputError("There is no image to embed: the iterator gave no batch.")
    home = str(source) if isinstance(source, str | Path) else None
    values, rows = torch.cat(embeddings), torch.tensor(rows)
    return Embedded(values, tuple(names), rows, tuple(unreadable), fingerprint, home)


def _kept(
    part: Batch, encoder: Encoder, fingerprint: str, folder: Path | None
) -> tuple[Tensor, dict[int, str]]:
    """The embeddings of one batch, read or else computed, and {item: reason} of what is not."""
    path = None
    if folder is not None:
        key = result_key(METHOD, part.content.hex())
        path = folder / f"{fingerprint[:SHORT]}-{key}.safetensors"
        found = read_kept(path, _read)
        if found is not None:
            return found
    images, why = part.load()
    values = encoder.embed_images(images.to(encoder.mean.device)).cpu()
    if path is not None:
        about = {"unreadable": json.dumps(why)}
        with atomic_write(path) as temporary:
            save_file({"embeddings": values.contiguous()}, temporary, about)
    return values, why


def _read(path: Path) -> tuple[Tensor, dict[int, str]]:
    """What ``_kept`` wrote."""
    with safe_open(path, framework="pt") as file:
        why = json.loads(file.metadata()["unreadable"])
        return file.get_tensor("embeddings"), {int(i): text for i, text in why.items()}


def _check_encoder(folder: Path, found: str, wanted: str) -> None:
    if found != wanted:
        raise InputError(
            f"The embeddings in {folder} are those of another encoder ({found[:12]}, not "
            f"{wanted[:12]}): choose another folder, or that encoder."
        )
