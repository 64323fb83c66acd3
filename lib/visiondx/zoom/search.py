"""Counterfactual search along edit directions: Eqs. 3-10 of ZOOM, as one batch of pairs.

Every (image, attribute) pair has one scalar w. The pairs do not touch each other, so the gradient
of the summed loss holds each pair's own derivative, and one backward pass serves them all.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from visiondx.errors import InputError
from visiondx.kernels.ssim import SSIMReference
from visiondx.losses import attr_loss, struct_loss, target_loss, total_loss
from visiondx.zoom.directions import Directions
from visiondx.zoom.result import SearchResult


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
        batch: pairs synthesised at once; a memory limit, it does not change the result.
    """

    steps: int = 10
    eta: float = 0.2
    epsilon: float = 8.0
    alpha: float = 10.0
    beta: float = 1.0
    gamma: float = 1.0
    hard: bool = False
    starts: tuple[float, ...] = (-4.0, 4.0)
    batch: int = 64

    def __post_init__(self):
        for name in ("steps", "batch"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be 1 or more, got {getattr(self, name)}.")
        for name in ("eta", "epsilon"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be above 0, got {getattr(self, name)}.")
        for name in ("alpha", "beta", "gamma"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} must be 0 or more, got {getattr(self, name)}.")
        if not self.starts or max(map(abs, self.starts)) > self.epsilon:
            raise InputError(
                f"starts must hold values within ±epsilon = {self.epsilon}, got {self.starts}."
            )


class Consistency:
    """CLIP's zero-shot reading of the label attribute, which Eq. 8 holds fixed.

    Args:
        prompts: present and absent, such as ("a face with eyeglasses", "a face").
    """

    def __init__(self, encoder, prompts: Sequence[str]):
        if isinstance(prompts, str) or len(prompts) != 2:
            raise InputError(f"Consistency takes two prompts, present and absent, got {prompts!r}.")
        self.encoder, self.scale = encoder, float(encoder.logit_scale)
        self.texts = encoder.embed_texts(list(prompts)).detach()

    def logits(self, images: Tensor) -> Tensor:
        """Scaled similarities (B, 2) with present and absent."""
        return self.scale * self.encoder.embed_images(images) @ self.texts.T


def search(
    generator,
    target,
    encoder,
    directions: Directions,
    styles: Tensor,
    settings: SearchSettings | None = None,
    consistency: Sequence[str] | None = None,
    seed: int | None = None,
) -> SearchResult:
    """For every image and attribute, the edit weight that moves the target most.

    Args:
        generator: ``synthesize(styles) -> images``. target: ``logit(images) -> (B,)``, see Target.
        encoder: used for the consistency prompts only; may be None without them.
        directions: N attributes. styles: (B, c_S) of the original images.
        consistency: (present, absent) prompts of the target's own attribute (Eq. 8), or None.
        seed: where the styles came from; kept with the result.

    Raises:
        InputError: styles of the wrong shape, impossible settings or consistency prompts.
        FloatingPointError: a NaN or infinity, with its step and its term.
    """
    settings = settings or SearchSettings()
    if styles.ndim != 2 or styles.shape[1] != directions.delta_s.shape[1] or not len(styles):
        raise InputError(
            f"styles must have shape (B, {directions.delta_s.shape[1]}), got {tuple(styles.shape)}."
        )
    styles = styles.detach()
    hold = Consistency(encoder, consistency) if consistency and settings.gamma else None
    pairs = len(styles) * len(directions) * len(settings.starts)
    chunks = []
    with (
        frozen(generator, target, encoder),
        tqdm(total=pairs * (settings.steps + 1), desc="search", unit="image") as bar,
    ):
        for first in range(0, len(styles), settings.batch):
            some = slice(first, first + settings.batch)
            chunk = _Chunk(generator, target, directions, styles[some], settings, hold, first)
            chunks.append(chunk.run(bar))
    p_original, w, p = zip(*chunks, strict=True)
    return SearchResult.from_trajectories(
        directions=directions,
        styles=styles.cpu(),
        p_original=torch.cat(p_original),
        trajectory_w=torch.cat(w, 1),
        trajectory_p=torch.cat(p, 1),
        settings=asdict(settings),
        consistency=tuple(consistency) if consistency else None,
        seed=seed,
        generator=generator,
    )


def gradient_step(w: Tensor, gradient: Tensor, eta: float, epsilon: float) -> Tensor:
    """Eq. 10: w <- clamp(w - η ∇L, ±ε)."""
    return (w - eta * gradient).clamp(-epsilon, epsilon)


class _Chunk:
    """A few images with all their attributes; holds what never changes during their search."""

    @torch.no_grad()
    def __init__(self, generator, target, directions, styles, settings, hold, first):
        self.generator, self.target, self.directions = generator, target, directions
        self.styles, self.settings, self.hold, self.first = styles, settings, hold, first
        self.images = generator.synthesize(styles)
        self.p = torch.sigmoid(target.logit(self.images))
        self.zero_shot = hold.logits(self.images).softmax(1) if hold else None
        self.ssim = SSIMReference(self.images) if settings.beta else None
        _check({"image": self.images, "target": self.p}, "before the search", self._image_name)

    def run(self, bar: tqdm) -> tuple[Tensor, Tensor, Tensor]:
        """p of the originals (B,), and w and p of every step (T + 1, B, N), on the CPU."""
        shape = (len(self.styles), len(self.directions), len(self.settings.starts))
        index = torch.arange(shape[0] * shape[1] * shape[2], device=self.styles.device)
        paths = [
            self._descend(*torch.unravel_index(some, shape), bar)
            for some in index.split(self.settings.batch)
        ]
        w, p = (torch.cat(path, 1).unflatten(1, shape) for path in zip(*paths, strict=True))
        reached = (p - self.p[:, None, None]).abs().amax(0)  # (B, N, starts)
        best = reached.argmax(2)[None, :, :, None].expand(len(w), -1, -1, 1)
        w, p = (path.gather(3, best).squeeze(3).cpu() for path in (w, p))
        return self.p.cpu(), w, p

    def _descend(self, image: Tensor, attribute: Tensor, start: Tensor, bar: tqdm):
        """Search some pairs, given by three index vectors (P,): w and p of each step (T + 1, P)."""
        settings = self.settings
        styles, delta_s = self.styles[image], self.directions.delta_s.to(self.styles)[attribute]
        flipped = 1 - self.p[image]
        ssim = self.ssim.index(image) if settings.beta else None
        zero_shot = self.zero_shot[image] if self.hold else None
        weights = {"target": settings.alpha, "struct": settings.beta, "attr": settings.gamma}
        w = styles.new_tensor(settings.starts)[start]
        path_w, path_p = [], []

        def place(row: int) -> str:
            named = self.directions.attributes[attribute[row]]
            return f"{named!r}, {self._image_name(int(image[row]))}"

        for step in range(settings.steps + 1):
            last = step == settings.steps
            with torch.set_grad_enabled(not last):
                w = w.detach().requires_grad_(not last)
                edited = self.generator.synthesize(styles + w[:, None] * delta_s)  # Eq. 3
                logit = self.target.logit(edited)
                path_w.append(w.detach())
                path_p.append(torch.sigmoid(logit.detach()))
                _check({"image": edited, "target": logit}, f"at step {step}", place)
                bar.update(len(w))
                if last:
                    break
                terms = {"target": target_loss(logit, flipped, settings.hard)}
                if ssim is not None:
                    terms["struct"] = struct_loss(edited, ssim)
                if self.hold:
                    terms["attr"] = attr_loss(self.hold.logits(edited), zero_shot)
                loss = total_loss(terms, {name: weights[name] for name in terms}, step)  # Eq. 4
                (gradient,) = torch.autograd.grad(loss.sum(), w)
            _check({"gradient": gradient}, f"at step {step}", place)
            w = gradient_step(w.detach(), gradient, settings.eta, settings.epsilon)
        return torch.stack(path_w), torch.stack(path_p)

    def _image_name(self, row: int) -> str:
        return f"image {self.first + row}"


def _check(values: dict[str, Tensor], when: str, place) -> None:
    """Raise FloatingPointError at the first row (pair or image) that is NaN or infinite."""
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
