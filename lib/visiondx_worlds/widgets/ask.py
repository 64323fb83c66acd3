"""The explorer of sentences: two text boxes over a `QuestionSession`."""

from collections.abc import Sequence

import ipywidgets as widgets

from visiondx.widgets.panel import Panel, box, button, menu, style, title
from visiondx_worlds.widgets import question_parts as parts
from visiondx_worlds.widgets.questions import Question, QuestionSession, TrueAnswer

OWN = "your own words"


class Asker(Panel):
    """Choose or type two sentences; see on which the model will be worse, how sure that is, the
    training images that they bring to mind, and, on demand, the truth.

    What a person types wrongly ends as one red sentence; the last answer then stays.

    Args:
        session: who is asked. pairs: examples; the first is asked at once.
        images, seed: how many the truth is drawn on, and from where.
    """

    def __init__(
        self,
        session: QuestionSession,
        pairs: Sequence[tuple[str, str]],
        images: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.session, self.pairs, self.images, self.seed = session, list(pairs), images, seed
        self._quiet = False  # boxes that an example fills do not ask one by one
        self.question: Question | None = None
        self.answer: TrueAnswer | None = None
        self._build()
        self.do("", lambda: self._choose(self.pairs[0]), bars=False)

    def _build(self) -> None:
        wide = widgets.Layout(width="100%")
        self.black_box = menu("Model", "220px")
        self.black_box.options = list(self.session.models)
        self.example = menu("Example", "100%")
        self.example.options = [(f"{a}  /  {b}", (a, b)) for a, b in self.pairs] + [(OWN, None)]
        self.first, self.second = (
            widgets.Text(layout=wide, continuous_update=False) for _ in range(2)
        )
        self.ask = button("Compare", "balance-scale", "Ask about these two sentences", "primary")
        self.draw = button("Draw the truth", "picture-o", "Draw new images of both and measure")
        self.said, self.true = widgets.HTML(), widgets.HTML()
        self.sides = [widgets.HTML(layout=wide) for _ in range(2)]
        self.box = box(
            widgets.VBox,
            "vdx",
            style(),
            widgets.HTML(parts.STYLE, layout=widgets.Layout(display="none")),
            box(widgets.HBox, "vdx-row", self.black_box),
            self.example,
            title("First sentence"),
            self.first,
            title("Second sentence"),
            self.second,
            box(widgets.HBox, "vdx-row", self.ask, self.draw),
            self.said,
            self.true,
            box(
                widgets.HBox,
                "vdx-row",
                *(box(widgets.VBox, "vdx-half-box", side) for side in self.sides),
            ),
            self.message,
            self.progress,
        )
        self.controls = (self.black_box, self.example, self.ask, self.draw)
        self.ask.on_click(lambda _: self.do("", self._ask, bars=False))
        self.draw.on_click(lambda _: self.do("Drawing …", self._draw))
        self.black_box.observe(lambda _: self.do("", self._change, bars=False), "value")
        self.example.observe(self._chosen, "value")
        for text in (self.first, self.second):
            text.observe(lambda _: self._quiet or self.do("", self._ask, bars=False), "value")

    def follow(self) -> None:
        """The menu says which example is asked, if one is."""
        asked = self.first.value, self.second.value
        self._quiet = True
        self.example.value = asked if asked in self.pairs else None
        self._quiet = False

    def _chosen(self, change) -> None:
        if change.new is not None and not self._quiet:
            self.do("", lambda: self._choose(change.new), bars=False)

    def _choose(self, pair: tuple[str, str]) -> None:
        self._quiet = True
        self.first.value, self.second.value = pair
        self._quiet = False
        self._ask()

    def _change(self) -> None:
        self.session.use(self.black_box.value)
        self._ask()

    def _ask(self) -> None:
        sentences = self.first.value.strip(), self.second.value.strip()
        self.question, self.answer = self.session.ask(*sentences), None
        self._show()

    def _draw(self) -> None:
        self._ask()  # what is written now
        self.answer = self.session.truth(*self.question.sentences, self.images, self.seed)
        self._show()

    def _show(self) -> None:
        question, answer, session = self.question, self.answer, self.session
        self.said.value = parts.difference(question.comparison)
        self.true.value = parts.truth(answer, question.comparison) if answer else ""
        for k, (text, widget) in enumerate(zip(question.sentences, self.sides, strict=True)):
            groups = []
            for name, rows in (("nearest", question.nearest[k]), ("hardest", question.hardest[k])):
                losses = [f"{loss:.2f}" for loss in session.loss(rows).tolist()]
                pictures = session.study.examples["train"].pictures(rows)
                groups.append((f"{name} training images, with their losses", pictures, losses))
            if answer:
                drawn = answer.pictures[k]
                groups.insert(0, ("new images that show it", drawn, [""] * len(drawn)))
            widget.value = parts.side(text, groups)
