"""From words to edit directions: Eqs. 1 and 2 of ZOOM."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.core.words import check_prompts
from visiondx.zoom.templates import filled

SIDES = ("two", "one")


class TextEncoder(Protocol):
    def embed_texts(self, texts: list[str]) -> Tensor: ...  # (P, D), unit norm


@dataclass(frozen=True)
class Directions:
    """One edit direction for each attribute, in units that ``s + w * delta_s[n]`` expects.

    ``delta_s[n]`` (c_S,) is the thresholded M·Δt (Eq. 2) divided by its L2 norm (Eq. 3), each
    channel then multiplied by the style's standard deviation there. So w counts standard
    deviations: an edit of w = 1 over k equal channels moves each by 1/√k of its own deviation.
    (StyleCLIP scales by the deviations too, ZOOM's authors do not; both sweep M in deviations.)
    ``zoom.toggle`` makes longer ones.
    """

    attributes: tuple[str, ...]
    neutral: str
    delta_s: Tensor  # (N, c_S)
    delta_t: Tensor  # (N, c_T), unit norm
    threshold: tuple[float, ...]  # λ of each attribute
    sided: str
    estimator: str | None = None  # "relevance" or "gradient", see ``zoom.estimate``

    @property
    def n_channels(self) -> tuple[int, ...]:
        """How many style channels each attribute edits."""
        return tuple((self.delta_s != 0).sum(1).tolist())

    def __len__(self) -> int:
        return len(self.attributes)

    def of(self, attributes: Sequence[str]) -> "Directions":
        """The directions of some of the attributes, in the given order.

        Raises:
            InputError: an attribute that has none here.
        """
        unknown = [name for name in attributes if name not in self.attributes]
        if unknown or not len(attributes):
            raise InputError(
                f"There is no direction of {unknown or 'no attribute'}: "
                f"choose from {list(self.attributes)}."
            )
        rows = [self.attributes.index(name) for name in attributes]
        return Directions(
            tuple(attributes),
            self.neutral,
            self.delta_s[rows],
            self.delta_t[rows],
            tuple(self.threshold[row] for row in rows),
            self.sided,
            self.estimator,
        )

    def to_frame(self) -> pd.DataFrame:
        """One row an attribute."""
        return pd.DataFrame(
            {
                "attribute": self.attributes,
                "neutral": self.neutral,
                "threshold": self.threshold,
                "sided": self.sided,
                "channels": self.n_channels,
                "estimator": self.estimator,
            }
        )


def embed_prompts(
    encoder: TextEncoder,
    prompts: Sequence[str],
    templates: Sequence[str] | str | None = None,
) -> Tensor:
    """Unit text embeddings (P, D), each averaged over templates such as ``"a drawing of {}"``.

    Args:
        templates: texts or a bank's name, see ``templates.filled``; None takes the bare prompts.
    """
    if not templates:
        return encoder.embed_texts(list(prompts))
    texts = filled(prompts, templates)
    each = encoder.embed_texts([text for row in texts for text in row])
    return F.normalize(each.unflatten(0, (len(texts), -1)).mean(1), dim=-1)


@torch.no_grad()
def text_directions(
    encoder: TextEncoder,
    attributes: Sequence[str],
    neutral: str,
    templates: Sequence[str] | str | None = None,
) -> Tensor:
    """Δt (N, c_T) of Eq. 1, CLIP(attribute) - CLIP(neutral), normalised as StyleCLIP does.

    The attributes are whole phrases ("a face with bangs"), neutral is their common part ("a face").

    Raises:
        InputError: see ``check_prompts``; an attribute that the encoder cannot tell from neutral.
    """
    check_prompts(attributes, neutral)
    embedded = embed_prompts(encoder, [*attributes, neutral], templates)
    delta_t = embedded[:-1] - embedded[-1]
    for attribute, length in zip(attributes, delta_t.norm(dim=1), strict=True):
        if length < 1e-6:
            raise InputError(
                f"The encoder embeds {attribute!r} and {neutral!r} alike: choose other words."
            )
    return F.normalize(delta_t, dim=1)


def largest_threshold(
    M: Tensor, delta_t: Tensor, channels: int = 1, sided: str = "two"
) -> list[float]:
    """For each attribute, the largest λ (in float32) that leaves ``channels`` channels or more.

    How large M·Δt gets differs between attributes, so the same λ may leave one a single channel and
    another hundreds; this gives each the same number.

    Args:
        M: (c_S, c_T). delta_t: (N, c_T).

    Raises:
        InputError: an attribute has fewer than ``channels`` relevant channels.
    """
    return threshold_for(delta_t.to(M) @ M.T, channels, sided)


def threshold_for(relevance: Tensor, channels: int = 1, sided: str = "two") -> list[float]:
    """``largest_threshold`` of channels whose relevance (N, c_S) is known, be it M·Δt or another.

    Raises:
        InputError: an attribute has fewer than ``channels`` relevant channels.
    """
    strength = _strength(relevance, sided)
    possible = int((strength > 0).sum(1).min())
    if not possible:
        row = int((strength > 0).sum(1).argmin())
        raise InputError(f"No style channel is relevant to attribute {row}: choose other words.")
    if not 1 <= channels <= possible:
        raise InputError(
            f"channels must be from 1 to {possible}, the relevant ones, got {channels}."
        )
    value = strength.topk(channels, dim=1).values[:, -1]
    return torch.nextafter(value, torch.zeros_like(value)).tolist()  # kept by > and by >=


@torch.no_grad()
def directions(
    M: Tensor,
    encoder: TextEncoder,
    attributes: Sequence[str],
    neutral: str,
    style_std: Tensor,
    threshold: float | Sequence[float] = 0.1,
    sided: str = "two",
    templates: Sequence[str] | str | None = None,
) -> Directions:
    """Edit directions Δs (Eq. 2) for attributes in words.

    Args:
        M: (c_S, c_T) channel relevance, see ``zoom.relevance``. style_std: (c_S,).
        threshold: λ, one for all attributes or one each (see ``largest_threshold``). Rows of M
            and Δt are unit vectors, so M·Δt and λ are cosines; 0.1 is the authors' choice.
        sided: "two" keeps |M·Δt| >= λ (StyleCLIP), "one" keeps M·Δt > λ (as Eq. 2 is printed).

    Raises:
        InputError: unusable prompts, or a λ that leaves an attribute no channel (it names the
            largest λ that works).
    """
    check_sided(sided)
    delta_t = text_directions(encoder, attributes, neutral, templates)
    return from_relevance(
        delta_t.to(M) @ M.T, attributes, neutral, delta_t, style_std, threshold, sided, "relevance"
    )


def from_relevance(
    relevance: Tensor,
    attributes: Sequence[str],
    neutral: str,
    delta_t: Tensor,
    style_std: Tensor,
    threshold: float | Sequence[float],
    sided: str = "two",
    estimator: str | None = None,
) -> Directions:
    """Directions of attributes whose channels' relevance (N, c_S) is known: what follows M·Δt.

    Args:
        estimator: where the relevance is from, kept with the directions.

    Raises:
        InputError: another number of λ than of attributes, or one that leaves no channel.
    """
    check_sided(sided)
    single = isinstance(threshold, (int, float))
    lambdas = [float(v) for v in ([threshold] * len(attributes) if single else threshold)]
    if len(lambdas) != len(attributes):
        raise InputError(
            f"{len(attributes)} attributes need as many thresholds, got {len(lambdas)}."
        )
    rows = [
        _threshold(row, value, sided, name)
        for row, value, name in zip(relevance, lambdas, attributes, strict=True)
    ]
    return Directions(
        attributes=tuple(attributes),
        neutral=neutral,
        delta_s=F.normalize(torch.stack(rows), dim=1) * style_std.to(relevance),
        delta_t=delta_t,
        threshold=tuple(lambdas),
        sided=sided,
        estimator=estimator,
    )


def check_sided(sided: str) -> None:
    """Raise InputError unless it is "two" or "one"."""
    if sided not in SIDES:
        raise InputError(f"sided must be one of {', '.join(SIDES)}, got {sided!r}.")


def _strength(relevance: Tensor, sided: str) -> Tensor:
    return relevance.abs() if sided == "two" else relevance


def _threshold(relevance: Tensor, value: float, sided: str, attribute: str) -> Tensor:
    """(M·Δt) ⊙ 1(M·Δt > λ), Eq. 2, of one attribute: (c_S,)."""
    if not value >= 0:
        raise InputError(f"λ of {attribute!r} must be zero or more, got {value}.")
    strength = _strength(relevance, sided)
    kept = (strength > 0) & (strength >= value if sided == "two" else strength > value)
    if kept.any():
        return relevance * kept
    best = strength.max()
    if best <= 0:
        raise InputError(f"No style channel is relevant to {attribute!r}: choose other words.")
    largest = torch.nextafter(best, torch.zeros_like(best)).item()
    raise InputError(
        f"λ = {value:g} leaves {attribute!r} no style channel: the largest λ that works is "
        f"{_round_down(largest)}."
    )


def _round_down(value: float) -> str:
    """``value`` in four significant digits, never above it, so that it still works."""
    text = f"{value:.4g}"
    if float(text) > value:
        exponent = int(f"{value:.0e}".split("e")[1])
        text = f"{value - 10.0 ** (exponent - 3):.4g}"
    return text
