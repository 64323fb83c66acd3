"""The two estimators of Δs behind one call: the relevance matrix, or gradients at once."""

from collections.abc import Sequence

from torch import Tensor

from visiondx.errors import InputError
from visiondx.zoom.directions import Directions, directions, largest_threshold, text_directions
from visiondx.zoom.gradient import gradient_directions
from visiondx.zoom.relevance import relevance

ESTIMATORS = ("relevance", "gradient")
CHANNELS = 20  # style channels an attribute edits, where no λ is given
STYLES = 32  # images that gradients are averaged over, twice with noise (SmoothGrad)
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
    templates: Sequence[str] | None = None,
    M: Tensor | None = None,
    seed: int = 0,
) -> Directions:
    """Edit directions (Eq. 2) of attributes in words.

    Args:
        estimator: "relevance" thresholds M·Δt; "gradient" the mean gradient of CLIP(G(s))·Δt over
            some dozen images, which needs no M.
        threshold: λ of Eq. 2, one for all attributes or one each; None leaves each ``channels``
            style channels. λ of "gradient" is smaller, see ``gradient_directions``.
        M: the relevance matrix; None takes the shipped one or computes it (minutes).
        seed: of the images whose gradients are averaged.

    Raises:
        InputError: unknown estimator, unusable words or numbers.
    """
    check_estimator(estimator)
    if estimator == "gradient":
        styles = generator.sample_styles(STYLES, seed)
        return gradient_directions(
            generator,
            encoder,
            attributes,
            neutral,
            styles,
            threshold,
            channels,
            sided,
            templates,
            noise=NOISE,
            samples=2,
            seed=seed,
        )
    delta_t = text_directions(encoder, attributes, neutral, templates)  # refuses words at once
    M = relevance(generator, encoder) if M is None else M
    if threshold is None:
        threshold = largest_threshold(M, delta_t, channels, sided)
    std = generator.style_std
    return directions(M, encoder, attributes, neutral, std, threshold, sided, templates)


def check_estimator(estimator: str) -> None:
    """Raise InputError unless it is "relevance" or "gradient"."""
    if estimator not in ESTIMATORS:
        raise InputError(f"directions must be {' or '.join(ESTIMATORS)}, got {estimator!r}.")
