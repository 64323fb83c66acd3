"""A black box of the embedded world whose losses are asked about, and the truth of the answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from visiondx.core.stats import Estimate
from visiondx.llm2loss.cache import embed
from visiondx.llm2loss.data import LossData
from visiondx.llm2loss.examples import LossExamples
from visiondx.llm2loss.findings import LossFindings
from visiondx.models.encoder import Encoder
from visiondx.models.target import Target
from visiondx_worlds.marking.llm2loss.black_box import (
    Source,
    draw_examples,
    example_losses,
    load_black_boxes,
)
from visiondx_worlds.marking.llm2loss.scores import correlation
from visiondx_worlds.marking.llm2loss.truth import Sentence, mean_losses, true_losses
from visiondx_worlds.marking.llm2loss.understand import understand

ABOUT = "A recogniser of drawn people: its cross-entropy, in nats, on each of {} new pictures."
# what the demo asks, in words that the world can draw
SENTENCES = [
    "a man with glasses and a beard",
    "an old bald man",
    "a face with a hat",
    "a smiling face with no glasses",
    "a young woman with long hair",
]
PAIRS = [
    ["a face with round spectacles", "a face with no pair of glasses"],
    ["an old man", "a young woman"],
    ["a face with a happy smile", "a face with an unsmiling mouth"],
]
ATTRIBUTES = ["a face with eyeglasses", "a face with a hat", "a face with earrings"]


@dataclass(frozen=True)
class Demo:
    """The first recogniser, and pictures of the people that it knows."""

    examples: LossExamples
    source: Source
    box: Target

    def truth(
        self, found: LossFindings, images: int, seed: int
    ) -> tuple[list[tuple[str, pd.DataFrame]], dict[str, Estimate | float]]:
        """Of every sentence that the world understands, the loss on new images of it.

        Args:
            images: drawn for each sentence. seed: of the images.

        Returns:
            for the report, a table of the sentences and one of the pairs, each with its caption;
            and metrics: of the pairs whose true sign is known and which ``found`` tells apart, how
            many it has right; Spearman's correlation over three or more sentences.
        """
        tables, metrics = [], {}
        if found.answers is not None:
            said = dict(zip(found.answers.prompts, found.answers.value.tolist(), strict=True))
            true = self._losses(list(said), images, seed)
            if true:
                rows = [
                    {"Sentence": text, "True mean loss": e.value, "95 % interval": _ends(e),
                     "Score here": said[text]}
                    for text, e in true.items()
                ]  # fmt: skip
                frame = pd.DataFrame(rows).sort_values("True mean loss", ascending=False)
                tables.append(("Sentences", frame))
                metrics |= {f"truth.{text}": e for text, e in true.items()}
                if len(true) > 2:
                    pair = frame["True mean loss"].to_numpy(), frame["Score here"].to_numpy()
                    metrics["truth.spearman"] = correlation(*pair, "Spearman")
        if found.comparisons is not None:
            rows, right = self._pairs(found, images, seed)
            if rows:
                tables.append(("Pairs: the first sentence's loss less the second's", rows))
                metrics["pairs.told_and_known"] = len(right)
                metrics["pairs.right"] = sum(right)
        return [(caption, pd.DataFrame(part)) for caption, part in tables], metrics

    def _losses(self, texts: Sequence[str], images: int, seed: int) -> dict[str, Estimate]:
        given = {text: understand(self.source.world.name, text) for text in texts}
        known = [Sentence(text, said) for text, said in given.items() if said is not None]
        if not known:
            return {}
        losses = true_losses(self.source, {"model": self.box}, known, images, seed)
        return dict(zip([s.text for s in known], mean_losses(losses), strict=True))

    def _pairs(
        self, found: LossFindings, images: int, seed: int
    ) -> tuple[list[dict[str, object]], list[bool]]:
        """Rows of a table, and whether each pair that is told and known is told rightly."""
        compared, world = found.comparisons, self.source.world.name
        rows, right = [], []
        pairs = zip(compared.a, compared.b, compared.verdict, compared.worse.tolist(), strict=True)
        for first, second, verdict, worse in pairs:
            given = [understand(world, text) for text in (first, second)]
            if None in given:
                continue
            both = [Sentence(text, said) for text, said in zip((first, second), given)]
            losses = true_losses(self.source, {"model": self.box}, both, images, seed)
            gap = mean_losses(losses[:, :1] - losses[:, 1:])[0]
            known = gap.low > 0 or gap.high < 0
            true = f"worse on the {'first' if gap.value > 0 else 'second'}"
            rows.append(
                {"First": first, "Second": second, "True difference": gap.value,
                 "95 % interval": _ends(gap), "Truly": true if known else "not known",
                 "Said here": verdict}
            )  # fmt: skip
            if known and verdict.startswith("worse on"):
                right.append(worse == (gap.value > 0))
        return rows, right


def _ends(found: Estimate) -> str:
    return f"{found.low:.2f} to {found.high:.2f}".replace("-", "−")


def open_demo(encoder: Encoder, count: int, seed: int, folder: str | None = None) -> Demo:
    """Draw ``count`` pictures, embed them (kept in ``folder``), and let the recogniser answer."""
    source, boxes = load_black_boxes("faces")
    box = next(iter(boxes.values()))
    drawn = draw_examples(source, count, seed)
    found = embed(drawn.images, encoder, folder)
    data = LossData(found.embeddings, example_losses(box, drawn), encoder.fingerprint)
    return Demo(LossExamples(data, drawn.pictures, ABOUT.format(count)), source, box)
