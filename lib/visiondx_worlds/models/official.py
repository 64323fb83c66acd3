"""Pickles as stylegan2-ada-pytorch writes them, without its sources: of a generator of ours too.

While a file is pickled, modules of the official names stand in, so that it asks for
``torch_utils.persistence``, ``dnnlib.util`` and ``dnnlib.tflib.network`` as the real ones do. A
real pickle carries the Python source of its classes, which the official code compiles and runs
when it reads the file. The source that is carried here ends the process, should anybody run it.
"""

import pickle
import sys
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace

from torch import nn

from visiondx.core.files import atomic_write
from visiondx.models.generator import StyleGenerator
from visiondx.models.stylegan2 import (
    GAIN,
    FullyConnectedLayer,
    SynthesisBlock,
    SynthesisLayer,
    ToRGBLayer,
)

SOURCE = "raise SystemExit('the source of a pickle was run')\n"
NAMES = ("torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util")
NAMES += ("dnnlib.tflib", "dnnlib.tflib.network")


@contextmanager
def official_names() -> Iterator[SimpleNamespace]:
    """Stand-ins under the official names, in ``sys.modules`` while the block runs."""
    modules = {name: ModuleType(name) for name in NAMES}

    def _reconstruct_persistent_obj(meta):
        return SimpleNamespace(class_name=meta["class_name"], **meta["state"])

    class EasyDict(dict):
        pass

    class Network:
        pass

    given = {
        "torch_utils.persistence": _reconstruct_persistent_obj,
        "dnnlib.util": EasyDict,
        "dnnlib.tflib.network": Network,
    }
    for module, each in given.items():
        each.__module__, each.__qualname__ = module, each.__name__
        setattr(modules[module], each.__name__, each)
    before = {name: sys.modules[name] for name in NAMES if name in sys.modules}
    sys.modules.update(modules)
    try:
        yield SimpleNamespace(
            reconstruct=_reconstruct_persistent_obj, EasyDict=EasyDict, Network=Network
        )
    finally:
        for name in modules:
            del sys.modules[name]
        sys.modules.update(before)


class Persistent(nn.Module):
    """A module that is pickled as ``torch_utils.persistence`` does: its state, class and source."""

    def __init__(self, class_name: str, **state: object) -> None:
        super().__init__()
        self.__dict__.update(state, _init_args=(), _init_kwargs=dict(state))
        self.__dict__["named"] = class_name

    def __reduce__(self):
        kept = ("_parameters", "_buffers", "_modules")  # as the PyTorch of that time had them
        state = {n: OrderedDict(v) if n in kept else v for n, v in self.__dict__.items()}
        meta = {"type": "class", "version": 6, "module_src": SOURCE}
        meta |= {"class_name": state.pop("named"), "state": state}
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (meta,), None


def dump(path: Path, held: object, protocol: int = 4) -> Path:
    """Pickle with the official names at hand; a dict gets the data set that training notes in it.

    Args:
        held: plain containers, tensors and ``Persistent`` modules.
    """
    with official_names() as official:
        if isinstance(held, dict):
            told = {"class_name": "training.dataset.ImageFolderDataset", "path": "faces.zip"}
            held = {"training_set_kwargs": official.EasyDict(told), **held}
        with atomic_write(path) as temporary:
            temporary.write_bytes(pickle.dumps(held, protocol))
    return path


def write_official(generator: StyleGenerator, path: str | Path) -> Path:
    """Write a generator as a network pickle of stylegan2-ada-pytorch, all in ``G_ema``.

    The format has no place for the styles' statistics: who reads the file measures them again.
    """
    network = generator.network
    sizes = {"z_dim": network.z_dim, "c_dim": 0, "w_dim": network.synthesis.w_dim}
    image = {"img_resolution": network.resolution, "img_channels": 3}
    made = _persistent(network, **sizes, **image)
    layers = {"num_layers": network.mapping.num_layers, "num_ws": generator.num_ws}
    made.mapping.__dict__.update(sizes | layers)
    made.synthesis.__dict__.update({"w_dim": sizes["w_dim"], "num_ws": generator.num_ws} | image)
    return dump(Path(path), {"G": None, "D": None, "G_ema": made.cpu(), "augment_pipe": None})


def _persistent(module: nn.Module, **state: object) -> Persistent:
    """A module of ours, whose classes and tensors have the official names, as a persistent one."""
    made = Persistent(type(module).__name__, **_state(module), **state)
    for name, value in module.named_parameters(recurse=False):
        setattr(made, name, nn.Parameter(value.detach().clone(), requires_grad=False))
    for name, value in module.named_buffers(recurse=False):
        made.register_buffer(name, value.clone())
    for name, child in module.named_children():
        setattr(made, name, _persistent(child))
    return made.eval()


def _state(module: nn.Module) -> dict[str, object]:
    """What the official classes keep besides tensors, as far as their forward needs it."""
    match module:
        case FullyConnectedLayer():
            activation = "lrelu" if module.activate else "linear"
            gains = {"weight_gain": module.weight_gain, "bias_gain": module.bias_gain}
            return {"activation": activation, **gains}
        case SynthesisLayer():
            size, up = len(module.noise_const), 2 if module.up else 1
            form = {"resolution": size, "up": up, "padding": 1, "use_noise": True}
            return {**form, "activation": "lrelu", "act_gain": GAIN, "conv_clamp": module.clamp}
        case ToRGBLayer():
            return {"conv_clamp": module.clamp, "weight_gain": module.weight_gain}
        case SynthesisBlock():
            return {"architecture": "skip", "use_fp16": False, "is_last": False}
        case _:
            return {}
