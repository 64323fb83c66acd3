import pytest
import torch
from torch import nn

from visiondx.core.errors import InputError
from visiondx.models.target import Target
from visiondx.models.trial import check_images
from visiondx.zoom.diagnose import check
from visiondx_worlds.models.classifier import build_classifier
from visiondx_worlds.models.embedded_targets import save_target

IMAGES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Fixed(nn.Module):
    """Returns ``make(images)``; in eval mode."""

    def __init__(self, make):
        super().__init__()
        self.make = make
        self.eval()

    def forward(self, images):
        return self.make(images)


def mean(images):
    return images.mean((1, 2, 3))


@pytest.mark.parametrize(
    "make",
    [
        lambda x: mean(x),
        lambda x: mean(x)[:, None],
        lambda x: torch.stack((torch.ones(len(x)), mean(x) + 1), 1),
    ],
    ids=["B", "B1", "B2"],
)
def test_three_shapes_of_logits_mean_the_same(make):
    target = Target(Fixed(make))
    assert torch.allclose(target.logit(IMAGES), mean(IMAGES), atol=1e-6)
    assert torch.allclose(target(IMAGES), torch.sigmoid(mean(IMAGES)), atol=1e-6)
    target.check(IMAGES)


def test_probabilities_become_log_odds():
    one = Target(Fixed(lambda x: mean(x)), probabilities=True)
    two = Target(Fixed(lambda x: torch.stack((1 - mean(x), mean(x)), 1)), probabilities=True)
    for target in (one, two):
        target.check(IMAGES)
        assert torch.allclose(target(IMAGES), mean(IMAGES), atol=1e-5)
    assert torch.allclose(one.logit(torch.full((1, 3, 4, 4), 0.75)), torch.tensor(3.0).log())


def test_preprocessing_resizes_then_normalises():
    seen = []
    target = Target(
        Fixed(lambda x: seen.append(x) or mean(x)), size=4, mean=(0.5, 0.5, 0.5), std=(0.25,) * 3
    )
    target(torch.full((2, 3, 8, 8), 0.75))
    assert seen[0].shape == (2, 3, 4, 4)
    assert torch.allclose(seen[0], torch.ones(2, 3, 4, 4))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda x: x.mean((2, 3)), r"\(3, 3\)"),
        (lambda x: mean(x).sum(), r"returned \(\)"),
        (lambda x: (mean(x), x), "tuple"),
        (lambda x: mean(x) / 0 * 0, "NaN"),
        (lambda x: mean(x).detach(), "no gradient"),
        (lambda x: mean(x).round(), "no gradient"),
        (lambda x: torch.ones(len(x), requires_grad=True) * 2, "no gradient"),
        (lambda x: (x - x).sum((1, 2, 3)).sqrt(), "gradient is NaN"),
        (lambda x: x.view(len(x), 7), "failed on images of shape"),
    ],
)
def test_unusable_outputs_are_named(make, words):
    with pytest.raises(InputError, match=words):
        Target(Fixed(make)).check(IMAGES)


def test_declared_probabilities_must_be_some():
    with pytest.raises(InputError, match="probabilities=True"):
        Target(Fixed(lambda x: mean(x) + 1), probabilities=True).check(IMAGES)


def channels(images):
    return images.mean((2, 3)) * 3


def multiclass(make, **settings):
    return Target(Fixed(make), task="multiclass", labels=("red", "green", "blue"), **settings)


def test_a_multiclass_target_gives_a_probability_for_each_label():
    target = multiclass(channels)
    target.check(IMAGES)
    torch.testing.assert_close(target.logits(IMAGES), channels(IMAGES))
    torch.testing.assert_close(target(IMAGES), channels(IMAGES).softmax(1))
    # logits whose sum never changes still have a gradient
    multiclass(lambda x: channels(x) - channels(x).mean(1, keepdim=True)).check(IMAGES)


def test_multiclass_probabilities_stay_what_they_are():
    target = multiclass(lambda x: channels(x).softmax(1), probabilities=True)
    target.check(IMAGES)
    torch.testing.assert_close(target(IMAGES), channels(IMAGES).softmax(1))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (mean, r"3 labels must return shape \(3, 3\).*returned \(3,\)"),
        (lambda x: channels(x)[:, :2], r"returned \(3, 2\)"),
        (lambda x: channels(x).detach(), "no gradient"),
        (lambda x: mean(x)[:, None].expand(-1, 3), "no gradient"),
        (lambda x: channels(x).log() * 0 / 0, "NaN"),
    ],
)
def test_unusable_multiclass_outputs_are_named(make, words):
    with pytest.raises(InputError, match=words):
        multiclass(make).check(IMAGES)


def test_a_target_refuses_what_belongs_to_the_other_task():
    with pytest.raises(
        InputError, match=r"needs a binary target.*multiclass \(red, green, blue\).*of_class"
    ):
        multiclass(channels).logit(IMAGES)
    with pytest.raises(InputError, match="needs a multiclass target"):
        Target(Fixed(mean)).logits(IMAGES)
    with pytest.raises(InputError, match="binary target, this one is multiclass with 3 labels"):
        check(multiclass(channels), ["a red thing"], "a thing", None, None)


