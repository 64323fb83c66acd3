"""The explorer of explanations: what does a class or a channel want to see? Watch it form."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

import ipywidgets as widgets

from visiondx.core.errors import InputError
from visiondx.diffexplainer.layers import check_layer
from visiondx.diffexplainer.objectives import class_number
from visiondx.diffexplainer.result import Explanation
from visiondx.widgets import question_parts, stills
from visiondx.widgets import want_parts as parts
from visiondx.widgets.panel import Searching, box, button, menu, number, style, text, title
from visiondx.widgets.wants import WantSession, Watched, Wish

SEEDS = 2**31 - 1  # the largest that the box takes
OWN = "a file of your own"
MOST = {"tokens": 8, "starts": 16, "steps": 2000}


class Watcher(Searching):
    """Choose a model and a class, a channel or both; watch pictures form, and read the verdict.

    Beside them stand pictures of any words, of the same noise: what words look like, and what the
    model wants. What a person asks wrongly ends as one red sentence; the last answer then stays.

    Args:
        session: who is asked. wish: what the boxes hold at first. models: names for the menu.
        shown: pictures in a row.

    Raises:
        InputError: a wish of a class or layer that the target has not.
    """

    frame = 0.02  # a step takes long enough to be seen

    def __init__(
        self,
        session: WantSession,
        wish: Wish | None = None,
        models: Sequence[str] = (),
        shown: int = 8,
    ) -> None:
        super().__init__()
        self.session, self.models, self.shown = session, list(models), shown
        self._quiet = False  # boxes that follow the session ask nothing
        self._rows: dict[str, tuple] = {}  # of pictures: {name: (images, captions)}
        self._build()
        self._fill(wish or Wish(session.target.labels[0]))
        self.do("", self._paint, bars=False)

    # ---------------------------------------------------------------- what there is

    def _build(self) -> None:
        wide = widgets.Layout(width="100%")
        self.model, self.kind = menu("Model", "300px"), menu("Class", "230px")
        self.own = text("path/to/file.py:function", "300px")
        self.layer = menu("Neuron of layer", "330px")
        self.channel = number("channel", 0, 0, "150px")
        self.word = text("look for: the class's name", "200px")
        self.template = text("{t}", "100%")
        self.tokens = number("Tokens", 1, MOST["tokens"], "110px")
        self.starts = number("Starts", 1, MOST["starts"], "110px")
        self.many = number("Steps", 1, MOST["steps"], "120px")
        self.seed = number("Seed", 0, SEEDS, "150px")
        self.find = button("Search", "search", "Search what it wants to see", "primary")
        self.stop = button("Stop", "stop", "End the search and keep what is found")
        self.words = text("words to paint", "100%")
        self.draw = button("Paint", "paint-brush", "Paint these words, of the same noise")
        self.bar = widgets.IntProgress(layout=widgets.Layout(width="220px", visibility="hidden"))
        self.painted, self.losses, self.wanted, self.said = (
            widgets.HTML(layout=wide) for _ in range(4)
        )
        left = box(
            widgets.VBox,
            "vdx-half-box",
            title("What the words look like"),
            box(widgets.HBox, "vdx-row", self.words, self.draw),
            self.painted,
        )
        right = box(
            widgets.VBox,
            "vdx-half-box vdx-wanted",
            title("What the model wants"),
            self.wanted,
            self.losses,
        )
        self.box = box(
            widgets.VBox,
            "vdx vdx-want",
            style(),
            widgets.HTML(question_parts.STYLE + parts.STYLE, layout=widgets.Layout(display="none")),
            box(widgets.HBox, "vdx-row", self.model, self.own),
            box(widgets.HBox, "vdx-row", self.kind, self.word, self.layer, self.channel),
            title("Prompt; {t} is what is searched"),
            self.template,
            box(widgets.HBox, "vdx-row", self.tokens, self.starts, self.many, self.seed),
            box(widgets.HBox, "vdx-row vdx-buttons", self.find, self.stop, self.bar),
            self.message,
            box(widgets.HBox, "vdx-row", left, right),
            self.said,
            self.progress,
        )
        self.controls = (
            *(self.model, self.own, self.kind, self.layer, self.channel, self.word, self.template),
            *(self.tokens, self.starts, self.many, self.seed, self.find, self.words, self.draw),
        )
        self.hear()
        self.draw.on_click(lambda _: self.do("", self._paint, bars=False))
        for control, said, action in (
            (self.model, "Loading …", self._choose),
            (self.own, "Loading …", self._open),
            (self.kind, "", self._name),
            (self.words, "", self._paint),
        ):
            control.observe(
                lambda _, said=said, action=action: (
                    self._quiet or self.do(said, action, bars=False)
                ),
                "value",
            )
        self.layer.observe(lambda _: self._quiet or self.follow(), "value")

    def _fill(self, wish: Wish) -> None:
        """Menus and boxes say what the session's target has, and hold a wish.

        Raises:
            InputError: a class or layer that the target has not.
        """
        session = self.session
        labels = session.target.labels
        kind = labels[class_number(session.target, wish.kind)] if wish.kind else ""
        if wish.layer:
            check_layer(wish.layer, session.layers)
        layers = [
            (f"{name}, {channels} channels" + "".join(f" × {side}" for side in sides), name)
            for name, (channels, *sides) in session.layers.items()
        ]
        self._quiet = True
        self.kind.options = [("none", ""), *((label, label) for label in labels)]
        self.layer.options = [("none", ""), *layers]
        self.kind.value, self.layer.value = kind, wish.layer
        self.word.value, self.template.value = wish.word, wish.template
        self.tokens.value, self.starts.value = wish.tokens, wish.starts
        self.many.value, self.seed.value = wish.steps, wish.seed
        self.words.value = _words(replace(wish, kind=kind))
        self._quiet = False
        self.follow()
        self.channel.value = wish.channel

    def follow(self) -> None:
        """The menu says which model is asked, and the channel's box what the layer has."""
        session, layer = self.session, self.layer.value
        name = session.name or "given"
        self._quiet = True
        self.model.options = [*dict.fromkeys([*self.models, name]), OWN]
        self.model.value = name
        self.channel.max = session.layers[layer][0] - 1 if layer else 0
        self.channel.disabled = not layer
        self.bar.layout.visibility = "hidden"
        self._quiet = False

    @property
    def wish(self) -> Wish:
        """What the boxes say."""
        return Wish(
            self.kind.value,
            self.layer.value,
            self.channel.value,
            self.word.value.strip(),
            self.template.value.strip(),
            self.tokens.value,
            self.starts.value,
            self.many.value,
            self.seed.value,
        )

    # ---------------------------------------------------------------- what is done

    def _choose(self) -> str | None:
        if self.model.value == OWN:
            return "Name its file and the function that returns it, and press Enter."
        return self._use(self.model.value)

    def _open(self) -> None:
        if self.own.value.strip():
            self._use(self.own.value.strip())

    def _use(self, name: str) -> None:
        self.session.use(name)
        kinds = self.session.target.labels
        kind = self.kind.value if self.kind.value in kinds else kinds[0]
        given = {"template": self.template.value, "tokens": self.tokens.value}
        given |= {"starts": self.starts.value, "steps": self.many.value, "seed": self.seed.value}
        self._fill(Wish(kind, **given))
        self.wanted.value = self.losses.value = self.said.value = ""
        self._rows = {}
        self._paint()

    def _name(self) -> None:
        """Another class: its word is painted."""
        if self.kind.value:
            self._quiet = True
            self.words.value, self.word.value = _words(self.wish), ""
            self._quiet = False
            self._paint()

    def _paint(self) -> None:
        wish = self.wish
        images, captions = self.session.paint(self.words.value, wish, self.shown)
        self._rows["words"] = images, captions
        self.painted.value = parts.pictures(_told(wish), images, captions)

    def steps(self) -> Iterator[str]:
        wish = self.wish
        self.session.ask(wish)
        with suppress(InputError):  # words that cannot be painted stop no search
            self._paint()
        self.said.value = ""
        self.bar.max, self.bar.layout.visibility = wish.steps, "visible"
        for at in self.session.steps():
            self._show(at)
            yield f"Step {at.step} of {wish.steps}"
            if self.stopped:
                break
        yield "Painting of noise that the search never saw …"
        self._tell(self.session.answer())
        if at.step < wish.steps:
            yield f"Stopped at step {at.step} of {wish.steps}; the lines make the whole search."
        else:
            yield f"{wish.steps} steps were made."

    # ---------------------------------------------------------------- what is shown

    def _show(self, at: Watched) -> None:
        self.bar.value = at.step
        self.losses.value = parts.losses(at.path)
        if at.images is not None:
            self.wanted.value = parts.searched(at)

    def _tell(self, found: Explanation) -> None:
        images = found.images[0, : self.shown]
        captions = self.session.captions(images)
        self._rows["wanted"] = images, captions
        about = f"{_told(self.session.wish)}; noise that no step was made on"
        self.wanted.value = parts.pictures(about, images, captions) + parts.masked(
            found, self.shown
        )
        self.said.value = (
            parts.verdict(found) + parts.near(found) + parts.lines(*self.session.lines())
        )

    def picture(self) -> bytes:
        """The pictures of the words and, once it was searched, those that the model wants."""
        said = self.session.found.said[0] if "wanted" in self._rows else ""
        return stills.of_wish(self._rows, said)


def _told(wish: Wish) -> str:
    """What a caption's number is."""
    if wish.kind:
        return f"the target's probability of {wish.kind}"
    return f"the activation of {wish.layer}:{wish.channel}" if wish.layer else ""


def _words(wish: Wish) -> str:
    """Words of a class, to be painted beside what it wants."""
    return f"a photo of a {wish.word or wish.kind}" if wish.kind else "a photo"
