"""What every counterfactual search minimises: Eq. 4 of ZOOM, for a batch of rows.

A row is an image that is being edited, with one weight (`zoom.search`) or one for each attribute
(`zoom.multi`). The loop is that of `search.descent`.
"""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.core.losses import attr_loss, struct_loss
from visiondx.core.words import check_words
from visiondx.kernels.ssim import SSIMReference
from visiondx.search.objective import Objective, State, Term, check_finite
from visiondx.zoom.directions import Directions
from visiondx.zoom.settings import SearchSettings
from visiondx.zoom.tasks import crossed, original


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


class Originals:
    """The originals' side of Eq. 4, computed once, here.

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

    def index(self, rows: Tensor) -> "Originals":
        """The same for these images, in this order; nothing is computed again."""
        some = copy.copy(self)
        some.original = self.original.index(rows)
        some.zero_shot = self.zero_shot[rows] if self.hold else None
        some.sides = self.sides[rows] if self.sides is not None else None
        some.ssim = self.ssim.index(rows) if self.ssim else None
        return some


class Counterfactual(Objective):
    """Eq. 4 in the weights w of some originals' edits. It reads p of x̂, f(x̂) if binary.

    Args:
        originals: of R rows. edit: (w, rows) -> styles (R, …) of these rows' x̂; w is (R,) or
            (R, N), and rows (R,) are numbers among the rows at the start.
    """

    def __init__(self, originals: Originals, edit: Callable[[Tensor, Tensor], Tensor]):
        self.originals, self.edit = originals, edit
        self.rows = torch.arange(len(originals.p), device=originals.p.device)

    @property
    def terms(self) -> list[Term]:
        side, settings = self.originals, self.originals.settings
        target = side.original.loss
        terms = [Term("target", lambda s: target(s["target"]), settings.alpha, settings.growth)]
        if side.ssim is not None:
            struct = Term("struct", lambda s: struct_loss(s["image"], side.ssim), settings.beta)
            terms.append(struct)
        if side.hold:
            terms.append(Term("attr", self._attr, settings.gamma))
        return terms

    def _attr(self, state: State) -> Tensor:
        return attr_loss(self.originals.hold.logits(state["image"]), self.originals.zero_shot)

    def observe(self, variable: Tensor) -> State:
        edited = self.originals.generator.synthesize(self.edit(variable, self.rows))
        return {"image": edited, "target": self.originals.original.output(edited)}

    def read(self, state: State) -> Tensor:
        return self.originals.original.change(state["target"])

    def index(self, rows: Tensor) -> "Counterfactual":
        some = copy.copy(self)
        some.originals, some.rows = self.originals.index(rows), self.rows[rows]
        return some

    def done(self, reading: Tensor) -> Tensor | None:
        if self.originals.settings.stop_when != "flipped":
            return None
        return crossed(reading, self.originals.p, self.originals.original.task)


def check_styles(styles: Tensor, directions: Directions) -> None:
    """Raise InputError unless styles are (B, c_S) with the directions' c_S."""
    if styles.ndim != 2 or styles.shape[1] != directions.delta_s.shape[1] or not len(styles):
        raise InputError(
            f"styles must have shape (B, {directions.delta_s.shape[1]}), got {tuple(styles.shape)}."
        )
