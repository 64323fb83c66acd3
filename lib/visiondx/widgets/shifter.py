"""The explorer of shifts: one class under one shift, by its name, by its token, and in truth."""

from collections.abc import Iterator, Sequence
from itertools import count

import ipywidgets as widgets
import numpy as np

from visiondx.dataset_interfaces.shifts import BY_NAME
from visiondx.widgets import parts as common
from visiondx.widgets import question_parts, shift_figures, shift_parts, stills
from visiondx.widgets.panel import Searching, box, button, menu, number, style, text, title
from visiondx.widgets.shift_rows import MOST, NAME, TOKEN, TRUTH, ShiftQuestion
from visiondx.widgets.shift_session import ShiftSession

SEEDS = 2**31 - 1  # the largest that the box takes
OWN = "a file of your own"
OWN_WORDS = "your own words"
MARGIN, STEP = 0.01, 0.001  # of similarity: how far the slider reaches beyond all pictures
_NUMBERS = count()  # so that two explorers in a page do not share a style sheet


class Shifter(Searching):
    """Choose a class and a shift, and see the same noise painted by the class's name and by its
    token, beside what the class truly looks like; what a classifier makes of each picture, and
    which of them the CLIP filter keeps.

    What a person asks wrongly ends as one red sentence; the last answer then stays.

    Args:
        session: who is asked. question: what is painted at first. models: names for the menu.

    Raises:
        InputError: a question that cannot be asked, see ``ShiftSession.ask``.
    """

    begins = "Painting …"
    frame = 0.02  # a part takes long enough to be seen

    def __init__(
        self, session: ShiftSession, question: ShiftQuestion, models: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self.session, self.models = session, list(models)
        self._quiet = False  # boxes that follow the session ask nothing
        self._name = f"vdx-shift-{next(_NUMBERS)}"
        self._span = (0.0, 1.0)  # of similarities, on the axis
        session.ask(question)
        self._build()
        self._fill(question)
        self.search()

    # ---------------------------------------------------------------- what there is

    def _build(self) -> None:
        wide = widgets.Layout(width="100%")
        self.model, self.kind = menu("Model", "340px"), menu("Class", "190px")
        self.own = text("path/to/file.py:function", "300px")
        self.shift = menu("Shift", "240px")
        self.words = text("in your own words: wearing a hat", "270px")
        self.style = widgets.Checkbox(
            description="an art style", indent=False, layout=widgets.Layout(width="110px")
        )
        self.many = number("Pictures", 1, MOST, "130px")
        self.seed = number("Seed", 0, SEEDS, "150px")
        self.find = button("Paint", "paint-brush", "Paint the class under the shift", "primary")
        self.stop = button("Stop", "stop", "Stop, and keep what is painted")
        self.bar = widgets.IntProgress(layout=widgets.Layout(width="220px", visibility="hidden"))
        self.limit = widgets.FloatSlider(
            description="t_shift",
            step=STEP,
            readout_format=".3f",
            layout=widgets.Layout(width="100%"),
            style={"description_width": "100px"},
        )
        self.undo = button("As calibrated", "undo", "Put t_shift where the judges put it")
        self.sorted = widgets.ToggleButton(
            description="Sort by the shift",
            icon="sort-amount-desc",
            tooltip="The most similar to the shift first",
        )
        self.about, self.lanes, self.passed, self.sheet, self.said = (
            widgets.HTML(layout=wide) for _ in range(5)
        )
        self.sheet.layout = widgets.Layout(display="none")
        self.heads = {name: widgets.HTML(layout=wide) for name in (NAME, TOKEN, TRUTH)}
        self.shots = {name: widgets.HTML(layout=wide) for name in (NAME, TOKEN, TRUTH)}
        columns = [
            box(
                widgets.VBox,
                f"vdx-shift-column vdx-row-{name}",
                self.heads[name],
                self.shots[name],
            )
            for name in self.heads
        ]
        sheets = question_parts.STYLE + shift_parts.STYLE
        self.box = box(
            widgets.VBox,
            f"vdx vdx-shift {self._name}",
            style(),
            widgets.HTML(sheets, layout=widgets.Layout(display="none")),
            self.sheet,
            box(widgets.HBox, "vdx-row", self.model, self.own),
            box(widgets.HBox, "vdx-row", self.kind, self.shift, self.words, self.style),
            box(widgets.HBox, "vdx-row", self.many, self.seed, self.find, self.stop, self.bar),
            self.message,
            title("The filter: how similar must a picture be to the shift?"),
            self.limit,
            self.lanes,
            box(widgets.HBox, "vdx-row vdx-buttons", self.passed, self.undo, self.sorted),
            self.about,
            box(widgets.HBox, "vdx-row", *columns),
            self.said,
            self.progress,
        )
        self.controls = (
            *(self.model, self.own, self.kind, self.shift, self.words, self.style, self.many),
            *(self.seed, self.find, self.limit, self.undo, self.sorted),
        )
        self.hear()
        for control, action in ((self.model, self._choose_model), (self.own, self._open)):
            control.observe(
                lambda _, action=action: self._quiet or self.do("Loading …", action, bars=False),
                "value",
            )
        for control in (self.kind, self.many, self.seed, self.style):
            control.observe(lambda _: self._quiet or self._find(), "value")
        self.shift.observe(lambda _: self._quiet or self._choose_shift(), "value")
        self.words.observe(lambda _: self._quiet or self._describe(), "value")
        self.limit.observe(lambda _: self._quiet or self._choose(), "value")
        self.undo.on_click(lambda _: self._undo())
        self.sorted.observe(lambda _: self._show(), "value")

    def _fill(self, question: ShiftQuestion) -> None:
        """Menus and boxes hold a question, of a class that the model knows."""
        self._quiet = True
        kinds = self.session.kinds
        self.kind.options = kinds
        self.kind.value = question.kind if question.kind in kinds else kinds[0]
        self.shift.options = [*BY_NAME, OWN_WORDS]
        named = question.shift in BY_NAME
        self.shift.value = question.shift if named else OWN_WORDS
        self.words.value = "" if named else question.shift
        self.style.value = question.style and not named
        self.many.value, self.seed.value = question.count, question.seed
        self._quiet = False
        self.follow()

    def follow(self) -> None:
        """The menu says which model is asked, and the slider where t_shift is."""
        session = self.session
        name = session.model.spec
        self._quiet = True
        self.model.options = [*dict.fromkeys([*self.models, name]), OWN]
        self.model.value = name
        self.bar.layout.visibility = "hidden"
        self.style.disabled = self.shift.value != OWN_WORDS
        shifted = bool(session.rows) and bool(session.shift.caption)
        self.limit.disabled = not shifted
        self.sorted.disabled = not shifted
        if shifted:
            self._range()
        self._quiet = False
        self._decide()

    @property
    def question(self) -> ShiftQuestion:
        """What the boxes say."""
        own = self.shift.value == OWN_WORDS
        return ShiftQuestion(
            self.kind.value,
            self.words.value if own else self.shift.value,
            own and self.style.value,
            self.many.value,
            self.seed.value,
        )

    # ---------------------------------------------------------------- what is done

    def _choose_model(self) -> str | None:
        if self.model.value == OWN:
            return "Name its file and the function that returns it, and press Enter."
        return self._use(self.model.value)

    def _open(self) -> str | None:
        return self._use(self.own.value.strip()) if self.own.value.strip() else None

    def _use(self, name: str) -> str | None:
        session = self.session
        before = session.asked
        session.use(name)
        self._fill(self.question)
        if before is not None and session.asked is None:
            self._clear()
            return f"{name} knows no {before.kind}: choose one of its classes, and paint it."
        self._show()
        return None

    def _choose_shift(self) -> None:
        self.style.disabled = self.shift.value != OWN_WORDS
        if self.shift.value == OWN_WORDS and not self.words.value.strip():
            said = "Say in words what is to be seen, such as “wearing a hat”, and press Enter."
            self.message.value = common.message(said)
        else:
            self._find()

    def _describe(self) -> None:
        """Words were typed: they are what is asked."""
        self._quiet = True
        self.shift.value = OWN_WORDS
        self._quiet = False
        self._find()

    def _choose(self) -> None:
        """The slider was moved; where it only rounds what it was given, it was not."""
        if abs(self.limit.value - self.session.t_shift) > 0.501 * STEP:
            self.session.choose(self.limit.value)
            self._decide()

    def _undo(self) -> None:
        self.session.calibrate_again()
        self.follow()

    def steps(self) -> Iterator[str]:
        session, question = self.session, self.question
        session.ask(question)
        self._clear()
        for at in session.steps():
            self.bar.max, self.bar.value = at.total, at.done
            self.bar.layout.visibility = "visible"
            if at.said == "Painting":
                self._show()
            yield f"{at.said} … {at.done} of {at.total}"
            if self.stopped:
                break
        if self.stopped:
            made = len(session.rows.get(TOKEN, ()))
            yield f"Stopped with {made} of {question.count} pictures."
        else:
            yield common.unknown(session.unknown())

    # ---------------------------------------------------------------- what is shown

    def _clear(self) -> None:
        for each in (*self.shots.values(), *self.heads.values(), self.about, self.lanes):
            each.value = ""
        self.said.value = self.passed.value = ""

    def _show(self) -> None:
        """Pictures, as far as they are painted."""
        session = self.session
        for name, row in session.rows.items():
            order = range(len(row))
            if self.sorted.value and session.shift.caption:
                order = np.argsort(-row.of_shift, kind="stable").tolist()
            self.shots[name].value = shift_parts.shots(
                row, session.column, session.says(row), order
            )
        if session.rows:
            word = session.asked.kind
            self.about.value = shift_parts.legend(word, session.captions, session.t_class)
            self._range()
        self._decide()

    def _range(self) -> None:
        """The axis of similarities holds all pictures and t_shift."""
        session = self.session
        if not session.shift.caption:
            self.lanes.value = ""
            return
        scores = np.concatenate([row.of_shift for row in session.rows.values()])
        low = np.floor((min(scores.min(), session.t_shift) - MARGIN) / STEP) * STEP
        high = np.ceil((max(scores.max(), session.t_shift) + MARGIN) / STEP) * STEP
        self._span = low, high
        quiet, self._quiet = self._quiet, True
        self.limit.max = max(high, self.limit.max)  # never below the least
        self.limit.min, self.limit.max = low, high
        self.limit.value = session.t_shift
        self._quiet = quiet
        self.lanes.value = shift_parts.lanes(session.rows, low, high)

    def _decide(self) -> None:
        """What the filter keeps, and what follows; no picture is sent again."""
        session = self.session
        self.undo.layout.display = "none"
        if not session.rows:
            self.sheet.value = ""
            return
        low, high = self._span
        self.sheet.value = shift_parts.decided(
            self._name,
            {name: session.passes(row) for name, row in session.rows.items()},
            (session.t_shift - low) / (high - low),
        )
        for name in self.heads:
            row = session.rows.get(name)
            found = None if row is None else session.measures(row)
            self.heads[name].value = shift_parts.head(name, self._asks(name), found)
        if TOKEN in session.rows:
            kept = session.measures(session.rows[TOKEN])["yield"]
            paper = session.shift.paper_yield
            beside = f" (in Table 1 {paper:.0%})" if paper else ""
            self.passed.value = (
                f"yield <b class='vdx-yield'>{shift_parts.percent(kept)}</b> of the token's "
                f"pictures{beside}; <span class='vdx-soft'>{session.why}</span>"
            )
            self.said.value = shift_parts.told(session.verdict(), *session.lines())
            if session.calibrated not in (None, session.t_shift):
                self.undo.layout.display = None

    def _asks(self, name: str) -> str:
        """What a column's pictures are of."""
        row = self.session.rows.get(name)
        if name != TRUTH:
            return f"“{row.prompt}”" if row else ""
        if row:
            return "the renderer draws the data set's own scenes"
        return "nobody can draw this shift"

    def picture(self) -> bytes:
        """The rows of pictures and the verdict."""
        return stills.still(shift_figures.pictures(self.session))
