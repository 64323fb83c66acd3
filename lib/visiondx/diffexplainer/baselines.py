"""Activation maximisation without a diffusion model: what DiffExplainer is compared with.

Pixels under decay and blur (Yosinski et al., 2015), pixels under total variation and jitter
(Mahendran and Vedaldi, 2015; Mordvintsev et al., 2015), a generator's codes (Nguyen et al., 2016),
and the attack on a feature of a real image (Singla et al., 2021). All run as one batch of E aims x
S starts through the one descent loop. The papers' networks see other images than 64 px ones: the
settings' numbers are choices.
"""

import copy
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from types import SimpleNamespace

import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.core.errors import InputError
from visiondx.core.seeds import check_seed, step_seed
from visiondx.diffexplainer.objectives import Aim, Objectives
from visiondx.diffexplainer.regularisers import gaussian_blur, roll, total_variation
from visiondx.models.denoising import Noise
from visiondx.models.painter import Painter
from visiondx.models.target import Target
from visiondx.models.trial import check_images
from visiondx.search.batching import Batch
from visiondx.search.descent import Descent, descend
from visiondx.search.objective import Objective, State, Term, frozen
from visiondx.show import plots

GREY = 0.5
NOISE = 0.1  # standard deviation of the pixels of a start


@dataclass(frozen=True)
class DecayBlur:
    """How `decay_and_blur` runs: at every step a part ``decay`` of the distance to grey is lost, at
    every ``every``-th the image is blurred by ``sigma`` pixels.

    Args:
        eta: length of a step, the Euclidean norm over an image's values.
    """

    steps: int = 100
    eta: float = 2.0
    decay: float = 0.02
    sigma: float = 0.7
    every: int = 2

    def __post_init__(self):
        if not 0 <= self.decay < 1 or not self.sigma > 0 or self.every < 1:
            raise InputError(
                "decay must be in [0, 1), sigma above 0 and every 1 or more, got "
                f"{self.decay}, {self.sigma} and {self.every}."
            )
        _ = self.descent

    @property
    def descent(self) -> Descent:
        plain = Descent(self.steps, self.eta, "unit")
        return replace(plain, decay=self.decay / self.eta)


@dataclass(frozen=True)
class VariationJitter:
    """How `variation_and_jitter` runs: ``weight`` times the total variation is added to the loss,
    and the target sees the image rolled by up to ``jitter`` pixels, anew at every step.

    Args:
        eta: Adam's step size, in pixel values.
    """

    steps: int = 100
    eta: float = 0.05
    weight: float = 100.0
    jitter: int = 4

    def __post_init__(self):
        if not self.weight >= 0 or self.jitter < 0:
            raise InputError(
                f"weight and jitter must be 0 or more, got {self.weight} and {self.jitter}."
            )
        _ = self.descent

    @property
    def descent(self) -> Descent:
        return Descent(self.steps, self.eta, "adam")


@dataclass(frozen=True)
class GeneratorPrior:
    """How `generator_prior` runs: the words that it paints, and steps of length ``eta`` in noise,
    whose own length is the root of how many numbers it has, 45 of the embedded painter.
    """

    steps: int = 100
    eta: float = 1.0
    words: str = "a photo"

    def __post_init__(self):
        _ = self.descent

    @property
    def descent(self) -> Descent:
        return Descent(self.steps, self.eta, "unit")


@dataclass(frozen=True)
class FeatureAttack:
    """How `feature_attack` runs: steps of length ``eta`` that stay within ``radius`` of the image,
    both Euclidean over its values. At 64 px, 10 is a root mean square of 0.09 a value.
    """

    steps: int = 40
    eta: float = 0.5
    radius: float = 10.0

    def __post_init__(self):
        if not self.radius > 0:
            raise InputError(f"radius must be above 0, got {self.radius}.")
        _ = self.descent

    @property
    def descent(self) -> Descent:
        return Descent(self.steps, self.eta, "unit")


@dataclass(frozen=True)
class Maximised:
    """Images of E aims from S starts each, by a baseline."""

    method: str
    names: tuple[str, ...]  # the E aims
    images: Tensor  # (E, S, 3, H, W) in [0, 1]
    loss: Tensor  # (E, S) of the images as they are, without the regularisers
    settings: dict[str, float | int]
    seed: int | None

    def plot(self) -> Figure:
        """A row an aim, a column a start."""
        starts = self.images.shape[1]
        return plots.image_grid(self.images.flatten(0, 1), columns=starts, rows=list(self.names))


