"""Damaged stores: one sentence with the fix, or, where making it again is the fix, made again."""

import copy
import hashlib
import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from visiondx.core.errors import InputError
from visiondx.core.files import read_kept, read_yaml, reading
from visiondx.core.loop import Trainer, read_log
from visiondx.run.runs import settings
from visiondx.widgets import kept
from visiondx.zoom import relevance
from visiondx.zoom.counterfactual_training.bank import Bank, Round
from visiondx.zoom.sensitivity import Sensitivity
from visiondx_worlds.marking.zoom.score import kept_sensitivity
from visiondx_worlds.models import zoo
from visiondx_worlds.models.embedded_targets import load_embedded
from visiondx_worlds.models.judges import Judges
from visiondx_worlds.models.planted_targets import load_planted
from visiondx_worlds.models.recogniser import load_recogniser
from visiondx_worlds.models.registry import encoder, generator
from visiondx_worlds.models.tokenizer import Tokenizer
from visiondx_worlds.training.planted import planted
from visiondx_worlds.worlds.animals import animals
from visiondx_worlds.worlds.distributions import Distribution
from visiondx_worlds.worlds.people import People
from visiondx_worlds.worlds.scenes import scenes


@pytest.fixture
def data(tmp_path, monkeypatch):
    """An empty data folder."""
    monkeypatch.setenv("VISIONDX_DATA", str(tmp_path))
    for name in ("weights", "prompts", "presets", "worlds", "llm2loss"):
        (tmp_path / name).mkdir()
    return tmp_path


def keep(name, config=None):
    tensors = {"x": torch.ones(40)}
    return zoo.save(name, tensors, config or {}, notebook="train/x.ipynb", seed=0, quality={})


@pytest.mark.parametrize("kept_bytes", [0, 5, 40, -20])
def test_truncated_weights_under_their_own_sha(data, kept_bytes):
    path = keep("a")
    path.write_bytes(path.read_bytes()[:kept_bytes])
    entries = zoo.manifest()
    entries["a"]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (data / "weights" / "manifest.json").write_text(json.dumps(entries))
    with pytest.raises(InputError, match=r"a.safetensors is damaged .* notebooks/train/x.ipynb\.$"):
        zoo.load("a")


@pytest.mark.parametrize("key", ["config", "sha256", "file"])
def test_an_entry_of_the_manifest_that_lacks_something_is_named(data, key):
    keep("a")
    keep("b")
    entries = zoo.manifest()
    del entries["a"][key]
    path = data / "weights" / "manifest.json"
    path.write_text(json.dumps(entries))
    with pytest.raises(InputError, match=rf"manifest.json is damaged \(its entry 'a' has no {key}"):
        zoo.load("b")
    for damage in (b"[]", b'{"a": 3}', b"\xff\xfe", b""):
        path.write_bytes(damage)
        with pytest.raises(
            InputError, match=r"manifest.json is (damaged|not valid JSON) .*'git ch"
        ):
            zoo.load("b")


@pytest.mark.parametrize(
    ("name", "load"),
    [
        ("target-young", lambda: load_embedded("young")),
        ("planted", lambda: load_planted("young@0")),
        ("recogniser-0", load_recogniser),
        ("faces-judges", Judges.load),
        ("faces", lambda: generator("faces")),
        ("encoder-embedded", lambda: encoder("embedded")),
    ],
)
def test_every_model_says_what_its_entry_lacks(data, name, load):
    Tokenizer.train(["a hat"], 300).save()
    keep(name, {"cards": {"young@0": {}}} if name == "planted" else {"made": "otherwise"})
    with pytest.raises(InputError, match=rf"{name}.safetensors or its entry .* \(it has no '\w+'"):
        load()


def test_weights_of_another_model(data):
    keep("target-young", {"task": "binary", "labels": ["old", "young"], "width": 8})
    with pytest.raises(
        InputError, match=r"damaged \(RuntimeError: Error\(s\) in loading state_dict"
    ):
        load_embedded("young")


def grammar():
    """The animals', which has read nothing yet."""
    fresh = copy.copy(animals.grammar)
    for name in ("words", "heldout"):
        vars(fresh).pop(name, None)
    return fresh


TEXTS = {"no YAML": "a: [", "a list": "- 1", "nothing": "", "control": "\x00"}


@pytest.mark.parametrize("damage", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("presets/smoke.yaml", lambda: settings("notebooks/diagnose.ipynb", "smoke")),
        ("planted.yaml", lambda: planted("faces")),
        ("prompts/animals.yaml", lambda: grammar().words),
        ("prompts/heldout.yaml", lambda: grammar().heldout),
        ("llm2loss/recogniser.yaml", People.load),
        ("worlds/mine.yaml", lambda: Distribution.load("mine", scenes)),
        ("prompts/tokenizer.json", Tokenizer.load),
    ],
)
def test_text_files_of_the_repository(data, name, read, damage):
    (data / name).write_text(damage)
    stem = name.rpartition("/")[2].rpartition(".")[0]
    with pytest.raises(InputError, match=f"{stem}.*(restore it with 'git|correct it|write)"):
        read()


