"""The layers of a target by name: the shapes of their activations, and what they are for images."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from visiondx.core.errors import InputError, reason
from visiondx.models.target import Target
from visiondx.search.objective import frozen

INPUT = ".input"  # after the name of a linear layer: the features that it is given
TRIED = 3  # images; layers that make another number of rows of them have no activation an image


def layers(target: Target, resolution: int = 64) -> dict[str, tuple[int, ...]]:
    """The names of a target's layers, in the order in which they finish, and what they return.

    Of each, the shape for one image with the channels first: (C,), (C, H, W) of a map, (C, L) of L
    tokens. A layer that is run twice, such as a shared ReLU, is seen the last time. The input of
    a linear layer of (B, D) is listed before it as ``<layer>.input``. Left out is what makes no
    row of numbers for each image.

    Args:
        resolution: of the images that it is tried on, as high and as wide as those to come; of no
            account where ``target.size`` is set.

    Raises:
        InputError: the target fails on such images.
    """
    return {name: shape for name, shape in _trial(target, resolution).items() if shape}


def last_linear(target: Target, resolution: int = 64) -> str:
    """The name of the linear layer of (B, D) that finishes last.

    Raises:
        InputError: there is none, or see ``layers``.
    """
    found = [name for name in layers(target, resolution) if name.endswith(INPUT)]
    if not found:
        raise InputError(
            "The target has no linear layer that takes one row of features an image: name a "
            "channel of another layer, as 'layer:channel'."
        )
    return found[-1].removesuffix(INPUT)


def nearest(name: str, known: list[str], every: str) -> str:
    """What a message about an unknown name ends in: the nearest name, or some, and ``every``."""
    near = get_close_matches(name, known, 1, 0.5)
    if near:
        return f"the nearest is {near[0]!r} ({every})."
    some = ", ".join(map(repr, known[:8])) + (", ..." if len(known) > 8 else "")
    return f"choose from {some or 'none'} ({every})."


@torch.no_grad()
def mean_activations(target: Target, images: Tensor, layer: str, batch: int = 64) -> Tensor:
    """The spatial mean of every channel of a layer: images (N, 3, H, W) -> (N, C), on the CPU.

    Args:
        layer: a name of ``layers``. batch: images at once.

    Raises:
        InputError: no such layer, or images of another shape.
    """
    if images.ndim != 4 or not len(images):
        raise InputError(f"Images must have shape (N, 3, H, W), got {tuple(images.shape)}.")
    check_layer(layer, layers(target, images.shape[-1]))
    found: list[Tensor] = []
    kept: dict[str, Tensor] = {}

    def keep(out: Tensor) -> None:
        kept[layer] = out.flatten(2).mean(2) if out.ndim > 2 else out.clone()

    with watching(target, {layer: keep}):
        for part in tqdm(images.split(batch), desc="activations", unit="batch", leave=False):
            target.raw(part.to(target.mean.device))
            found.append(kept.pop(layer).to(images.dtype).cpu())
    return torch.cat(found)


def check_layer(name: str, known: Mapping[str, tuple[int, ...]]) -> None:
    """Raise InputError unless the target has a layer of this name; it suggests the nearest."""
    if name not in known:
        every = f"layers(target) lists all {len(known)}"
        raise InputError(f"The target has no layer {name!r}: " + nearest(name, list(known), every))


@contextmanager
def watching(target: Target, readers: Mapping[str, Callable[[Tensor], None]]) -> Iterator[None]:
    """While the block runs, each reader is called with its layer's activations (B, C, …).

    It is called as the layer finishes, so that it may read what a later layer overwrites in place.
    No hook outlives the block.

    Args:
        readers: by name of ``layers``.
    """
    parts = dict(target.module.named_modules())
    handles = []
    try:
        for name, read in readers.items():
            of_input = name not in parts
            part = parts[name.removesuffix(INPUT) if of_input else name]
            handles.append(part.register_forward_hook(_hook(read, of_input)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(read: Callable[[Tensor], None], of_input: bool) -> Callable[..., None]:
    def hook(module: nn.Module, given: tuple, out: object) -> None:
        found = activations(given[:1] if of_input else out)
        if found is not None:
            read(found)

    return hook


def activations(out: object) -> Tensor | None:
    """What a layer returned as (B, C, …), channels first, or None if it is no such thing.

    Of a tuple, its first. Tokens are taken as (B, L, C), as transformers write them.
    """
    if isinstance(out, tuple | list):
        out = out[0] if out else None
    if not isinstance(out, Tensor) or not out.is_floating_point() or out.ndim not in (2, 3, 4):
        return None
    return out.movedim(-1, 1) if out.ndim == 3 else out


def try_images(target: Target, count: int, resolution: int) -> Tensor:
    """Noise (count, 3, resolution, resolution) in [0, 1], always the same, where the target is."""
    source = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, resolution, resolution, generator=source).to(target.mean.device)


def _trial(target: Target, resolution: int) -> dict[str, tuple[int, ...]]:
    """The shape of every layer that was run, () of one that has no activation an image."""
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str) -> Callable[[Tensor], None]:
        def read(out: Tensor) -> None:
            shapes.pop(name, None)  # seen again: it finishes here
            shapes[name] = tuple(out.shape[1:]) if len(out) == TRIED else ()

        return read

    names = []
    for name, part in target.module.named_modules():
        linear = isinstance(part, nn.Linear)
        names += [name + INPUT, name] if name and linear else [name] if name else []
    images = try_images(target, TRIED, resolution).requires_grad_(True)
    with watching(target, {name: note(name) for name in names}), frozen(target):
        try:
            with torch.enable_grad():  # with a gradient to come, some modules take another path
                target.raw(images)
        except Exception as error:
            raise InputError(
                f"The target failed on images of shape {tuple(images.shape)} ({reason(error)}): "
                "give the resolution that it expects, or a Target with a size."
            ) from error
    return {
        name: () if name.endswith(INPUT) and len(shape) > 1 else shape
        for name, shape in shapes.items()
    }
