"""Targets that would answer wrongly in silence, or fail late: what is said of each, and its fix."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.transforms import Grayscale

from visiondx.core.errors import InputError
from visiondx.models.target import Target
from visiondx.zoom.tasks import task_of

SIDE = 8
IMAGES = torch.rand(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


class Answers(nn.Module):
    """``make(net(images))``, where the net looks at every pixel."""

    def __init__(self, make=lambda z: z, outputs=1, before=lambda x: x):
        super().__init__()
        torch.manual_seed(3)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, outputs))
        self.make, self.before = make, before
        self.eval()

    def forward(self, images):
        return self.make(self.net(self.before(images)))


def both(p):
    return torch.cat((1 - p, p), 1)


# ---------------------------------------------------------------- probabilities


PROBABILITIES = {
    "sigmoid": Answers(torch.sigmoid),
    "reshaped": Answers(lambda z: z.sigmoid().squeeze(1).clamp(1e-4, 1 - 1e-4).double()),
    "one less": Answers(lambda z: 1 - z.sigmoid()),
    "tanh": Answers(lambda z: (z.tanh() + 1) / 2),
    "two": Answers(lambda z: both(z.sigmoid())),
    "softmax": Answers(lambda z: z.softmax(1), 2),
    "scripted": torch.jit.script(nn.Sequential(Answers().net, nn.Sigmoid()).eval()),
    "compiled": torch.compile(nn.Sequential(Answers().net, nn.Sigmoid()).eval(), backend="eager"),
}


@pytest.mark.parametrize("name", PROBABILITIES)
def test_probabilities_that_nobody_declared_are_refused(name):
    module = PROBABILITIES[name]
    with pytest.raises(
        InputError, match=r"seems to end in a (sigmoid|softmax).*probabilities=True"
    ):
        Target(module).check(IMAGES)
    told = Target(module, probabilities=True)
    told.check(IMAGES)
    p = module(IMAGES).float()
    assert torch.allclose(told(IMAGES), p[:, 1] if p.shape[1:] == (2,) else p.flatten(), atol=1e-5)
    Target(module, probabilities=False).check(IMAGES)  # whoever says so may


class Normed(nn.Module):
    """Untrained, behind a layer norm: no picture brings its logit out of [0, 1]."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Flatten(), nn.LayerNorm(3 * SIDE**2), nn.Linear(3 * SIDE**2, 1))
        self.net[2].weight.data *= 0.005
        self.net[2].bias.data.fill_(0.4)
        self.eval()

    def forward(self, images):
        return self.net(images).mean(1)


@pytest.mark.parametrize(
    "module",
    [
        Answers(lambda z: 0.01 * z + 0.5),
        Answers(lambda z: z.squeeze(1) * 0.1 + 0.4),
        Answers(lambda z: torch.cat((0.5 + 0 * z, 0.5 + 0.01 * z), 1)),
        Answers(lambda z: z.log_softmax(1), 2),
        Answers(F.softplus),
        Normed(),
    ],
)
def test_logits_that_happen_to_lie_in_the_unit_interval_pass(module):
    assert Target(module).logit(IMAGES).abs().max() < 3
    Target(module).check(IMAGES)


def test_what_ends_otherwise_has_its_own_sentence():
    with pytest.raises(InputError, match="log-sigmoid: return the logit"):
        Target(Answers(F.logsigmoid)).check(IMAGES)
    many = Answers(torch.sigmoid, 3)
    with pytest.raises(InputError, match=r"a sigmoid, 3 answers each for itself.*comes before it"):
        Target(many, "multiclass", ("a", "b", "c")).check(IMAGES)
    with pytest.raises(InputError, match=r"sum to .* not to 1: return the logits"):
        Target(many, "multiclass", ("a", "b", "c"), probabilities=True).check(IMAGES)
    with pytest.raises(InputError, match="seems to end in a softmax"):
        Target(Answers(lambda z: z.softmax(1), 3), class_index=1).check(IMAGES)
    maps = Answers(lambda z: z.view(-1, 3, 2, 2).sigmoid(), 12)
    with pytest.raises(InputError, match=r"seems to end in a sigmoid.*probabilities=True"):
        Target(maps, "keypoints", ("a", "b", "c")).check(IMAGES)
    Target(maps, "keypoints", ("a", "b", "c"), probabilities=True).check(IMAGES)


