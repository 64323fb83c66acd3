"""What an explanation is to show: names, values, gradients and what is refused."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffexplainer_standins import LABELS, SIDE, Tiny, flat, hooks, tiny
from visiondx.core.errors import InputError
from visiondx.diffexplainer.features import class_weights, last_features, top_features
from visiondx.diffexplainer.layers import layers, mean_activations
from visiondx.diffexplainer.objectives import Aim, Objectives, activation, aim, toward
from visiondx.models.target import Target


def images(rows: int, each: int, side: int = SIDE) -> Tensor:
    return torch.rand(rows, each, 3, side, side)


def test_layers_are_listed_as_they_finish_with_their_shapes():
    target = tiny()
    assert list(layers(target, 6).items()) == [
        ("conv", (4, 6, 6)), ("relu", (4, 6, 6)), ("pool", (4, 1, 1)), ("fc.input", (4,)),
        ("fc", (3,)),
    ]  # fmt: skip
    assert target.module.passes == [3]
    assert hooks(target) == 0
    assert all(p.requires_grad for p in target.parameters())


class Tokens(nn.Module):
    """Tokens (B, L, C), a layer with a tuple, one that mixes the batch, one that is run twice."""

    def __init__(self):
        super().__init__()
        self.embed, self.act = nn.Linear(3, 5), nn.ReLU()
        self.pair, self.whole, self.head = Pair(), Whole(), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.pair(self.embed(x.flatten(2).transpose(1, 2)))[0]
        self.whole(tokens)
        return self.head(self.act(self.act(tokens).mean(1)))


class Pair(nn.Module):
    def forward(self, x):
        return x, None


class Whole(nn.Module):
    def forward(self, x):
        return x.flatten(0, 1)


def test_tokens_tuples_and_layers_that_are_run_twice():
    target = Target(Tokens().eval(), "multiclass", ("a", "b"))
    found = layers(target, 2)
    assert found == {
        "embed": (5, 4), "pair": (5, 4), "act": (5,), "head.input": (5,), "head": (2,),
    }  # fmt: skip
    assert list(found) == ["embed", "pair", "act", "head.input", "head"]
    x = images(2, 2, 2)
    loss, _ = Objectives(target, ["embed:1:3", "pair:4"], 2)(x)
    tokens = target.module.embed(x.flatten(3).transpose(2, 3))  # (E, B, L, C)
    assert torch.allclose(loss[0], -tokens[0, :, 3, 1])
    assert torch.allclose(loss[1], -tokens[1, :, :, 4].mean(1))


def test_equations_3_to_5_by_hand():
    """Of two linear logits: CE = log(1 + e^-(z0 - z1)); the activation is the logit itself."""
    target, x = flat(), images(4, 2)
    z = target.module(x.flatten(0, 1)).unflatten(0, (4, 2))
    ce = z.logsumexp(2) - z[..., 1]
    wanted = ["dog", 1, "1:2", toward("dog") + activation("1", 2)]
    objectives = Objectives(target, wanted, SIDE)
    assert objectives.names == ("dog", "1", "1:2", "dog + 1:2")
    assert len(objectives) == 4
    loss, terms = objectives(x)
    assert torch.allclose(loss, torch.stack([ce[0], ce[1], -z[2, :, 2], ce[3] - z[3, :, 2]]))
    assert torch.allclose(terms["cross-entropy"][3], ce[3])
    assert torch.equal(terms["activation"][:2], torch.zeros(2, 2))
    assert torch.allclose(sum(terms.values()), loss)
    assert set(Objectives(target, ["dog"], SIDE)(x[:1])[1]) == {"cross-entropy"}


def test_weights_and_differences_by_hand():
    target, x = flat(), images(1, 3)
    z = target.module(x[0])
    loss, _ = Objectives(target, ["-2*1:0 + 0.5*fox - .25*1:1 + 1:1"], SIDE)(x)
    expected = 2 * z[:, 0] + 0.5 * (z.logsumexp(1) - z[:, 2]) - 0.75 * z[:, 1]
    assert torch.allclose(loss[0], expected, atol=1e-6)
    summed = -2 * activation("1", 0) + 0.5 * toward("fox") - 0.25 * activation("1", 1)
    again, _ = Objectives(target, [summed + activation("1", 1)], SIDE)(x)
    assert torch.allclose(loss, again)


@pytest.mark.parametrize("text", ["dog", "-0.5*dog + 2*a.b:3:1:0", "a:1 - 1e-05*b:2", "3 + a:0"])
def test_an_aim_reads_what_it_writes(text):
    assert str(aim(text)) == text
    assert aim(str(aim(text))) == aim(text)


def test_a_label_is_a_class_whatever_it_looks_like():
    labels = ("ratio 4:3", "salt - pepper", "2*x", "7")
    for label in labels:
        assert aim(label, labels) == toward(label)
    assert aim("7 + 0.5*2*x", labels) == toward("7") + 0.5 * toward("2*x")
    assert aim("7") == toward(7)


def test_what_is_read_of_a_channel_is_what_it_is_before_the_relu_in_place():
    target, x = tiny(), images(2, 3)
    before = target.module.conv(x.flatten(0, 1)).unflatten(0, (2, 3))
    assert (before[0, :, 2, 1, 3] < 0).any() or (before[1, :, 2] < 0).any()
    loss, _ = Objectives(target, ["conv:2:1:3", "conv:2"], SIDE)(x)
    assert torch.allclose(loss[0], -before[0, :, 2, 1, 3])
    assert torch.allclose(loss[1], -before[1, :, 2].mean((1, 2)))


def test_one_pass_for_all_equals_one_by_one_and_indexing():
    target, x = tiny(), images(5, 2)
    wanted = ["cat", "conv:1", "relu:0:2:2", "fox + fc.input:3", "-conv:3 + 2*fc:0"]
    objectives = Objectives(target, wanted, SIDE)
    target.module.passes.clear()
    loss, _ = objectives(x)
    assert target.module.passes == [10]
    assert hooks(target) == 0
    for row, what in enumerate(wanted):
        alone, _ = Objectives(target, [what], SIDE)(x[row : row + 1])
        assert torch.allclose(loss[row], alone[0], atol=1e-6)
    rows = torch.tensor([3, 3, 0])
    some = objectives.index(rows)
    assert some.names == ("fox + fc.input:3",) * 2 + ("cat",)
    assert torch.allclose(some(x[rows])[0], loss[rows], atol=1e-6)
    keep = torch.tensor([False, True, False, False, True])
    assert torch.allclose(objectives.index(keep)(x[keep])[0], loss[keep], atol=1e-6)


def test_gradients_by_finite_differences():
    module = Tiny().double().eval()
    module.relu = nn.Softplus().eval()  # without a kink
    target = Target(module, "multiclass", LABELS, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
    target = target.double()
    objectives = Objectives(target, ["dog + fc.input:1", "conv:2:0:1", "2*fox - relu:0"], 2)
    x = images(3, 1, 2).double().requires_grad_(True)
    (slope,) = torch.autograd.grad(objectives(x)[0].sum(), x)
    for _ in range(3):
        step = 1e-5 * torch.randn_like(x)
        with torch.no_grad():
            change = (objectives(x + step)[0] - objectives(x - step)[0]) / 2
        assert torch.allclose((slope * step).sum((2, 3, 4)), change, rtol=1e-5, atol=1e-12)
        assert (change.abs() > 1e-9).all()
    (slope,) = torch.autograd.grad(objectives(x)[0][1].sum(), x)
    assert slope[1].any()
    assert not slope[[0, 2]].any()


def test_a_binary_target_has_two_classes():
    target = Target(nn.Sequential(nn.Flatten(), nn.Linear(48, 1)).eval(), labels=("no", "yes"))
    x = images(2, 3)
    z = target.logit(x.flatten(0, 1)).view(2, 3)
    loss, _ = Objectives(target, ["yes", "no"], SIDE)(x)
    assert torch.allclose(loss, torch.stack([F.softplus(-z[0]), F.softplus(z[1])]))


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("dgo", "no class 'dgo': the nearest is 'dog'"),
        (3, "no class 3: choose from 0 to 2"),
        ("zebra", "no class 'zebra': choose from 'cat', 'dog', 'fox'"),
        ("cnov:1", "no layer 'cnov': the nearest is 'conv'"),
        ("conv", "'conv' is a layer: name one of its 4 channels, such as 'conv:0'"),
        ("conv:4", "'conv:4' is not there: layer 'conv' has channels 0 to 3"),
        ("conv:1:4:0", "'conv:1:4:0' is not there: .* positions up to 3:3"),
        ("conv:1:2", "positions up to 3:3"),
        ("fc:1:0", "a channel of layer 'fc' has none"),
        (activation("conv", -1), "'conv:-1' is not there"),
        ("0*dog", "weight of 'dog' must be finite and not 0"),
        ("dog + ", "no class"),
        (None, "An aim is a class such as"),
    ],
)
def test_wrong_names_are_refused_before_any_work(what, said):
    target = tiny()
    with pytest.raises(InputError, match=said):
        Objectives(target, ["cat", what], SIDE)
    assert target.module.passes in ([], [3])  # nothing beyond the layers' listing
    assert hooks(target) == 0


def test_all_aims_may_see_the_same_images():
    target = tiny()
    many = Objectives(target, ["cat", "dog + 2*relu:1", "conv:3:1:2", "fox - fc.input:0"], SIDE)
    shared = images(1, 5)
    target.module.passes.clear()
    losses, terms = many(shared)
    assert target.module.passes == [5]
    each, own = many(shared.expand(4, -1, -1, -1, -1))
    torch.testing.assert_close(losses, each)
    assert set(terms) == set(own)
    for name, values in terms.items():
        torch.testing.assert_close(values, own[name])
    with pytest.raises(InputError, match=r"shape \(1 or 4, B, 3, H, W\), got \(2, 5, 3, 4, 4\)"):
        many(images(2, 5))


def test_lists_and_shapes_are_refused():
    for wrong in ("dog", 1, toward("dog"), []):
        with pytest.raises(InputError, match="a list of one or more"):
            Objectives(flat(), wrong, SIDE)
    objectives = Objectives(flat(), ["dog"], SIDE)
    with pytest.raises(InputError, match=r"shape \(1, B, 3, H, W\), got \(2, 1, 3, 4, 4\)"):
        objectives(images(2, 1))
    heat = Target(nn.Conv2d(3, 2, 1).eval(), "keypoints", ("a", "b"))
    with pytest.raises(InputError, match="keypoints target has no classes"):
        Objectives(heat, ["a"], SIDE)
    with pytest.raises(InputError, match=r"failed on images of shape .* give the resolution"):
        Objectives(flat(), ["dog"], 5)


class Cut(nn.Module):
    """A network with a gradient as far as its features, and none before."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).detach().mean((2, 3)))


