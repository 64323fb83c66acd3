"""The state behind the explorer of sentences, without any widget: black boxes, and what is asked.

Embeddings, losses and loss models are made once; a question takes the text tower and two products.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.core.stats import Estimate
from visiondx.llm2loss.answers import Comparisons
from visiondx.llm2loss.checks import needed
from visiondx.llm2loss.modality import placed
from visiondx.llm2loss.model import LossModel

NEAR = 0.05  # share of the images among which a sentence's hardest are looked for


@dataclass(frozen=True)
class Question:
    """Two sentences, what the ensemble says of them, and images that they bring to mind.

    Rows are those of the session's images; "hardest" are those with the largest losses among the
    5 % nearest to a sentence.
    """

    comparison: Comparisons  # of one pair
    nearest: Tensor  # (2, k)
    hardest: Tensor  # (2, k)

    @property
    def sentences(self) -> tuple[str, str]:
        return self.comparison.a[0], self.comparison.b[0]


@dataclass(frozen=True)
class TrueAnswer:
    """A black box's losses on new images of two sentences, in nats."""

    losses: tuple[Estimate, Estimate]
    difference: Estimate  # image by image, of the first - of the second
    pictures: Tensor  # (2, k, 3, H, W)

    @property
    def known(self) -> bool:
        """Whether the interval of the difference does not hold 0."""
        return self.difference.low > 0 or self.difference.high < 0


# (black box, first, second, images, seed) -> the truth, where new images can be had
Truth = Callable[[str, str, str, int, int], TrueAnswer]


class QuestionSession:
    """Black boxes and their loss models, to be asked in pairs of sentences.

    Args:
        models: by name of the black box, with one encoder.
        losses: (N,) by name, on the images whose embeddings (N, D) these are.
        pictures: rows (k,) -> (k, 3, H, W) in [0, 1], the images themselves.
        neutral: sentences that say nothing of what varies between the images.
        shown: k, images of each kind. truth: None where nothing new can be drawn.

    Raises:
        InputError: no encoder, or losses of other black boxes or images.
    """

    def __init__(
        self,
        models: Mapping[str, LossModel],
        losses: Mapping[str, Tensor],
        embeddings: Tensor,
        pictures: Callable[[Tensor], Tensor],
        neutral: Sequence[str],
        *,
        shown: int = 6,
        truth: Truth | None = None,
    ) -> None:
        wrong = [k for k in models if k not in losses or len(losses[k]) != len(embeddings)]
        if wrong or not models:
            raise InputError(
                f"Every black box needs a loss for each of {len(embeddings)} images: "
                f"{', '.join(wrong) or 'there is none'}."
            )
        self.models, self.losses, self.pictures = dict(models), losses, pictures
        self.shown, self._truth = shown, truth
        self.black_box = next(iter(self.models))
        self.encoder = needed(self.models[self.black_box].encoder)
        self._images = placed(embeddings, F.normalize(embeddings, dim=1).mean(0))
        with torch.no_grad():
            self._neutral = self.encoder.embed_texts(list(neutral)).cpu().mean(0)

    @property
    def draws(self) -> bool:
        """Whether the truth can be drawn."""
        return self._truth is not None

    def use(self, black_box: str) -> None:
        """Ask about another black box.

        Raises:
            InputError: an unknown one.
        """
        if black_box not in self.models:
            known = ", ".join(self.models)
            raise InputError(f"No black box {black_box!r}: choose one of {known}.")
        self.black_box = black_box

    @torch.no_grad()
    def ask(self, first: str, second: str) -> Question:
        """On which of two sentences will the black box be worse, and on images like which?

        Raises:
            InputError: an empty sentence, or one longer than the context.
        """
        comparison = self.models[self.black_box].compare(first, second)
        words = placed(self.encoder.embed_texts([first, second]).cpu(), self._neutral)
        likeness = words @ self._images.T  # (2, N)
        losses = self.loss()
        near = likeness.topk(max(self.shown, int(NEAR * likeness.shape[1])), dim=1).indices
        order = losses[near].topk(self.shown, dim=1).indices
        return Question(comparison, near[:, : self.shown], near.gather(1, order))

    def loss(self, rows: Tensor | slice = slice(None)) -> Tensor:
        """The present black box's losses on these images."""
        return self.losses[self.black_box][rows]

    def truth(self, first: str, second: str, images: int = 64, seed: int = 0) -> TrueAnswer:
        """Draw new images of both sentences and let the black box answer.

        Raises:
            InputError: nothing can be drawn here, or not these sentences.
        """
        if self._truth is None:
            raise InputError("Nothing new can be drawn here: the truth is not known.")
        return self._truth(self.black_box, first, second, images, seed)