# ---------------------------------------------------------------- answers that change


def test_answers_at_random_and_answers_that_hang_on_the_batch_are_refused():
    drop = Answers(before=lambda x: F.dropout(x, 0.5, training=True))
    with pytest.raises(InputError, match=r"differently from one call to the next.*F\.dropout"):
        Target(drop).check(IMAGES)
    with pytest.raises(InputError, match=r"other images of its batch.*running statistics"):
        Target(Answers(before=lambda x: x - x.mean(0))).check(IMAGES)
    in_train_mode = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3 * SIDE**2, 1))
    traced = torch.jit.trace(in_train_mode, IMAGES, check_trace=False).eval()
    with pytest.raises(InputError, match="trace or export it in eval mode"):
        Target(traced).check(IMAGES)


# ---------------------------------------------------------------- another range of values


@pytest.mark.parametrize("name", ["mean", "std"])
def test_mean_and_std_of_0_to_255_are_refused(name):
    with pytest.raises(InputError, match=rf"{name} must be that of images in \[0, 1\].*by 255"):
        Target(Answers(), **{name: (123.7, 116.3, 103.5)})
    Target(Answers(), mean=(0.485, 0.456, 0.406), std=(1 / 255,) * 3).check(IMAGES)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (Answers(lambda z: z + 300), "to 4 images are saturated, all within 0.0001"),
        (Answers(lambda z: z - 20), "to 4 images are saturated"),
        (Answers(lambda z: 1e-4 * z), "all pictures the same answer within 0.001"),
    ],
)
def test_answers_that_will_not_move_are_warned_of(module, words):
    with pytest.warns(UserWarning, match=words + r".*std=\(1 / 255,\)"):
        Target(module).check(IMAGES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Target(Answers()).check(IMAGES)


def test_saturated_probabilities_are_called_so():
    full = Answers(lambda z: torch.sigmoid(z + 300))
    with pytest.raises(InputError, match="saturated, all exactly 0 or 1, so return the logits"):
        Target(full, probabilities=True).check(IMAGES)
    one = Answers(lambda z: torch.sigmoid(z + 300 * torch.eye(len(z))[:, :1]))
    with pytest.warns(UserWarning, match="no gradient for 1 of 4 images"):
        Target(one, probabilities=True).check(IMAGES)


# ---------------------------------------------------------------- modules of every make


class InPlace(Answers):
    def forward(self, images):
        return self.net(images.sub_(0.5))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_modules_of_another_precision_get_their_own(dtype):
    target, plain = Target(Answers().to(dtype), mean=(0.5,) * 3), Target(Answers(), mean=(0.5,) * 3)
    target.check(IMAGES)
    assert target.logit(IMAGES).dtype == torch.float32
    assert torch.allclose(target.logit(IMAGES), plain.logit(IMAGES), atol=2e-2)


def test_a_module_that_writes_into_its_images_gets_a_copy():
    target, images = Target(InPlace()), IMAGES.clone()
    target.check(images)
    first = target.logit(images)
    assert torch.equal(images, IMAGES)
    assert torch.equal(target.logit(images), first)


def exported(module, **how):
    return torch.export.export(module, (IMAGES,), **how).module()


FREE = {"dynamic_shapes": ({0: torch.export.Dim("batch", min=1, max=64)},)}


def test_exported_scripted_and_frozen_modules_are_usable_as_they_are():
    plain = Answers()
    scripted = torch.jit.script(plain.net.eval())
    for module in (exported(plain, **FREE), scripted, torch.jit.freeze(scripted)):
        target = Target(module).eval()
        target.check(IMAGES)
        assert torch.allclose(target.logit(IMAGES), Target(plain).logit(IMAGES), atol=1e-5)


def inference():
    with torch.inference_mode():
        return Answers()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: exported(Answers()), r"batch of \d+ images .*dynamic_shapes"),
        (inference, "weights were made in torch.inference_mode, so .* outside"),
        (
            lambda: Answers(before=torch.inference_mode()(lambda x: x * 2)),
            "no gradient passes torch.inference_mode, so leave that out",
        ),
        (lambda: Answers(lambda z: z.argmax(1), 3), "returned torch.int64.*without argmax"),
        (lambda: Answers(lambda z: z.round()), "no gradient.*it is zero, so look for rounding"),
        (lambda: Answers(lambda z: z.clamp(9)), r"no gradient.*answers all images alike"),
        (lambda: Answers(before=lambda x: torch.tensor(x.numpy())), "passes NumPy, so write"),
        (lambda: Answers(lambda z: z + torch.zeros(1, device="meta")), "register_buffer"),
        (lambda: Answers(before=lambda x: x.convert("RGB")), r"one float tensor \(B, 3, H, W\)"),
        (lambda: Answers(before=lambda x: x[:, :, ::2]), "set size to the height and width"),
        (lambda: Answers(before=lambda x: x.half()), "one precision, with module.float"),
        (
            lambda: Answers(lambda z: z.exp().add_(1).sin() * z.exp_()),
            "gradient cannot be computed",
        ),
        (lambda: nn.Sequential(nn.Conv2d(1, 1, SIDE), nn.Flatten()).eval(), "Grayscale"),
        (
            lambda: nn.Sequential(nn.Conv2d(4, 1, SIDE), nn.Flatten()).eval(),
            r"to have 4 channels.*make the others",
        ),
        (lambda: Answers(outputs=10), r"class_index=k \(--class k"),
    ],
)
def test_failures_name_their_cause_and_a_fix(make, words):
    with pytest.raises(InputError, match=words) as caught:
        Target(make()).check(IMAGES)
    assert "\n" not in str(caught.value)