def test_a_target_without_gradient_is_one_clear_error():
    target = Target(Cut().eval(), "multiclass", LABELS)
    assert len(Objectives(target, ["conv:1"], SIDE)) == 1
    for wanted, what in (("dog", "its answer"), ("conv:1 + fc.input:2", "layer 'fc.input'")):
        with pytest.raises(InputError, match=f"no gradient from {what} to its images"):
            Objectives(target, [wanted], SIDE)
    assert hooks(target) == 0


def test_hooks_are_gone_after_an_error():
    target = tiny()
    during = []
    target.module.conv.register_forward_pre_hook(lambda *_: during.append(hooks(target)))
    objectives = Objectives(target, ["conv:1", "fc.input:1"], SIDE)
    with pytest.raises(RuntimeError):
        objectives(torch.rand(2, 1, 2, 4, 4))
    assert during[-1] == 3
    assert hooks(target) == 1  # its own


def test_the_features_before_the_classifier():
    target, x = tiny(), torch.rand(5, 3, 6, 6)
    head = last_features(target)
    assert head.layer == "fc.input"
    assert torch.equal(head.weight, target.module.fc.weight)
    features = mean_activations(target, x, head.layer, batch=2)
    expected = target.module.conv(x).relu().mean((2, 3))
    assert torch.allclose(features, expected, atol=1e-6)
    assert torch.allclose(mean_activations(target, x, "relu", batch=2), expected, atol=1e-6)
    convs = Target(nn.Sequential(nn.Conv2d(3, 2, 4), nn.Flatten()).eval(), "multiclass", LABELS[:2])
    with pytest.raises(InputError, match="no linear layer"):
        last_features(convs, SIDE)


