"""A target from a person's file: its folder, its neighbours, its weights, and what is refused."""

import copy
import os
import sys

import pytest
import torch
from torch import nn

from visiondx.core.errors import InputError
from visiondx.models.encoder import Encoder
from visiondx.models.generator import StyleGenerator
from visiondx.models.target import Target
from visiondx.run.checks import check_parameters

IMAGES = torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(0))
HEAD = """
import os
import torch
from torch import nn
from visiondx.models.target import Target

class Weighted(nn.Module):
    def __init__(self, weight=1.0, outputs=1):
        super().__init__()
        self.weight, self.outputs = nn.Parameter(torch.tensor(weight)), outputs
    def forward(self, images):
        return (self.weight * images.mean((2, 3)))[:, :self.outputs]
"""
FILE = (
    HEAD
    + """
class Lazy(Weighted):
    def forward(self, images):
        from neighbour import FACTOR
        from parts.more import TERM
        return super().forward(images) * FACTOR + TERM

def lazy(): return Lazy().eval()
def relative():
    module = Weighted()
    module.load_state_dict(torch.load("weights.pt"))
    return module.eval()
def whole(): return torch.load("whole.pt")
def page(): return torch.load("page.pt")
def gone(): return torch.load("wieghts.pt")
def missing(): import no_such_package
def needs(path): return Weighted().eval()
def weights(): return torch.load("weights.pt")
def program(): return torch.export.export(Weighted().eval(), (torch.rand(2, 3, 4, 4),))
def mode(): return program().module().eval()
def three(): return Weighted(9.0, 3).eval()
def named(): return Target(Weighted(9.0, 3).eval(), "multiclass", ("cat", "dog", "cow"))
"""
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model.py").write_text(FILE)
    (tmp_path / "neighbour.py").write_text("FACTOR = 3.0")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "more.py").write_text("TERM = 5.0")
    torch.save({"weight": torch.tensor(7.0)}, tmp_path / "weights.pt")
    torch.save(nn.Linear(1, 1), tmp_path / "whole.pt")
    (tmp_path / "page.pt").write_text("<html>")
    return tmp_path


def red(images):
    return images.mean((2, 3))[:, 0]


def test_a_function_runs_in_its_own_folder(folder):
    here, path = os.getcwd(), list(sys.path)
    target = Target.load(f"{folder}/model.py:relative")
    assert torch.allclose(target.logit(IMAGES), 7 * red(IMAGES))
    for function in ("whole", "gone"):
        with pytest.raises(InputError):
            Target.load(f"{folder}/model.py:{function}")
    assert (os.getcwd(), sys.path) == (here, path)


def test_a_forward_pass_can_import_its_neighbours(folder):
    target = Target.load(f"{folder}/model.py:lazy")
    target.check(IMAGES)
    assert torch.allclose(copy.deepcopy(target).logit(IMAGES), 3 * red(IMAGES) + 5)


@pytest.mark.parametrize("lazy", [True, False])
def test_two_models_with_files_of_the_same_names_keep_their_own(tmp_path, lazy):
    targets = []
    for weight in (2.0, 11.0):
        folder = tmp_path / str(weight)
        folder.mkdir()
        (folder / "utils_of_mine.py").write_text(f"FACTOR = {weight}")
        early, late = ("", "from utils_of_mine import FACTOR")[:: 1 if lazy else -1]
        (folder / "model.py").write_text(
            f"{early}\n{HEAD}\nclass Own(Weighted):\n"
            f"    def forward(self, images):\n        {late or 'pass'}\n"
            "        return super().forward(images) * FACTOR\n"
            "def load(): return Own().eval()\n"
        )
        targets.append(Target.load(f"{folder}/model.py:load"))
    for _ in range(2):
        for target, weight in zip(targets, (2.0, 11.0)):
            assert torch.allclose(target.logit(IMAGES), weight * red(IMAGES))


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("whole", r"not plain weights.*whole objects.*state_dict"),
        ("page", r"not plain weights, but damaged"),
        ("gone", "No such file.*wieghts.*runs in its own folder"),
        ("missing", "No module named 'no_such_package'.*install it"),
        ("needs", "called without arguments.*'path'.*default"),
        ("weights", "weights alone, so build the module and load_state_dict"),
        ("program", r"returned a ExportedProgram: return its \.module\(\)"),
        ("mode", "an exported module keeps the mode"),
    ],
)
def test_failures_name_their_cause_and_no_unsafe_fix(folder, function, words):
    with pytest.raises(InputError, match=words) as caught:
        Target.load(f"{folder}/model.py:{function}")
    said = str(caught.value)
    assert "weights_only" not in said
    assert "\n" not in said


def test_a_class_of_a_model_in_a_file(folder):
    bare = Target.load(f"{folder}/model.py:three", class_index=2)
    named = Target.load(f"{folder}/model.py:named", class_index=2)
    assert named.labels == ("not cow", "cow")
    z = 9 * IMAGES.mean((2, 3))
    for target in (bare, named):
        target.check(IMAGES)
        assert torch.allclose(target(IMAGES), z.softmax(1)[:, 2], atol=1e-6)
    with pytest.raises(InputError, match="this one is binary"):
        Target.load("young", class_index=1)


@pytest.mark.parametrize(
    ("task", "there", "absent"),
    [
        ("binary", ("moustache", "cat"), ("keypoints", "scenes")),
        ("multiclass", ("scenes-",), ("moustache", "face-parts")),
        ("keypoints", ("face-keypoints",), ("moustache", "scenes")),
    ],
)
def test_only_targets_of_the_task_are_offered(task, there, absent):
    with pytest.raises(InputError, match="No target 'youngish'") as caught:
        Target.load("youngish", task)
    said = str(caught.value)
    assert all(name in said for name in there)
    assert not any(name in said for name in absent)


def test_only_targets_of_the_world_are_offered():
    with pytest.raises(InputError, match=r"choose from cat, cat-biased-green_eyes, [^,]*, or name"):
        check_parameters({"target": "kat", "generator": "animals", "task": "binary"})
    with pytest.raises(InputError, match="choose from big_lips, ") as caught:
        check_parameters({"target": "kat", "generator": "faces"})
    assert "cat," not in str(caught.value)
    check_parameters({"target": "cat", "generator": "faces"})  # usable, if one must


def test_only_generators_and_encoders_are_offered():
    with pytest.raises(InputError, match=r"No generator 'face': choose from animals, faces\.$"):
        StyleGenerator.load("face")
    with pytest.raises(InputError, match=r"No encoder 'clip': choose from embedded, "):
        Encoder.load("clip")


def test_paths_are_seen_from_here(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    target = Target.load(f"{folder.name}/model.py:relative")
    assert torch.allclose(target.logit(IMAGES), 7 * red(IMAGES))
    with pytest.raises(InputError, match=rf"^{folder.name}/model\.py has no function 'laod'"):
        Target.load(f"{folder.name}/model.py:laod")  # said as it was written


@pytest.mark.parametrize("index", [-1, 2.5, "cat"])
def test_a_class_is_a_whole_number_before_a_kernel_starts(index):
    check_parameters({"class_index": 0})
    with pytest.raises(InputError, match="class_index must be a whole number from 0"):
        check_parameters({"class_index": index})
