"""The supervised answer: ZOOM's own search through the renderer, on the true attributes (Fig. 5).

The paper trains AttGAN on annotated images for it; here the world's renderer is exact. Each (scene,
attribute) pair moves along the straight line from the scene with the attribute switched off, λ = 0,
to the one with it switched on, λ = 1, along with what follows from it (a head that gets bangs is
not bald any more). The original is one of the two ends, the intervention of `truth` the other:
the search visits what lies between, and may find more on its way.

It is the same adversarial search, line by line (`zoom.search.search_pairs`): the same losses, the
target's label held by Eq. 8, the same updates and bound, the most counterfactual step. Only
x̂ is drawn by the renderer, not by G(s + w Δs), and λ = (1 + w/ε) / 2.

Between two hair colours or skin tones there is none: such columns are indices, which the renderer
rounds. There, x̂ mixes the pictures of both, by λ. A picture is linear in each of its colours,
shapes being fixed, so this is the picture in the mixed colour, and has a gradient. Elsewhere the
line has the renderer's own: where an age changes nothing that is seen, w stays where it starts.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.core.files import atomic_write, result_key
from visiondx.models.device import device_of
from visiondx.models.target import Target
from visiondx.zoom.result import examples, pairs_grid
from visiondx.zoom.search import SearchSettings, search_pairs
from visiondx.zoom.sensitivity import Sensitivity
from visiondx.zoom.settings import METHOD as SEARCHING
from visiondx.zoom.tasks import crossed, task_of
from visiondx_worlds.marking.zoom.score import kept_sensitivity
from visiondx_worlds.marking.zoom.truth import label_prompts
from visiondx_worlds.models.embedded_targets import fingerprint
from visiondx_worlds.worlds.base import Attributes

METHOD = 1  # of searching through the renderer, for ``files.result_key``
PROBED = 64  # scenes that tell which columns are indices


class Renderer:
    """A world in the generator's place: its styles are tables of attributes.

    A style (B, 2 K + 1) holds the K columns of two scenes, and the share λ of the second in the
    picture. The two differ in indices only, or not at all.
    """

    def __init__(self, world):
        self.world = world
        probe = world.sample(PROBED, 0).values
        self.indices = (probe == probe.round()).all(0)  # (K,)

    def styles(self, scenes: Attributes) -> Tensor:
        """Of scenes as they are."""
        return torch.cat((scenes.values, scenes.values, torch.zeros_like(scenes.values[:, :1])), 1)

    def between(self, off: Tensor, on: Tensor, share: Tensor) -> Tensor:
        """Styles of the points λ = share (B,) between two scenes (B, K)."""
        share = share[:, None]
        moved = torch.lerp(off, on, share)
        indices = self.indices.to(off.device)
        low, high = torch.where(indices, off, moved), torch.where(indices, on, moved)
        return torch.cat((low, high, share), 1)

    def synthesize(self, styles: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1]."""
        k = len(self.indices)
        low, high, share = styles.split([k, k, 1], 1)
        (mixed,) = (low != high).any(1).nonzero(as_tuple=True)
        names = self.world.names
        images = self.world.render(Attributes(torch.cat((low, high[mixed])), names))
        first, second = images.split([len(low), len(mixed)])
        both = torch.lerp(first[mixed], second, share[mixed][..., None, None])
        return first.index_put((mixed,), both) if len(mixed) else first


@dataclass(frozen=True)
class Supervised:
    """B scenes x N attributes, the most counterfactual step of each. Tensors are on the CPU."""

    attributes: tuple[str, ...]
    scenes: Attributes
    p_original: Tensor  # (B,) f(x)
    share: Tensor  # (B, N) λ at the kept step: 0 switched off, 1 switched on
    p: Tensor  # (B, N) f(x̂) at the kept step
    settings: dict
    consistency: tuple[str, str] | None
    seed: int | None
    task: str  # the target's
    world: object = field(repr=False, compare=False)

    @property
    def sensitivity(self) -> Sensitivity:
        """Eq. 11 of this search, with source "supervised"."""
        before = self.p_original[:, None]
        flipped = crossed(self.p, before, self.task)
        change = (self.p - before).abs()
        return Sensitivity(self.attributes, change, flipped, "supervised", self.seed)

    def originals(self, rows: Sequence[int]) -> Tensor:
        """x of these scenes: (len, 3, H, W)."""
        return self.world.render(self.scenes[torch.tensor(list(rows))])

    def images(self, rows: Sequence[int], attribute: int) -> Tensor:
        """x̂ of these scenes at the kept step of one attribute: (len, 3, H, W)."""
        rows = torch.tensor(list(rows))
        off, on = ends(self.world, self.scenes[rows], self.attributes[attribute])
        renderer = Renderer(self.world)
        return renderer.synthesize(renderer.between(off, on, self.share[rows, attribute]))

    def strongest(self, attribute: int, count: int) -> list[int]:
        """The scenes that this attribute moves most, strongest first."""
        change = self.sensitivity.change[:, attribute]
        return change.argsort(descending=True, stable=True)[:count].tolist()

    def to_frame(self) -> pd.DataFrame:
        """One row a pair."""
        b, n = self.p.shape
        return pd.DataFrame(
            {
                "image": torch.arange(b).repeat_interleave(n).numpy(),
                "attribute": list(self.attributes) * b,
                "share": self.share.flatten().numpy(),
                "p_original": self.p_original.repeat_interleave(n).numpy(),
                "p": self.p.flatten().numpy(),
            }
        )

    def plot(self, pairs: int = 4) -> Figure:
        """As ``SearchResult.plot``: strongest pairs and a random one, a row an attribute."""
        return pairs_grid(self, examples(self.sensitivity.change, pairs, self.seed))

    def save(self, folder: str | Path) -> None:
        """Write supervised.csv."""
        with atomic_write(Path(folder) / "supervised.csv") as path:
            self.to_frame().to_csv(path, index=False)


