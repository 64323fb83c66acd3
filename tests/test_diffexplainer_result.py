"""The main job in one call: pictures, what the target and a segmenter say of them, a verdict."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from painter_standins import lcm_painter
from visiondx.core.errors import InputError
from visiondx.diffexplainer.explain import Settings
from visiondx.diffexplainer.objectives import activation, toward
from visiondx.diffexplainer.result import explain
from visiondx.models.painter import Painter
from visiondx.models.segmenter import Segmenter
from visiondx.models.target import Target
from visiondx.search.descent import Descent

SETTINGS = Settings(starts=2, noises=2, held=3, descent=Descent(10, 0.3, "adam"))


class Light(nn.Module):
    """Two classes, dark and bright, by a layer of two channels: darkness and brightness."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Linear(1, 2)
        with torch.no_grad():
            self.read.weight.copy_(torch.tensor([[-20.0], [20.0]]))
            self.read.bias.copy_(torch.tensor([10.0, -10.0]))

    def forward(self, images):
        return self.read(images.mean((1, 2, 3))[:, None])


class Half(nn.Module):
    """Covers the left half of every picture."""

    def forward(self, images, words):
        found = torch.zeros(len(images), len(words), *images.shape[-2:])
        found[..., : images.shape[-1] // 2] = 1
        return found, torch.ones(len(images), len(words))


@pytest.fixture(scope="module")
def painter(tmp_path_factory) -> Painter:
    return lcm_painter(tmp_path_factory.mktemp("painter"))


@pytest.fixture(scope="module")
def target() -> Target:
    return Target(Light().eval(), "multiclass", ["dark", "bright"])


def test_one_call(painter, target, tmp_path) -> None:
    segmenter = Segmenter(Half(), ["bright"])
    aims = ["bright", toward("dark") + 0.1 * activation("read", 0), "read:1"]
    found = explain(target, aims, painter, segmenter, settings=SETTINGS, pictures=4)
    assert found.classes == ("bright", "dark", None)
    assert found.images.shape == (3, 4, 3, 16, 16)
    p = target(found.images[0])[:, 1]
    torch.testing.assert_close(found.p[0], p)
    assert found.p[2].isnan().all()
    assert found.reached[0] == (p > 0.5).float().mean()
    assert found.words == ("bright", "dark", None)
    assert found.known == (True, False, False)
    assert "never seen the word 'dark'" in found.sentences()[1] or found.reached[1] < 0.5
    assert found.r[0].tolist() == [0.5] * 4
    assert found.r[1:].isnan().all()
    assert found.masks[0, :, :, :8].all()
    assert not found.masks[0, :, :, 8:].any()
    assert not found.masks[1:].any()
    assert found.way == ("free", ("bright", "dark", None))
    metrics = found.metrics()
    assert set(metrics) == {
        *(f"{key}.{name}" for name in found.names for key in ("loss", "spread")),
        *("reached.bright", "reached.dark + 0.1*read:0", "r.bright"),
    }
    assert metrics["reached.bright"].value == found.reached[0]
    assert metrics["r.bright"].n == 4
    (axis,) = found.plot_search(0).axes
    assert [line.get_ydata().tolist() for line in axis.get_lines()] == (
        found.found.path[:, 0].T.tolist()
    )
    assert sum("kept" in line.get_label() for line in axis.get_lines()) == 1
    table = found.to_frame()
    assert table["aim"].tolist() == ["bright", "dark + 0.1*read:0", "read:1"]
    assert table["r"][0] == 0.5
    assert np.isnan(table["r"][1])
    assert [len(words) for words in found.near] == [1, 1, 1]
    assert len(found.near[0][0]) == 5
    found.save(tmp_path)
    assert (tmp_path / "verdict.txt").read_text("utf-8").splitlines() == found.said
    assert pd.read_csv(tmp_path / "explanation.csv")["aim"].tolist() == list(found.names)
    assert torch.equal(load_file(tmp_path / "tokens.safetensors")["soft"], found.found.soft)
    assert (tmp_path / "pictures.png").stat().st_size > 1000


def test_what_the_verdict_says(painter, target) -> None:
    quick = Settings(starts=1, noises=1, held=1, descent=Descent(1, 0.01, "adam"))
    found = explain(target, "bright", painter, settings=quick, pictures=2)
    taken = torch.ones(1, 2, dtype=torch.bool)
    sure = replace(found, p=torch.ones(1, 2), taken=taken)
    assert "takes 100% of the pictures for bright" in sure.sentences()[0]
    assert "was not looked at" in sure.sentences()[0]
    assert "search longer" in replace(sure, taken=~taken).sentences()[0]
    unseen = replace(sure, words=("lamp",))
    assert "never seen the word 'lamp'" in unseen.sentences()[0]
    seen = replace(unseen, known=(True,), r=torch.tensor([[0.2, 0.4]]))
    assert "the object is there: lamp covers 30%" in seen.sentences()[0]
    gone = replace(seen, r=torch.tensor([[0.0, 0.02]]))
    assert "but the object is not there: lamp covers 1% [0%, 2%]" in gone.sentences()[0]
    close = replace(seen, r=torch.tensor([[0.0, 0.06]]))
    assert "drawn at 5%, so more pictures could turn it" in close.sentences()[0]
    assert "could turn it" not in gone.sentences()[0]
    assert [each.verdict(0) for each in (seen, gone, close)] == ["core", "spurious", "spurious"]
    assert {each.verdict(0) for each in (sure, unseen, replace(seen, taken=~taken))} == {"unknown"}
    assert replace(seen, classes=(None,)).verdict(0) == "unknown"


def test_what_cannot_be_asked(painter, target) -> None:
    with pytest.raises(InputError, match=r"no class 'brigt'.*'bright'"):
        explain(target, "brigt", painter)
    with pytest.raises(InputError, match="pictures is 1"):
        explain(target, "bright", painter, pictures=1)
