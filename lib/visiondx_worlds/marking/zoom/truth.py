"""The truth of a diagnosis: the renderer switches one attribute in the same image."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.core.errors import InputError
from visiondx.core.words import plain
from visiondx.models.device import device_of
from visiondx.models.outputs import displacement, extent, mean_iou
from visiondx.zoom.diagnose import Diagnosis
from visiondx.zoom.result import SearchResult
from visiondx.zoom.sensitivity import Sensitivity
from visiondx.zoom.tasks import LIMITS, compare, crossed, task_of
from visiondx.zoom.visibility import Visibility, read_pairs
from visiondx_worlds.worlds.parts import coverage

BATCH = 128  # images at once; a memory limit
SEED = 100  # of the scenes, where a diagnosis has none


class Interventions:
    """Scenes of a world, each drawn with an attribute and without it: drawn once, for any target.

    Pictures are kept on the CPU: at 64 px, 1,000 scenes take 100 MB an attribute.

    Args:
        world: ``sample``, ``switch`` and ``render``, such as ``worlds.faces``.
        n: scenes, of this seed. batch: rendered and judged at once, at most.
        keep: False for a single target, which sees each picture once.

    Raises:
        InputError: n below 2.
    """

    def __init__(
        self, world, n: int = 512, seed: int = 100, batch: int = 256, keep: bool = True
    ) -> None:
        if n < 2:
            raise InputError(f"A true sensitivity needs n of 2 or more, got {n}.")
        self.world, self.seed, self.batch, self.keep = world, seed, batch, keep
        self.scenes = world.sample(n, seed)
        self._drawn: dict[str, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def sensitivity(self, target, attributes: Sequence[str]) -> Sensitivity:
        """Mean |f(x with) - f(x without)| of each attribute.

        Of a keypoint detector, how far the attribute moves its points; of a segmentation network,
        1 - IoU of its parts (see ``zoom.tasks``). That is no error where the attribute truly moves
        them, see ``true_movement``.

        Raises:
            InputError: no attributes, or a name that the world does not have.
        """
        unknown = [name for name in attributes if name not in self.world.binary]
        if unknown or not len(attributes):
            raise InputError(
                f"The world cannot switch {unknown or 'nothing'}: "
                f"choose from {', '.join(self.world.binary)}."
            )
        task, device, n = task_of(target), device_of(target), len(self.scenes)
        change, flipped = torch.empty(n, len(attributes)), torch.empty(n, len(attributes)).bool()
        for column, name in enumerate(tqdm(attributes, desc="truth", unit="attribute")):
            sides = self._sides(name, device)
            for rows in torch.arange(n).split(self.batch):
                shown = (side[rows].to(device) for side in sides)
                p_without, p = (side.cpu() for side in compare(target, *shown))
                change[rows, column] = (p - p_without).abs()
                flipped[rows, column] = crossed(p, p_without, task)
        return Sensitivity(tuple(attributes), change, flipped, "intervention", self.seed)

    def _sides(self, name: str, device: torch.device) -> tuple[Tensor, Tensor]:
        """The scenes without an attribute and with it, (n, 3, H, W) each, on the CPU."""
        if name in self._drawn:
            return self._drawn[name]
        without, with_it = (self.world.switch(self.scenes, name, v) for v in (False, True))
        sides = self._draw(without, device), self._draw(with_it, device)
        if self.keep:
            self._drawn[name] = sides
        return sides

    def _draw(self, scenes, device: torch.device) -> Tensor:
        parts = torch.arange(len(scenes)).split(self.batch)
        return torch.cat([self.world.render(scenes[rows].to(device)).cpu() for rows in parts])


def true_sensitivity(
    world, target, attributes: Sequence[str], n: int = 512, seed: int = 100, batch: int = 256
) -> Sensitivity:
    """``Interventions.sensitivity`` of one target, its n scenes drawn for it alone."""
    return Interventions(world, n, seed, batch, keep=False).sensitivity(target, attributes)


@torch.no_grad()
def true_movement(
    world, task: str, attributes: Sequence[str], n: int = 256, seed: int = 100
) -> Sensitivity:
    """How far an attribute moves what there is to find: the points, or the parts, of the drawing.

    The displacement, or 1 - IoU, of the truth itself, under the intervention of
    ``true_sensitivity``: what a perfect target would show. A target that moves more errs.

    Args:
        task: "keypoints" (``world.keypoints``) or "segmentation" (``world.masks``).

    Raises:
        InputError: another task, or a name that the world does not have.
    """
    if task not in ("keypoints", "segmentation"):
        raise InputError(f"Only keypoints and segmentation have a true movement, got {task!r}.")
    scenes = world.sample(n, seed)
    change = torch.empty(n, len(attributes))
    for column, name in enumerate(attributes):
        for rows in torch.arange(n).split(BATCH):
            sides = [world.switch(scenes[rows], name, value) for value in (False, True)]
            if task == "keypoints":
                without, with_it = (world.keypoints(side) for side in sides)
                change[rows, column] = displacement(with_it, without, extent(without))
            else:
                maps = [coverage(world, side) for side in sides]
                without, with_it = (one.argmax(1) for one in maps)
                change[rows, column] = 1 - mean_iou(without, with_it, maps[0].shape[1])
    return Sensitivity(tuple(attributes), change, change >= LIMITS[task], "drawing", seed)


def named(world, prompts: Sequence[str], known: dict[str, str] | None = None) -> dict[str, str]:
    """Which prompts name a binary attribute of the world: {prompt: attribute}.

    A prompt is recognised if the world's grammar says it (``world.prompt(name)``), letter case and
    spaces aside; ``known`` adds others by hand.
    """
    spoken = {plain(world.prompt(name)): name for name in world.binary}
    found = {p: spoken[plain(p)] for p in prompts if plain(p) in spoken}
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


def with_truth(
    found: Diagnosis,
    world,
    target,
    known: dict[str, str] | None = None,
    images: int = 256,
    judges=None,
) -> Diagnosis:
    """The diagnosis with the true sensitivities of those prompts that the world knows.

    Args:
        found: of ``target``. known: prompt -> the world's attribute, see ``named``.
        images: scenes, of the diagnosis's own seed (of 100, if it has none, having started from
            photographs), each drawn with and without each attribute.
        judges: of the world; they say in which pairs the edit shows. None asks nobody.

    Raises:
        InputError: ``images`` below 2, or an attribute that the world does not have.
    """
    spoken = named(world, found.result.attributes, known)
    if not spoken:
        return found
    seed = found.sensitivity.seed
    seed = SEED if seed is None else seed
    truth = true_sensitivity(world, target, list(spoken.values()), images, seed)
    prompts = {name: prompt for prompt, name in spoken.items()}
    planted = prompts.get(target.config.get("planted"))
    if judges is not None:
        judged = judged_visibility(found.result, judges, spoken)
        found = replace(found, sensitivity=replace(found.sensitivity, judged=judged))
    return replace(found, truth=truth.renamed(list(spoken)), planted=planted)


@torch.no_grad()
def judged_visibility(result: SearchResult, judges, spoken: dict[str, str]) -> Visibility:
    """In which kept pairs what the judges read switched, on if w adds it and off if it takes away.

    Pairs are left out in which they disagree, before or after, and attributes that they cannot
    read.

    Args:
        judges: ``read`` and ``column``, see ``models.judges``. spoken: prompt -> their name of it.
    """

    def read(images: Tensor) -> Tensor:
        return torch.cat(judges.read(images), 1)

    seen = torch.zeros(result.w.shape, dtype=torch.bool)
    sure = torch.zeros_like(seen)
    before, after = read_pairs(result, read)  # (B, 2 A), (B, N, 2 A): what is there, and doubts
    own = len(judges.binary)
    for n, prompt in enumerate(result.attributes):
        if prompt not in spoken:
            continue
        k = judges.column(spoken[prompt])
        there, edited = before[:, k], after[:, n, k]
        seen[:, n] = (there != edited) & (edited == (result.w[:, n] > 0))
        sure[:, n] = ~(before[:, own + k] | after[:, n, own + k])
    return Visibility(seen, sure)
