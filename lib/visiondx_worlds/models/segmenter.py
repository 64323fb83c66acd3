"""The embedded segmenter: a U-net whose pixels are compared with words, for 64 px.

As in language-driven segmentation (Li et al., LSeg, ICLR 2022): a network turns a picture into one
vector a pixel, a word is a vector too, and their dot product is the logit of "this pixel is part of
it". So all words of a picture cost little more than one. The words' vectors start at the embedded
encoder's text embeddings, where synonyms lie together, and are trained on: they are kept with the
weights, and no encoder is needed to segment.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visiondx.models.segmenter import Segmenter
from visiondx_worlds.models import zoo
from visiondx_worlds.models.classifier import ResidualBlock
from visiondx_worlds.models.registry import SEGMENTER
from visiondx_worlds.models.unet import double, way_down, way_up

SIZE = 64


class SegmenterNet(nn.Module):
    """Images (B, 3, 64, 64) in [0, 1] and words -> logits of their pixels and of their presence.

    Args:
        words: how many are known.
        width: channels at 32 px; 2 and 4 times as many at 16 and 8 px.
        dim: of the pixels' vectors. embedding: of the words' vectors.
    """

    def __init__(self, words: int, width: int = 32, dim: int = 48, embedding: int = 128) -> None:
        super().__init__()
        self.stem, self.down = way_down(width, 4 * width)
        self.context = nn.Linear(4 * width, 4 * width)
        self.middle = ResidualBlock(4 * width, 4 * width, 1)
        self.across, self.up = way_up(width, 4 * width)
        # at 64 px a channel costs most: one thin convolution over picture and features
        self.wide = nn.Conv2d(width, width, 1)
        self.fine = nn.Sequential(
            nn.Conv2d(3, width // 2, 3, 1, 1, bias=False), nn.BatchNorm2d(width // 2), nn.ReLU()
        )
        self.last = nn.Sequential(
            nn.Conv2d(width + width // 2, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, dim, 1),
        )
        self.whole = nn.Linear(8 * width, dim)
        self.words = nn.Parameter(torch.randn(words, embedding))
        self.of_pixels = nn.Linear(embedding, dim + 1)
        self.of_whole = nn.Linear(embedding, dim + 1)
        self.evidence = nn.Parameter(torch.tensor(0.5))

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors of the pixels (B, dim, H, W) and of the whole picture (B, dim)."""
        x = images * 4 - 2
        levels = [self.stem(x)]
        for block in self.down:
            levels.append(block(levels[-1]))
        low = levels[-1]
        around = self.context(low.mean((2, 3)))[..., None, None]
        y = self.middle(low + around)
        whole = self.whole(torch.cat((y.mean((2, 3)), y.amax((2, 3))), 1))
        for across, block, level in zip(self.across, self.up, levels[-2:0:-1], strict=True):
            y = block(double(across(y)) + level)
        y = torch.cat((double(self.wide(y)), self.fine(x)), 1)
        return self.last(y), whole

    def forward(self, images: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the pixels (B, K, H, W) and of the words' presence (B, K).

        Args:
            words: (B, K) int64, rows of the known words for each image; or (K,) for all images.
        """
        return self.compare(*self.features(images), words)

    def compare(self, pixels: Tensor, whole: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """``forward`` from what ``features`` returned."""
        pixels, whole = pixels.float(), whole.float()
        vectors = self.words[words].expand(len(pixels), -1, -1)
        query, bias = self.of_pixels(vectors).split((pixels.shape[1], 1), 2)
        logits = torch.baddbmm(bias, query, pixels.flatten(2)).unflatten(2, pixels.shape[2:])
        query, bias = self.of_whole(vectors).split((whole.shape[1], 1), 2)
        there = torch.baddbmm(bias, query, whole[..., None])[..., 0]
        seen = F.avg_pool2d(logits, 2).amax((2, 3))  # of the four neighbours that are surest
        return logits, there + self.evidence * seen


@torch.no_grad()
def start_words(net: SegmenterNet, embeddings: Tensor) -> None:
    """Set the words' vectors to an encoder's text embeddings (words, embedding), centred and scaled
    to deviation 1: what all have in common tells nothing.
    """
    centred = embeddings - embeddings.mean(0)
    net.words.copy_(centred / centred.std())


class WordMasks(nn.Module):
    """A network and the words that it knows, as ``Segmenter`` takes it.

    Pictures of another size are resized to 64 px and their maps back. A word's row is its place in
    `words`.
    """

    def __init__(self, net: SegmenterNet, words: Sequence[str]) -> None:
        super().__init__()
        self.net, self.words = net, tuple(words)

    def forward(self, images: Tensor, words: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Probabilities (B, W, H, W') and scores (B, W)."""
        size = images.shape[-2:]
        rows = torch.tensor([self.words.index(word) for word in words], device=images.device)
        small = _resized(images.clamp(0, 1), (SIZE, SIZE))
        logits, there = self.net(small.contiguous(memory_format=torch.channels_last), rows)
        return _resized(logits.sigmoid(), size), there.sigmoid()


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    if maps.shape[-2:] == tuple(size):
        return maps
    return F.interpolate(maps, tuple(size), mode="bilinear", antialias=True)


def save_segmenter(
    segmenter: Segmenter,
    name: str = "embedded",
    *,
    notebook: str,
    seed: int,
    quality: dict,
    **card: object,
) -> None:
    """Keep a segmenter whose module is ``WordMasks``, its words with it.

    Args:
        notebook, seed, quality: for the manifest, see ``zoo.save``. card: facts for readers.
    """
    net = segmenter.module.net
    config = {
        **card,
        "words": list(segmenter.module.words),
        "width": net.stem[0].out_channels,
        "dim": net.whole.out_features,
        "embedding": net.words.shape[1],
        "threshold": segmenter.threshold,
        "least": segmenter.least,
    }
    zoo.save(
        SEGMENTER + name, net.state_dict(), config, notebook=notebook, seed=seed, quality=quality
    )


def load_segmenter(name: str = "embedded") -> Segmenter:
    """An embedded segmenter.

    Raises:
        InputError: none of that name, or its file is missing or altered.
    """
    with zoo.opened(SEGMENTER + name) as (tensors, card):
        words = card["words"]
        net = SegmenterNet(len(words), card["width"], card["dim"], card["embedding"])
        net.load_state_dict(tensors)
        module = WordMasks(net.to(memory_format=torch.channels_last), words)
        return Segmenter(module, words, threshold=card["threshold"], least=card["least"])
