"""A question about losses: a loss model, what it says, and the images that bear it out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from visiondx.core.files import atomic_write
from visiondx.core.results import Result
from visiondx.core.stats import Estimate
from visiondx.core.words import plain
from visiondx.llm2loss.answers import Answers, Comparisons, unknown_said
from visiondx.llm2loss.audit import Audit
from visiondx.llm2loss.data import LossData
from visiondx.llm2loss.fit import FitSettings
from visiondx.llm2loss.model import LossModel
from visiondx.llm2loss.nearest import Nearest, nearest
from visiondx.llm2loss.question import check_question, sentences_of
from visiondx.llm2loss.resampling import doubt
from visiondx.models.encoder import Encoder


@dataclass(frozen=True)
class LossFindings:
    """What ``ask_losses`` found; parts that were not asked for are None."""

    model: LossModel
    comparisons: Comparisons | None
    answers: Answers | None
    audit: Audit | None
    nearest: Nearest

    @property
    def results(self) -> list[Result]:
        """The parts, in the order in which they are read."""
        parts = (self.comparisons, self.answers, self.audit, self.nearest)
        return [part for part in parts if part is not None]

    @property
    def warning(self) -> str:
        """That the loss model knows no more than chance, or nothing."""
        return doubt(self.model.skill)

    @property
    def verdict(self) -> str:
        """What was found, a sentence a line: first of all how much more than chance is known."""
        if self.warning:
            return f"{self.warning[0].upper()}{self.warning[1:]}."
        skill = self.model.skill
        lines = [
            "The loss model knows more than chance: on images that its members had not seen, its "
            f"order and that of the losses agree (Spearman {skill.value:.2f}, 95 % interval "
            f"{skill.low:.2f} to {skill.high:.2f}, {skill.n} images; 0 is chance)."
        ]
        asked = (self.comparisons, self.answers, self.audit)
        lines += [line for part in asked if part is not None for line in part.said]
        unknown = unknown_said(self.nearest.unknown)  # of all parts in one sentence
        own = [unknown_said(part.unknown) for part in asked if part is not None]
        lines = [line for line in lines if [line] not in own]
        return "\n".join(lines + self._against() + unknown)

    def _against(self) -> list[str]:
        """A line for each pair of which the nearest images say the opposite."""
        if self.comparisons is None:
            return []
        found, said = self.comparisons, []
        means = {plain(name): e.value for name, e in self.nearest.estimates.items()}
        rows = zip(found.a, found.b, found.verdict, found.worse.tolist(), strict=True)
        for a, b, verdict, worse in rows:
            first, second = means[plain(a)], means[plain(b)]
            if verdict.startswith("worse on") and (first > second) != worse:
                said.append(
                    f"Mind that the images nearest to “{a}” had a mean loss of {first:.2f}, those "
                    f"nearest to “{b}” {second:.2f}: the other way round."
                )
        return said

    def metrics(self) -> dict[str, Estimate]:
        """For ``run.runs.record``: skill, and the value of each part by its words."""
        found = {"skill": self.model.skill}
        for part, name in ((self.answers, "answers"), (self.comparisons, "compare")):
            if part is None:
                continue
            frame = part.to_frame()
            words = frame["prompt"] if name == "answers" else frame["a"] + " | " + frame["b"]
            for said, row in zip(words, frame.itertuples(), strict=True):
                members = len(part.members)
                found[f"{name}.{said}"] = Estimate(row.value, row.low, row.high, members)
        if self.audit is not None:
            found |= {f"audit.{name}": e for name, e in self.audit.estimates.items()}
        return found | {f"nearest.{name}": e for name, e in self.nearest.estimates.items()}

    def save(self, folder: str | Path) -> None:
        """Write a table for each part, the loss model, and verdict.txt."""
        for part in (*self.results, self.model):
            part.save(folder)
        with atomic_write(Path(folder) / "verdict.txt") as path:
            path.write_text(self.verdict + "\n", encoding="utf-8")


def ask_losses(
    data: LossData,
    encoder: Encoder,
    ask: Sequence[str] = (),
    compare: Sequence[Sequence[str]] = (),
    attributes: Sequence[str] = (),
    *,
    settings: FitSettings | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
) -> LossFindings:
    """Fit a ranker on a black box's losses, and ask it in sentences.

    Args:
        data: see ``read_table``, ``read_labelled``. encoder: the one that made its embeddings.
        ask: sentences. compare: pairs of them. attributes: of the audit, see ``LossModel.audit``.
        settings, seed, folder: see ``LossModel.fit``.

    Raises:
        InputError: no sentence, a doubled one, one that the encoder refuses, or what
            ``LossModel.fit`` refuses.
    """
    check_question(ask, compare, attributes)
    sentences = sentences_of(ask, compare, attributes)
    near = nearest(data, encoder, sentences)  # before the fit: it refuses what is too long
    model = LossModel.fit(
        data, encoder, settings=settings, projected=True, seed=seed, folder=folder
    )
    return LossFindings(
        model,
        model.compare(*map(list, zip(*compare))) if len(compare) else None,
        model.ask(list(ask)) if len(ask) else None,
        model.audit(list(attributes)) if len(attributes) else None,
        near,
    )
