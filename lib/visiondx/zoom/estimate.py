"""The two estimators of Δs behind one call: the relevance matrix, or gradients at once."""

from collections.abc import Sequence

from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.zoom.directions import (
    Directions,
    check_sided,
    from_relevance,
    text_directions,
    threshold_for,
)
from visiondx.zoom.gradient_directions import gradient_relevance
from visiondx.zoom.relevance import known_relevance, relevance

METHOD = 1  # of making directions, for ``files.result_key``
ESTIMATORS = ("relevance", "gradient")
CHOICES = ("auto", *ESTIMATORS)  # what may be asked for
CHANNELS = 20  # style channels an attribute edits, where no λ is given
STYLES = 32  # that gradients are averaged over
SAMPLES = 2  # images of each, with noise (SmoothGrad)
NOISE = 0.3  # its standard deviation, in those of the styles


def edit_directions(
    generator,
    encoder,
    attributes: Sequence[str],
    neutral: str,
    estimator: str = "relevance",
    *,
    threshold: float | Sequence[float] | None = None,
    channels: int = CHANNELS,
    sided: str = "two",
    templates: Sequence[str] | str | None = None,
    M: Tensor | None = None,
    seed: int = 0,
) -> Directions:
    """Edit directions (Eq. 2) of attributes in words.

    Args:
        estimator: "relevance" thresholds M·Δt; "gradient" the mean gradient of CLIP(G(s))·Δt over
            some dozen images, which needs no M; "auto" is "relevance" where M is given, shipped or
            was computed before, else "gradient". The result's ``estimator`` says which.
        threshold: λ of Eq. 2, one for all attributes or one each; None leaves each ``channels``
            style channels. λ of "gradient" is smaller, see ``gradient_directions``.
        M: the relevance matrix; None takes the shipped one or computes it (minutes for a small
            generator, days for a large one).
        seed: of the images whose gradients are averaged.

    Raises:
        InputError: unknown estimator, unusable words or numbers.
    """
    check_estimator(estimator)
    check_numbers(attributes, threshold, channels, sided)
    delta_t = text_directions(encoder, attributes, neutral, templates)  # refuses words at once
    estimator, M = settle(generator, encoder, estimator, M)
    found = edit_relevance(generator, encoder, delta_t, estimator, M, seed)
    if threshold is None:
        threshold = threshold_for(found, channels, sided)
    std = generator.style_std
    return from_relevance(found, attributes, neutral, delta_t, std, threshold, sided, estimator)


def edit_relevance(
    generator,
    encoder,
    delta_t: Tensor,
    estimator: str = "relevance",
    M: Tensor | None = None,
    seed: int = 0,
) -> Tensor:
    """What λ is held against, (N, c_S): M·Δt, or what stands for it (``gradient_directions``).

    Args:
        delta_t: (N, c_T), unit norm. The others are those of ``edit_directions``.

    Raises:
        InputError: unknown estimator.
    """
    estimator, M = settle(generator, encoder, estimator, M)
    if M is None:
        styles = generator.sample_styles(STYLES, seed)
        return gradient_relevance(generator, encoder, delta_t, styles, NOISE, SAMPLES, seed)
    return delta_t.to(M) @ M.T


def settle(
    generator, encoder, estimator: str, M: Tensor | None = None
) -> tuple[str, Tensor | None]:
    """("relevance", M) or ("gradient", None): what an estimator asked for comes to.

    Raises:
        InputError: unknown estimator.
    """
    check_estimator(estimator)
    if estimator == "gradient":
        return estimator, None
    if M is None:
        find = known_relevance if estimator == "auto" else relevance
        M = find(generator, encoder)
    return ("gradient", None) if M is None else ("relevance", M)


def check_numbers(
    attributes: Sequence[str],
    threshold: float | Sequence[float] | None = None,
    channels: int = CHANNELS,
    sided: str = "two",
) -> None:
    """Raise InputError for numbers that suit no M, before one is computed."""
    check_sided(sided)
    if threshold is None and (not isinstance(channels, int) or channels < 1):
        raise InputError(f"channels must be a whole number from 1, got {channels!r}.")
    lambdas = [0.0] if threshold is None else threshold
    if isinstance(lambdas, int | float):
        lambdas = [lambdas] * len(attributes)
    if threshold is not None and len(lambdas) != len(attributes):
        raise InputError(
            f"{len(attributes)} attributes need as many thresholds, got {len(lambdas)}."
        )
    if not all(value >= 0 for value in lambdas):
        raise InputError(f"Every threshold λ must be zero or more, got {list(lambdas)}.")


def check_estimator(estimator: str) -> None:
    """Raise InputError unless it is one of ``CHOICES``."""
    if estimator not in CHOICES:
        raise InputError(f"directions must be {' or '.join(CHOICES)}, got {estimator!r}.")
