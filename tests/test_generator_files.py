"""Generators from files of other people's: what is drawn is what the official formulas draw."""

import pickle
import pickletools
import sys

import pytest
import torch

from official_files import (
    generator,
    read_officially,
    write_ada,
    write_rosinality,
    write_tf,
)
from official_forward import (
    broadcast,
    from_ada,
    from_rosinality,
    from_tf,
    image_of,
    styles_of,
    w_of,
)
from visiondx.core.errors import InputError
from visiondx.models.generator import StyleGenerator
from visiondx.models.stylegan2 import Generator
from visiondx_worlds.models.official import Persistent, dump, write_official

ADA = {
    "plain": {},
    "clamped, partly in half precision": {"num_fp16_res": 2, "conv_clamp": 0.7},
    "narrow": {"channel_base": 64, "channel_max": 6, "resolution": 32},
    "conditional": {"c_dim": 5},
    "conditional, wide embedding, clamped": {
        "c_dim": 3,
        "embed_features": 7,
        "layer_features": 9,
        "conv_clamp": 1.5,
        "num_layers": 2,
        "lr_multiplier": 0.1,
    },
    "one mapping layer": {"num_layers": 1, "lr_multiplier": 1.0},
    "without noise": {"use_noise": False},
}


def compare(ours: StyleGenerator, net, k: int | None = None) -> None:
    """Styles and images of both, also truncated and up to a layer."""
    z = torch.randn(4, ours.network.z_dim, generator=torch.Generator().manual_seed(3))
    for psi, cutoff in ((1.0, None), (0.6, None), (0.5, 3), (0.5, 0)):
        ws = broadcast(net, w_of(net, z, k), psi, cutoff)
        expected = styles_of(net, ws)
        s = ours.sample_styles(4, seed=3, truncation=psi, cutoff=cutoff)
        torch.testing.assert_close(s.double(), torch.cat(expected, 1), rtol=1e-5, atol=1e-5)
        image = image_of(net, expected)
        drawn = ours.network.synthesis(s).double()
        torch.testing.assert_close(drawn, image, rtol=1e-5, atol=2e-5)
        limited = ((image + 1) / 2).clamp(0, 1)
        torch.testing.assert_close(ours.synthesize(s).double(), limited, rtol=0, atol=2e-5)


@pytest.mark.parametrize("options", ADA.values(), ids=ADA)
def test_an_official_pickle_draws_what_the_formulas_draw(options, tmp_path):
    path = write_ada(tmp_path / "network.pkl", **options)
    net = from_ada(read_officially(path)["G_ema"])
    k = 2 if net.embed is not None else None
    assert not {"torch_utils", "dnnlib"} & set(sys.modules)
    ours = StyleGenerator.open(path, class_index=k)
    compare(ours, net, k)
    assert torch.equal(ours.network.mapping.w_avg, net.w_avg)
    assert ours.resolution == options.get("resolution", 16)
    if net.clamp is not None:  # and it binds
        s = styles_of(net, broadcast(net, w_of(net, torch.randn(4, 8), k)))
        bound = image_of(net, s)
        net.clamp = None
        assert (bound - image_of(net, s)).abs().max() > 0.1


@pytest.mark.parametrize("clamp", [None, 0.6])
def test_a_generator_of_ours_is_written_and_read_as_an_official_one(clamp, tmp_path):
    torch.manual_seed(1)
    options = {"z_dim": 6, "w_dim": 10, "channels": {4: 8, 8: 6, 16: 4}, "mapping_layers": 3}
    options |= {"mapping_width": 7, "mapping_lr_multiplier": 0.05, "conv_clamp": clamp}
    ours = StyleGenerator(Generator(**options), options)
    for name, value in ours.network.named_parameters():
        if name.endswith(("bias", "noise_strength")):  # which are 0 or 1 before any training
            value.data += 0.2 * torch.randn_like(value)
    ours.measure(500)
    path = write_official(ours, tmp_path / "network.pkl")
    assert not {"torch_utils", "dnnlib"} & set(sys.modules)
    read = StyleGenerator.open(path)
    tensors, expected = read.network.state_dict(), ours.network.state_dict()
    assert all(torch.equal(tensors.pop(name), value) for name, value in expected.items())
    assert not tensors
    for psi in (1.0, 0.7):
        s = ours.sample_styles(3, 5, psi)
        assert torch.equal(read.sample_styles(3, 5, psi), s)
        assert torch.equal(read.synthesize(s), ours.synthesize(s))
    compare(ours, from_ada(read_officially(path)["G_ema"]))  # by the official formulas
    measured = (read.style_std - ours.style_std).abs() / ours.style_std
    assert 0 < measured.max() < 0.2, "the statistics were measured again, of other z"


