"""A segmenter: where in pictures is what a word names, and is it there at all?

segmenter = Segmenter.load("embedded")
found = segmenter(images, ["dog", "snow"])      # images (B, 3, H, W) in [0, 1]
found.masks                                     # (B, 2, H, W) bool
found.shares                                    # (B, 2): r of DiffExplainer, section 3.3
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from visiondx.core import words as texts
from visiondx.core.errors import InputError
from visiondx.models import registry

_ARTICLES = ("a ", "an ", "the ", "some ")


@dataclass(frozen=True)
class Segments:
    """What a segmenter found of W words in B pictures.

    probabilities: (B, W, H, W') that a pixel is part of it. scores: (B, W) in [0, 1], how sure it
    is that the thing is there at all. threshold, least: what a probability and a score must reach.
    """

    probabilities: Tensor
    scores: Tensor
    threshold: float
    least: float

    @property
    def there(self) -> Tensor:
        """(B, W) bool: whether the thing is in the picture."""
        return self.scores >= self.least

    @property
    def masks(self) -> Tensor:
        """(B, W, H, W') bool; empty where the thing is not there."""
        return (self.probabilities >= self.threshold) & self.there[..., None, None]

    @property
    def shares(self) -> Tensor:
        """(B, W): fraction r of each picture that the mask covers."""
        height, width = self.probabilities.shape[2:]
        return self.masks.sum((2, 3)) / (height * width)


class Segmenter(nn.Module):
    """Pictures and words into masks. Frozen, in eval mode, without gradients.

    Args:
        module: images (B, 3, H, W) in [0, 1] and W words -> probabilities (B, W, H, W') and scores
            (B, W).
        known: the words that it has learned, in lower case and without article; None for one that
            reads any.
        threshold, least: see ``Segments``. batch: pictures in one call of the module, where nothing
            else is asked for.
    """

    def __init__(
        self,
        module: nn.Module,
        known: Sequence[str] | None = None,
        *,
        threshold: float = 0.5,
        least: float = 0.5,
        batch: int = 64,
    ) -> None:
        super().__init__()
        self.module = module
        self.known = None if known is None else tuple(known)
        self.threshold, self.least, self.batch = threshold, least, batch
        self.eval().requires_grad_(False)

    @classmethod
    def load(
        cls,
        name: str | Path = "embedded",
        masks: str | Path | None = None,
        device: str | torch.device = "cpu",
    ) -> Segmenter:
        """The embedded one, or one of transformers, by a local folder or a name.

        Args:
            name: "embedded"; a CLIPSeg ("CIDAS/clipseg-rd64-refined"); or a Grounding DINO
                ("IDEA-Research/grounding-dino-tiny"), which finds boxes alone.
            masks: for a Grounding DINO the SAM or SAM 2 that makes masks of its boxes
                ("facebook/sam2-hiera-tiny"); else None.

        Raises:
            InputError: no such model, one of another kind, or one without safetensors.
        """
        embedded = registry.offered("segmenters")
        if str(name) in embedded:
            if masks is not None:
                raise InputError(f"The segmenter {name!r} makes masks itself: leave out {masks}.")
            return registry.ask("segmenter", str(name)).to(device)
        if "/" not in str(name) and not Path(name).is_dir():
            raise InputError(
                f"No segmenter {str(name)!r}: choose from {', '.join(embedded) or 'none'}, or give "
                "a folder or a model's name such as CIDAS/clipseg-rd64-refined."
            )
        from visiondx.models.segmenter_pretrained import read_segmenter

        return cls(**read_segmenter(name, masks)).to(device)

    def check_words(self, words: Sequence[str]) -> None:
        """Refuse words that it cannot look for; nothing is computed.

        Raises:
            InputError: no list, an empty word, one named twice, or one that it has never seen.
        """
        if isinstance(words, str) or not len(words):
            raise InputError(f'words must be a list such as ["dog"], got {words!r}.')
        texts.check_words(words, "Words")
        texts.check_words([_bare(word) for word in words], "Words")
        if self.known is None:
            return
        for word in words:
            if not self.knows(word):
                near = get_close_matches(_bare(word), self.known, 3, 0.0)
                raise InputError(
                    f"The segmenter has never seen the word {word!r}: choose one that it has, such "
                    f"as {', '.join(near)}, or load one that reads any word."
                )

    def knows(self, word: str) -> bool:
        """Whether it can look for this word: one that reads any word always can."""
        return self.known is None or _bare(word) in self.known

    @torch.no_grad()
    def forward(self, images: Tensor, words: Sequence[str], batch: int | None = None) -> Segments:
        """Look for each of W words in each of B pictures; the answer holds B W H W' floats.

        Args:
            images: (B, 3, H, W) in [0, 1]. words: such as "dog" or "a dog". batch: see the
                class.

        Raises:
            InputError: see ``check_words``; or images that are none.
        """
        self.check_words(words)
        _check_images(images)
        asked = [_bare(word) for word in words]
        device = next((p.device for p in self.parameters()), images.device)
        parts = images.split(batch or self.batch)
        shown = tqdm(parts, desc="masks", mininterval=1.0, disable=len(parts) < 2)
        found = [self.module(part.to(device), asked) for part in shown]
        probabilities, scores = (torch.cat(each) for each in zip(*found, strict=True))
        return Segments(probabilities, scores, self.threshold, self.least)


def _bare(word: str) -> str:
    """A word as it is compared: lower case, without its article."""
    word = texts.plain(word)
    article = next((a for a in _ARTICLES if word.startswith(a)), "")
    return word[len(article) :]


def _check_images(images: Tensor) -> None:
    if (
        not isinstance(images, Tensor)
        or images.ndim != 4
        or images.shape[1] != 3
        or not len(images)
    ):
        shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise InputError(f"Images of shape {shape} were given; a segmenter takes (B, 3, H, W).")
    low, high = images.aminmax()
    if not (low >= -0.01 and high <= 1.01):
        raise InputError(
            f"Images with values from {low:.3g} to {high:.3g} were given; a segmenter takes those "
            "in [0, 1]."
        )
