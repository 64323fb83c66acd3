"""What the explorers share: controls of one look, and how an action is run and reported."""

import asyncio
from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import ipywidgets as widgets

from visiondx.core.errors import InputError
from visiondx.widgets import parts


class Panel(ABC):
    """A box of widgets with one line of message below it and room for progress bars.

    A subclass builds ``box`` around ``message`` and ``progress``, names in ``controls`` what is off
    while an action runs, and draws in ``picture`` what a page that is only read shows.
    """

    box: widgets.Box
    controls: tuple[widgets.DOMWidget, ...] = ()

    def __init__(self) -> None:
        self.message, self.progress = widgets.HTML(), widgets.Output()
        self.message.add_class("vdx-message")

    def _repr_mimebundle_(self, **options) -> dict:
        """The live widget; a notebook that is only read shows a picture of it."""
        still = {
            "text/plain": "The explorer: run this notebook in Jupyter to use it.",
            "image/png": b64encode(self.picture()).decode(),
        }
        return self.box._repr_mimebundle_(**options) | still

    @abstractmethod
    def picture(self) -> bytes:
        """A PNG of what is shown now."""

    @abstractmethod
    def follow(self) -> None:
        """Called after each action: menus say again what is there."""

    def do(self, text: str, action: Callable[[], str | None], bars: bool = True) -> None:
        """Run an action with the controls off; what it returns is the message afterwards.

        Args:
            bars: whether it may show progress bars, which then stand inside the panel, as does the
                traceback of a fault of the program, unlike one of its input.
        """
        with self.acting(text, bars) as done:
            done.said = action() or ""

    @contextmanager
    def acting(self, text: str, bars: bool = True) -> Iterator[SimpleNamespace]:
        """The same for a block, which may wait; it sets ``said``, the message afterwards."""
        self.message.value = parts.message(text)
        for control in self.controls:
            control.disabled = True
        done, failed = SimpleNamespace(said=""), False
        if bars:
            self.progress.clear_output()
        try:
            with self.progress if bars else nullcontext():
                try:
                    yield done
                except (InputError, FloatingPointError, OSError) as error:
                    done.said, failed = str(error), True
                if bars:
                    self.progress.clear_output()
        finally:
            for control in self.controls:
                control.disabled = False
            self.follow()
            self.message.value = parts.message(done.said, failed)


class Searching(Panel):
    """A panel whose search is watched step by step, and may be stopped.

    A subclass has a button ``find`` and calls ``hear``; it makes and shows the steps in ``steps``,
    and ends when ``stopped`` is set.
    """

    begins = "Searching …"  # what is said until the first step
    frame = 0.1  # seconds that a step is shown at least, while the kernel listens
    find: widgets.Button
    stop: widgets.Button

    @abstractmethod
    def steps(self) -> Iterator[str]:
        """Make and show one step after another; what is to be said of each."""

    def hear(self) -> None:
        """Let both buttons do what they say."""
        self.stopped, self.stop.disabled = False, True
        self.find.on_click(lambda _: self._find())
        self.stop.on_click(lambda _: self._stop())

    def search(self) -> None:
        """Search, and show every step; returns at the end."""
        with self._searching() as done:
            for said in self.steps():
                self._say(said, done)

    def _find(self) -> None:
        """Search while the kernel goes on listening, or Stop would not be heard."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # none, as in a script
            self.search()
        else:
            self._task = loop.create_task(self._watch())

    async def _watch(self) -> None:
        with self._searching() as done:
            for said in self.steps():
                self._say(said, done)
                await asyncio.sleep(self.frame)

    def _say(self, said: str, done: SimpleNamespace) -> None:
        self.message.value, done.said = parts.message(said), said

    @contextmanager
    def _searching(self) -> Iterator[SimpleNamespace]:
        self.stopped = False
        with self.acting(self.begins, bars=False) as done:
            self.stop.disabled = False
            try:
                yield done
            finally:
                self.stop.disabled = True

    def _stop(self) -> None:
        self.stopped = True


def button(name: str, icon: str, tooltip: str, style: str = "") -> widgets.Button:
    return widgets.Button(description=name, icon=icon, tooltip=tooltip, button_style=style)


def menu(name: str, width: str) -> widgets.Dropdown:
    return widgets.Dropdown(
        description=name,
        layout=widgets.Layout(width=width),
        style={"description_width": "initial"},
    )


def text(placeholder: str, width: str) -> widgets.Text:
    layout = widgets.Layout(width=width)
    return widgets.Text(placeholder=placeholder, continuous_update=False, layout=layout)


def number(name: str, least: int, most: int, width: str) -> widgets.BoundedIntText:
    return widgets.BoundedIntText(
        description=name,
        value=least,
        min=least,
        max=most,
        layout=widgets.Layout(width=width),
        style={"description_width": "initial"},
    )


def title(said: str) -> widgets.HTML:
    return widgets.HTML(f'<span class="vdx-caption">{said}</span>')


def box(kind: type, name: str, *children) -> widgets.Box:
    """A box with CSS classes, named in one string."""
    made = kind(children)
    for word in name.split():
        made.add_class(word)
    return made


def style() -> widgets.HTML:
    """The sheet that all panels use."""
    return widgets.HTML(parts.STYLE, layout=widgets.Layout(display="none"))