def test_the_files_ask_for_the_official_names(tmp_path):
    path = write_ada(tmp_path / "network.pkl", protocol=2)
    asked = {arg for op, arg, _ in pickletools.genops(path.read_bytes()) if op.name == "GLOBAL"}
    assert {
        "torch_utils.persistence _reconstruct_persistent_obj",
        "dnnlib.util EasyDict",
        "torch.storage _load_from_bytes",
    } <= asked
    with pytest.raises(ModuleNotFoundError):
        pickle.loads(path.read_bytes())


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_gives_the_same_generator(protocol, tmp_path):
    path = write_ada(tmp_path / "network.pkl", protocol=protocol)
    one = StyleGenerator.open(path)
    assert one.fingerprint == StyleGenerator.open(write_ada(tmp_path / "b.pkl")).fingerprint


def test_each_class_has_a_generator_of_its_own(tmp_path):
    path = write_ada(tmp_path / "network.pkl", c_dim=4)
    a, b = (StyleGenerator.open(path, k) for k in (0, 3))
    assert a.fingerprint != b.fingerprint
    assert not torch.allclose(a.sample_styles(2, 0), b.sample_styles(2, 0), atol=1e-3)
    assert a.card["class"] == 0
    assert a.card["classes"] == 4
    with pytest.raises(InputError, match="4 classes: choose one from 0 to 3"):
        StyleGenerator.open(path)
    for wrong in (4, -1, "cat", True, 1.5):
        with pytest.raises(InputError, match=f"no class {wrong!r}: choose one from 0 to 3"):
            StyleGenerator.open(path, wrong)
    with pytest.raises(InputError, match="an empty z"):  # a class alone, always the same picture
        StyleGenerator.open(write_ada(tmp_path / "no_z.pkl", z_dim=0, c_dim=2), 1)
    with pytest.raises(InputError, match="knows no classes: leave out class 1"):
        StyleGenerator.open(write_ada(tmp_path / "plain.pkl"), 1)


def test_a_transfer_learned_pickle_may_hold_more(tmp_path):
    torch.manual_seed(0)
    more = {"G_ema": generator(), "progress": {"cur_nimg": 1000}, "augment_pipe": None}
    path = dump(tmp_path / "network.pkl", {**more, "tags": {"cats", "dogs"}})
    compare(StyleGenerator.open(path), from_ada(read_officially(path)["G_ema"]))


def test_statistics_are_those_of_many_samples_and_leave_the_mean_w(tmp_path):
    path = write_ada(tmp_path / "network.pkl")
    net = from_ada(read_officially(path)["G_ema"])
    ours = StyleGenerator.open(path)
    z = torch.randn(10_000, 8, generator=torch.Generator().manual_seed(0))
    s = torch.cat(styles_of(net, broadcast(net, w_of(net, z))), 1)
    # rounded to 12 bits
    torch.testing.assert_close(ours.style_mean.double(), s.mean(0), rtol=2**-12, atol=1e-6)
    torch.testing.assert_close(ours.style_std.double(), s.std(0), rtol=2**-12, atol=1e-6)
    assert torch.equal(ours.network.mapping.w_avg, net.w_avg)
    assert not torch.allclose(net.w_avg.double(), w_of(net, z).mean(0), atol=0.05)


