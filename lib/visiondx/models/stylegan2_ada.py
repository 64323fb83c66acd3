"""Pickles of NVlabs/stylegan2-ada-pytorch (and of stylegan3's StyleGAN2): ``G_ema`` of a dict.

Karras et al., "Training Generative Adversarial Networks with Limited Data" (2020). The networks are
objects of persistent classes; here their state is read and their source is not.
"""

from pathlib import Path
from typing import Any

from visiondx.core.errors import InputError
from visiondx.models.pickles import Persistent, PickledTensor, values
from visiondx.models.stylegan2_weights import Weights

ONLY = "only StyleGAN2 generators are read"


def read_ada(path: str | Path, held: Any) -> Weights:
    """The weights of ``G_ema`` in what ``read_pickle`` found at ``path``.

    Raises:
        InputError: no G_ema, or a network of another class or architecture.
    """
    if not isinstance(held, dict) or "G_ema" not in held:
        names = ", ".join(map(str, held)) if isinstance(held, dict) else type(held).__name__
        raise InputError(
            f"{path} has no G_ema (it holds {names or 'nothing'}): name an official network "
            "pickle, such as network-snapshot-*.pkl."
        )
    network = held["G_ema"]
    synthesis, mapping = _modules(path, network)
    blocks = {n: m for n, m in synthesis.part("_modules").items() if isinstance(m, Persistent)}
    for name, block in blocks.items():
        architecture = block.state.get("architecture", "skip")
        if architecture != "skip":
            raise InputError(
                f"{path} has the architecture {architecture!r}: only 'skip', that of configuration "
                "F, has the style space that is used here."
            )
        for layer in ("conv0", "conv1"):
            _check_activation(path, f"{name}.{layer}", block)
    for name in mapping.part("_modules"):
        if name.startswith("fc"):
            _check_activation(path, name, mapping)
    tensors = values(path, _tensors(network, ""))
    _fill_noise(tensors, blocks)
    first = mapping.part("_modules").get("fc0")
    multiplier = first.state.get("bias_gain") if isinstance(first, Persistent) else None
    conv = blocks["b4"].part("_modules").get("conv1")
    clamp = conv.state.get("conv_clamp") if isinstance(conv, Persistent) else None
    classes = mapping.state.get("c_dim") or 0
    for number in (multiplier, classes, 1.0 if clamp is None else clamp):
        if not isinstance(number, int | float):
            raise InputError(f"{path} is damaged ({number!r} where a number should be): {ONLY}.")
    return Weights(
        tensors,
        "stylegan2-ada-pytorch",
        classes=int(classes),
        mapping_lr_multiplier=float(multiplier),
        conv_clamp=None if clamp is None else float(clamp),
    )


def _check_activation(path: str | Path, name: str, within: Persistent) -> None:
    layer = within.part("_modules").get(name.rpartition(".")[2])
    used = layer.state.get("activation") if isinstance(layer, Persistent) else "lrelu"
    if used != "lrelu":
        raise InputError(f"{path}: {name} has the activation {used!r}, not 'lrelu': {ONLY}.")


def _modules(path: str | Path, network: Any) -> tuple[Persistent, Persistent]:
    """Synthesis and mapping."""
    if not isinstance(network, Persistent):
        raise InputError(f"G_ema of {path} is no network but {type(network).__name__}: {ONLY}.")
    modules = network.part("_modules")
    synthesis, mapping = modules.get("synthesis"), modules.get("mapping")
    if isinstance(synthesis, Persistent) and "input" in synthesis.part("_modules"):
        raise InputError(f"{path} is a StyleGAN3, which has no style space as StyleGAN2's: {ONLY}.")
    named = (network, synthesis, mapping)
    names = tuple(m.class_name if isinstance(m, Persistent) else None for m in named)
    if names != ("Generator", "SynthesisNetwork", "MappingNetwork"):
        wrong = " of ".join(str(n) for n in (names[1], names[0]) if n)
        raise InputError(f"{path} holds another architecture ({wrong}): {ONLY}.")
    if not isinstance(synthesis.part("_modules").get("b4"), Persistent):
        raise InputError(f"{path} holds another architecture (no block b4): {ONLY}.")
    return synthesis, mapping


def _tensors(module: Persistent, prefix: str) -> dict[str, PickledTensor]:
    """Parameters and buffers by their full names. A frozen layer has its weight as a buffer."""
    found = {}
    for part in ("_parameters", "_buffers"):
        for name, value in module.part(part).items():
            if value is not None:
                found[f"{prefix}{name}"] = value
    for name, child in module.part("_modules").items():
        if isinstance(child, Persistent):
            found |= _tensors(child, f"{prefix}{name}.")
    return found


def _fill_noise(tensors: dict, blocks: dict[str, Persistent]) -> None:
    """A network that was made without noise has noise of strength 0."""
    for name, block in blocks.items():
        for layer, conv in block.part("_modules").items():
            if isinstance(conv, Persistent) and conv.state.get("use_noise") is False:
                start, size = f"synthesis.{name}.{layer}.", int(name.removeprefix("b"))
                some = tensors[start + "bias"]
                tensors.setdefault(start + "noise_strength", some.new_zeros([]))
                tensors.setdefault(start + "noise_const", some.new_zeros(size, size))
