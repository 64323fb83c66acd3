"""The state behind the explorer of sentences, without any widget: black boxes, and what is asked.

Embeddings, losses and loss models are made once; a question takes the text tower and two products.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.core.stats import Estimate
from visiondx.llm2loss.answers import Comparisons
from visiondx.llm2loss.modality import placed
from visiondx.llm2loss.model import LossModel
from visiondx_worlds.marking.llm2loss.study import WorldStudy
from visiondx_worlds.marking.llm2loss.truth import Sentence, mean_losses, true_losses
from visiondx_worlds.marking.llm2loss.understand import understand

NEAR = 0.05  # share of the training images among which a sentence's hardest are looked for


@dataclass(frozen=True)
class Question:
    """Two sentences, what the ensemble says of them, and training images that they bring to mind.

    Rows are those of the study's training images; "hardest" are those with the largest losses among
    the 5 % nearest to a sentence.
    """

    comparison: Comparisons  # of one pair
    nearest: Tensor  # (2, k)
    hardest: Tensor  # (2, k)

    @property
    def sentences(self) -> tuple[str, str]:
        return self.comparison.a[0], self.comparison.b[0]


@dataclass(frozen=True)
class TrueAnswer:
    """The black box's losses on new images of two sentences, in nats."""

    losses: tuple[Estimate, Estimate]
    difference: Estimate  # image by image, of the first - of the second
    pictures: Tensor  # (2, k, 3, H, W)

    @property
    def known(self) -> bool:
        """Whether the interval of the difference does not hold 0."""
        return self.difference.low > 0 or self.difference.high < 0


class QuestionSession:
    """Black boxes of one world and their rankers, to be asked in pairs of sentences.

    Args:
        study: see ``marking.llm2loss.study.prepare_study``. shown: k, images of each kind.
        models: by name of the black box; None fits a ranker for each.
    """

    def __init__(
        self, study: WorldStudy, shown: int = 6, models: Mapping[str, LossModel] | None = None
    ) -> None:
        self.study, self.shown = study, shown
        self.models = dict(study.fit("ranker") if models is None else models)
        self.black_box = next(iter(self.models))
        images = study.embeddings["train"]
        self._images = placed(images, F.normalize(images, dim=1).mean(0))
        with torch.no_grad():
            self._neutral = study.encoder.embed_texts(study.neutral).cpu().mean(0)

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
        words = placed(self.study.encoder.embed_texts([first, second]).cpu(), self._neutral)
        likeness = words @ self._images.T  # (2, N)
        losses = self.loss()
        near = likeness.topk(max(self.shown, int(NEAR * likeness.shape[1])), dim=1).indices
        order = losses[near].topk(self.shown, dim=1).indices
        return Question(comparison, near[:, : self.shown], near.gather(1, order))

    def loss(self, rows: Tensor | slice = slice(None)) -> Tensor:
        """The present black box's losses on these training images."""
        return self.study.losses["train"][list(self.study.targets).index(self.black_box)][rows]

    def truth(self, first: str, second: str, images: int = 64, seed: int = 0) -> TrueAnswer:
        """Draw new images of both sentences and let the black box answer.

        Raises:
            InputError: a sentence that is not the grammar's, or that no image can show.
        """
        sentences = [self._understood(text) for text in (first, second)]
        target = {self.black_box: self.study.targets[self.black_box]}
        losses = true_losses(self.study.source, target, sentences, images, seed)  # (1, 2, images)
        each, gap = mean_losses(losses), mean_losses(losses[:, :1] - losses[:, 1:])
        pictures = [self.study.pictures(s, self.shown, images, seed) for s in sentences]
        return TrueAnswer((each[0], each[1]), gap[0], torch.stack(pictures))

    def _understood(self, text: str) -> Sentence:
        world = self.study.source.world.name
        given = understand(world, text)
        if given is None:
            raise InputError(
                f"The world cannot draw {text!r}, for it does not know all its words: use those "
                f"of data/prompts/{world}.yaml, such as {self.study.words.prompt('smiling')!r}."
            )
        return Sentence(text, given)