def test_truncation_up_to_a_layer_by_hand(tmp_path):
    ours = StyleGenerator.open(write_ada(tmp_path / "network.pkl"))
    free = ours.sample_styles(3, 1)
    near = ours.sample_styles(3, 1, truncation=0.3)
    mixed = ours.sample_styles(3, 1, truncation=0.3, cutoff=2)
    # rows 0 and 1 of W+: b4.conv1, b4.torgb and b8.conv0
    end = ours.layers[2].start + ours.layers[2].width
    torch.testing.assert_close(mixed[:, :end], near[:, :end])
    torch.testing.assert_close(mixed[:, end:], free[:, end:])
    torch.testing.assert_close(ours.sample_styles(3, 1, 0.3, ours.num_ws), near)
    for wrong in (-1, ours.num_ws + 1):
        with pytest.raises(InputError, match=f"from 0 to 6, got {wrong}"):
            ours.sample_styles(3, 1, 0.3, cutoff=wrong)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_of_rosinality(zipped, tmp_path):
    state = write_rosinality(tmp_path / "550000.pt", zipped=zipped)
    mean = torch.load(tmp_path / "550000.pt", weights_only=False)["latent_avg"]
    ours = StyleGenerator.open(tmp_path / "550000.pt")
    compare(ours, from_rosinality(state, mean))
    assert torch.equal(ours.network.mapping.w_avg, mean)


