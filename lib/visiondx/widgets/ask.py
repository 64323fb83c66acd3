"""The explorer of sentences: two text boxes over a `QuestionSession`."""

from collections.abc import Sequence

import ipywidgets as widgets
from torch import Tensor

from visiondx.widgets import question_parts as parts
from visiondx.widgets import stills
from visiondx.widgets.panel import Panel, box, button, menu, style, title
from visiondx.widgets.questions import Question, QuestionSession, TrueAnswer

OWN = "your own words"


class Asker(Panel):
    """Choose or type two sentences; see on which the model will be worse, how sure that is, the
    images that they bring to mind, and, where new ones can be drawn, the truth.

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
        self.black_box.value = self.session.black_box
        self.example = menu("Example", "100%")
        self.example.options = [(f"{a}  /  {b}", (a, b)) for a, b in self.pairs] + [(OWN, "")]
        self.first, self.second = (
            widgets.Text(layout=wide, continuous_update=False) for _ in range(2)
        )
        self.ask = button("Compare", "balance-scale", "Ask about these two sentences", "primary")
        self.draw = button("Draw the truth", "picture-o", "Draw new images of both and measure")
        self.draw.layout.display = None if self.session.draws else "none"
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
        self.example.value = asked if asked in self.pairs else ""
        self._quiet = False

    def _chosen(self, change) -> None:
        if change.new and not self._quiet:
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

    def picture(self) -> bytes:
        """The bar, and the images of both sentences."""
        sides = zip(("first", "second"), (self._groups(k) for k in range(2)), strict=True)
        rows = [
            (f"{side},\n{kind}", images, losses)
            for side, groups in sides
            for kind, images, losses in groups
        ]
        return stills.of_question(self.question.comparison, rows)

    def _groups(self, side: int) -> list[tuple[str, Tensor, list[str]]]:
        """What is shown of a sentence: a kind of images, the images, their losses."""
        question, answer, session = self.question, self.answer, self.session
        groups = [("new", answer.pictures[side], [""] * session.shown)] if answer else []
        for kind, rows in (("nearest", question.nearest), ("hardest", question.hardest)):
            losses = [f"{loss:.2f}" for loss in session.loss(rows[side]).tolist()]
            groups.append((kind, session.pictures(rows[side]), losses))
        return groups

    def _show(self) -> None:
        question, answer = self.question, self.answer
        self.said.value = parts.difference(question.comparison)
        self.true.value = parts.truth(answer, question.comparison) if answer else ""
        for side, (text, widget) in enumerate(zip(question.sentences, self.sides, strict=True)):
            widget.value = parts.side(text, self._groups(side))
