"""A pickle that would run code runs nothing, wherever in the file the code is."""

import builtins
import os
import pickle
import struct

import numpy as np
import pytest
import torch

from official_files import generator, read_officially, write_ada
from visiondx.core.errors import InputError
from visiondx.models.generator import StyleGenerator
from visiondx.models.pickles import PickledArray, PickledTensor, read_pickle
from visiondx_worlds.models.official import Persistent, dump, official_names


class Calls:
    """Pickled as a call of ``function``."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.fixture
def marker(tmp_path):
    """A file that the code in a pickle would make."""
    path = tmp_path / "was_run"
    yield path
    assert not path.exists(), "the pickle's code was run"


def named(module: str, name: str, argument: str = "x") -> bytes:
    """Protocol 4: the function ``module.name``, dots in the name included, of one text."""

    def text(value: str) -> bytes:
        return pickle.SHORT_BINUNICODE + struct.pack("<B", len(value)) + value.encode()

    called = text(module) + text(name) + pickle.STACK_GLOBAL + text(argument)
    return pickle.PROTO + b"\x04" + called + pickle.TUPLE1 + pickle.REDUCE + pickle.STOP


def test_a_call_of_the_shell_is_refused_and_named(marker, tmp_path):
    path = tmp_path / "network.pkl"
    path.write_bytes(pickle.dumps({"G_ema": Calls(os.system, f"touch {marker}")}))
    with pytest.raises(InputError, match=r"asks for (posix|nt)\.system, .*nothing of it was run"):
        StyleGenerator.open(path)
    path.write_bytes(pickle.dumps(Calls(builtins.eval, f"open({str(marker)!r}, 'w')")))
    with pytest.raises(InputError, match=r"asks for builtins\.eval"):
        StyleGenerator.open(path)
    path.write_bytes(pickle.dumps(Calls(builtins.eval, f"open({str(marker)!r}, 'w')"), 0))
    with pytest.raises(InputError, match=r"asks for builtins\.eval"):
        StyleGenerator.open(path)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("torch", "load"),
        ("torch", "hub.load"),
        ("torch.storage", "_load_from_bytes.__globals__.get"),
        ("torch.storage", "torch.load"),
        ("torch._utils", "_import_dotted_name"),
        ("torch_utils.persistence", "_src_to_module"),
        ("torch_utils.persistence", "_reconstruct_persistent_obj.__globals__"),
        ("numpy", "load"),
        ("numpy.core.multiarray", "fromfile"),
        ("numpy", "dtype.__class__"),
        ("builtins", "getattr"),
        ("builtins", "exec"),
        ("builtins", "__import__"),
        ("collections", "OrderedDict.__class__"),
        ("_codecs", "lookup"),
        ("dnnlib.util", "construct_class_by_name"),
        ("pickle", "loads"),
        ("functools", "partial"),
        ("importlib", "import_module"),
        ("torch.nn.modules.linear", "Linear"),
    ],
)
def test_no_other_member_of_a_known_module_is_given(module, name, tmp_path):
    path = tmp_path / "network.pkl"
    path.write_bytes(named(module, name))
    with pytest.raises(InputError) as caught:
        StyleGenerator.open(path)
    assert f"asks for {module}.{name}, which" in str(caught.value)


def evil_weight(marker) -> dict:
    """The weight of a layer has, in place of its storage, a pickle that calls the shell."""
    return Calls(
        torch._utils._rebuild_tensor_v2,
        Calls(torch.storage._load_from_bytes, pickle.dumps(Calls(os.system, f"touch {marker}"))),
        0,
        (3,),
        (1,),
        False,
        {},
    )


def test_a_pickle_within_a_weight(marker, tmp_path):
    network = generator()
    network.mapping.fc0._buffers["weight"] = network.mapping.fc0._parameters.pop("weight")
    network.mapping.fc0._buffers["weight"] = evil_weight(marker)
    path = dump(tmp_path / "network.pkl", {"G_ema": network})
    with pytest.raises(
        InputError, match=r"no plain mapping\.fc0\.weight .*more than plain weights"
    ):
        StyleGenerator.open(path)


def test_what_the_critic_holds_is_not_even_looked_at(marker, tmp_path):
    critic = Persistent("Discriminator")
    critic._buffers["weight"] = evil_weight(marker)
    torch.manual_seed(0)
    path = dump(tmp_path / "network.pkl", {"G_ema": generator(), "D": critic})
    assert StyleGenerator.open(path).resolution == 16


def test_a_checkpoint_that_calls_the_shell(marker, tmp_path):
    for zipped in (True, False):
        path = tmp_path / "model.pt"
        held = {"g_ema": {}, "args": Calls(os.system, f"touch {marker}")}
        torch.save(held, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(InputError, match="holds more than plain weights"):
            StyleGenerator.open(path)


def test_a_network_saved_whole_is_refused(tmp_path):
    with official_names():
        torch.save(generator(), tmp_path / "pti.pt")
    with pytest.raises(InputError, match=r"whole network .* as PTI saves its own"):
        StyleGenerator.open(tmp_path / "pti.pt")


def test_state_that_is_set_on_a_function_harms_no_other_file(tmp_path):
    """BUILD sets attributes of what lies on the stack: here of the functions of the table."""
    before = StyleGenerator.open(write_ada(tmp_path / "good.pkl"))
    path = tmp_path / "network.pkl"
    for module, name in (
        ("torch_utils.persistence", "_reconstruct_persistent_obj"),
        ("torch.storage", "_load_from_bytes"),
        ("dnnlib.tflib.network", "Network"),
        ("dnnlib.util", "EasyDict"),
        ("numpy", "dtype"),
    ):
        head = pickle.PROTO + b"\x02" + b"c" + f"{module}\n{name}\n".encode()
        state = pickle.dumps((None, {"__defaults__": (1, 2), "__init__": 3, "x": 4}), 2)[2:-1]
        path.write_bytes(head + state + pickle.BUILD + pickle.STOP)
        with pytest.raises(InputError):
            StyleGenerator.open(path)
    assert StyleGenerator.open(tmp_path / "good.pkl").fingerprint == before.fingerprint


def test_persistent_ids_and_extensions_are_refused(tmp_path):
    path = tmp_path / "network.pkl"
    for held in (b"Pid\n.", b"\x80\x02K\x01Q.", b"\x80\x02\x82\x01."):
        path.write_bytes(held)
        with pytest.raises(InputError, match="is no pickle, or a damaged one"):
            StyleGenerator.open(path)


def test_a_tensor_that_reaches_beyond_its_storage(tmp_path):
    network = generator()
    bias = network.mapping.fc0.bias.data
    del network.mapping.fc0._parameters["bias"]
    for size, stride, offset in (
        ((10**9,), (1,), 0),
        ((12,), (10**6,), 0),
        ((12,), (1,), -4),
        ((99,), (0,), 0),
    ):
        network.mapping.fc0._buffers["bias"] = Calls(
            torch._utils._rebuild_tensor_v2, bias.storage(), offset, size, stride, False, {}
        )
        path = dump(tmp_path / "network.pkl", {"G_ema": network})
        with pytest.raises(InputError, match=r"no plain mapping\.fc0\.bias"):
            StyleGenerator.open(path)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_arrays_and_numbers_come_as_they_were(protocol, tmp_path):
    path = tmp_path / "held.pkl"
    held = {
        "c": np.arange(6, dtype=np.float32).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big-endian": np.arange(3, dtype=">i4"),
        "none": np.zeros((0, 4), np.float32),
        "scalar": np.float64(0.25),
        "set": {1, 2},
        "tensor": torch.arange(12.0).reshape(3, 4).T[1:],
        "dtype": torch.float16,
        "bytes": b"\x00\xff",
    }
    path.write_bytes(pickle.dumps(held, protocol))
    read = read_pickle(path)
    for name in ("c", "fortran", "big-endian", "none"):
        assert isinstance(read[name], PickledArray)
        np.testing.assert_array_equal(read[name].array(), held[name])
    assert isinstance(read["tensor"], PickledTensor)
    assert torch.equal(read["tensor"].tensor(), held["tensor"])
    assert (read["scalar"], read["set"], read["bytes"]) == (0.25, {1, 2}, b"\x00\xff")
    assert read["dtype"] == "float16"


def test_an_array_of_objects_is_not_made(tmp_path):
    path = tmp_path / "held.pkl"
    path.write_bytes(pickle.dumps(np.array([{}, None], dtype=object)))
    with pytest.raises(TypeError):
        read_pickle(path).array()


def test_the_official_way_would_have_run_the_source(tmp_path):
    """What the files hold is code, indeed: the stand-in for the official reader keeps it."""
    path = write_ada(tmp_path / "network.pkl")
    assert b"raise SystemExit" in path.read_bytes()
    assert read_officially(path)["G_ema"].class_name == "Generator"
