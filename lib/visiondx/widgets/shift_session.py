"""The state behind the explorer of shifts, without any widget: one class under one shift.

Pictures of the class's name and of its token are painted of the same noise; they are the ones that
``DatasetInterface.generate`` makes by this seed. Where somebody can draw the class under the shift,
that is the truth beside them. A classifier and CLIP say what they think of every picture.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from copy import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.core.errors import InputError
from visiondx.core.seeds import check_seed
from visiondx.core.stats import Estimate, proportion
from visiondx.dataset_interfaces.clip_filter import class_scores, shift_scores
from visiondx.dataset_interfaces.generation import asked
from visiondx.dataset_interfaces.interface import DatasetInterface
from visiondx.dataset_interfaces.models import Model, open_model
from visiondx.dataset_interfaces.shifts import Shift
from visiondx.dataset_interfaces.tokens import encode_prompts
from visiondx.models.painter import paint_pairs
from visiondx.models.vocabulary import unknown_to
from visiondx.widgets.shift_rows import (
    MOST,
    NAME,
    TOKEN,
    TRUTH,
    Progress,
    Row,
    ShiftQuestion,
    label_probabilities,
)

KEPT, YIELD = "filtered", "yield"  # series of `compare`
# (class, shift, n, seed) -> (n, 3, H, W) in [0, 1], or None where the shift cannot be drawn
Truth = Callable[[str, Shift, int, int], Tensor | None]
# paints what t_shift is chosen on; at last the threshold, if there is one, and why it is that, or
# None where nobody can choose
Chosen = tuple[float | None, str] | None
Calibrate = Callable[[DatasetInterface, Shift], Generator[Progress, None, Chosen]]


class ShiftSession:
    """An interface and a classifier; what was asked last, and the pictures that came of it.

    Attributes: ``interface``, whose filter has every threshold that was chosen; ``model``;
    ``kinds``, the classes that both know; ``asked`` and ``shift``, the last question; ``rows``,
    {NAME, TOKEN, TRUTH: Row}, as far as they are made.

    Args:
        truth: who draws the class under a shift; None where nobody can.
        calibrate: who chooses t_shift where the interface has none yet.
        part: pictures of a row that are painted at once, between two looks at the button Stop.
        opening: lines of Python that make the interface again, as ``interface``.

    Raises:
        InputError: an interface without tokens, or a classifier that knows none of its classes.
    """

    def __init__(
        self,
        interface: DatasetInterface,
        model: Model,
        *,
        truth: Truth | None = None,
        calibrate: Calibrate | None = None,
        part: int = 4,
        opening: str = "",
    ) -> None:
        if interface.tokens is None:
            raise InputError(
                "This interface has no tokens to compare with the names: make one with "
                "DatasetInterface.fit."
            )
        self.interface, self.part, self.opening = interface, part, opening
        self._truth, self._calibrate = truth, calibrate
        self.asked: ShiftQuestion | None = None
        self.shift: Shift | None = None
        self.rows: dict[str, Row] = {}
        self._found: dict[str, tuple[float | None, str]] = {}  # by `calibrate`
        self._by_hand: set[str] = set()
        self._use(model)

    # ---------------------------------------------------------------- the classifier

    def use(self, spec: str) -> None:
        """Ask another classifier, see ``open_model``, also about the pictures that are there.

        Raises:
            InputError: see ``open_model`` and the class; the session is then as it was.
        """
        self._use(open_model(spec.strip(), self.interface.painter.device))

    def _use(self, model: Model) -> None:
        kinds = tuple(kind for kind in self.interface.classes if _knows(model, kind))
        if not kinds:
            model.columns(self.interface.classes)  # says which, and what it has instead
        gone = self.asked is not None and self.asked.kind not in kinds
        rows = {} if gone else self.rows
        self.rows = {
            name: replace(row, p=label_probabilities(model, row.images))
            for name, row in rows.items()
        }
        self.model, self.kinds = model, kinds
        if gone:
            self.asked = self.shift = None

    @property
    def column(self) -> int:
        """The classifier's output of the class that was asked for."""
        return self.model.columns([self._question.kind])[0]

    def says(self, row: Row) -> list[str]:
        """What the classifier takes each picture for."""
        return [self.model.names[k][0] for k in row.p.argmax(1).tolist()]

    def right(self, row: Row) -> np.ndarray:
        """(n,) bool: whether it takes them for the class."""
        return (row.p.argmax(1) == self.column).numpy()

    # ---------------------------------------------------------------- asked and painted

    def ask(self, question: ShiftQuestion) -> None:
        """Look at a question, and get ready to paint.

        Raises:
            InputError: a class that the classifier or the interface does not know, no words or too
                many, an impossible count or seed; the session is then as it was.
        """
        interface, shift = self.interface, question.described
        check_seed(question.seed)
        if not 1 <= question.count <= MOST:
            raise InputError(f"{question.count} pictures were asked for: take 1 to {MOST}.")
        if question.kind not in self.kinds:
            raise InputError(f"No class {question.kind!r}: choose from {', '.join(self.kinds)}.")
        own = [question.kind]
        (name,) = interface.by_name().prompts(shift, own).values()
        (token,) = interface.prompts(shift, own).values()
        painter = interface.painter
        with torch.no_grad():
            condition = painter.encode(painter.tokens([name]))
            said = encode_prompts(painter, [token], interface.tokens)
            interface.encoder.embed_texts(list(_captions(shift, interface.words[question.kind])))
        self._condition = torch.cat([condition, said])
        rows = asked(shift, {question.kind: token}, question.count, question.seed)
        self._seeds = [row.seed for row in rows]
        self._prompts = {NAME: name, TOKEN: token, TRUTH: ""}
        self.asked, self.shift, self.rows = question, shift, {}

    def steps(self) -> Iterator[Progress]:
        """Draw the truth, paint, and see to t_shift; how far it is, part by part.

        Raises:
            InputError: nothing was asked.
            FloatingPointError: the classifier answers NaN.
        """
        question, shift, painter = self._question, self.shift, self.interface.painter
        drawn = None
        if self._truth is not None:
            drawn = self._truth(question.kind, shift, question.count, question.seed)
        total = 2 * question.count
        yield Progress("Painting", 0, total)
        for first in range(0, question.count, self.part):
            noise = painter.noise(self._seeds[first : first + self.part])
            images = paint_pairs(painter, self._condition, noise, 2 * self.part)
            for name, new in zip((NAME, TOKEN), images, strict=True):
                self._add(name, new)
            if drawn is not None and not first:
                self._add(TRUTH, drawn)
            yield Progress("Painting", 2 * len(self.rows[TOKEN]), total)
        known = shift.name in self.interface.clip.shift or shift.name in self._found
        if shift.caption and not known and self._calibrate is not None:
            found = yield from self._calibrate(self.interface, shift)
            if found is not None:
                self._found[shift.name] = found
                self.calibrate_again()

    def answer(self, question: ShiftQuestion) -> dict[str, Row]:
        """Ask, and make all steps. Raises as ``ask`` and ``steps``."""
        self.ask(question)
        for _ in self.steps():
            pass
        return self.rows

    def apart(self) -> ShiftSession:
        """The same, to be asked something else: nothing changes here by what is asked there."""
        made = copy(self)
        made._found, made._by_hand = dict(self._found), set(self._by_hand)
        return made

    def _add(self, name: str, images: Tensor) -> None:
        """More pictures of a row, looked at as a file of them would be."""
        images = (images * 255).round() / 255
        encoder, shift = self.interface.encoder, self.shift
        words = [self.interface.words[self._question.kind]] * len(images)
        with torch.no_grad():
            embedded = encoder.embed_images(images.to(encoder.mean.device)).cpu()
        new = Row(
            self._prompts[name],
            images,
            label_probabilities(self.model, images),
            class_scores(embedded, words, shift, encoder),
            shift_scores(embedded, shift, encoder),
        )
        known = self.rows.get(name)
        self.rows = self.rows | {name: new if known is None else known + new}

    @property
    def _question(self) -> ShiftQuestion:
        if self.asked is None:
            raise InputError("Nothing is asked: ask first.")
        return self.asked

    # ---------------------------------------------------------------- the filter

    @property
    def captions(self) -> tuple[str, ...]:
        """c_class, and c_shift where there is a shift."""
        return _captions(self.shift, self.interface.words[self._question.kind])

    @property
    def t_class(self) -> float:
        clip = self.interface.clip
        return (clip.style if self.shift.style else clip.photo)[self._question.kind]

    @property
    def t_shift(self) -> float:
        """As it was chosen or calibrated; else such that all of the token's pictures pass it."""
        known = self.interface.clip.shift.get(self.shift.name)
        if known is not None or not self.shift.caption:
            return -1.0 if known is None else known
        scores = self.rows[TOKEN].of_shift if TOKEN in self.rows else np.array([-1.0])
        return float(scores.min())

    @property
    def calibrated(self) -> float | None:
        """What t_shift was before anybody chose it by eye."""
        return self._found.get(self.shift.name, (None,))[0]

    @property
    def why(self) -> str:
        """Where t_shift comes from."""
        name = self.shift.name
        if not self.shift.caption:
            return "nothing is shifted, so only the class is asked for"
        if name in self._by_hand:
            return "chosen by eye"
        if name in self._found:
            return self._found[name][1]
        if name in self.interface.clip.shift:
            return "the interface's own"
        return "nobody has chosen it: look for the least similar picture that still shows the shift"

    def choose(self, threshold: float) -> None:
        """Set t_shift by eye, until it is chosen again. Raises as ``ClipFilter.with_shift``."""
        self.interface = self.interface.with_threshold(self.shift, threshold)
        self._by_hand.add(self.shift.name)

    def calibrate_again(self) -> None:
        """Undo ``choose``."""
        if self.calibrated is not None:
            self.interface = self.interface.with_threshold(self.shift, self.calibrated)
            self._by_hand.discard(self.shift.name)

    def passes(self, row: Row) -> tuple[np.ndarray, np.ndarray]:
        """(n,) bool twice: which pictures pass t_class, and which t_shift."""
        of_shift = np.ones(len(row), bool)
        if self.shift.caption:
            of_shift = row.of_shift >= self.t_shift
        return row.of_class >= self.t_class, of_shift

    def keeps(self, row: Row) -> np.ndarray:
        """(n,) bool: which pictures the filter keeps."""
        of_class, of_shift = self.passes(row)
        return of_class & of_shift

    # ---------------------------------------------------------------- told

    def measures(self, row: Row) -> dict[str, Estimate]:
        """Shares with Wilson's intervals: "yield" of the filter, "right" of all pictures, and
        "right_kept" of those that pass it.
        """
        kept, right = self.keeps(row), self.right(row)
        return {
            "yield": proportion(kept),
            "right": proportion(right),
            "right_kept": proportion(right[kept]),
        }

    def yields(self, count: int = 41) -> dict[str, pd.DataFrame]:
        """The share of each row's pictures that pass both filters, over t_shift.

        Args:
            count: thresholds, evenly spaced over all similarities to the shift.

        Returns:
            {row: t_shift, yield, and Wilson's low and high}.

        Raises:
            InputError: nothing is painted yet, or nothing is shifted.
        """
        if not self.rows or not self.shift.caption:
            raise InputError("There is no similarity to a shift: ask for a shift, and paint it.")
        scores = np.concatenate([row.of_shift for row in self.rows.values()])
        found = {}
        for name, row in self.rows.items():
            of_class, _ = self.passes(row)
            shares = {
                float(value): proportion(of_class & (row.of_shift >= value))
                for value in np.linspace(scores.min(), scores.max(), count)
            }
            found[name] = pd.DataFrame(
                [(at, each.value, each.low, each.high) for at, each in shares.items()],
                columns=["t_shift", "yield", "low", "high"],
            )
        return found

    def verdict(self) -> str:
        """A sentence on what the kept pictures of the token say of the classifier, and the truth.

        Raises:
            InputError: nothing is painted yet.
        """
        if TOKEN not in self.rows:
            raise InputError("Nothing is painted yet: ask first.")
        row, kind = self.rows[TOKEN], self._question.kind
        found = self.measures(row)
        kept = found["right_kept"]
        if not kept.n:
            text = f"None of the token's {len(row)} pictures passes, so nothing is estimated."
        else:
            right = round(kept.value * kept.n)
            text = (
                f"Of the token's {len(row)} pictures {kept.n} pass{'es' if kept.n == 1 else ''}, "
                f"and {right} of these {'is' if right == 1 else 'are'} taken for a {kind}: an "
                f"estimated accuracy of {_percent(kept)}."
            )
        if TRUTH not in self.rows:
            return f"{text} Nobody can draw the truth of this shift."
        true = self.measures(self.rows[TRUTH])["right"]
        return f"{text} The truth is {_percent(true)}, of {true.n} drawn ones."

    def to_frame(self) -> pd.DataFrame:
        """A row a picture: row, number, the class's p, what the classifier says, class_score,
        shift_score, kept.
        """
        return pd.concat(
            [
                pd.DataFrame(
                    {
                        "row": name,
                        "number": np.arange(len(row)),
                        "p": row.p[:, self.column].double().numpy(),
                        "says": self.says(row),
                        "class_score": row.of_class,
                        "shift_score": row.of_shift,
                        "kept": self.keeps(row),
                    }
                )
                for name, row in self.rows.items()
            ],
            ignore_index=True,
        )

    def compare(
        self, kind: str, shifts: Sequence[str], count: int = 24, seed: int = 0
    ) -> dict[str, dict[str, Estimate]]:
        """Ask one shift after another, apart from what is asked already.

        Returns:
            {series: {shift: share}}: NAME, TOKEN and TRUTH, of whose pictures the classifier is
            right in so many; KEPT, of the token's that the filter keeps; YIELD, of the filter. A
            share of no pictures is left out.

        Raises:
            InputError: see ``ask``.
        """
        apart, found = self.apart(), {}
        for shift in tqdm(shifts, desc="shifts", disable=len(shifts) < 2):
            rows = apart.answer(ShiftQuestion(kind, shift, count=count, seed=seed))
            shares = {name: apart.measures(row) for name, row in rows.items()}
            told = {name: shares[name]["right"] for name in (NAME, TOKEN)}
            told[KEPT] = shares[TOKEN]["right_kept"]
            if TRUTH in shares:
                told[TRUTH] = shares[TRUTH]["right"]
            told[YIELD] = shares[TOKEN]["yield"]
            for series, share in told.items():
                if share.n:
                    found.setdefault(series, {})[shift] = share
        return found

    def unknown(self) -> list[str]:
        """Words of the shift that the encoder cannot know."""
        return list(unknown_to(self.interface.encoder, [self.captions[-1]])[0])

    def lines(self) -> tuple[str, str]:
        """Python that makes the token's pictures again, and filters them; and the shell's command
        that measures the classifier on them, "" where it has no name.
        """
        question, shift = self._question, self.shift
        told = repr(question.shift)
        if question.style:
            told = f"vx.Shift.of({told}, style=True)"
        rest = f'[{question.kind!r}], n={question.count}, seed={question.seed}, folder="runs/mine"'
        lines = [self.opening] if self.opening else []
        if shift.caption:
            lines.append(f"interface = interface.with_threshold({told}, {self.t_shift!r})")
        shifts = ['"base"', told] if shift.caption else [told]
        lines += [f"interface.generate({each}, {rest})" for each in shifts]
        lines.append('interface.filter("runs/mine")')
        command = f"visiondx benchmark --images runs/mine --models {self.model.spec}"
        return "\n".join(lines), command if self.model.spec and shift.caption else ""


def _captions(shift: Shift, word: str) -> tuple[str, ...]:
    return tuple(text for text in (shift.class_caption(word), shift.caption) if text)


def _knows(model: Model, kind: str) -> bool:
    try:
        return bool(model.columns([kind]))
    except InputError:
        return False


def _percent(share: Estimate) -> str:
    return f"{share.value:.0%} [{share.low:.0%}, {share.high:.0%}]"
