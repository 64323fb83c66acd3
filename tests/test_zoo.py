"""Weights are vouched for: what was saved is what loads, or one clear sentence."""

import json

import pytest
import torch

from visiondx.core.errors import InputError
from visiondx_worlds.models import zoo


@pytest.fixture
def saved(tmp_path, monkeypatch):
    monkeypatch.setenv("VISIONDX_DATA", str(tmp_path))
    tensors = {
        "weight": torch.randn(4, 3, 2, 2).contiguous(memory_format=torch.channels_last),
        "count": torch.tensor([2**40, 7]),
    }
    tensors["tied"] = tensors["weight"]
    path = zoo.save(
        "a", tensors, {"width": 3}, notebook="train/x.ipynb", seed=4, quality={"auroc": 0.9}
    )
    return path, tensors


def test_round_trip_through_half_precision(saved):
    path, tensors = saved
    loaded, config = zoo.load("a")
    assert config == {"width": 3}
    assert loaded["weight"].dtype == torch.float32
    assert torch.equal(loaded["weight"], tensors["weight"].half().float())
    assert torch.equal(loaded["tied"], loaded["weight"])
    assert torch.equal(loaded["count"], tensors["count"])  # integers keep their type and value
    entry = zoo.manifest()["a"]
    assert entry["bytes"] == path.stat().st_size
    assert (entry["notebook"], entry["seed"]) == ("train/x.ipynb", 4)
    assert entry["quality"] == {"auroc": 0.9}
    assert entry["versions"]["torch"] == torch.__version__
    assert sorted(p.name for p in path.parent.iterdir()) == ["a.safetensors", "manifest.json"]


def test_saving_a_second_keeps_the_first(saved):
    zoo.save("b", {"x": torch.ones(2)}, {}, notebook="n", seed=0, quality={})
    assert sorted(zoo.manifest()) == ["a", "b"]
    assert zoo.load("a")[1] == {"width": 3}
    with pytest.raises(InputError, match="choose from a, b"):
        zoo.load("c")


def test_altered_and_missing_files_are_refused(saved):
    path, _ = saved
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="altered"):
        zoo.load("a")
    path.unlink()
    with pytest.raises(InputError, match=r"missing: restore it"):
        zoo.load("a")


def test_broken_manifest_and_numbers_beyond_fp16(saved):
    path, _ = saved
    with pytest.raises(InputError, match="'x' of 'b' does not fit fp16"):
        zoo.save("b", {"x": torch.tensor([1e6])}, {}, notebook="n", seed=0, quality={})
    assert list(json.loads((path.parent / "manifest.json").read_text())) == ["a"]
    (path.parent / "manifest.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        zoo.load("a")


def test_quality_is_added_to_the_manifest_and_nothing_else_changes(saved):
    before = zoo.manifest()["a"]
    zoo.set_quality("a", {"accuracy": 0.5})
    assert zoo.manifest()["a"] == before | {"quality": {"accuracy": 0.5}}
    zoo.load("a")
    with pytest.raises(InputError, match="'b'"):
        zoo.set_quality("b", {})


def test_eight_bits_are_half_the_size_and_round_each_row_by_its_own_scale(saved):
    rows = torch.randn(64, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    rows *= torch.logspace(-4, 2, 64)[:, None, None, None]
    rows[3] = 0
    tensors = {"weight": rows, "bias": torch.randn(64), "count": torch.tensor([[7]])}
    about = {"notebook": "n", "seed": 0, "quality": {}}
    sizes = [
        zoo.save("b", tensors, {}, **about, eight_bits=bits).stat().st_size
        for bits in (False, True)
    ]
    loaded, _ = zoo.load("b")
    assert sizes[1] < 0.65 * sizes[0]
    assert sorted(loaded) == ["bias", "count", "weight"]
    assert loaded["weight"].dtype == torch.float32
    assert torch.equal(loaded["weight"][3], rows[3])
    step = rows.flatten(1).abs().amax(1) / 127
    error = (loaded["weight"] - rows).flatten(1).abs().amax(1)
    half = rows.half().float().sub(rows).abs().flatten(1).amax(1)  # fp16 comes first
    assert (error <= 0.5001 * step + half).all()
    assert (error > 0.2 * step)[10:].all()
    assert torch.equal(loaded["bias"], tensors["bias"].half().float())
    assert torch.equal(loaded["count"], tensors["count"])
