"""The state behind the explorer, without any widget: a face, words with their weights, a target.

What does not change is computed once: M for a generator, Δs for words, and for a face its styles
and what SSIM, target and judges say of the original. A move takes one image through each model.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.kernels.ssim import SSIMReference
from visiondx.models.target import Target
from visiondx.models.vocabulary import unknown_to
from visiondx.zoom.estimate import CHANNELS, edit_directions, settle
from visiondx.zoom.multi import SETTINGS, MultiResult, multi_steps
from visiondx.zoom.settings import SearchSettings

REMEMBERED = 50  # actions that can be undone
STATE = (  # what an action changes; all of it is replaced, nothing in place
    "attributes", "neutral", "estimator", "directions", "w",
    "seed", "styles", "_image", "_reference", "original",
    "target", "consistency", "target_name", "result",
)  # fmt: skip


@dataclass(frozen=True)
class View:
    """One picture, and what is to be said about it."""

    image: Tensor  # (3, H, W) on the CPU
    p: float  # f(x̂)
    p_original: float  # f(x)
    ssim: float  # with the original
    seen: dict[str, bool | None]  # what the judges see; None where they disagree

    @property
    def flipped(self) -> bool:
        """Whether the predicted label is another one than the original's."""
        return (self.p >= 0.5) != (self.p_original >= 0.5)