def decay_and_blur(
    target: Target,
    aims: Sequence[Aim | str | int],
    starts: int = 1,
    resolution: int = 64,
    settings: DecayBlur | None = None,
    seed: int = 0,
    batch: int | None = None,
) -> Maximised:
    """Gradient ascent in pixels with decay and Gaussian blur, from grey noise.

    Args:
        aims: E of them, see ``Objectives``. starts: S. resolution: height and width.
        batch: images at once, at most; None chooses by memory.

    Raises:
        InputError: impossible numbers, or see ``Objectives``.
        FloatingPointError: a NaN or infinity, with its step, aim and start.
    """
    settings = settings or DecayBlur()
    objectives = _bind(target, aims, starts, resolution, seed)
    start = _noise(objectives, starts, resolution, seed)

    def project(pixels: Tensor, rows: Tensor, step: int) -> Tensor:
        if (step + 1) % settings.every == 0:
            pixels = gaussian_blur(pixels, settings.sigma)
        return pixels.clamp(-GREY, GREY)

    return _run("decay + blur", objectives, start, settings, seed, batch, _pixels, project)


def variation_and_jitter(
    target: Target,
    aims: Sequence[Aim | str | int],
    starts: int = 1,
    resolution: int = 64,
    settings: VariationJitter | None = None,
    seed: int = 0,
    batch: int | None = None,
) -> Maximised:
    """Gradient ascent in pixels with total variation and jitter, from grey noise.

    Arguments and errors as for ``decay_and_blur``.
    """
    settings = settings or VariationJitter()
    objectives = _bind(target, aims, starts, resolution, seed)
    start = _noise(objectives, starts, resolution, seed)
    most = settings.jitter
    shape = (settings.steps + 1, len(objectives) * starts, 2)
    source = torch.Generator().manual_seed(seed)
    shifts = torch.randint(-most, most + 1, shape, generator=source).to(start.device)
    smooth = settings.weight * Term("total variation", lambda s: total_variation(s["images"]))
    return _run(
        "total variation + jitter", objectives, start, settings, seed, batch, _pixels,
        lambda pixels, rows, step: pixels.clamp(-GREY, GREY), (smooth,), shifts,
    )  # fmt: skip


def generator_prior(
    target: Target,
    aims: Sequence[Aim | str | int],
    painter: Painter,
    starts: int = 1,
    settings: GeneratorPrior | None = None,
    seed: int = 0,
    batch: int | None = None,
) -> Maximised:
    """Ascent in a generator's codes: the noise from which a painter paints, under fixed words.

    Nguyen et al. climb the codes of a network that generates pictures of the target's kind. Here
    that is the painter of the search in words, so the two differ in what is searched alone. Noise
    of many numbers lies near a sphere, and a painter knows no other: each step ends on it.

    Arguments and errors as for ``decay_and_blur``; the painter's for the words.
    """
    settings = settings or GeneratorPrior()
    objectives = _bind(target, aims, starts, painter.size, seed)
    rows = len(objectives) * starts
    noise = painter.noise([step_seed(seed, row) for row in range(rows)])
    with torch.no_grad():
        condition = painter.encode(painter.tokens([settings.words]))
    radius = math.sqrt(noise.start[0].numel())

    def project(codes: Tensor, rows: Tensor, step: int) -> Tensor:
        return codes * (radius / codes.flatten(1).norm(dim=1).view(-1, 1, 1, 1))

    def draw(codes: Tensor, rows: Tensor) -> Tensor:
        given = Noise(codes, noise.steps[:, rows])
        return painter(condition.expand(len(codes), -1, -1), given)

    start = project(noise.start, torch.arange(rows), 0).unflatten(0, (-1, starts))
    return _run(
        "generator prior", objectives, start, settings, seed, batch, draw, project, painter=painter
    )


def feature_attack(
    target: Target,
    aims: Sequence[Aim | str | int],
    images: Tensor,
    settings: FeatureAttack | None = None,
    batch: int | None = None,
) -> Maximised:
    """Ascent within a ball around real images: (E, S, 3, H, W) in [0, 1], S of each aim.

    Without noise: nothing is drawn. Errors as for ``decay_and_blur``, and images of another shape
    or range.
    """
    settings = settings or FeatureAttack()
    if images.ndim != 5 or len(images) != len(aims) or images.shape[3] != images.shape[4]:
        raise InputError(
            f"Images for {len(aims)} aims must have shape ({len(aims)}, S, 3, H, H), got "
            f"{tuple(images.shape)}."
        )
    check_images(images.flatten(0, 1))
    objectives = _bind(target, aims, images.shape[1], images.shape[-1], 0)
    start = images.detach().to(target.mean.device) - GREY
    centres = start.flatten(0, 1)

    def project(pixels: Tensor, rows: Tensor, step: int) -> Tensor:
        change = pixels - centres[rows]
        length = change.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        near = centres[rows] + change * (settings.radius / length.clamp_min(1e-12)).clamp(max=1)
        return near.clamp(-GREY, GREY)  # which only comes nearer to the image

    return _run("feature attack", objectives, start, settings, None, batch, _pixels, project)