def test_top_features_are_the_largest_mean_activation_times_weight():
    target = tiny()
    with torch.no_grad():
        target.module.conv.weight.zero_()
        target.module.conv.bias.copy_(torch.tensor([1.0, 2.0, 3.0, -1.0]))  # what every image has
        target.module.fc.weight.copy_(
            torch.tensor([[1.0, 1, 1, 1], [5, -1, 1, 100], [1, 1.5, 0, 0]])
        )
    found, carried = top_features(target, torch.rand(7, 3, 4, 4), "dog", k=3, batch=3)
    assert found.tolist() == [0, 2, 3]  # 5, 3, 0 (a dead ReLU); the other has -2
    assert carried.tolist() == pytest.approx([5.0, 3.0, 0.0])
    assert top_features(target, torch.rand(2, 3, 4, 4), 0, k=1)[0].tolist() == [2]
    with pytest.raises(InputError, match="k must be from 1 to 4"):
        top_features(target, torch.rand(2, 3, 4, 4), "dog")
    with pytest.raises(InputError, match="the nearest is 'dog'"):
        top_features(target, torch.rand(2, 3, 4, 4), "dogs", k=1)


def test_whose_weights_carry_a_class_of_a_binary_target():
    module = Tiny(1).eval()
    one = Target(module, labels=("no", "yes"))
    head = last_features(one)
    assert torch.equal(class_weights(one, head, "yes"), module.fc.weight[0])
    assert torch.equal(class_weights(one, head, "no"), -module.fc.weight[0])
    fox = tiny().of_class(2)
    weight = fox.module.fc.weight
    assert torch.equal(class_weights(fox, last_features(fox), 1), weight[2])
    hidden = nn.Sequential(nn.Flatten(), nn.Linear(48, 5), nn.Unflatten(1, (5, 1)), nn.Flatten(0))
    hidden = Target(nn.Sequential(hidden[:2], Third()).eval(), "multiclass", LABELS)
    with pytest.raises(InputError, match=r"'0\.1', returns 5 numbers for 3 labels"):
        class_weights(hidden, last_features(hidden, SIDE), "cat")


class Third(nn.Module):
    def forward(self, x):
        return x[:, :3]


def test_an_aim_is_the_sum_of_its_parts():
    whole = 2 * (toward("dog") - activation("a", 1, 2, 3))
    assert isinstance(whole, Aim)
    assert [part.weight for part in whole.parts] == [2, -2]
    assert str(whole) == "2*dog - 2*a:1:2:3"
