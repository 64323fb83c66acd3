"""The real thing: a face recogniser of one's own on CelebA, and any open_clip encoder."""

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.llm2loss.celeba.images import CelebA
from visiondx.llm2loss.data import LossData, run_model
from visiondx.models.device import device_of
from visiondx.models.encoder import Encoder
from visiondx.models.target import Target


def celeba_faces(
    root: str | Path, recogniser: str, trained_on: str | Path | None = None
) -> tuple[CelebA, Target]:
    """The images of CelebA that show people whom a recogniser knows, and the recogniser.

    Args:
        root: see ``CelebA.open``. recogniser: "path/to/file.py:function", see ``Target.load``; its
            labels are the numbers of ``identity_CelebA.txt``.
        trained_on: a text file with the names of the images that it learned from, a line each;
            they are left out, for memorised images have no loss to learn.

    Raises:
        InputError: what is missing or cannot be read, before anything long begins; or no image
            that is left.
    """
    if not root or not recogniser:
        raise InputError(
            "The pretrained backend needs CelebA and a recogniser: set root to the folder with "
            "img_align_celeba/ and recogniser to 'path/to/file.py:function'."
        )
    faces, target = CelebA.open(root), Target.load(recogniser, "multiclass").eval()
    if target.task != "multiclass":
        raise InputError(
            f"The recogniser {recogniser} is a {target.task} target: return a multiclass one, "
            "whose labels are numbers of identity_CelebA.txt."
        )
    known = {label: None for label in target.labels}
    keep = torch.tensor([str(person) in known for person in faces.identities.tolist()])
    if trained_on:
        path = Path(trained_on)
        if not path.is_file():
            raise InputError(f"No list of training images at {path}: check trained_on.")
        seen = set(path.read_text("utf-8").split())
        keep &= torch.tensor([path.name not in seen for path in faces.paths])
    if not keep.any():
        raise InputError(
            f"No image of CelebA is left that shows one of the {len(known)} people of "
            f"{recogniser}: its labels must be numbers of identity_CelebA.txt."
        )
    return faces[keep], target


def celeba_losses(
    faces: CelebA,
    target: Target,
    encoder: Encoder,
    counts: tuple[int, ...],
    seed: int,
    folder: str | Path | None = None,
) -> list[LossData]:
    """The recogniser's cross-entropy on each of ``celeba_parts``, and the embeddings.

    Args:
        faces, target: of ``celeba_faces``. counts: images of each part. folder: see ``embed``.

    Raises:
        InputError: fewer images than asked for, or what ``LossData`` refuses.
    """
    device = device_of(target)

    def batches(part: CelebA) -> Iterator[tuple[Tensor, Tensor]]:
        for images, people in part.batches():
            yield images.to(device), celeba_answers(people, target).to(device)

    def loss(logits: Tensor, answers: Tensor) -> Tensor:
        return F.cross_entropy(logits, answers, reduction="none")

    parts = celeba_parts(faces, counts, seed)
    return [run_model(target.logits, loss, batches(part), encoder, folder) for part in parts]


def celeba_answers(people: Tensor, target: Target) -> Tensor:
    """(N,) int64: which of the recogniser's classes these people, (N,) numbers, are."""
    place = {label: index for index, label in enumerate(target.labels)}
    return torch.tensor([place[str(person)] for person in people.tolist()])


def celeba_parts(faces: CelebA, counts: tuple[int, ...], seed: int) -> list[CelebA]:
    """Disjoint random parts of the images, so many each.

    Raises:
        InputError: fewer images than asked for.
    """
    if sum(counts) > len(faces):
        raise InputError(
            f"{sum(counts)} images were asked for and CelebA has {len(faces)} that can be used: "
            "ask for fewer."
        )
    order = torch.randperm(len(faces), generator=torch.Generator().manual_seed(seed))
    return [faces[rows] for rows in order[: sum(counts)].split(list(counts))]