def test_a_mean_w_that_is_not_in_the_file_is_measured(tmp_path):
    state = write_rosinality(tmp_path / "550000.pt", mean=False)
    ours = StyleGenerator.open(tmp_path / "550000.pt")
    net = from_rosinality(state, ours.network.mapping.w_avg)
    z = torch.randn(10_000, 10, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(net.w_avg.double(), w_of(net, z).mean(0), rtol=2**-12, atol=1e-6)
    compare(ours, net)


def test_a_pickle_of_the_tensorflow_code(tmp_path):
    arrays = write_tf(tmp_path / "stylegan2.pkl")
    compare(StyleGenerator.open(tmp_path / "stylegan2.pkl"), from_tf(arrays))


def lacking(*names: str):
    """A network of which a module lacks one child."""
    network = module = generator()
    for name in names[:-1]:
        module = module._modules[name]
    del module._modules[names[-1]]
    return {"G_ema": network}


def renamed(name: str):
    network = generator()
    network.__dict__["named"] = name
    return {"G_ema": network}


def stylegan3():
    network = Persistent("Generator", z_dim=8, c_dim=0)
    network.mapping = Persistent("MappingNetwork", c_dim=0)
    network.synthesis = Persistent("SynthesisNetwork")
    network.synthesis.input = Persistent("SynthesisInput")
    return {"G_ema": network}


def spoiled(value: float):
    network = generator()
    network.synthesis.b8.conv1.weight.data[0, 0, 0, 0] = value
    return {"G_ema": network}


def relu(*names: str):
    network = generator()
    module = network
    for name in names:
        module = getattr(module, name)
    module.__dict__["activation"] = "relu"
    return {"G_ema": network}


def filtered():
    network = generator()
    network.synthesis.b8.conv0.resample_filter = torch.full((4, 4), 1 / 16)
    return {"G_ema": network}


OTHERS = {
    "StyleGAN3": (stylegan3, "is a StyleGAN3"),
    "residual": (lambda: {"G_ema": generator(architecture="resnet")}, "architecture 'resnet'"),
    "configuration before F": (lambda: {"G_ema": generator(architecture="orig")}, "'orig'"),
    "another class": (lambda: renamed("TriPlaneGenerator"), "of TriPlaneGenerator"),
    "no mapping": (lambda: lacking("mapping"), "another architecture"),
    "no mapping layer": (lambda: lacking("mapping", "fc0"), "damaged"),
    "a lacking layer": (lambda: lacking("synthesis", "b16", "conv0"), "lacks synthesis.b16.conv0"),
    "without G_ema": (lambda: {"G": generator()}, r"no G_ema \(it holds training_set_kwargs, G\)"),
    "no dict": (lambda: [1, 2], r"no G_ema \(it holds list\)"),
    "G_ema that is none": (lambda: {"G_ema": 3}, "no network but int"),
    "grey": (lambda: {"G_ema": generator(img_channels=1)}, "RGB"),
    "NaN": (lambda: spoiled(float("nan")), "synthesis.b8.conv1.weight has values that are not fin"),
    "relu in the mapping": (lambda: relu("mapping", "fc1"), "fc1 has the activation 'relu'"),
    "relu": (lambda: relu("synthesis", "b8", "conv1"), "b8.conv1 has the activation 'relu'"),
    "another filter": (filtered, r"another filter than \[1, 3, 3, 1\]"),
    "a tensor": (lambda: {"G_ema": torch.ones(3)}, "no network but PickledTensor"),
}


@pytest.mark.parametrize(("made", "said"), OTHERS.values(), ids=OTHERS)
def test_another_network_is_refused_in_one_sentence(made, said, tmp_path):
    torch.manual_seed(0)
    path = dump(tmp_path / "network.pkl", made())
    with pytest.raises(InputError, match=said) as caught:
        StyleGenerator.open(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_none(tmp_path):
    whole = write_ada(tmp_path / "network.pkl").read_bytes()
    for n in (len(whole) - 1, len(whole) // 2, 1000, 20):
        (tmp_path / "cut.pkl").write_bytes(whole[:n])
        with pytest.raises(InputError, match="is cut short: download it again"):
            StyleGenerator.open(tmp_path / "cut.pkl")
    for held in (b"", b"<html>not found</html>", b"\x00" * 64, bytes(range(256))):
        (tmp_path / "none.pkl").write_bytes(held)
        with pytest.raises(InputError, match=r"none\.pkl is (no pickle|cut short)"):
            StyleGenerator.open(tmp_path / "none.pkl")
    with pytest.raises(InputError, match="No file at"):
        StyleGenerator.open(tmp_path / "nowhere.pkl")
    with pytest.raises(InputError, match="is a folder"):
        StyleGenerator.open(tmp_path)


def test_checkpoints_that_are_none(tmp_path):
    path = tmp_path / "model.pt"
    for made, said in (
        (lambda: torch.save({"g": {}}, path), r"no g_ema with weights \(it holds g\)"),
        (lambda: torch.save(torch.ones(3), path), "no g_ema"),
        (lambda: torch.save({"g_ema": {"style.1.weight": torch.ones(2, 2)}}, path), "no StyleGAN2"),
        (lambda: write_rosinality(path, g_ema={"iwt.ll": torch.ones(2)}), "no StyleGAN2"),
        (lambda: path.write_bytes(b"PK\x03\x04 not a zip"), "is not read"),
    ):
        made()
        with pytest.raises(InputError, match=said):
            StyleGenerator.open(path)
    state = write_rosinality(path)
    torch.save({"g_ema": {**state, "extra.weight": torch.ones(2)}}, path)
    with pytest.raises(InputError, match=r"it has extra\.weight"):
        StyleGenerator.open(path)
    torch.save({"g_ema": state}, path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(InputError, match="is not read"):
        StyleGenerator.open(path)


def test_a_tensorflow_pickle_of_another_kind(tmp_path):
    path = tmp_path / "network.pkl"
    for options, said in (
        ({"architecture": "orig"}, "other than 'skip'"),
        ({"label_size": 10}, "draws 10 classes as the first StyleGAN2 did"),
        ({"resample_kernel": [1, 1]}, "another filter"),
        ({"mapping_nonlinearity": "relu"}, "'relu'"),
        ({"resample_kernel": 3}, "is damaged .*: download it again"),
        ({"mapping_lrmul": "much"}, "is damaged .*: download it again"),
    ):
        write_tf(path, **options)
        with pytest.raises(InputError, match=said):
            StyleGenerator.open(path)
    # the first StyleGAN names its variables otherwise: no weight is modulated
    path.write_bytes(path.read_bytes().replace(b"mod_weight", b"StyleMod_w"))
    with pytest.raises(InputError, match="is a StyleGAN1 or another architecture"):
        StyleGenerator.open(path)
