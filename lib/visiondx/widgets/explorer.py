"""The explorer: sliders over an `EditSession`. It holds widgets and no state of its own."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import ipywidgets as widgets

from visiondx.widgets import kept, parts, stills
from visiondx.widgets.panel import Searching, box, button, menu, style, title
from visiondx.widgets.session import EditSession, View
from visiondx.zoom.estimate import ESTIMATORS

SEEDS = 2**31 - 1  # the largest that the box takes
STEP = 0.1  # of a slider, in standard deviations of style


@dataclass(frozen=True)
class Choices:
    """What the menus of generators and targets offer, for sessions with a ``world``."""

    generators: Sequence[str]
    targets: Callable[[str], Sequence[str]]  # names that go with a generator
    open: Callable[..., EditSession]  # (generator, and what EditSession takes)
    change_target: Callable[[EditSession, str], None]  # by its name


class Explorer(Searching):
    """Type prompts, drag their weights, and see picture, probability and SSIM follow.

    What a person types wrongly ends as one red sentence; the session is then as it was.

    Args:
        session: what is explored. folder: where "Save picture" writes.
        choices: other generators and targets; None leaves those of the session.
    """

    def __init__(self, session: EditSession, folder: str | Path, choices: Choices | None = None):
        super().__init__()
        self.session, self.folder, self.choices = session, Path(folder), choices
        self._quiet = False  # sliders that follow the session do not move it
        self._build()
        self._fill()
        self._show_all()

    # ---------------------------------------------------------------- what there is

    def _build(self) -> None:
        wide = widgets.Layout(width="100%")
        self.generator = menu("Generator", "170px")
        self.target = menu("Target", "250px")
        self.estimator = menu("Directions", "180px")
        self.words = widgets.Textarea(rows=4, layout=wide)
        self.neutral = widgets.Text(layout=wide)
        self.apply = button("Apply", "check", "Make sliders for these prompts", "primary")
        self.face = button("New face", "user", "The face of the next seed")
        self.seed = widgets.BoundedIntText(
            description="Seed",
            max=SEEDS,
            tooltip="The face of this seed",
            layout=widgets.Layout(width="105px"),
            style={"description_width": "initial"},
        )
        self.find = button("Search", "search", "Search a counterfactual of this face")
        self.stop = button("Stop", "stop", "End the search at the best step so far")
        self.back = button("Undo", "undo", "Take the last action back")
        self.zero = button("Reset", "eraser", "Set all weights to 0")
        self.keep = button("Save picture", "save", "Write the picture and its recipe")
        self.before, self.after = widgets.Image(), widgets.Image()
        self.readings, self.caption = widgets.HTML(), widgets.HTML()
        self.rows = box(widgets.VBox, "vdx-sliders")
        self.sliders: list[widgets.FloatSlider] = []

        buttons = (self.face, self.find, self.back, self.zero, self.keep)
        words = box(
            widgets.VBox,
            "vdx-words",
            title("Prompts, one a line"),
            self.words,
            title("Neutral prompt, their common part"),
            self.neutral,
            self.apply,
        )
        self.box = box(
            widgets.VBox,
            "vdx",
            style(),
            box(widgets.HBox, "vdx-row", self.generator, self.target, self.estimator),
            box(
                widgets.HBox,
                "vdx-row",
                box(widgets.VBox, "vdx-photo", title("Original"), self.before),
                box(widgets.VBox, "vdx-photo vdx-edited", self.caption, self.after),
                box(widgets.VBox, "vdx-side", self.readings),
            ),
            box(
                widgets.HBox,
                "vdx-row vdx-buttons",
                *(self.face, self.seed, self.find, self.stop, self.back, self.zero, self.keep),
            ),
            box(widgets.HBox, "vdx-row", self.rows, words),
            self.message,
            self.progress,
        )
        self._fixed = (
            *(self.generator, self.target, self.estimator, self.apply, self.seed),
            *buttons,
        )
        for control, text, action in (
            (self.apply, "Making directions …", self._apply),
            (self.face, "", self._face),
            (self.back, "", self._undo),
            (self.zero, "", self._reset),
            (self.keep, "", self._save),
        ):
            control.on_click(lambda _, text=text, action=action: self.do(text, action))
        self.hear()
        for control, text, action in (
            (self.seed, "", lambda: self._face(self.seed.value)),
            (self.generator, "Loading …", self._change_generator),
            (self.target, "Loading …", self._change_target),
            (self.estimator, "Making directions …", self._apply),
        ):
            control.observe(
                lambda _, text=text, action=action: self._quiet or self.do(text, action), "value"
            )

    def _fill(self) -> None:
        """Menus and text boxes say what the session has."""
        self.follow()
        self.words.value = "\n".join(self.session.attributes)
        self.neutral.value = self.session.neutral
        self._make_sliders()

    def follow(self) -> None:
        """Menus say what the session has; with models given by hand there is little to choose."""
        world, name, choices = self.session.world, self.session.target_name, self.choices
        worlds, names = [world or "given"], []
        if world and choices:
            worlds, names = list(choices.generators), list(choices.targets(world))
        names += [name or "given"] * (name not in names)
        self._quiet = True
        self.seed.value = self.session.seed
        for choice, options, value in (
            (self.generator, worlds, world or "given"),
            (self.target, names, name or "given"),
            (self.estimator, ESTIMATORS, self.session.estimator),
        ):
            choice.options, choice.value = options, value
            choice.disabled = len(options) < 2
        self._quiet = False

    def _make_sliders(self) -> None:
        """One slider a prompt.

        It picks from a list, by a whole number: a float that Python sets may come back from the
        browser a rounding away, or late, and would then count as a person's move.
        """
        self._reach = int(self.session.settings.epsilon / STEP + 1e-9)
        weights = [round(k * STEP, 1) for k in range(-self._reach, self._reach + 1)]
        self.sliders, rows = [], []
        for n, prompt in enumerate(self.session.attributes):
            slider = widgets.SelectionSlider(
                options=[(f"{w:+.1f}" if w else "0", w) for w in weights],
                index=self._reach,
                description=prompt,
                style={"description_width": "150px"},
                layout=widgets.Layout(flex="1 1 auto", width="auto"),
            )
            slider.observe(lambda change, n=n: self._moved(n, change.new), "value")
            zero = widgets.Button(
                description="0",
                icon="arrows-h",
                tooltip=f"Set the weight of “{prompt}” to 0",
                layout=widgets.Layout(width="52px"),
            )
            zero.on_click(lambda _, n=n: self._show(self.session.move(n, 0.0)))
            self.sliders.append(slider)
            rows.append(widgets.HBox([slider, zero], layout=widgets.Layout(width="100%")))
        self.controls = (*self._fixed, *self.sliders)
        self.rows.children = (title("Edit weights w, in standard deviations of style"), *rows)

    # ---------------------------------------------------------------- what is shown

    def _show_all(self) -> None:
        """A new face, target or set of words."""
        self.before.value = kept.png(self.session.original.image)
        self._show(self.session.view())

    def _show(self, view: View) -> None:
        session = self.session
        self.view = view
        self.after.value = kept.png(view.image)
        self.caption.value = f'<span class="vdx-caption">Edited (seed {session.seed})</span>'
        self.readings.value = parts.readings(view, session.target.labels, session.original)
        self._quiet = True
        for prompt, weight in enumerate(session.w.tolist()):
            self.drag(prompt, weight)
        self._quiet = False

    def drag(self, prompt: int, weight: float) -> None:
        """Move a slider, as a person does."""
        self.sliders[prompt].index = self._reach + round(weight / STEP)

    def _moved(self, prompt: int, weight: float) -> None:
        if not self._quiet:
            self._show(self.session.move(prompt, weight))

    # ---------------------------------------------------------------- what is done

    def picture(self) -> bytes:
        """Both pictures, the weights and what target and judges say."""
        return stills.of_edit(self.session, self.view)

    def _apply(self) -> str:
        prompts = [line.strip() for line in self.words.value.splitlines() if line.strip()]
        self.session.apply(prompts, self.neutral.value.strip(), self.estimator.value)
        self._make_sliders()
        self._show_all()
        return parts.unknown(self.session.unknown)

    def _face(self, seed: int | None = None) -> None:
        self.session.new_face(seed)
        self._show_all()

    def _reset(self) -> None:
        self._show(self.session.reset())

    def _undo(self) -> None:
        words = self.session.attributes
        self.session.undo()
        if self.session.attributes != words:
            self._fill()
        self._show_all()

    # ---------------------------------------------------------------- the search

    def steps(self) -> Iterator[str]:
        session, made, step = self.session, self.session.settings.steps, 0
        for step, view in enumerate(session.search()):
            if self.stopped:
                break
            self._show(view)
            yield f"Step {min(step, made)} of {made}"
        self._show(session.arrive())
        label, flip = session.target.labels[1], int(session.result.first_flip[0])
        steps = min(step, made)
        said = (
            f"Flipped after {flip} of {steps} steps" if flip >= 0 else f"No flip in {steps} steps"
        )
        yield f"{said}; {label}: {self.view.p_original:.3f} → {self.view.p:.3f}."

    # ---------------------------------------------------------------- files and menus

    def _save(self) -> str:
        return f"Saved {kept.save(self.session, self.folder)} and its recipe (.json)."

    def _change_target(self) -> None:
        self.choices.change_target(self.session, self.target.value)
        self._show_all()

    def _change_generator(self) -> None:
        before = self.session
        self.session = self.choices.open(
            self.generator.value,
            directions=before.estimator,
            channels=before.channels,
            seed=before.seed,
            settings=before.settings,
        )
        self._fill()
        self._show_all()
