"""Stand-ins that the LLM2Loss tests share: an encoder of colours and words, losses with a cause."""

import hashlib

import torch
import torch.nn.functional as F
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.llm2loss.data import LossData
from visiondx.models.preprocess import Preprocess

WORDS = ("red", "green", "blue")
CONTEXT = 6  # words that the encoder reads


class ColourEncoder:
    """Images by their mean colour, texts by the colours that they name; a gap between the two.

    ``seen`` counts the images that were encoded.
    """

    preprocess = Preprocess((8, 8))

    def __init__(self, version: str = "first") -> None:
        self.mean = torch.zeros(1, 3, 1, 1)
        self.fingerprint = hashlib.sha256(version.encode()).hexdigest()
        self.seen = 0

    def embed_images(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        colour = images.mean((2, 3)) - 0.5
        return F.normalize(torch.cat((colour, torch.ones(len(images), 1) * 0.7), 1), dim=1)

    def embed_texts(self, texts: list[str]) -> Tensor:
        rows = []
        for text in texts:
            words = text.lower().split()
            if not words or len(words) > CONTEXT:
                raise InputError(f"The prompt {text!r} is empty or longer than the context.")
            sign = -1 if "not" in words else 1
            rows.append([sign * 0.5 * (word in words) for word in WORDS] + [-0.7])
        return F.normalize(torch.tensor(rows), dim=1)


def coloured(n: int, seed: int = 0) -> Tensor:
    """n images (n, 3, 8, 8), each of one colour."""
    drawn = torch.rand(n, 3, 1, 1, generator=torch.Generator().manual_seed(seed))
    return drawn.expand(n, 3, 8, 8).contiguous()


def redness(n: int = 300, seed: int = 0, noise: float = 0.05) -> LossData:
    """The redder an image is, the larger its loss; blue lowers it half as much."""
    images, encoder = coloured(n, seed), ColourEncoder()
    red, _, blue = images.mean((2, 3)).T
    drawn = torch.randn(n, generator=torch.Generator().manual_seed(seed + 1))
    losses = torch.exp(2 * red - blue) + noise * drawn
    return LossData(encoder.embed_images(images), losses, encoder.fingerprint)
