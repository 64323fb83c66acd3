"""A model's loss on each image of a labelled folder: its cross-entropy in nats, no gradient.

Which of the model's outputs is which folder's class is told by the names of its labels. Where it
has none, its outputs are taken in the order of the folders' names, as torchvision's ``ImageFolder``
has it; and where another order fits what it answers much better, that is said.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import ExifTags, Image
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.core.errors import InputError, reason
from visiondx.core.words import plain
from visiondx.llm2loss.cache import embed
from visiondx.llm2loss.data import LossData
from visiondx.llm2loss.paths import labelled
from visiondx.models.device import device_of
from visiondx.models.encoder import Encoder
from visiondx.models.images import THREADS
from visiondx.models.modes import evaluating
from visiondx.models.outputs import ABSENT
from visiondx.models.pixels import pixels
from visiondx.models.probabilities import check_logits, pictures
from visiondx.models.target import Target

LIKELIER = 0.1  # by so much another order of the classes must fit better, beyond chance


@dataclass(frozen=True)
class Labelled:
    """What a model did on a labelled folder."""

    data: LossData  # embeddings, and the cross-entropies
    paths: tuple[Path, ...]  # N
    answers: Tensor  # (N,) int64, the folder's class
    predicted: Tensor  # (N,) int64, the class of the largest output among the folder's
    classes: tuple[str, ...]  # of the folder
    named: bool  # the classes were matched by the model's label names, not by their order

    @property
    def accuracy(self) -> float:
        return float((self.answers == self.predicted).float().mean())


def read_labelled(
    spec: str | Target,
    images: str | Path,
    encoder: Encoder,
    folder: str | Path | None = None,
    *,
    device: str | torch.device = "cpu",
    batch: int = 64,
    skip_unreadable: bool = False,
) -> Labelled:
    """Embed the images of a folder ``<class>/<image>``, and let a model answer them.

    Args:
        spec: "path/to/file.py:function", see ``Target.load``, or a target.
        folder, skip_unreadable: see ``embed``.
        batch: images that the model answers together.

    Raises:
        InputError: a folder without classes, a model whose classes are not the folder's, images of
            several sizes for a model that names none, or what ``embed`` and ``LossData`` refuse.
    """
    classes, paths, index = labelled(images)
    target = Target.load(spec) if isinstance(spec, str) else spec
    target = target.to(device)
    with evaluating(target):
        target, columns, named = with_classes(target, classes, paths)
        if target.size is None:
            check_sizes(_sizes(paths))
        found = embed(paths, encoder, folder, skip_unreadable=skip_unreadable)
        rows = found.rows.tolist()
        paths, answers = [paths[row] for row in rows], torch.tensor(index)[found.rows]
        logits = _logits(target, paths, batch)
    predicted = logits[:, columns].argmax(1)
    if not named:
        check_order(answers, predicted, classes)
    losses = F.cross_entropy(logits, torch.tensor(columns)[answers], reduction="none")
    names = tuple(str(path.relative_to(images)) for path in paths)
    data = LossData(found.embeddings, losses, found.encoder, names)
    return Labelled(data, tuple(paths), answers, predicted, classes, named)


def with_classes(
    target: Target, classes: Sequence[str], paths: Sequence[Path]
) -> tuple[Target, list[int], bool]:
    """The target, which of its outputs is which of the folder's classes, and whether names say so.

    Args:
        paths: of the images; a model without labels is tried on the first that can be read.

    Raises:
        InputError: another task, a folder that is none of the labels, another number of outputs
            than folders, or what seem to be probabilities that nobody declared.
    """
    if target.task not in ("binary", "multiclass"):
        raise InputError(f"A {target.task} target has no class to be right about: give another.")
    tried = _first(target, paths)
    out = _try(target, tried)
    if target.labels != ABSENT:
        target.read(out, tried)
        places = {plain(label): k for k, label in enumerate(target.labels)}
        strange = [name for name in classes if plain(name) not in places]
        if strange:
            some = ", ".join(target.labels[:8]) + (", ..." if len(target.labels) > 8 else "")
            raise InputError(
                f"The folder {strange[0]!r} is none of the model's {len(target.labels)} labels "
                f"({some}): name the folders as the labels, or the labels as the folders."
            )
        return target, [places[plain(name)] for name in classes], True
    width = 0 if not isinstance(out, Tensor) else 1 if out.ndim == 1 else out.shape[-1]
    single = width == 1 and len(classes) == 2
    if not single and (width != len(classes) or out.ndim != 2):
        shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise InputError(
            f"The model returned {shape} for one image, and the folder has {len(classes)} classes "
            f"({', '.join(classes[:5])}{', ...' if len(classes) > 5 else ''}): let the function "
            'return Target(module, task="multiclass", labels=(…)), every output named as its '
            "folder."
        )
    task = "binary" if single else "multiclass"
    scale = [part.flatten().tolist() for part in (target.mean, target.std)]
    made = Target(
        target.module, task, tuple(classes), target.size, *scale, target.probabilities
    ).to(tried.device)
    made.home = target.home
    if made.probabilities is None:
        with torch.no_grad():
            check_logits(made, out, made.raw(torch.cat([tried, pictures(tried)])), tried)
    return made, list(range(len(classes))), False


def check_order(answers: Tensor, predicted: Tensor, classes: Sequence[str]) -> None:
    """Raise InputError where the answers fit another order of the classes much better.

    The best order maximises the images that are right (the assignment problem). It must make at
    least half of them right, and a tenth more than the given one, beyond what chance may do.
    """
    from scipy.optimize import linear_sum_assignment

    k, n = len(classes), len(answers)
    counts = torch.bincount(answers * k + predicted, minlength=k * k).view(k, k).numpy()
    rows, columns = linear_sum_assignment(-counts)
    right, best = np.trace(counts) / n, counts[rows, columns].sum() / n
    if best >= 0.5 and best - right > LIKELIER + 1 / n**0.5:
        wrong = next(i for i, j in zip(rows, columns) if i != j and counts[i, j])
        raise InputError(
            f"Taken in the order of the folders' names, the model's outputs are right on "
            f"{right:.0%} of the images, in another order on {best:.0%}: what it answers in the "
            f"folder {classes[wrong]!r} is mostly the place of {classes[columns[wrong]]!r}; let "
            'the function return Target(module, task="multiclass", labels=(…)) with the folders\' '
            "names in its own order."
        )


@torch.no_grad()
def _logits(target: Target, paths: Sequence[Path], batch: int) -> Tensor:
    """(N, K) float32 on the CPU; of a binary target [0, log-odds], whose softmax is its answer."""
    parts = [paths[i : i + batch] for i in range(0, len(paths), batch)]
    found, device = [], device_of(target)
    with ThreadPoolExecutor(THREADS) as pool:
        for part in tqdm(parts, desc="the model's losses", unit="batch"):
            images = list(pool.map(lambda path: _picture(target, path), part))
            check_sizes({tuple(image.shape[1:]) for image in images})
            out = target.output(torch.stack(images).to(device), target.task).float().cpu()
            found.append(out if out.ndim == 2 else torch.stack([torch.zeros_like(out), out], 1))
    return torch.cat(found)


def check_sizes(sizes: set[tuple[int, int]]) -> None:
    """Raises InputError for images of several sizes (height, width)."""
    if len(sizes) > 1:
        some = " and ".join(f"{height} x {width}" for height, width in sorted(sizes)[:2])
        raise InputError(
            f"The images come in several sizes, such as {some} (height x width): let the function "
            "return Target(module, size=…), the size that the model takes."
        )


def _sizes(paths: Sequence[Path]) -> set[tuple[int, int]]:
    """As the files' headers say; those that cannot be read are passed over."""
    found = set()
    for path in paths:
        with suppress(Exception), Image.open(path) as image:  # decoders raise many kinds
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) > 4
            found.add(image.size if turned else image.size[::-1])
    return found


