"""How well an encoder names what renders show, zero-shot, in phrasings it may never have seen."""

import math

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from visiondx.core.seeds import step_seed
from visiondx.models.encoder import Encoder


@torch.no_grad()
def embed_renders(encoder: Encoder, world: object, attributes: object) -> Tensor:
    """(n, D) on the CPU: the world's renders of n rows of attributes, embedded."""
    device = encoder.mean.device
    return torch.cat(
        [
            encoder.embed_images(world.render(attributes[i : i + 64]).to(device)).cpu()
            for i in range(0, len(attributes), 64)
        ]
    )


@torch.no_grad()
def attribute_scores(
    encoder: Encoder,
    world: object,
    n: int,
    seed: int,
    *,
    phrasings: int = 4,
    heldout: bool = True,
) -> tuple[Tensor, Tensor]:
    """What the encoder says about n renders, zero-shot.

    Returns:
        scores (phrasings, n, A): sim(I, "... with a") - sim(I, neutral); labels (n, A).
    """
    attributes = world.sample(n, seed)
    images = embed_renders(encoder, world, attributes)
    ask = [
        world.prompt(name, True, seed=step_seed(seed, s), heldout=heldout)
        for s in range(phrasings)
        for name in world.binary
    ]
    texts = encoder.embed_texts([*ask, world.neutral()]).cpu()
    difference = (texts[:-1] - texts[-1]).view(phrasings, len(world.binary), -1)
    return images @ difference.transpose(1, 2), world.labels(attributes)


def evaluate_encoder(
    encoder: Encoder, world: object, n: int = 1000, seed: int = 0, **settings: object
) -> dict[str, float]:
    """AUROC of each attribute, mean over the phrasings; NaN where all renders agree.

    `settings` are those of `attribute_scores`.
    """
    scores, labels = attribute_scores(encoder, world, n, seed, **settings)
    result = {}
    for column, name in enumerate(world.binary):
        truth = labels[:, column]
        if truth.all() or not truth.any():
            result[name] = math.nan
            continue
        areas = [roc_auc_score(truth.numpy(), s[:, column].numpy()) for s in scores]
        result[name] = sum(areas) / len(areas)
    return result