class _Ascent(Objective):
    """Rows of one aim and one start each: the aims' losses, and regularisers.

    Args:
        objectives: of R aims, those of the rows. rows: (R,) their numbers in the whole batch.
        draw: variable (R, …) and rows -> images (R, 3, H, W). regularisers: of the state's
        "images". shifts: (T + 1, R, 2) jitter, or None.
    """

    def __init__(
        self,
        objectives: Objectives,
        rows: Tensor,
        draw: Callable[[Tensor, Tensor], Tensor],
        regularisers: Sequence[Term],
        shifts: Tensor | None,
    ):
        self.objectives, self.rows, self.draw, self.shifts = objectives, rows, draw, shifts
        self._terms = (Term("objective", lambda s: s["loss"]), *regularisers)
        self.noisy, self.step = shifts is not None, 0

    @property
    def terms(self) -> Sequence[Term]:
        return self._terms

    def observe(self, variable: Tensor) -> State:
        images = self.draw(variable, self.rows)
        seen = images if self.shifts is None else roll(images, self.shifts[self.step])
        self.step += 1
        loss, _ = self.objectives(seen[:, None])
        return {"loss": loss[:, 0], "images": images}

    def read(self, state: State) -> Tensor:
        return state["loss"]

    def index(self, rows: Tensor) -> "_Ascent":
        some = copy.copy(self)
        some.objectives, some.rows = self.objectives.index(rows), self.rows[rows]
        some.shifts = None if self.shifts is None else self.shifts[:, rows]
        return some


def _run(
    method: str,
    objectives: Objectives,
    start: Tensor,
    settings: DecayBlur | VariationJitter | GeneratorPrior | FeatureAttack,
    seed: int | None,
    limit: int | None,
    draw: Callable[[Tensor, Tensor], Tensor],
    project: Callable[[Tensor, Tensor, int], Tensor] | None,
    regularisers: Sequence[Term] = (),
    shifts: Tensor | None = None,
    painter: Painter | None = None,
) -> Maximised:
    """The descent of all rows, from ``start`` (E, S, …).

    Args:
        project: what ``descend`` takes, its rows counted over the whole batch.
    """
    aims, starts = start.shape[:2]
    variable = start.flatten(0, 1)
    whose = torch.arange(aims, device=start.device).repeat_interleave(starts)
    total = len(variable) * (settings.steps + 1)
    with (
        frozen(objectives.target, painter),
        tqdm(total=total, desc=method, unit="image") as bar,
    ):
        canvas = SimpleNamespace(resolution=painter.size if painter else start.shape[-1])
        batch = Batch.start(limit, canvas, variable)

        def some(first: int, last: int) -> tuple[Tensor, Tensor]:
            own = objectives.index(whose[first:last])
            jitter = None if shifts is None else shifts[:, first:last]
            rows = torch.arange(first, last, device=variable.device)
            steps = descend(
                _Ascent(own, rows, draw, regularisers, jitter),
                variable[first:last],
                settings.descent,
                lambda row: f"{own.names[row]!r}, start {(first + row) % starts}",
                bar,
                project=project and (lambda v, rows, step: project(v, first + rows, step)),
            )
            last_step = deque(steps, maxlen=1).pop()  # the others are let go of
            with torch.no_grad():
                images = draw(last_step.variable, rows)  # no row leaves before
                loss, _ = own(images[:, None])
            return images.cpu(), loss[:, 0].cpu()

        images, loss = map(torch.cat, zip(*batch.split(len(variable), some, bar), strict=True))
    shape = (aims, starts)
    return Maximised(
        method, objectives.names, images.unflatten(0, shape), loss.unflatten(0, shape),
        asdict(settings), seed,
    )  # fmt: skip


def _pixels(variable: Tensor, rows: Tensor) -> Tensor:
    """The image whose distance from grey this is."""
    return GREY + variable


def _bind(
    target: Target, aims: Sequence[Aim | str | int], starts: int, resolution: int, seed: int
) -> Objectives:
    check_seed(seed)
    if starts < 1 or resolution < 1:
        raise InputError(f"starts and resolution must be 1 or more, got {starts} and {resolution}.")
    return Objectives(target, aims, resolution)


def _noise(objectives: Objectives, starts: int, resolution: int, seed: int) -> Tensor:
    """(E, S, 3, H, W) around 0, on the target's device."""
    source = torch.Generator().manual_seed(seed)
    shape = (len(objectives), starts, 3, resolution, resolution)
    noise = (NOISE * torch.randn(shape, generator=source)).clamp(-GREY, GREY)
    return noise.to(objectives.target.mean.device)