def test_the_advice_for_one_channel_works():
    grey = nn.Sequential(nn.Conv2d(1, 1, SIDE), nn.Flatten()).eval()
    Target(nn.Sequential(Grayscale(), grey).eval()).check(IMAGES)


def test_a_quantised_module_is_refused_by_its_name():
    quantise = pytest.importorskip("torch.ao.quantization").quantize_dynamic
    module = quantise(Answers(), {nn.Linear}, dtype=torch.qint8)
    with pytest.raises(InputError, match=r"quantised \(Linear at module\.net\.1\).*float module"):
        Target(module).check(IMAGES)


@pytest.mark.parametrize("module", [lambda x: x.mean((1, 2, 3)), {"net.1.weight": IMAGES}])
def test_only_a_module_is_a_target(module):
    with pytest.raises(InputError, match=r"needs a torch\.nn\.Module, got a (function|dict)"):
        Target(module)


# ---------------------------------------------------------------- a class of many


@pytest.mark.parametrize("probabilities", [None, True])
def test_a_class_against_the_rest_is_the_softmax_s_probability(probabilities):
    module = Answers(lambda z: z.softmax(1) if probabilities else z, 3)
    told = {"probabilities": probabilities, "mean": (0.5,) * 3}
    many = Target(module, "multiclass", ("cat", "dog", "cow"), **told)
    one = many.of_class(1)
    one.check(IMAGES)
    assert (one.task, one.labels) == ("binary", ("not dog", "dog"))
    assert torch.allclose(one(IMAGES), many(IMAGES)[:, 1], atol=1e-6)
    p = many(IMAGES)[:, 1]
    assert torch.allclose(one.logit(IMAGES), (p / (1 - p)).log(), atol=1e-4)
    bare = Target(module, class_index=1, **told)
    assert torch.equal(bare.logit(IMAGES), one.logit(IMAGES))
    assert bare.labels == ("not class 1", "class 1")


def test_classes_that_are_not_there():
    many = Target(Answers(outputs=3), "multiclass", ("cat", "dog", "cow"))
    with pytest.raises(InputError, match="no class 3 of 3: choose from 0 to 2"):
        many.of_class(3)
    with pytest.raises(InputError, match="this one is binary"):
        Target(Answers()).of_class(0)
    with pytest.raises(InputError, match=r"Class 3 .* choose one from 0 to 2"):
        Target(Answers(outputs=3), class_index=3).check(IMAGES)
    with pytest.raises(InputError, match=r"Class 3 .*\(4, 1\).*leave the class out"):
        Target(Answers(), class_index=3).check(IMAGES)
    with pytest.raises(InputError, match="class_index must be a class"):
        Target(Answers(), class_index=-1)
    with pytest.raises(InputError, match=r"of_class\(k\) or, on the command line, --class k"):
        task_of(many)
