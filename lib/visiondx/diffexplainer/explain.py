"""The search for explanations: prompts, through a painter, to what a target is to say (Eqs. 2-5).

    min over t of E_z[L(phi(D(eps(z, tau(t)))))]

with a fresh z in every step. All explanations with all their starts are rows of one batch. Where a
search ends depends on where it starts (DiffExplainer's section 5), so of each explanation the start
is kept that does best on noise that no step saw, and how far the starts lie apart is reported.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.core.errors import InputError
from visiondx.core.files import atomic_write, read_kept, result_key
from visiondx.core.seeds import check_seed, step_seed
from visiondx.diffexplainer.objectives import Objectives
from visiondx.diffexplainer.prompts import SoftPrompt
from visiondx.diffexplainer.ways import Free, Way
from visiondx.models.denoising import Noise
from visiondx.models.painter import Painter
from visiondx.search.descent import Descent, descend
from visiondx.search.objective import Objective, State, Term, frozen

FRESH, HELD, START, CHOICE = 1, 2, 3, 5  # kinds of draws out of one seed
METHOD = 1  # raised with every change that gives another result
SAVE_SECONDS = 60.0


@dataclass(frozen=True)
class Settings:
    """How explanations are searched.

    Args:
        template: with ``{t}``, where the searched tokens stand. tokens: how many.
        starts: of each explanation.
        noises: fresh pictures a row and step. held: pictures that choose among the starts.
        through: how many of the painter's steps carry the gradient; None for all.
        batch: pictures that are painted at once.

    Raises:
        InputError: a count below 1.
    """

    template: str = "{t}"
    tokens: int = 1
    starts: int = 4
    noises: int = 4
    held: int = 16
    through: int | None = None
    batch: int = 64
    descent: Descent = field(default_factory=lambda: Descent(100, 0.1, "adam"))

    def __post_init__(self) -> None:
        for name in ("tokens", "starts", "noises", "held", "batch"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: give 1 or more.")


@dataclass(frozen=True)
class Found:
    """What a search found for E explanations with S starts each.

    soft: (E, S, k, d) tokens. words: of each start the k words that the tokens are, E lists of S
    of k; None of free tokens. losses: (E, S) on the held noise. path: (T + 1, E, S), the
    loss at every step on its own fresh noise.
    """

    names: tuple[str, ...]
    prompt: SoftPrompt
    soft: Tensor
    words: list[list[list[str]]] | None
    losses: Tensor
    path: Tensor
    settings: Settings
    seed: int

    @property
    def best(self) -> Tensor:
        """(E,) the start that does best on the held noise."""
        return self.losses.argmin(1)

    @property
    def tokens(self) -> Tensor:
        """(E, k, d) of the best start."""
        return self.soft[torch.arange(len(self.soft)), self.best]

    @property
    def spread(self) -> Tensor:
        """(E,) the deviation of the starts' losses; NaN of a single start."""
        return self.losses.std(1)

    @torch.no_grad()
    def images(self, painter: Painter, seeds: Sequence[int]) -> Tensor:
        """(E, len(seeds), 3, H, W) of the best starts, on the CPU: samples of x_t*(z)."""
        noise, shown = painter.noise(seeds), []
        rows = torch.arange(len(self.tokens)).split(max(1, self.settings.batch // len(noise)))
        for part in tqdm(rows, desc="explanations painted", leave=False):
            shown.append(paint(painter, self.prompt, self.tokens[part], noise).cpu())
        return torch.cat(shown)


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
        self.step, self.noise = (
            step,
            noise_of(
                self.painter, self.settings.noises, step_seed(step_seed(self.seed, FRESH), step)
            ),
        )

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


def noise_of(painter: Painter, count: int, seed: int) -> Noise:
    """`count` noises, each with a seed that follows from `seed`."""
    return painter.noise([step_seed(seed, k) for k in range(count)])


def paint(
    painter: Painter, prompt: SoftPrompt, soft: Tensor, noise: Noise, through: int | None = None
) -> Tensor:
    """Searched tokens (R, k, d) and B noises -> images (R, B, 3, H, W), differentiable."""
    count = len(noise)
    condition = prompt.encode(painter, soft).repeat_interleave(count, 0)
    each = noise[torch.arange(count).repeat(len(soft)).to(noise.start.device)]
    return painter(condition, each, through=through).unflatten(0, (-1, count))


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
        kept: a file that keeps what is found so far: a killed search goes on to the same result.

    Raises:
        InputError: see ``SoftPrompt.parse``; a kept file of another search.
        FloatingPointError: the painter or the target answers NaN; names step and explanation.
    """
    check_seed(seed)
    settings = settings or Settings()
    prompt = SoftPrompt.parse(painter, settings.template, settings.tokens)
    way, starts = way or Free(), settings.starts
    chosen = getattr(way, "word", None) or (way.words and way.words.texts)
    key = result_key(METHOD, aims.names, asdict(settings), way.name, chosen, seed)
    rows = len(aims) * starts
    which = torch.arange(len(aims)).repeat_interleave(starts)
    number = torch.arange(starts).repeat(len(aims))
    begin = way.start(painter, prompt, starts, step_seed(seed, START)).cpu()[number]
    state = _Kept.start(kept, key, begin, settings.descent)
    chunk = max(1, settings.batch // settings.noises)
    total = rows * (settings.descent.steps + 1)
    with frozen(painter, aims.target), tqdm(total=total, desc="prompts", mininterval=1.0) as bar:
        for part in torch.arange(rows).split(chunk):
            first = int(state.step[part[0]])
            bar.update(len(part) * first)
            objective = PromptObjective(
                painter, prompt, way, aims.index(which[part]), number[part], settings, seed, first
            )

            def place(row: int, part: Tensor = part) -> str:
                at = int(part[row])
                return f"{aims.names[at // starts]}, start {at % starts}"

            moments = state.moments[:, part].clone()
            steps = descend(
                objective,
                state.soft[part].to(painter.device),
                settings.descent,
                place,
                bar,
                first,
                moments.to(painter.device),
            )
            for at in steps:
                state.note(part, at.number, at.variable, moments, at.reading)
                objective.at(at.number + 1)
            state.save()
        with torch.no_grad():
            soft = way.final(state.soft.to(painter.device))
        losses = _held(painter, prompt, soft, aims, which, settings, seed)
    words = way.read(state.soft.to(painter.device))
    shape = (len(aims), starts)
    return Found(
        aims.names,
        prompt,
        soft.cpu().unflatten(0, shape),
        words and [words[row : row + starts] for row in range(0, rows, starts)],
        losses.unflatten(0, shape),
        state.path.unflatten(1, shape),
        settings,
        seed,
    )


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
    """(R,) mean losses on noise that no step saw."""
    noise = noise_of(painter, settings.held, step_seed(seed, HELD))
    losses = []
    for part in torch.arange(len(soft)).split(max(1, settings.batch // len(noise))):
        images = paint(painter, prompt, soft[part].to(painter.device), noise)
        losses.append(aims.index(which[part])(images)[0].mean(1).cpu())
    return torch.cat(losses)


@dataclass
class _Kept:
    """Where R searches are, in a file or in memory alone."""

    path_: Path | None
    key: str
    soft: Tensor  # (R, k, d)
    moments: Tensor  # (2, R, k, d) when the step of each row was looked at
    step: Tensor  # (R,) long
    path: Tensor  # (T + 1, R) losses
    saved: float = field(default_factory=time.monotonic)

    @classmethod
    def start(cls, path: str | Path | None, key: str, soft: Tensor, descent: Descent) -> _Kept:
        fresh = {
            "soft": soft,
            "moments": soft.new_zeros(2, *soft.shape),
            "step": torch.zeros(len(soft), dtype=torch.long),
            "path": torch.full((descent.steps + 1, len(soft)), torch.nan),
        }
        found = read_kept(path, load_file) or {}
        if found and bytes(found.pop("key").tolist()).decode() != key:
            raise InputError(f"{path} keeps another search: give another file, or remove it.")
        return cls(None if path is None else Path(path), key, **{**fresh, **found})

    def note(self, rows: Tensor, step: int, soft: Tensor, moments: Tensor, loss: Tensor) -> None:
        self.soft[rows], self.moments[:, rows] = soft.detach().cpu(), moments.cpu()
        self.step[rows], self.path[step, rows] = step, loss.detach().cpu()
        if time.monotonic() - self.saved > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        if self.path_ is None:
            return
        tensors = {name: getattr(self, name) for name in ("soft", "moments", "step", "path")}
        tensors["key"] = torch.tensor(list(self.key.encode()), dtype=torch.uint8)
        with atomic_write(self.path_) as path:
            save_file({name: value.contiguous() for name, value in tensors.items()}, path)
        self.saved = time.monotonic()