def _picture(target: Target, path: Path) -> Tensor:
    """(3, H, W) in [0, 1], brought to the target's size by bilinear resampling, as it would."""
    with Image.open(path) as image:
        found = pixels(image)
    if target.size is not None and tuple(found.shape[1:]) != target.size:
        found = F.interpolate(found[None], target.size, mode="bilinear", antialias=True)[0]
    return found


def _try(target: Target, image: Tensor) -> object:
    """What the module returns for one image (1, 3, H, W), with its graph."""
    try:
        with torch.enable_grad():
            return target.raw(image.clone().requires_grad_(True))
    except Exception as error:  # modules raise many kinds
        height, width = image.shape[2:]
        raise InputError(
            f"The model failed on an image of {height} x {width} pixels ({reason(error)}): let the "
            "function return Target(module, size=…, mean=…, std=…), what the model takes."
        ) from error


def _first(target: Target, paths: Sequence[Path]) -> Tensor:
    """(1, 3, H, W), the first image that can be read."""
    why = ""
    for path in paths:
        try:
            return _picture(target, path)[None].to(device_of(target))
        except Exception as error:  # a damaged file makes decoders raise many kinds
            why = why or f"{path}: {reason(error)}"
    raise InputError(f"None of {len(paths)} images can be read ({why}): repair them.")
