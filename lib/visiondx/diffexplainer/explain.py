"""The search for explanations: prompts, through a painter, to what a target is to say (Eqs. 2-5).

    min over t of E_z[L(phi(D(eps(z, tau(t)))))]

with a fresh z in every step. All explanations with all their starts are rows of one batch. Where a
search ends depends on where it starts (DiffExplainer's section 5), so of each explanation the start
is kept that does best on noise that no step saw, and how far the starts lie apart is reported.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.core.errors import InputError
from visiondx.core.seeds import check_seed, step_seed
from visiondx.diffexplainer.hard_prompts import Words
from visiondx.diffexplainer.kept import Kept, search_key
from visiondx.diffexplainer.objectives import Objectives
from visiondx.diffexplainer.painting import noise_of, paint, painted
from visiondx.diffexplainer.prompts import SoftPrompt
from visiondx.diffexplainer.starts import best_words
from visiondx.diffexplainer.ways import Free, Way
from visiondx.models.painter import Painter
from visiondx.search.descent import Descent, descend
from visiondx.search.objective import Objective, State, Term, check_finite, frozen
from visiondx.show import plots

FRESH, HELD, START, CHOICE = 1, 2, 3, 5  # kinds of draws out of one seed


@dataclass(frozen=True)
class Settings:
    """How explanations are searched.

    Args:
        template: with ``{t}``, where the searched tokens stand. tokens: how many.
        starts: of each explanation.
        noises: fresh pictures a row and step. held: pictures that choose among the starts.
        tried: words of the vocabulary that are tried on `noises` pictures each, of which the best
            are begun at where no word is given; 0: any are.
        through: how many of the painter's steps carry the gradient; None for all.
        batch: pictures that are painted at once.
        descent: its step size is a quarter of the deviation of the embedded painter's vocabulary.

    Raises:
        InputError: a count below 1, or more noises than the batch holds.
    """

    template: str = "{t}"
    tokens: int = 1
    starts: int = 4
    noises: int = 4
    held: int = 16
    tried: int = 128
    through: int | None = None
    batch: int = 64
    descent: Descent = field(default_factory=lambda: Descent(100, 0.01, "adam", anneal=True))

    def __post_init__(self) -> None:
        for name in ("tokens", "starts", "noises", "held", "batch"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: give 1 or more.")
        if self.tried < 0:
            raise InputError(f"tried is {self.tried}: give a number of words, or 0 for none.")
        if self.noises > self.batch:
            raise InputError(
                f"noises is {self.noises} and batch {self.batch}: a row's pictures are painted at "
                "once, so give a batch as large."
            )


@dataclass(frozen=True)
class Found:
    """What a search found for E explanations with S starts each.

    soft: (E, S, k, d) tokens. words: of each start the k words that the tokens are, E lists of S
    of k; None of free tokens. losses: (E, S) on the held noise. path: (T + 1, E, S), the
    loss at every step on its own fresh noise; NaN of steps that a stopped search did not make.
    scores: (E, S, k, W), how much speaks for each of the W words that could be chosen, see
    ``ways``; None of free tokens. choice: (E,) the starts that were chosen by something else than
    the losses.
    """

    names: tuple[str, ...]
    prompt: SoftPrompt
    soft: Tensor
    words: list[list[list[str]]] | None
    losses: Tensor
    path: Tensor
    settings: Settings
    seed: int
    scores: Tensor | None = None
    choice: Tensor | None = None

    @property
    def best(self) -> Tensor:
        """(E,) the start that does best on the held noise, or the one that was chosen."""
        return self.losses.argmin(1) if self.choice is None else self.choice

    @property
    def tokens(self) -> Tensor:
        """(E, k, d) of the best start."""
        return self.soft[torch.arange(len(self.soft)), self.best]

    @property
    def spread(self) -> Tensor:
        """(E,) the deviation of the starts' losses; NaN of a single start."""
        if self.losses.shape[1] == 1:
            return torch.full((len(self.losses),), torch.nan)
        return self.losses.std(1)

    @property
    def likelihood(self) -> Tensor | None:
        """(E, W) the scores' mean over all starts and places; None of free tokens."""
        return None if self.scores is None else self.scores.mean((1, 2))

    def only(self, *starts: int) -> Found:
        """What the search would have found from these starts alone.

        Raises:
            InputError: no start, or one that there is not.
        """
        count = self.losses.shape[1]
        if not starts or not all(0 <= start < count for start in starts):
            raise InputError(f"Starts {starts} of {count}: choose one or more from 0.")
        some = list(starts)
        return replace(
            self,
            soft=self.soft[:, some],
            words=self.words and [[row[start] for start in some] for row in self.words],
            losses=self.losses[:, some],
            path=self.path[:, :, some],
            scores=None if self.scores is None else self.scores[:, some],
            choice=None,
        )

    def plot(self, starts: Sequence[str] | None = None) -> Figure:
        """The loss at every step, on the step's own noise: a panel an explanation, a line a start.

        Args:
            starts: their names.
        """
        names = starts or [f"start {number}" for number in range(self.losses.shape[1])]
        return plots.paths(self.path, self.names, names, "loss")

    def images(self, painter: Painter, seeds: Sequence[int]) -> Tensor:
        """(E, len(seeds), 3, H, W) of the best starts, on the CPU: samples of x_t*(z)."""
        noise = painter.noise(seeds)
        return painted(painter, self.prompt, self.tokens, noise, self.settings.batch)