def test_train_mode_is_an_error_at_any_depth():
    with pytest.raises(InputError, match=r"train mode.*\.eval"):
        Target(build_classifier(4)).check(torch.rand(2, 3, 64, 64))
    module = build_classifier(4).eval()
    module[3].norm1.train()
    with pytest.raises(InputError, match=r"module\.3\.norm1"):
        Target(module).check(torch.rand(2, 3, 64, 64))


def test_check_leaves_grad_mode_and_images_alone():
    images = IMAGES.clone()
    with torch.no_grad():
        Target(Fixed(mean)).check(images)
    assert not images.requires_grad
    assert images.grad is None


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.rand(2, 1, 8, 8), r"\(B, 3, H, W\)"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "float"),
        (torch.rand(0, 3, 8, 8), r"\(B, 3, H, W\)"),
        (torch.full((2, 3, 8, 8), float("nan")), "2 of 2 images hold NaN"),
        (torch.rand(2, 3, 8, 8) * 255, r"\[0, 1\]"),
    ],
)
def test_images_are_checked(images, words):
    with pytest.raises(InputError, match=words):
        check_images(images)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"task": "captioning"}, "binary"),
        ({"labels": ["a"]}, "two labels"),
        ({"labels": ["a", "b", "c"]}, "two labels"),
        ({"task": "multiclass", "labels": ["a"]}, "two or more different labels"),
        ({"task": "multiclass", "labels": ["a", "b", "a"]}, "two or more different labels"),
        ({"mean": [0.5]}, "three numbers"),
        ({"std": [1, 0, 1]}, "positive"),
        ({"size": 0}, "size"),
    ],
)
def test_bad_arguments(arguments, words):
    with pytest.raises(InputError, match=words):
        Target(Fixed(mean), **arguments)


FILE = """
import torch
from helper import weight
from visiondx.models.target import Target
class Model(torch.nn.Module):
    def forward(self, images):
        return images.mean((1, 2, 3)) * weight
def module(): return Model().eval()
def target(): return Target(Model().eval(), labels=("dark", "light"))
def number(): return 3
def broken(): raise RuntimeError("no weights")
"""


@pytest.fixture
def model_file(tmp_path):
    (tmp_path / "helper.py").write_text("weight = 2.0")
    (tmp_path / "my_model.py").write_text(FILE)
    return tmp_path / "my_model.py"


def test_load_from_a_file_with_a_neighbour(model_file):
    module, target = Target.load(f"{model_file}:module"), Target.load(f"{model_file}:target")
    assert torch.allclose(module.logit(IMAGES), 2 * mean(IMAGES))
    assert target.labels == ("dark", "light")
    with pytest.raises(InputError, match="no names"):
        Target.load(f"{model_file}:module", "multiclass")


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        (":number", "int"),
        (":broken", "RuntimeError: no weights"),
        (":absent", "no function 'absent'"),
        ("", "file.py:function"),
        (":", "file.py:function"),
    ],
)
def test_bad_specifications(model_file, ending, words):
    with pytest.raises(InputError, match=words):
        Target.load(f"{model_file}{ending}")


def test_missing_file_and_syntax_error(tmp_path):
    with pytest.raises(InputError, match="No file at"):
        Target.load(f"{tmp_path}/none.py:load")
    (tmp_path / "bad.py").write_text("def load(:")
    with pytest.raises(InputError, match="SyntaxError"):
        Target.load(f"{tmp_path}/bad.py:load")


def test_embedded_target_round_trip(tmp_path, monkeypatch):
    monkeypatch.setenv("VISIONDX_DATA", str(tmp_path))
    (tmp_path / "weights").mkdir()
    torch.manual_seed(0)
    module = build_classifier(4).eval()
    for parameter in module.parameters():
        parameter.data = parameter.data.half().float()  # as kept on disk
    target = Target(module, labels=("old", "young"), mean=(0.5,) * 3, std=(0.5,) * 3)
    about = {"width": 4, "label": "young", "planted": "bangs", "quality": {}}
    save_target("young-biased-bangs", target, notebook="train/05_targets", seed=0, **about)

    loaded = Target.load("young-biased-bangs")
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(loaded(images), target(images))
    assert loaded.labels == ("old", "young")
    assert loaded.config["planted"] == "bangs"
    loaded.check(images)
    with pytest.raises(InputError, match=r"choose from young-biased-bangs, or .*file\.py:function"):
        Target.load("youngish")
    (tmp_path / "weights" / "target-young-biased-bangs.safetensors").write_bytes(b"altered")
    with pytest.raises(InputError, match="altered"):
        Target.load("young-biased-bangs")


def test_classifier_is_small():
    count = sum(p.numel() for p in build_classifier().parameters())
    assert 250_000 < count < 350_000
    assert build_classifier()(torch.rand(2, 3, 64, 64)).shape == (2, 1)