def ends(world, scenes: Attributes, attribute: str) -> tuple[Tensor, Tensor]:
    """Both ends of the line, (B, K) each: the scenes with the attribute off, and with it on."""
    off, on = (world.switch(scenes, attribute, value) for value in (False, True))
    return off.values, on.values


def supervised_search(
    world,
    target,
    attributes: Sequence[str],
    images: int = 32,
    seed: int = 100,
    settings: SearchSettings | None = None,
    encoder=None,
    consistency: Sequence[str] | None = None,
) -> Supervised:
    """Search every scene and attribute through the renderer, all pairs in one batch.

    Args:
        world: ``sample``, ``switch`` and a differentiable ``render``, such as ``worlds.faces``.
        attributes: names of binary attributes of the world.
        images: scenes of ``seed``.
        settings: as in ``zoom.search.search``; ±epsilon are the two ends.
        encoder, consistency: as in ``zoom.search.search`` (Eq. 8).

    Raises:
        InputError: a name that the world does not have, fewer than 2 images, toggle, or
            consistency without an encoder.
        FloatingPointError: a NaN or infinity, with its step and its term.
    """
    settings = settings or SearchSettings()
    unknown = [name for name in attributes if name not in world.binary]
    if unknown or not len(attributes):
        raise InputError(
            f"The world cannot switch {unknown or 'nothing'}: "
            f"choose from {', '.join(world.binary)}."
        )
    if images < 2:
        raise InputError(f"A supervised search needs 2 images or more, got {images}.")
    if consistency and encoder is None:
        raise InputError("Consistency prompts (Eq. 8) need an encoder: pass one with them.")
    device = device_of(target)
    scenes = world.sample(images, seed).to(device)
    renderer = Renderer(world)
    lines = [ends(world, scenes, name) for name in attributes]
    off, on = (torch.stack(side) for side in zip(*lines, strict=True))  # (N, B, K)

    def edit(w: Tensor, image: Tensor, attribute: Tensor) -> Tensor:
        share = 0.5 + 0.5 * w / settings.epsilon
        return renderer.between(off[attribute, image], on[attribute, image], share)

    p_original, w, p = search_pairs(
        renderer, target, encoder, attributes, renderer.styles(scenes), edit, settings, consistency
    )
    step = (p - p_original[None, :, None]).abs().argmax(0, keepdim=True)
    w, p = (path.gather(0, step).squeeze(0) for path in (w, p))
    return Supervised(
        attributes=tuple(attributes),
        scenes=scenes.to("cpu"),
        p_original=p_original,
        share=0.5 + 0.5 * w / settings.epsilon,
        p=p,
        settings=asdict(settings),
        consistency=tuple(consistency) if consistency else None,
        seed=seed,
        task=task_of(target),
        world=world,
    )


def run_supervised(
    name: str,
    world,
    attributes: Sequence[str],
    encoder,
    *,
    seeds: Sequence[int],
    images: int,
    settings: SearchSettings,
    folder: str | Path | None = None,
) -> Sensitivity:
    """The supervised answer for the embedded target ``name``, the scenes of all seeds together.

    Its own label is held fixed by Eq. 8, as in ``score.run_case``.

    Args:
        attributes: the world's names. images: scenes of each seed.
        folder: finished seeds are kept there, so that a long run resumes; None keeps none.

    Raises:
        InputError: no such target, a target of another world, or an unknown name.
    """
    device = device_of(encoder)
    target = Target.load(name).to(device)
    held = label_prompts(world, target)
    parts = []
    for seed in seeds:

        def measure(seed=seed) -> Sensitivity:
            given = (world, target, attributes, images, seed, settings, encoder, held)
            return supervised_search(*given).sensitivity

        made_of = [fingerprint(name), list(attributes), images, seed, asdict(settings)]
        made_of += [held, encoder.fingerprint]
        key = result_key((METHOD, SEARCHING), "supervised", *made_of)
        parts.append(kept_sensitivity(folder, key, measure))
    return Sensitivity.pool(parts)