class PromptObjective(Objective):
    """R prompts, each with its own aim, seen on fresh pictures in every step.

    Args:
        aims: R of them. starts: (R,) the number of each row's start.
    """

    noisy = True

    def __init__(
        self,
        painter: Painter,
        prompt: SoftPrompt,
        way: Way,
        aims: Objectives,
        starts: Tensor,
        settings: Settings,
        seed: int,
        step: int = 0,
    ) -> None:
        self.painter, self.prompt, self.way, self.aims = painter, prompt, way, aims
        self.starts = starts
        self.settings, self.seed = settings, seed
        self.at(step)

    def at(self, step: int) -> None:
        """Draw the noise of a step; the same for all rows, so that they can be compared."""
        now = step_seed(step_seed(self.seed, FRESH), step)
        self.step, self.noise = step, noise_of(self.painter, self.settings.noises, now)

    @property
    def terms(self) -> Sequence[Term]:
        return [Term("loss", lambda state: state["loss"])]

    def observe(self, variable: Tensor) -> State:
        base = step_seed(step_seed(self.seed, CHOICE), self.step)
        seeds = [step_seed(base, start) for start in self.starts.tolist()]
        soft = self.way.tokens(variable, self.step, self.settings.descent.steps, seeds)
        images = paint(self.painter, self.prompt, soft, self.noise, self.settings.through)
        losses, terms = self.aims(images)
        return {"loss": losses.mean(1), **{name: each.mean(1) for name, each in terms.items()}}

    def read(self, state: State) -> Tensor:
        return state["loss"]

    def index(self, rows: Tensor) -> PromptObjective:
        parts = self.painter, self.prompt, self.way, self.aims.index(rows), self.starts[rows]
        return PromptObjective(*parts, self.settings, self.seed, self.step)


