"""What every counterfactual search shares: Eqs. 4-10 of ZOOM for a batch of rows.

A row is an image that is being edited, with one weight (`zoom.search`) or one for each attribute
(`zoom.multi`). The rows do not touch each other, so the gradient of the summed loss holds each
row's own derivative, and one backward pass serves them all.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from visiondx.core.errors import InputError
from visiondx.core.losses import attr_loss, struct_loss, total_loss
from visiondx.core.words import check_words
from visiondx.kernels.ssim import SSIMReference
from visiondx.zoom.directions import Directions
from visiondx.zoom.tasks import crossed, original

UPDATES = ("gradient", "sign", "adam")
STOPS = (None, "flipped")
LARGEST = 50.0  # growth of log alpha over a search


@dataclass(frozen=True)
class SearchSettings:
    """How Eqs. 4 and 10 are run. The paper gives only eta = 0.2 and epsilon = 30.

    w counts standard deviations of style here (see ``Directions``), so the bound and the weights
    have another scale than in the authors' code (30; 50 for the target term, 0.005 for CLIP, no
    structure term); ours are choices.

    Args:
        steps: gradient steps. eta: step size η. epsilon: clamp bound ε, in standard deviations.
        alpha, beta, gamma: weights of the target, structure and attribute terms of Eq. 4.
        hard: the target term aims at the opposite label, as in the authors' code, and not at
            1 - f(x) (Eq. 5), which leaves an undecided image where it is.
        starts: initial w; with several, each pair keeps its most counterfactual one. From 0 the
            search often stays: an edit shows only after some deviations, so its slope is flat.
        toggle: starts change sign where CLIP sees the attribute in the original already, so that
            they, all positive, begin by taking it away there and adding it elsewhere, as an
            intervention does; see ``zoom.toggle``. Of single-attribute searches only.
        growth: alpha is multiplied by it at every step. With ``stop_when="flipped"``, images that
            withstand are pushed ever harder, in the spirit of Carlini and Wagner (2017), who raise
            their constant from one attack to the next, and the others keep their mild edits.
        batch: pairs synthesised at once, at most; None chooses by the device (``core.batching``).
            Where memory runs out it is halved. It changes results by rounding only, which a search
            with long steps can amplify.
        update: what η multiplies: the "gradient" (Eq. 10), its "sign" (the linear approximation of
            section 3.3), or "adam"'s step (Kingma and Ba, 2015). All are clamped to ±ε.
        stop_when: "flipped" lets a row leave the batch at its first flip, and its trajectory then
            repeats that step; None: only rows that can no longer move leave. To the others, it is
            as a smaller ``batch``.
    """

    steps: int = 10
    eta: float = 0.2
    epsilon: float = 8.0
    alpha: float = 10.0
    beta: float = 1.0
    gamma: float = 1.0
    hard: bool = False
    starts: tuple[float, ...] = (-4.0, 4.0)
    toggle: bool = False
    growth: float = 1.0
    batch: int | None = None
    update: str = "gradient"
    stop_when: str | None = None

    def __post_init__(self):
        for name in ("steps", "batch"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InputError(f"{name} must be 1 or more, got {getattr(self, name)}.")
        for name in ("eta", "epsilon"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be above 0, got {getattr(self, name)}.")
        for name in ("alpha", "beta", "gamma"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} must be 0 or more, got {getattr(self, name)}.")
        if not 1 <= self.growth or self.steps * math.log(self.growth) > LARGEST:
            raise InputError(
                f"growth must be 1 or more, and alpha finite after {self.steps} steps, "
                f"got {self.growth}."
            )
        if not self.starts or max(map(abs, self.starts)) > self.epsilon:
            raise InputError(
                f"starts must hold values within ±epsilon = {self.epsilon}, got {self.starts}."
            )
        if self.toggle and min(self.starts) <= 0:
            raise InputError(f"toggle sets the sign: give starts above 0, got {self.starts}.")
        if self.update not in UPDATES:
            raise InputError(f"update must be one of {', '.join(UPDATES)}, got {self.update!r}.")
        if self.stop_when not in STOPS:
            raise InputError(f'stop_when must be None or "flipped", got {self.stop_when!r}.')


class Consistency:
    """CLIP's zero-shot reading of the label attribute, which Eq. 8 holds fixed.

    Args:
        prompts: present and absent, such as ("a face with eyeglasses", "a face").
    """

    def __init__(self, encoder, prompts: Sequence[str]):
        if isinstance(prompts, str) or len(prompts) != 2:
            raise InputError(f"Consistency takes two prompts, present and absent, got {prompts!r}.")
        check_words(prompts, "The two prompts of consistency")
        self.encoder, self.scale = encoder, float(encoder.logit_scale)
        self.texts = encoder.embed_texts(list(prompts)).detach()

    def logits(self, images: Tensor) -> Tensor:
        """Scaled similarities (B, 2) with present and absent."""
        return self.scale * self.encoder.embed_images(images) @ self.texts.T


class Objective:
    """Eq. 4 of some images: what their originals give is computed once, here.

    Attributes: ``p`` (B,), f(x) of the originals, or what ``zoom.tasks`` has in its place.

    Args:
        styles: (B, c_S) of the originals. hold: what Eq. 8 holds fixed, or None.
        first: number of the first image, for messages.
        sides: images -> (B, N), what a search multiplies its starts by; kept as ``sides``.
    """

    @torch.no_grad()
    def __init__(
        self,
        generator,
        target,
        styles: Tensor,
        settings: SearchSettings,
        hold: Consistency | None = None,
        first: int = 0,
        sides: Callable[[Tensor], Tensor] | None = None,
    ):
        self.generator, self.hold, self.settings = generator, hold, settings
        images = generator.synthesize(styles)
        self.original = original(target, images, settings.hard, first)
        self.zero_shot = hold.logits(images).softmax(1) if hold else None
        self.sides = sides(images) if sides else None
        self.ssim = SSIMReference(images) if settings.beta else None
        values = {"image": images, "target": self.original.answer}
        check_finite(values, "before the search", lambda row: f"image {first + row}")

    @property
    def p(self) -> Tensor:
        return self.original.p

    def index(self, rows: Tensor) -> "Objective":
        """The same for these images, in this order; nothing is computed again."""
        some = copy.copy(self)
        some.original = self.original.index(rows)
        some.zero_shot = self.zero_shot[rows] if self.hold else None
        some.sides = self.sides[rows] if self.sides is not None else None
        some.ssim = self.ssim.index(rows) if self.ssim else None
        return some

    def evaluate(
        self,
        w: Tensor,
        edit: Callable[[Tensor], Tensor],
        step: int,
        place: Callable[[int], str],
    ) -> tuple[Tensor, Tensor | None]:
        """p of x̂ (B,), f(x̂) if binary, and the gradient of Eq. 4 in w (None after the last step).

        Args:
            w: (B,) or (B, N). edit: w -> styles (B, c_S) of x̂. place: names a row in messages.

        Raises:
            FloatingPointError: a NaN or infinity, with the step and the term.
        """
        settings, last = self.settings, step == self.settings.steps
        with torch.set_grad_enabled(not last):
            w = w.detach().requires_grad_(not last)
            edited = self.generator.synthesize(edit(w))
            output = self.original.output(edited)
            check_finite({"image": edited, "target": output}, f"at step {step}", place)
            if last:
                return self.original.change(output), None
            terms = {"target": self.original.loss(output)}
            if self.ssim is not None:
                terms["struct"] = struct_loss(edited, self.ssim)
            if self.hold:
                terms["attr"] = attr_loss(self.hold.logits(edited), self.zero_shot)
            alpha = settings.alpha * settings.growth**step
            weights = {"target": alpha, "struct": settings.beta, "attr": settings.gamma}
            loss = total_loss(terms, {name: weights[name] for name in terms}, step)  # Eq. 4
            (gradient,) = torch.autograd.grad(loss.sum(), w)
        check_finite({"gradient": gradient}, f"at step {step}", place)
        return self.original.change(output.detach()), gradient


def descend(
    objective: Objective,
    w: Tensor,
    edit: Callable[[Tensor, Tensor], Tensor],
    place: Callable[[int], str],
    bar: tqdm,
) -> tuple[Tensor, Tensor]:
    """w and p of x̂ of every step: (T + 1, B) or (T + 1, B, N), and (T + 1, B).

    A row that a step leaves where it was (at the bound, or without a slope) is not computed again.
    It stays under Adam, whose moments may move it, and while alpha grows: what outweighs the
    target term at one step, or hides it in rounding, need not at the next.

    Args:
        w: (B,) or (B, N), where the search starts. edit: (w, rows) -> styles of these rows' x̂.
        place: names a row in messages. bar: moves by one for each row and step.
    """
    settings = objective.settings
    path_w = w.new_empty(settings.steps + 1, *w.shape)
    path_p = objective.p.new_empty(path_w.shape[:2])
    rows = torch.arange(len(w), device=w.device)
    moments = w.new_zeros(2, *w.shape)
    for step in range(settings.steps + 1):
        p, gradient = objective.evaluate(
            w, lambda v, rows=rows: edit(v, rows), step, lambda i, rows=rows: place(int(rows[i]))
        )
        path_w[step:, rows], path_p[step:, rows] = w, p  # and on, for the rows that leave
        bar.update(len(rows))
        if gradient is None:
            break
        before, delta = w, update_direction(settings.update, gradient, moments, step)
        w = gradient_step(w, delta, settings.eta, settings.epsilon)
        stay = torch.ones_like(rows, dtype=torch.bool)
        if settings.update != "adam" and settings.growth == 1:  # nothing could move it later
            stay = (w != before).reshape(len(w), -1).any(1)
        if settings.stop_when == "flipped":
            stay &= ~crossed(p, objective.p, objective.original.task)
        if not stay.all():
            bar.update(int((~stay).sum()) * (settings.steps - step))
            rows, w, moments = rows[stay], w[stay], moments[:, stay]
            objective = objective.index(stay)
        if not len(rows):
            break
    return path_w, path_p


def update_direction(update: str, gradient: Tensor, moments: Tensor, step: int) -> Tensor:
    """What η is multiplied by, from the gradient at this step (the first is 0).

    Args:
        moments: (2, …), Adam's running means of the gradient and its square, moved in place.
    """
    if update == "gradient":
        return gradient
    if update == "sign":
        return gradient.sign()
    first, second = moments
    first.lerp_(gradient, 0.1)
    second.lerp_(gradient.square(), 0.001)
    unbiased = second / (1 - 0.999 ** (step + 1))
    return first / (1 - 0.9 ** (step + 1)) / (unbiased.sqrt() + 1e-8)


def gradient_step(w: Tensor, gradient: Tensor, eta: float, epsilon: float) -> Tensor:
    """Eq. 10: w <- clamp(w - η ∇L, ±ε)."""
    return (w - eta * gradient).clamp(-epsilon, epsilon)


def check_styles(styles: Tensor, directions: Directions) -> None:
    """Raise InputError unless styles are (B, c_S) with the directions' c_S."""
    if styles.ndim != 2 or styles.shape[1] != directions.delta_s.shape[1] or not len(styles):
        raise InputError(
            f"styles must have shape (B, {directions.delta_s.shape[1]}), got {tuple(styles.shape)}."
        )


def check_finite(values: dict[str, Tensor], when: str, place: Callable[[int], str]) -> None:
    """Raise FloatingPointError at the first row that is NaN or infinite, naming term and place."""
    if all(bool(torch.isfinite(v.detach().sum())) for v in values.values()):
        return  # a sum over finite values: one number to wait for
    for term, value in values.items():
        bad = (~torch.isfinite(value.detach())).reshape(len(value), -1).any(1)
        if bad.any():
            row = int(bad.nonzero()[0])
            raise FloatingPointError(
                f"The {term} is NaN or infinite {when} for {place(row)} ({int(bad.sum())} of "
                f"{len(bad)} in the batch): lower eta or epsilon, or check that model."
            )


@contextmanager
def frozen(*modules) -> Iterator[None]:
    """No gradient for the parameters of these modules inside the block; restored after it."""
    parameters = [p for m in modules if isinstance(m, nn.Module) for p in m.parameters()]
    before = [p.requires_grad for p in parameters]
    try:
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, value in zip(parameters, before, strict=True):
            parameter.requires_grad_(value)
