"""The list of planted pairs, and its many classifiers in one file."""

import math
from dataclasses import replace

import pytest
import torch
import yaml

from standins import ToyWorld
from visiondx.core.errors import InputError
from visiondx.core.files import data_dir
from visiondx.models.target import Target
from visiondx_worlds.models import zoo
from visiondx_worlds.models.embedded_targets import fingerprint
from visiondx_worlds.models.planted_targets import load_planted, planted_names, save_planted
from visiondx_worlds.training.planted import SMALL, Planted, planted, train_planted
from visiondx_worlds.training.pool import Pool
from visiondx_worlds.training.targets import TargetConfig, target_rows
from visiondx_worlds.worlds import animals, faces

TOY = Planted("toy", (("red", "ring"),), ("ring", "wide"))
FEW = replace(SMALL, aligned=40, conflicting=4, steps=2, batch=8, width=4)


def test_the_list_has_twelve_pairs_that_the_worlds_know():
    lists = [planted("faces"), planted("animals")]
    assert sum(len(part.pairs) for part in lists) >= 12
    assert len(lists[1].pairs) >= 2
    for part, world in zip(lists, (faces, animals), strict=True):
        assert {name for pair in part.pairs for name in pair} <= set(world.binary)
        assert set(part.attributes) <= set(world.binary)
        assert len(set(part.pairs)) == len(part.pairs)


def test_recipes_are_the_pairs_then_a_control_of_each_label():
    listed = Planted("faces", (("young", "hat"), ("male", "hat"), ("young", "beard")), ("hat",))
    names = [recipe.name for recipe in listed.recipes()]
    assert names == ["young-biased-hat", "male-biased-hat", "young-biased-beard", "young", "male"]


@pytest.mark.parametrize("pair", [["young"], ["young", "young"], ["young", "moustache"]])
def test_an_impossible_pair_is_refused(tmp_path, pair):
    path = tmp_path / "planted.yaml"
    path.write_text(yaml.safe_dump({"faces": {"pairs": [pair], "attributes": ["hat", "young"]}}))
    with pytest.raises(InputError, match=r"must be \[label, attribute\]"):
        planted("faces", path)
    with pytest.raises(InputError, match=r"choose from faces\."):
        planted("scenes", path)


def test_trained_together_kept_in_one_file_and_loaded_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("VISIONDX_DATA", str(tmp_path / "data"))
    (tmp_path / "data" / "weights").mkdir(parents=True)
    world = ToyWorld()
    world.name = "toy"
    modules, cards = train_planted(
        world, TOY.recipes(FEW), tmp_path / "runs", seeds=(0, 3), pool=200
    )
    names = ["red-biased-ring@0", "red@0", "red-biased-ring@3", "red@3"]
    assert list(modules) == names
    again, _ = train_planted(world, TOY.recipes(FEW), tmp_path / "runs", seeds=(0, 3), pool=200)
    save_planted(modules, cards, notebook="train/10_planted_targets.ipynb", quality={})
    assert planted_names() == sorted(names)
    images = torch.rand(3, 3, 64, 64)
    answers = {}
    for name in names:
        module, card = load_planted(name)
        assert (card["label"], card["world"]) == ("red", "toy")
        assert card["planted"] == ("ring" if "biased" in name else None)
        answers[name] = module(images)
        torch.testing.assert_close(answers[name], modules[name](images), atol=5e-3, rtol=5e-3)
        assert torch.equal(again[name](images), modules[name](images))  # went on where it ended
        torch.testing.assert_close(Target.load(name)(images), answers[name][:, 0].sigmoid())
    assert not torch.equal(answers["red@0"], answers["red@3"])
    with pytest.raises(InputError, match="No planted target 'red@1'"):
        load_planted("red@1")
    with pytest.raises(InputError, match="No target 'red@1'"):
        Target.load("red@1")


def test_rows_of_a_pool_keep_the_papers_proportions():
    pool = Pool(ToyWorld(), 4000, 0)
    config = TargetConfig("red", "ring", aligned=100_000, conflicting=1000)
    rows = target_rows(pool, config, 0)
    assert len(rows.unique()) == len(rows)
    red, ring = (pool.labels[rows, ToyWorld.binary.index(n)] for n in ("red", "ring"))
    counts = [int(((red == a) & (ring == b)).sum()) for a, b in ((1, 1), (0, 0), (1, 0), (0, 1))]
    assert counts[0] == counts[1] > 800  # as many as the scarcer kind has
    assert counts[2] == counts[3] == math.ceil(counts[0] / 100)
    balanced = target_rows(pool, TargetConfig("red", aligned=50), 0)
    assert pool.labels[balanced, ToyWorld.binary.index("red")].sum() == 50
    assert len(balanced) == 100
    with pytest.raises(InputError, match="Unknown attribute 'blue'"):
        target_rows(pool, TargetConfig("blue"), 0)
    pool.labels[:, ToyWorld.binary.index("ring")] = pool.labels[:, ToyWorld.binary.index("red")]
    with pytest.raises(InputError, match="lacks images of a kind of red-biased-ring"):
        target_rows(pool, config, 0)


def test_without_the_file_there_are_no_names(tmp_path, monkeypatch):
    monkeypatch.setenv("VISIONDX_DATA", str(tmp_path))
    assert zoo.manifest() == {}
    assert planted_names() == []


def test_the_list_lies_in_data():
    assert (data_dir() / "planted.yaml").is_file()


def test_each_has_a_fingerprint_of_its_own():
    first, second = (fingerprint(f"young-biased-bangs@{seed}") for seed in (0, 1))
    assert first != second
    assert first.split("/")[0] == second.split("/")[0] == zoo.manifest()["planted"]["sha256"]
    assert fingerprint("young") == zoo.manifest()["target-young"]["sha256"]
