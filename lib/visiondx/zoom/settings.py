"""How a counterfactual search is run: the settings of Eqs. 4 and 10 of ZOOM."""

import math
from dataclasses import dataclass

from visiondx.core.errors import InputError
from visiondx.search.descent import Descent

METHOD = 2  # of searching, for ``files.result_key``
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
        batch: pairs synthesised at once, at most; None chooses by the device (``search.batching``).
            Where memory runs out it is halved. It changes results by rounding only, which a search
            with long steps can amplify.
        update: what η multiplies: the "gradient" (Eq. 10), its "sign" (the linear approximation of
            section 3.3), or "adam"'s step (Kingma and Ba, 2015). All are clamped to ±ε; see
            ``search.descent``.
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
        _ = self.descent  # checks steps, eta, epsilon and update
        if self.batch is not None and self.batch < 1:
            raise InputError(f"batch must be 1 or more, got {self.batch}.")
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
        if self.stop_when not in STOPS:
            raise InputError(f'stop_when must be None or "flipped", got {self.stop_when!r}.')

    @property
    def descent(self) -> Descent:
        """Eq. 10 for the one loop."""
        return Descent(self.steps, self.eta, self.update, self.epsilon)
