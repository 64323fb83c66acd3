"""A `QuestionSession` on the black boxes of a world, which can draw the truth."""

from collections.abc import Mapping

import torch

from visiondx.core.errors import InputError
from visiondx.llm2loss.model import LossModel
from visiondx.widgets.questions import QuestionSession, TrueAnswer
from visiondx_worlds.marking.llm2loss.study import WorldStudy
from visiondx_worlds.marking.llm2loss.truth import Sentence, mean_losses, true_losses
from visiondx_worlds.marking.llm2loss.understand import understand


def open_questions(
    study: WorldStudy, shown: int = 6, models: Mapping[str, LossModel] | None = None
) -> QuestionSession:
    """A session on the training images of a study.

    Args:
        study: see ``marking.llm2loss.study.prepare_study``. shown: images of each kind.
        models: by name of the black box; None fits a ranker for each.
    """

    def truth(black_box: str, first: str, second: str, images: int, seed: int) -> TrueAnswer:
        """Raises InputError for a sentence that is not the grammar's, or that no image can show."""
        sentences = [_understood(study, text) for text in (first, second)]
        target = {black_box: study.targets[black_box]}
        losses = true_losses(study.source, target, sentences, images, seed)  # (1, 2, images)
        each, gap = mean_losses(losses), mean_losses(losses[:, :1] - losses[:, 1:])
        pictures = [study.pictures(s, shown, images, seed) for s in sentences]
        return TrueAnswer((each[0], each[1]), gap[0], torch.stack(pictures))

    return QuestionSession(
        study.fit("ranker") if models is None else models,
        dict(zip(study.targets, study.losses["train"], strict=True)),
        study.embeddings["train"],
        study.examples["train"].pictures,
        study.neutral,
        shown=shown,
        truth=truth,
    )


def _understood(study: WorldStudy, text: str) -> Sentence:
    world = study.source.world.name
    given = understand(world, text)
    if given is None:
        raise InputError(
            f"The world cannot draw {text!r}, for it does not know all its words: use those "
            f"of data/prompts/{world}.yaml, such as {study.words.prompt('smiling')!r}."
        )
    return Sentence(text, given)
