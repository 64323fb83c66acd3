"""The truth of a diagnosis: the renderer switches one attribute in the same image."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.stats import rankdata
from tqdm.auto import tqdm

from visiondx.errors import InputError
from visiondx.stats import Estimate
from visiondx.zoom.sensitivity import Sensitivity


@torch.no_grad()
def true_sensitivity(
    world, target, attributes: Sequence[str], n: int = 512, seed: int = 100, batch: int = 256
) -> Sensitivity:
    """Mean |f(x with) - f(x without)| of each attribute: n scenes, each rendered both ways.

    Args:
        world: ``sample``, ``switch`` and ``render``, such as ``worlds.faces``.
        attributes: names of binary attributes of the world.

    Raises:
        InputError: a name that the world does not have, or n below 2.
    """
    unknown = [name for name in attributes if name not in world.binary]
    if unknown or not len(attributes):
        raise InputError(
            f"The world cannot switch {unknown or 'nothing'}: "
            f"choose from {', '.join(world.binary)}."
        )
    if n < 2:
        raise InputError(f"true_sensitivity needs n of 2 or more, got {n}.")
    scenes = world.sample(n, seed)
    device = next((p.device for p in target.parameters()), torch.device("cpu"))
    change, flipped = torch.empty(n, len(attributes)), torch.empty(n, len(attributes)).bool()
    with tqdm(total=n * len(attributes), desc="truth", unit="image") as bar:
        for column, name in enumerate(attributes):
            sides = []
            for value in (True, False):
                switched = world.switch(scenes, name, value)
                parts = [switched[i : i + batch] for i in range(0, n, batch)]
                sides.append(torch.cat([target(world.render(p.to(device))).cpu() for p in parts]))
            with_it, without = sides
            change[:, column] = (with_it - without).abs()
            flipped[:, column] = (with_it >= 0.5) != (without >= 0.5)
            bar.update(n)
    return Sensitivity(tuple(attributes), change, flipped, "intervention", seed)


def named(world, prompts: Sequence[str], known: dict[str, str] | None = None) -> dict[str, str]:
    """Which prompts name a binary attribute of the world: {prompt: attribute}.

    A prompt is recognised if the world's grammar says it (``world.prompt(name)``, letter case
    aside); ``known`` adds others by hand.
    """
    spoken = {world.prompt(name).casefold(): name for name in world.binary}
    found = {p: spoken[p.casefold()] for p in prompts if p.casefold() in spoken}
    return found | {p: name for p, name in (known or {}).items() if p in prompts}


def label_prompts(world, target) -> tuple[str, str] | None:
    """(present, absent) prompts of the attribute that an embedded target was trained on.

    They are what Eq. 8 holds fixed; None for a model that the world knows nothing about.

    Raises:
        InputError: the target was trained on an attribute of another world.
    """
    label = target.config.get("label")
    if label and label not in world.binary:
        raise InputError(
            f"The target was trained on {label!r}, which this world does not have: use the world "
            f"{target.config.get('world', 'faces')!r} and its generator."
        )
    return (world.prompt(label), world.prompt(label, present=False)) if label else None


def spearman(
    measured: Sensitivity, true: Sensitivity, draws: int = 1000, seed: int = 0
) -> Estimate:
    """Rank correlation of two sensitivities over their attributes; n is how many these are.

    The interval resamples the images of both sides.

    Raises:
        InputError: other attributes, or fewer than three.
    """
    if measured.attributes != true.attributes or len(true.attributes) < 3:
        raise InputError(
            "A rank correlation needs the same three or more attributes on both sides, got "
            f"{list(measured.attributes)} and {list(true.attributes)}."
        )
    rng = np.random.default_rng(seed)
    sides = [side.change.double().numpy() for side in (measured, true)]
    resampled = [side[rng.integers(len(side), size=(draws, len(side)))].mean(1) for side in sides]
    drawn = _correlation(*(rankdata(h, axis=1) for h in resampled))
    (value,) = _correlation(*(rankdata(side.mean(0, keepdims=True), axis=1) for side in sides))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(float(value), float(low), float(high), len(true.attributes))


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson correlation of each row (R, N); 0 where a side is constant."""
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    scale = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return (a * b).sum(1) / np.where(scale > 0, scale, 1)