class EditSession:
    """One face and its edit x̂ = G(s + Σ w_n Δs_n) (Eq. 3 of ZOOM), as one target sees it.

    Attributes: ``w`` (N,), the weights; ``original``, the View of the unedited face; ``result``,
    the last search of this face, or None. What is chosen or moved can be undone.

    Args:
        generator, encoder, target: see ``zoom.multi.multi_search``; the target is moved to the
            generator's device.
        attributes: whole phrases ("a face with bangs"). neutral: their common part ("a face").
        directions, channels: "relevance", "gradient" or "auto", and how many style channels a
            prompt edits; see ``edit_directions``.
        seed: of the face. settings: of the search; all weights stay within ±``settings.epsilon``.
        consistency: (present, absent) prompts of the target's own attribute (Eq. 8), or None.
        judges: who read the pictures, see ``models.judges``; None reads nothing.
        M: the relevance matrix; None takes the shipped one or computes it (minutes).
        world, name: of the generator and of the target, if they are embedded ones.

    Raises:
        InputError: unusable words, target or numbers.
    """

    def __init__(
        self,
        generator,
        encoder,
        target: Target,
        attributes: Sequence[str],
        neutral: str,
        *,
        directions: str = "relevance",
        channels: int = CHANNELS,
        seed: int = 100,
        settings: SearchSettings = SETTINGS,
        consistency: Sequence[str] | None = None,
        judges=None,
        M: Tensor | None = None,
        world: str | None = None,
        name: str = "",
    ):
        self.generator, self.encoder, self.judges = generator, encoder, judges
        self.settings, self.channels, self.world, self._M = settings, channels, world, M
        self._before: list[dict] = []
        self._last: object = None  # the action that was remembered last
        self.attributes: tuple[str, ...] = ()
        self.w = generator.style_mean.new_zeros(0)
        self.apply(attributes, neutral, directions)
        self._face(seed)
        self.use_target(target, consistency, name)
        self._before.clear()

    # ---------------------------------------------------------------- and undone

    def undo(self) -> View:
        """Take the last action back: a move, a search, other words, another face or target.

        Moves of one weight that follow each other are one action, as a slider is dragged.

        Raises:
            InputError: nothing is left to undo.
        """
        if not self._before:
            raise InputError("There is nothing to undo.")
        vars(self).update(self._before.pop())
        self._last = None
        return self.view()

    def _remember(self, action: object = None) -> None:
        """Keep the state as it is, once for an action that goes on."""
        if action is not None and action == self._last:
            return
        self._last = action
        if all(hasattr(self, name) for name in STATE):  # not while it is being made
            self._before.append({name: getattr(self, name) for name in STATE})
            del self._before[:-REMEMBERED]

    # ---------------------------------------------------------------- what is chosen

    @property
    def unknown(self) -> list[str]:
        """The words among the prompts that the encoder cannot know."""
        found = unknown_to(self.encoder, (*self.attributes, self.neutral))
        return list(dict.fromkeys(word for words in found for word in words))

    def apply(self, attributes: Sequence[str], neutral: str, directions: str = "relevance") -> None:
        """Other words or another estimator; prompts that stay keep their weights.

        Raises:
            InputError: unusable words; the session is then as it was.
        """
        directions, M = settle(self.generator, self.encoder, directions, self._M)
        self._M = self._M if M is None else M
        found = edit_directions(
            self.generator,
            self.encoder,
            attributes,
            neutral,
            directions,
            channels=self.channels,
            M=M,
        )
        self._remember()
        before = dict(zip(self.attributes, self.w.tolist(), strict=True))
        self.estimator, self.neutral, self.directions = directions, neutral, found
        self.attributes = found.attributes
        self.w = self.w.new_tensor([before.get(name, 0.0) for name in found.attributes])

    def new_face(self, seed: int | None = None) -> View:
        """The face of a seed, by default the next. The weights stay."""
        self._remember()
        self._face(self.seed + 1 if seed is None else seed)
        self._look()
        return self.view()

    def use_target(
        self, target: Target, consistency: Sequence[str] | None = None, name: str = ""
    ) -> View:
        """Another target.

        Raises:
            InputError: one that the search cannot use; the session is then as it was.
        """
        target.to(self._image.device)
        target.check(self._image)
        target.logit(self._image)  # refuses what is not binary
        self._remember()
        self.target, self.consistency, self.target_name = target, consistency, name
        self._look()
        return self.view()

    @torch.no_grad()
    def _face(self, seed: int) -> None:
        self.styles, self.seed = self.generator.sample_styles(1, seed), seed
        self._image = self.generator.synthesize(self.styles)
        self._reference = SSIMReference(self._image)

    def _look(self) -> None:
        """What target and judges say of the original."""
        self.result: MultiResult | None = None
        self.original = self._view(self._image)

    # ---------------------------------------------------------------- moving

    def set(self, weights: Sequence[float]) -> View:
        """The picture with these weights, one a prompt.

        Raises:
            InputError: another number of weights, or one beyond ±epsilon.
        """
        return self._set(weights)

    def move(self, prompt: int, weight: float) -> View:
        """The picture with one weight changed."""
        weights = self.w.tolist()
        weights[prompt] = weight
        return self._set(weights, ("move", prompt))

    def reset(self) -> View:
        """All weights 0."""
        return self.set([0.0] * len(self.w))

    def _set(self, weights: Sequence[float], action: object = None) -> View:
        w = torch.as_tensor(weights, dtype=self.w.dtype, device=self.w.device)
        bound = self.settings.epsilon
        if w.shape != self.w.shape or not bool((w.abs() <= bound).all()):
            raise InputError(
                f"{len(self.w)} prompts need as many weights within ±{bound:g}, "
                f"got {[round(v, 3) for v in w.flatten().tolist()]}."
            )
        self._remember(action)
        self.w = w
        return self.view()

    @torch.no_grad()
    def view(self) -> View:
        """The picture at the present weights."""
        edited = self.styles + self.w[None] @ self.directions.delta_s  # Eq. 3
        return self._view(self.generator.synthesize(edited), self.original.p)

    @torch.no_grad()
    def _view(self, image: Tensor, p_original: float | None = None) -> View:
        p = float(self.target(image))
        seen = {}
        if self.judges is not None:
            present, unsure = (row[0].tolist() for row in self.judges.read(image))
            values = [None if u else v for v, u in zip(present, unsure, strict=True)]
            seen = dict(zip(self.judges.binary, values, strict=True))
        return View(
            image=image[0].cpu(),
            p=p,
            p_original=p if p_original is None else p_original,
            ssim=float(self._reference.ssim(image)),
            seen=seen,
        )

    @torch.no_grad()
    def sweep(self, weights: Sequence[float]) -> tuple[Tensor, Tensor]:
        """Each prompt alone at each weight: images (N, V, 3, H, W) and f(x̂) (N, V), on the CPU."""
        delta_s, values = self.directions.delta_s, self.w.new_tensor(weights)
        moves = values[None, :, None] * delta_s[:, None]  # (N, V, c_S)
        images = self.generator.synthesize(self.styles + moves.flatten(0, 1))
        shape = moves.shape[:2]
        return images.unflatten(0, shape).cpu(), self.target(images).unflatten(0, shape).cpu()

    def search(self) -> Iterator[View]:
        """The multi-attribute counterfactual search from this face, as one view a step.

        A step is made when its view is asked for. ``result`` is that of the steps so far; the view
        after the last step is the most counterfactual one, and there the weights stay. Whoever
        stops earlier calls ``arrive`` for it.

        Raises:
            FloatingPointError: a NaN or infinity, with its step and its term.
        """
        action = object()  # the whole search is one
        for result in multi_steps(
            self.generator,
            self.target,
            self.encoder,
            self.directions,
            self.styles,
            self.settings,
            self.consistency,
            self.seed,
        ):
            view = self._set(result.trajectory_w[0, -1].tolist(), action)
            self.result = result
            yield view
        yield self.arrive()

    def arrive(self) -> View:
        """The most counterfactual step of the last search; the weights stay there."""
        return self._set(self.result.w[0].tolist(), self._last)
