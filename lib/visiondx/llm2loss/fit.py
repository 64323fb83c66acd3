"""Training an ensemble of heads in one run: independent examples, starts, orders, early stopping.

Each member draws its examples and its batches from its own seed, so that a stacked run gives what
the members would give one after another.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.core.errors import InputError
from visiondx.core.files import atomic_write, digest, result_key
from visiondx.core.seeds import step_seed
from visiondx.llm2loss import heads
from visiondx.llm2loss.resampling import draw

METHOD = 2  # of training, for ``files.result_key``
SAVE_SECONDS = 20.0  # between two checkpoints
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # of Adam
STARTS, ORDERS, BAGS = 0, 1, 2  # what a member's seed is used for

Criterion = Callable[[Tensor, Tensor], Tensor]  # scores (E, b), y (E, b) or (b,) -> (E,)


@dataclass(frozen=True)
class FitSettings:
    """How an ensemble is trained.

    The paper gives the heads, the ranker's pairs, and five members that differ by their random
    starts alone: ``PAPER``. Five starts on the same examples know nothing of the chance in these
    and agree on noise; by default sixteen members resample the examples, too.

    Raises:
        InputError: an unknown head or kind of pairs, or a number out of its range.
    """

    head: str = "linear"  # or "mlp"
    hidden: int = 64  # units of the MLP
    pairs: str = "all"  # of a batch; or "sampled", as in the paper: each image in one pair
    members: int = 16
    resample: bool = True  # each member learns from its own draw of the examples
    batch: int = 128
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    epochs: int = 200
    patience: int = 5  # epochs without a better validation loss, after which a member stops

    def __post_init__(self) -> None:
        heads.sizes(self.head, 1, 1)
        if self.pairs not in ("all", "sampled"):
            raise InputError(f"No pairs {self.pairs!r}: choose from all, sampled.")
        for name in ("hidden", "epochs", "patience", "learning_rate"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name} must be positive, got {getattr(self, name)}.")
        if min(self.members, self.batch) < 2 or self.weight_decay < 0:
            raise InputError(
                "members and batch must be 2 or more and weight_decay at least 0, "
                f"got {self.members}, {self.batch} and {self.weight_decay}."
            )


PAPER = FitSettings(pairs="sampled", members=5, resample=False)


@dataclass(frozen=True)
class Fitted:
    """What training found, of E members."""

    weights: Tensor  # (E, P), each member's best
    validation: Tensor  # (epochs, E) loss after each epoch, NaN after a member has stopped
    best: Tensor  # (E,) the epoch of the best weights, from 0
    test: Tensor  # (E, n) bool: the examples that a member has neither learned from nor stopped by


@dataclass(frozen=True)
class _State:
    """Everything that an interruption must not lose; rows of stopped members stay as they are."""

    weights: Tensor
    first: Tensor  # Adam's moments
    second: Tensor
    kept: Tensor  # the best weights so far
    lowest: Tensor  # (E,) their validation loss
    best: Tensor  # (E,) int64
    epoch: Tensor  # () int64, the next one
    steps: Tensor  # () int64
    validation: Tensor


def fit_heads(
    x: Tensor,
    y: Tensor,
    criterion: Criterion,
    settings: FitSettings,
    seed: int,
    *,
    judge: Criterion | None = None,
    members: Sequence[int] | None = None,
    folder: str | Path | None = None,
) -> Fitted:
    """Train the members together by AdamW; each keeps the weights of its best epoch.

    Args:
        x: (n, D) embeddings. y: (n,) what to learn. criterion: a batch's loss, member by member.
        seed: with a member's number, of its examples, its start and its batches; see
            ``resampling.draw``.
        judge: the validation loss, if not ``criterion``.
        members: their numbers; default 0, 1, ..., settings.members - 1.
        folder: where checkpoints go; an interrupted training goes on there, a finished one is read.

    Raises:
        FloatingPointError: a validation loss is NaN or infinite (epoch and member are named).
    """
    numbers = list(range(settings.members) if members is None else members)
    drawn = draw(
        len(x), settings.resample, [_seed(seed, m, BAGS) for m in numbers], step_seed(seed, 0)
    )
    learn, stop = drawn.learn.to(x.device), drawn.stop.to(x.device)
    head = (settings.head, settings.hidden)
    path = None
    if folder is not None:
        key = result_key(METHOD, asdict(settings), seed, numbers, digest(x=x, y=y))
        path = Path(folder) / f"fit-{key}.safetensors"
    state = _read(path, x.device) or _start(x, settings, [_seed(seed, m, STARTS) for m in numbers])
    saved = time.monotonic()
    with tqdm(
        total=settings.epochs, initial=int(state.epoch), desc="heads", unit="epoch", leave=False
    ) as bar:
        while (active := _active(state, settings)).any():
            rows = active.nonzero().flatten().tolist()
            shuffles = [_order(learn.shape[1], seed, numbers[m], int(state.epoch)) for m in rows]
            order = learn[rows].gather(1, torch.stack(shuffles).to(x.device))
            state = _epoch(state, rows, x, y, order, criterion, settings)
            held = stop[rows]
            with torch.no_grad():
                h = heads.scores(state.weights[rows], F.embedding(held, x), *head)
                found = (judge or criterion)(h, y[held])
            state = _keep(state, rows, found, [numbers[m] for m in rows])
            if path and time.monotonic() - saved > SAVE_SECONDS:
                _write(path, state)
                saved = time.monotonic()
            bar.update()
            bar.set_postfix(training=len(rows), refresh=False)
    if path:
        _write(path, state)
    return Fitted(state.kept.cpu(), state.validation.cpu(), state.best.cpu(), drawn.test)


def _seed(seed: int, member: int, use: int) -> int:
    return step_seed(step_seed(seed, 3 * member + use + 1), 0)


def _order(n: int, seed: int, member: int, epoch: int) -> Tensor:
    """A member's order of the images in an epoch."""
    drawn = torch.Generator().manual_seed(step_seed(_seed(seed, member, ORDERS), epoch))
    return torch.randperm(n, generator=drawn)