class Search:
    """Prompts that are being searched for E aims from S starts each; see ``search``.

    Between its steps one may look at where it is, and whoever has seen enough asks what is
    ``found`` so far:

        run = Search(painter, aims)
        for _ in run.steps():
            run.tokens, run.path

    Attributes: ``total``, what ``steps`` counts up to; ``made``, how much of that is done.
    """

    def __init__(
        self,
        painter: Painter,
        aims: Objectives,
        settings: Settings | None = None,
        way: Way | None = None,
        *,
        seed: int = 0,
        kept: str | Path | None = None,
    ) -> None:
        check_seed(seed)
        if painter.device != aims.target.mean.device:
            raise InputError(
                f"The painter is on {painter.device} and the target on {aims.target.mean.device}: "
                "move one to where the other is."
            )
        self.painter, self.aims, self.seed = painter, aims, seed
        self.settings, self.way = settings or Settings(), way or Free()
        self.prompt = SoftPrompt.parse(painter, self.settings.template, self.settings.tokens)
        self.way = _begun(painter, aims, self.settings, self.way, seed, kept)
        key = ""
        if kept is not None:
            made_of = aims.names, asdict(self.settings), self.way.settings, seed
            key = search_key(painter, aims.target, *made_of)
        starts, steps = self.settings.starts, self.settings.descent.steps
        first = step_seed(seed, START)
        begin = self.way.start(painter, self.prompt, len(aims), starts, first)
        self._state = Kept.start(kept, key, begin.cpu().flatten(0, 1), steps)
        self._which = torch.arange(len(aims)).repeat_interleave(starts)
        self.total = len(aims) * starts * (steps + 1)
        self.made = int(self._state.step.sum())

    def steps(self) -> Iterator[int]:
        """Search; yields, after each step of the rows that are searched together, their number.

        Raises:
            FloatingPointError: see ``search``.
        """
        settings, state, painter = self.settings, self._state, self.painter
        number = torch.arange(settings.starts).repeat(len(self.aims))
        chunk = max(1, settings.batch // settings.noises)
        with frozen(painter, self.aims.target):
            for part in torch.arange(len(number)).split(chunk):
                first = int(state.step[part[0]])
                objective = PromptObjective(
                    painter,
                    self.prompt,
                    self.way,
                    self.aims.index(self._which[part]),
                    number[part],
                    settings,
                    self.seed,
                    first,
                )

                def place(row: int, part: Tensor = part) -> str:
                    at = int(part[row])
                    name = self.aims.names[at // settings.starts]
                    return f"{name}, start {at % settings.starts}"

                moments = state.moments[:, part].to(painter.device, copy=True)  # moved as it goes
                begun = state.soft[part].to(painter.device)
                for at in descend(objective, begun, settings.descent, place, None, first, moments):
                    state.note(part, at.number, at.variable, moments, at.reading)
                    objective.at(at.number + 1)
                    self.made += len(part)
                    yield len(part)
                state.save()

    @property
    @torch.no_grad()
    def tokens(self) -> Tensor:
        """(E, S, k, d) as they are now, on the CPU."""
        found = self.way.final(self._state.soft.to(self.painter.device, copy=True))
        return found.cpu().unflatten(0, (-1, self.settings.starts))

    @property
    def path(self) -> Tensor:
        """(T + 1, E, S), the losses so far; NaN where no step was made."""
        return self._state.path.unflatten(1, (-1, self.settings.starts)).clone()

    def found(self) -> Found:
        """What is found, after the last step or after as many as were made.

        Raises:
            FloatingPointError: a loss on held noise that is NaN or infinite.
        """
        soft, starts = self.tokens, self.settings.starts
        flat = soft.flatten(0, 1).to(self.painter.device)
        losses = _held(
            self.painter, self.prompt, flat, self.aims, self._which, self.settings, self.seed
        )
        variable = self._state.soft.to(self.painter.device)
        words, scores = self.way.read(variable), self.way.scores(variable)
        return Found(
            self.aims.names,
            self.prompt,
            soft,
            words and [words[row : row + starts] for row in range(0, len(flat), starts)],
            losses.unflatten(0, soft.shape[:2]),
            self.path,
            self.settings,
            self.seed,
            None if scores is None else scores.cpu().unflatten(0, soft.shape[:2]),
        )


def search(
    painter: Painter,
    aims: Objectives,
    settings: Settings | None = None,
    way: Way | None = None,
    *,
    seed: int = 0,
    kept: str | Path | None = None,
) -> Found:
    """Search a prompt for each of E aims.

    Args:
        aims: their target's images are as large as the painter's.
        way: what is searched; free embeddings without one.
        kept: a folder that keeps what is found so far: a killed search goes on to the same result.

    Raises:
        InputError: see ``SoftPrompt.parse``; models on two devices; a file for a folder.
        FloatingPointError: NaN in the painter (names its step of denoising) or in what the target
            says (names the step of the search and the explanation).
    """
    run = Search(painter, aims, settings, way, seed=seed, kept=kept)
    with tqdm(total=run.total, initial=run.made, desc="prompts", mininterval=1.0) as bar:
        for rows in run.steps():
            bar.update(rows)
    return run.found()


def _begun(
    painter: Painter,
    aims: Objectives,
    settings: Settings,
    way: Way,
    seed: int,
    kept: str | Path | None,
) -> Way:
    """The way with the words to begin at that are lacking, if any are to be tried."""
    if not settings.tried or not isinstance(way, Free):
        return way
    given = way.given(len(aims))
    if len(given) != len(aims):  # ``Free.start`` says so
        return way
    lacking = settings.starts - min(map(len, given))
    if lacking < 1:
        return way
    how = settings.template, aims, lacking, settings.tried, settings.noises
    now = step_seed(step_seed(seed, START), 1)
    words = best_words(painter, *how, without=given, seed=now, batch=settings.batch, kept=kept)
    return way.begun_at(words)


@torch.no_grad()
def as_words(painter: Painter, aims: Objectives, found: Found, words: Words) -> Found:
    """A search of free tokens, each read as the nearest word: tokens, words and held losses.

    Args:
        aims: those of the search.
    """
    shape, soft = found.soft.shape[:2], found.soft.flatten(0, 1).to(painter.device)
    scores = words.similarity(soft)
    chosen, which = words.chosen(scores), torch.arange(shape[0]).repeat_interleave(shape[1])
    losses = _held(painter, found.prompt, chosen, aims, which, found.settings, found.seed)
    scores, chosen = scores.cpu().unflatten(0, shape), chosen.cpu().unflatten(0, shape)
    read = [words.read(starts) for starts in scores]
    each = losses.unflatten(0, shape)
    return replace(found, soft=chosen, words=read, losses=each, scores=scores, choice=None)


@torch.no_grad()
def _held(
    painter: Painter,
    prompt: SoftPrompt,
    soft: Tensor,
    aims: Objectives,
    which: Tensor,
    settings: Settings,
    seed: int,
) -> Tensor:
    """(R,) mean losses on noise that no step saw.

    Raises:
        FloatingPointError: a loss that is NaN or infinite; names the explanation.
    """
    noise = noise_of(painter, settings.held, step_seed(seed, HELD))
    losses = []
    for part in torch.arange(len(soft)).split(max(1, settings.batch // len(noise))):
        images = painted(painter, prompt, soft[part], noise, settings.batch)
        own = aims.index(which[part])
        parts = [own(some.to(painter.device))[0] for some in images.split(settings.batch, 1)]
        losses.append(torch.cat(parts, 1).mean(1).cpu())
    found = torch.cat(losses)
    check_finite({"loss on held noise": found}, "at the end", lambda r: aims.names[int(which[r])])
    return found
