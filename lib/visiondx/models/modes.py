"""Train and eval mode of other people's modules, some of which have none."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


def exported(module: nn.Module) -> bool:
    """Whether ``torch.export`` made it: its mode is baked in, and ``eval()`` raises."""
    return "train" in vars(module) and "eval" in vars(module)


def in_train_mode(module: nn.Module) -> str | None:
    """Name of the first part in train mode, "" for the module itself; None if there is none."""
    baked: list[str] = []
    for name, part in module.named_modules():
        if exported(part):
            baked.append(name)
        inside = any(not b or name == b or name.startswith(f"{b}.") for b in baked)
        if not inside and getattr(part, "training", False):  # a frozen script has no such flag
            return name
    return None


def set_mode(module: nn.Module, training: bool) -> None:
    """Train or eval mode for a module, and for all of its parts that have one."""
    try:
        module.train(training)
    except RuntimeError:  # not implemented, of an exported part
        module.training = training
        for part in module.children():
            if not exported(part):
                set_mode(part, training)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode while the block runs, and then for each part the mode that it had."""
    before = [(part, part.training) for part in module.modules() if hasattr(part, "training")]
    training = getattr(module, "training", False)
    set_mode(module, False)
    try:
        yield
    finally:
        if training:
            set_mode(module, True)  # some do more than set a flag
        for part, mode in before:
            part.training = mode