@pytest.mark.parametrize(
    ("name", "text", "read", "said"),
    [
        ("planted.yaml", "faces: 3", lambda: planted("faces"), "give faces its pairs"),
        ("planted.yaml", "faces: {pairs: []}", lambda: planted("faces"), "no 'attributes'"),
        (
            "presets/smoke.yaml",
            "defaults: 3",
            lambda: settings("notebooks/diagnose.ipynb", "smoke"),
            r"smoke.yaml is damaged .*correct it",
        ),
        ("prompts/heldout.yaml", "faces: {}", lambda: grammar().heldout, "has no 'animals'"),
        ("llm2loss/recogniser.yaml", "seed: 0", People.load, "it has no 'people'"),
    ],
)
def test_what_a_text_file_lacks_is_named(data, name, text, read, said):
    (data / name).write_text(text)
    with pytest.raises(InputError, match=said):
        read()


def trainer(folder):
    net = nn.Linear(2, 2)
    adam = torch.optim.Adam(net.parameters())
    return Trainer("toy", {"net": net}, {"adam": adam}, folder, {"width": 2})


def test_checkpoints_and_logs(tmp_path):
    trainer(tmp_path).run(lambda i: {"loss": 1.0}, 3)
    assert trainer(tmp_path).step == 3
    path = tmp_path / "checkpoint.safetensors"
    whole = path.read_bytes()
    for damage in (b"", whole[:100], whole[:-10]):
        path.write_bytes(damage)
        with pytest.raises(InputError, match=r"checkpoint.safetensors is damaged .*empty its fold"):
            trainer(tmp_path)
    save_file({"a": torch.ones(1)}, path)
    with pytest.raises(InputError, match=r"is damaged .*empty its folder"):
        trainer(tmp_path)
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n{"st')
    with pytest.raises(InputError, match=r"log.jsonl is damaged .*remove it"):
        read_log(tmp_path)


def test_a_kept_sensitivity_is_measured_again(tmp_path):
    calls = []

    def measure():
        calls.append(1)
        return Sensitivity(
            ("hat",), torch.full((3, 1), 0.5), torch.ones(3, 1, dtype=bool), "search"
        )

    first = kept_sensitivity(tmp_path, "key", measure)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.warns(UserWarning, match=r"sensitivity-\w+.safetensors is damaged .*made again"):
        again = kept_sensitivity(tmp_path, "key", measure)
    assert len(calls) == 2
    third = kept_sensitivity(tmp_path, "key", measure)
    assert len(calls) == 2
    for found in (again, third):
        assert found.attributes == first.attributes
        assert torch.equal(found.change, first.change)


def test_a_kept_matrix_and_a_kept_round(tmp_path, monkeypatch):
    path = tmp_path / "M.safetensors"
    relevance._write(path, M=torch.eye(2))
    assert torch.equal(relevance._read(path), torch.eye(2))
    for damage in (b"", path.read_bytes()[:-1]):
        path.write_bytes(damage)
        with pytest.warns(UserWarning, match="made again"):
            assert relevance._read(path) is None
    views = torch.zeros(1, 1, 3, 2, 2, dtype=torch.uint8)
    one = torch.ones(1)
    found = Round(0, views, one, one.clone(), one.clone(), one.bool())
    Bank(tmp_path, []).upto(0, lambda i: found)
    path = tmp_path / "round-00.safetensors"
    path.write_bytes(b"")
    with pytest.warns(UserWarning, match="made again"):
        Bank(tmp_path, []).upto(0, lambda i: found)
    with monkeypatch.context() as patch:  # a round of another method is searched again
        patch.setattr("visiondx.zoom.counterfactual_training.bank.METHODS", (99, 1))
        searched = []
        Bank(tmp_path, []).upto(0, lambda i: searched.append(i) or found)
        assert searched == [0]
    path.write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="damaged"),
        pytest.raises(InputError, match="missing or damaged"),
    ):
        Bank(tmp_path, []).upto(1, lambda i: found)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"prompts": 3}'])
def test_a_picture_s_recipe(tmp_path, text):
    (tmp_path / "picture_001.json").write_text(text)
    with pytest.raises(InputError, match=r"picture_001.json is damaged .*of a saved picture"):
        kept.restore(None, tmp_path / "picture_001.json")


def test_what_cannot_be_read_is_not_called_damaged(tmp_path):
    with (
        pytest.raises(InputError, match=r"x cannot be read \(.*No such file.*\): look"),
        reading("x", "look"),
    ):
        (tmp_path / "x").read_text()
    with pytest.raises(MemoryError), reading("x", "look"):
        raise MemoryError
    assert read_kept(tmp_path / "x", lambda path: 1) is None  # no warning: there is none
    with pytest.raises(InputError, match="No file at"):
        read_yaml(tmp_path / "x")
