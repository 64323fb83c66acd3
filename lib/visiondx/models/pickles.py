"""Official pickles of NVIDIA's networks, read as data: nothing that a file names is run.

Also what ``numpy.save`` pickles of one object, such as a dictionary of arrays: there arrays alone
may be asked for (`read_saved_object`).

A pickle is a program: it names functions, and has them called. Here each name is answered from a
fixed table (`_table`) whose functions only note down what they were given: tensors and arrays as
`PickledTensor` and `PickledArray`, objects of a persistent class (``torch_utils.persistence`` of
stylegan2-ada-pytorch, which would compile the source that the file carries) as `Persistent`, and
TensorFlow's networks as `TFNetwork`. A name that is not in the table ends the reading. Values are
made afterwards, of those that somebody asks for.
"""

import io
import math
import pickle
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visiondx.core.errors import InputError, reason

KINDS = "biuf"  # of NumPy's dtypes: numbers
FIX = "download it again, or ask its maker for another"
ARRAYS = (  # of the table: what a pickle of arrays asks for
    ("builtins", "bytes"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
)


@dataclass
class Persistent:
    """An object of a persistent class, as told by the file; its source is not looked at."""

    class_name: str
    state: dict[str, Any] = field(repr=False)

    def part(self, name: str) -> dict[str, Any]:
        """A mapping in its state, such as "_modules"; empty if there is none."""
        found = self.state.get(name)
        return found if isinstance(found, dict) else {}


class TFNetwork:
    """A ``dnnlib.tflib.network.Network``: its state is in its attributes."""


@dataclass
class PickledTensor:
    storage: Any
    offset: Any
    size: Any
    stride: Any

    def tensor(self) -> Tensor:
        """The tensor, in memory of its own.

        Raises:
            Exception: of any kind, where the file does not hold a tensor; see ``values``.
        """
        # what ``torch.storage._load_from_bytes`` does, but for its trust
        stored = torch.load(io.BytesIO(self.storage), map_location="cpu", weights_only=True)
        flat = torch.empty(0, dtype=stored.dtype).set_(stored)
        if math.prod(self.size) > len(flat):
            raise ValueError("it is larger than its storage")
        return flat.as_strided(self.size, self.stride, self.offset).clone()


@dataclass
class PickledDtype:
    code: Any
    order: Any = "="

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]

    def dtype(self) -> np.dtype:
        """Of numbers alone. Raises TypeError for others."""
        found = np.dtype(str(self.code))
        if found.kind not in KINDS:
            raise TypeError(f"an array of {found}")
        return found.newbyteorder("<" if self.order == "|" else self.order)


@dataclass
class PickledArray:
    shape: Any = None
    dtype: Any = None
    fortran: Any = False
    data: Any = None

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.dtype, self.fortran, self.data = state

    def array(self) -> np.ndarray:
        """The array, native byte order. Raises as ``PickledTensor.tensor``."""
        read = np.frombuffer(self.data, self.dtype.dtype())
        read = read.reshape(self.shape, order="F" if self.fortran else "C")
        return read.astype(read.dtype.newbyteorder("="))


def read_pickle(path: str | Path) -> Any:
    """What the pickle at ``path`` holds: plain containers, and the classes of this module.

    Raises:
        InputError: no such file, no pickle, one that is cut short, or one that asks for a name that
            is not in the table; then nothing of it was run.
    """
    path = Path(path)
    with _told(path), path.open("rb") as stream:
        return _Unpickler(stream, path, _table(), "no official StyleGAN2 needs").load()


def read_saved_object(path: str | Path) -> Any:
    """The one object that ``numpy.save`` was given, such as a dictionary of arrays.

    Its arrays come as `PickledArray`, whose ``array`` makes them; beside them there can be plain
    containers, texts and numbers alone.

    Raises:
        InputError: no such file, none of ``numpy.save``, an array of numbers or of several objects,
            one that is cut short, or one that asks for more than arrays; then nothing of it was
            run.
    """
    path = Path(path)
    table = _table()
    with _told(path), path.open("rb") as stream:
        if np.lib.format.read_magic(stream) == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        else:
            shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
        if not dtype.hasobject or shape != ():
            raise InputError(
                f"{path} holds an array of shape {shape} and type {dtype}, not one object: save a "
                "dictionary with numpy.save."
            )
        names = {name: table[name] for name in ARRAYS}
        found = _Unpickler(stream, path, names, "no array needs").load()
        (inside,) = found.data
        return inside


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Round a block that reads a pickle: damage is said in one sentence."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except OSError as error:
        raise InputError(f"{path} cannot be read ({reason(error)}): check the path.") from error
    except Exception as error:  # a damaged pickle raises any kind
        cut = isinstance(error, EOFError) or "truncated" in str(error)
        what = "is cut short" if cut else "is no pickle, or a damaged one"
        raise InputError(f"{path} {what}: {FIX}.") from error


