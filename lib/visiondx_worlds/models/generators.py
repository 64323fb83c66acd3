"""The generators that come with the repository, and their relevance matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visiondx_worlds.models import zoo

if TYPE_CHECKING:
    from torch import Tensor

    from visiondx.models.generator import StyleGenerator

KEPT = "-relevance"  # a kept M is called "<world>-relevance" in the zoo


def save_generator(generator: StyleGenerator, name: str = "faces", **about: object) -> None:
    """Write through `zoo.save`; ``about``: its notebook, seed and quality."""
    zoo.save(name, generator.state_dict(), dict(generator.settings), **about)


def save_relevance(
    M: Tensor,
    generator,
    encoder,
    images: int,
    *,
    world: str = "faces",
    notebook: str,
    seed: int,
    quality: dict,
) -> None:
    """Keep M in the zoo as ``<world>-relevance``, with the fingerprints that ``relevance`` knows.

    One M a world is kept: the next one, for another generator or encoder, replaces it.
    """
    config = {
        "generator": generator.fingerprint,
        "encoder": encoder.image_fingerprint,
        "images": images,
        "shape": list(M.shape),
    }
    zoo.save(world + KEPT, {"M": M}, config, notebook=notebook, seed=seed, quality=quality)