def _start(x: Tensor, settings: FitSettings, seeds: list[int]) -> _State:
    weights = heads.initial(settings.head, x.shape[1], settings.hidden, seeds).to(x)
    zeros = torch.zeros_like(weights)
    whole = torch.zeros(len(seeds), dtype=torch.int64, device=x.device)
    return _State(
        weights=weights,
        first=zeros,
        second=zeros.clone(),
        kept=weights,
        lowest=torch.full_like(weights[:, 0], torch.inf),
        best=whole,
        epoch=torch.tensor(0),
        steps=torch.tensor(0),
        validation=weights.new_empty(0, len(seeds)),
    )


def _active(state: _State, settings: FitSettings) -> Tensor:
    """(E,) bool: the members that go on."""
    if state.epoch >= settings.epochs:
        return torch.zeros_like(state.best, dtype=torch.bool)
    return state.epoch.to(state.best.device) - 1 - state.best < settings.patience


def _epoch(
    state: _State,
    rows: list[int],
    x: Tensor,
    y: Tensor,
    order: Tensor,
    criterion: Criterion,
    settings: FitSettings,
) -> _State:
    """One pass over the images, of the members that still train."""
    weights, first, second = (t[rows] for t in (state.weights, state.first, state.second))
    steps = int(state.steps)
    for batch in order.tensor_split(max(1, order.shape[1] // settings.batch), 1):
        steps += 1
        leaf = weights.requires_grad_()
        images = F.embedding(batch, x)  # x[batch], a tenth of the time
        h = heads.scores(leaf, images, settings.head, settings.hidden)
        (gradient,) = torch.autograd.grad(criterion(h, y[batch]).sum(), leaf)
        weights = weights.detach()
        first.lerp_(gradient, 1 - BETA1)
        second.lerp_(gradient.square(), 1 - BETA2)
        rate = settings.learning_rate
        scale = (second / (1 - BETA2**steps)).sqrt_().add_(EPSILON)
        weights.mul_(1 - rate * settings.weight_decay)
        weights.addcdiv_(first, scale, value=-rate / (1 - BETA1**steps))
    changed = {"weights": weights, "first": first, "second": second}
    for name, part in changed.items():
        whole = getattr(state, name).clone()
        whole[rows] = part
        changed[name] = whole
    return replace(state, **changed, steps=torch.tensor(steps))


def _keep(state: _State, rows: list[int], found: Tensor, numbers: list[int]) -> _State:
    """After an epoch: note the validation losses (len(rows),), keep what is better."""
    epoch = int(state.epoch)
    for number, value in zip(numbers, found.tolist(), strict=True):
        if not math.isfinite(value):
            raise FloatingPointError(
                f"The validation loss of member {number} became {value} in epoch {epoch}: lower "
                "the learning rate, or check the embeddings."
            )
    line = torch.full_like(state.lowest, torch.nan)
    line[rows] = found.to(line)
    better = line < state.lowest  # never where a member has stopped: NaN
    return replace(
        state,
        kept=torch.where(better[:, None], state.weights, state.kept),
        lowest=torch.where(better, line, state.lowest),
        best=torch.where(better, epoch, state.best),
        epoch=torch.tensor(epoch + 1),
        validation=torch.cat((state.validation, line[None])),
    )


def _write(path: Path, state: _State) -> None:
    with atomic_write(path) as part:
        save_file({name: t.cpu().clone() for name, t in vars(state).items()}, part)


def _read(path: Path | None, device: torch.device) -> _State | None:
    if path is None or not path.is_file():
        return None
    with safe_open(path, framework="pt") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}
    counts = ("epoch", "steps")
    return _State(**{k: t if k in counts else t.to(device) for k, t in found.items()})