def values(
    path: str | Path, found: dict[str, PickledTensor | PickledArray | float]
) -> dict[str, Tensor]:
    """The tensors of a file, by name: float32, finite.

    Raises:
        InputError: naming the first that the file does not hold, or not as plain numbers.
    """
    read = {}
    for name, each in found.items():
        try:
            if isinstance(each, PickledTensor):
                read[name] = each.tensor().float()
            elif isinstance(each, float):
                read[name] = torch.tensor(each)
            else:
                read[name] = torch.from_numpy(each.array().copy()).float()
        except MemoryError:
            raise
        except Exception as error:
            raise InputError(f"{path} holds no plain {name} ({reason(error)}): {FIX}.") from error
        if not read[name].isfinite().all():
            raise InputError(f"{path}: {name} has values that are not finite: {FIX}.")
    return read


class _Unpickler(pickle.Unpickler):
    """
    Args:
        names: what stands for each name. nobody: who else would ask, such as "no array needs".
    """

    def __init__(self, stream: io.BufferedIOBase, path: Path, names: dict, nobody: str) -> None:
        super().__init__(stream, encoding="latin1")
        self._path, self._names, self._nobody = path, names, nobody

    def find_class(self, module: str, name: str) -> Any:
        module = {"__builtin__": "builtins"}.get(module, module)  # in a pickle of Python 2
        module = module.replace("numpy._core", "numpy.core")  # as NumPy 2 calls it
        if (module, name) in self._names:
            return self._names[module, name]
        tensors = ("torch", "Size") in self._names
        if tensors and module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return name
        raise InputError(
            f"{self._path} asks for {module}.{name}, which {self._nobody}: nothing of it was run, "
            "and the file is not read."
        )


def _table() -> dict[tuple[str, str], Any]:
    """What stands for each name. Made anew for each file, so that none can alter it for the next.

    All but ``dict``, which cannot be altered, are functions or classes of this call.
    """

    class Network(TFNetwork):
        pass

    def persistent(meta: dict) -> Persistent:
        if meta["type"] != "class" or not isinstance(meta["state"], dict):
            raise pickle.UnpicklingError("not a persistent class")
        return Persistent(str(meta["class_name"]), meta["state"])

    def load_from_bytes(data: bytes) -> bytes:
        return data

    def rebuild_tensor(storage, offset, size, stride, *_) -> PickledTensor:
        return PickledTensor(storage, offset, size, stride)

    def rebuild_parameter(data, *_):
        return data

    def reconstruct(*_) -> PickledArray:
        return PickledArray()

    def frombuffer(data, dtype, shape, order) -> PickledArray:
        return PickledArray(shape, dtype, order == "F", data)

    def dtype(code, *_) -> PickledDtype:
        return PickledDtype(code)

    def scalar(kind: PickledDtype, data: bytes | str) -> float:
        data = data.encode("latin1") if isinstance(data, str) else data
        return np.frombuffer(data, kind.dtype())[0].item()

    def encode(text: str, encoding: str) -> bytes:
        return text.encode("latin1" if encoding == "latin1" else "ascii")

    def no_bytes() -> bytes:
        return b""  # as protocol 2 has it

    def ordered(*items) -> OrderedDict:
        return OrderedDict(*items)

    def unique(*items) -> set:
        return set(*items)

    def size(sizes) -> tuple:
        return tuple(sizes)

    def device(*given) -> str:
        return ":".join(map(str, given))

    return {
        ("torch_utils.persistence", "_reconstruct_persistent_obj"): persistent,
        ("dnnlib.util", "EasyDict"): dict,
        ("dnnlib.tflib.network", "Network"): Network,
        ("collections", "OrderedDict"): ordered,
        ("builtins", "set"): unique,
        ("builtins", "bytes"): no_bytes,
        ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
        ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
        ("torch.storage", "_load_from_bytes"): load_from_bytes,
        ("torch", "Size"): size,
        ("torch", "device"): device,
        ("numpy.core.multiarray", "_reconstruct"): reconstruct,
        ("numpy.core.multiarray", "scalar"): scalar,
        ("numpy.core.numeric", "_frombuffer"): frombuffer,
        ("numpy", "ndarray"): "ndarray",
        ("numpy", "dtype"): dtype,
        ("_codecs", "encode"): encode,
    }
