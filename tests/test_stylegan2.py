"""The generator's semantics, held against slow float64 references."""

import math

import pytest
import torch
import torch.nn.functional as F

from visiondx.core.errors import InputError
from visiondx.models import stylegan2
from visiondx.models.generator import StyleGenerator
from visiondx.models.stylegan2 import Generator
from visiondx_worlds.models.discriminator import Discriminator, minibatch_std
from visiondx_worlds.models.generators import save_generator

SETTINGS = {
    "z_dim": 8,
    "w_dim": 12,
    "channels": {4: 8, 8: 6, 16: 4},
    "mapping_layers": 2,
    "mapping_width": 10,
    "mapping_lr_multiplier": 0.1,
}


@pytest.fixture
def generator() -> StyleGenerator:
    torch.manual_seed(0)
    network = Generator(**SETTINGS)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.3)
            elif name.endswith("bias"):
                parameter.add_(0.2 * torch.randn_like(parameter))
    return StyleGenerator(network, SETTINGS)


def zero_insert(x: torch.Tensor) -> torch.Tensor:
    batch, channels, height, width = x.shape
    out = x.new_zeros(batch, channels, 2 * height, 2 * width)
    out[:, :, ::2, ::2] = x
    return out


def reference_layer(x, weight, style, bias, noise, strength, blur):
    """By the definition: modulate and demodulate each sample's weight, then convolve it alone."""
    outputs = []
    for sample, scale in zip(x, style, strict=True):
        w = weight * scale[None, :, None, None]
        w = w / (w.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        sample = sample[None]
        if blur is not None:
            # StyleGAN2's order for up = 2: pad (3, 2), low-pass (gain 4), then a true convolution
            taps = (blur * 4).expand(sample.shape[1], 1, 4, 4)
            sample = F.conv2d(F.pad(zero_insert(sample), (3, 2, 3, 2)), taps, groups=len(scale))
            y = F.conv2d(sample, w.flip(2, 3))
        else:
            y = F.conv2d(sample, w, padding=1)
        y = y + bias[None, :, None, None] + (0 if noise is None else strength * noise[0])
        outputs.append(torch.where(y > 0, y, 0.2 * y) * math.sqrt(2))
    return torch.cat(outputs)


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("noisy", [False, True])
def test_modulated_layer_equals_its_definition(up, noisy):
    torch.manual_seed(1)
    x, style = torch.randn(3, 5, 6, 6).double(), torch.randn(3, 5).double()
    weight, bias = torch.randn(7, 5, 3, 3).double(), torch.randn(7).double()
    size = 12 if up else 6
    noise = torch.randn(1, 1, size, size).double() if noisy else None
    strength = torch.tensor(0.7).double()
    blur = stylegan2.resample_filter().double() if up else None
    inputs = [t.requires_grad_() for t in (x, weight, style, bias)]
    ours = stylegan2.modulated_layer(*inputs, noise, strength, blur)
    reference = reference_layer(*inputs, noise, strength, blur)
    assert ours.shape == (3, 7, size, size)
    # the demodulation factor is float32 whatever comes in
    torch.testing.assert_close(ours, reference, rtol=1e-5, atol=1e-5)
    cotangent = torch.randn_like(ours)
    for a, b in zip(
        torch.autograd.grad(ours, inputs, cotangent),
        torch.autograd.grad(reference, inputs, cotangent),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("up", [False, True])
def test_sums_beyond_half_precision_do_not_end_at_the_clamp(up):
    """Of a clamped network an overflow would look like any other large activation."""
    torch.manual_seed(1)
    x, weight, bias = 50 * torch.randn(2, 64, 5, 5), torch.randn(6, 64, 3, 3), torch.randn(6)
    blur, strength = stylegan2.resample_filter() if up else None, torch.tensor(0.0)
    found = {}
    for half in (False, True):
        drawn = torch.Generator().manual_seed(2)
        style = (100 * torch.randn(2, 64, generator=drawn)).requires_grad_()
        given = x.half() if half else x
        assert (given.float().abs().max() * style.abs().max()) < 65_504  # the sums are too large
        with torch.autocast("cpu", torch.float16, enabled=half):
            y = stylegan2.modulated_layer(given, weight, style, bias, None, strength, blur, 256.0)
        (gradient,) = torch.autograd.grad(y.float().square().mean(), style)
        found[half] = y.float(), gradient
    (full, by_full), (half, by_half) = found[False], found[True]
    assert full.abs().max() < 256
    torch.testing.assert_close(half, full, rtol=1e-2, atol=0.2)
    assert torch.cosine_similarity(by_half.flatten(), by_full.flatten(), dim=0) > 0.999


def test_upsample_keeps_a_constant_inside_and_doubles_the_size():
    image = stylegan2.upsample(torch.full((1, 3, 8, 8), 0.7), stylegan2.resample_filter())
    assert image.shape == (1, 3, 16, 16)
    torch.testing.assert_close(image[:, :, 1:-1, 1:-1], torch.full((1, 3, 14, 14), 0.7))
    # by hand: at the border a quarter of the weight falls on padding, 3/4 of it each way
    assert image[0, 0, 0, 0].item() == pytest.approx(0.7 * 0.75**2)


def test_names_are_those_of_stylegan2_ada():
    names = set(Generator(**SETTINGS).state_dict())
    layer = {"affine.weight", "affine.bias", "weight", "bias", "noise_strength"}
    layer |= {"noise_const", "resample_filter"}
    torgb = {"affine.weight", "affine.bias", "weight", "bias"}
    expected = {"mapping.w_avg", "synthesis.b4.const"}
    expected |= {f"mapping.fc{i}.{p}" for i in range(2) for p in ("weight", "bias")}
    for block in ("b4", "b8", "b16"):
        convs = ("conv1",) if block == "b4" else ("conv0", "conv1")
        expected |= {f"synthesis.{block}.{conv}.{p}" for conv in convs for p in layer}
        expected |= {f"synthesis.{block}.torgb.{p}" for p in torgb}
        expected.add(f"synthesis.{block}.resample_filter")
    assert names == expected


def test_style_vector_is_all_affines_in_order(generator):
    assert [layer.name for layer in generator.layers] == [
        *("b4.conv1", "b4.torgb", "b8.conv0", "b8.conv1", "b8.torgb"),
        *("b16.conv0", "b16.conv1", "b16.torgb"),
    ]
    # conv0 reads the block below, so its width is that block's
    assert [layer.width for layer in generator.layers] == [8, 8, 8, 6, 6, 6, 4, 4]
    assert generator.num_styles == 50
    assert generator.editable.sum() == 50 - 8 - 6 - 4
    w = generator.w(torch.randn(3, 8))
    s = generator.styles(w)
    layer = generator.layers[3]
    affine = generator.network.synthesis.b8.conv1.affine
    torch.testing.assert_close(s[:, layer.start : layer.start + layer.width], affine(w))


def test_each_layer_reads_its_own_row_of_w_plus(generator):
    """Rows as in the official networks: b4.conv1 0, b4.torgb 1; b8.conv0 1, conv1 2, torgb 3 ..."""
    rows = []
    for block in range(len(generator.network.synthesis.resolutions)):
        rows += [0, 1] if block == 0 else [2 * block - 1, 2 * block, 2 * block + 1]
    assert generator.num_ws == rows[-1] + 1
    w = torch.randn(3, generator.num_ws, generator.network.synthesis.w_dim)
    parts = [
        layer.affine(w[:, row])
        for (_, layer), row in zip(generator.network.synthesis.named_layers(), rows, strict=True)
    ]
    torch.testing.assert_close(generator.styles(w), torch.cat(parts, 1))
    one = w[:, :1].expand_as(w)
    torch.testing.assert_close(generator.styles(one), generator.styles(w[:, 0]))


def test_image_is_affine_in_the_styles_of_the_last_torgb(generator):
    s = generator.sample_styles(2, seed=0)
    last = generator.layers[-1]
    network = generator.network.synthesis

    def scaled(factor: float) -> torch.Tensor:
        changed = s.clone()
        changed[:, last.start :] *= factor
        return network(changed)

    # without demodulation the image is affine in the last ToRGB's styles; a convolution's is not
    torch.testing.assert_close(scaled(2) - scaled(1), scaled(1) - scaled(0), atol=1e-4, rtol=1e-4)
    assert (scaled(1) - scaled(0)).abs().max() > 0.1


def test_images_are_differentiable_and_in_range(generator):
    s = generator.sample_styles(4, seed=3).requires_grad_()
    images = generator.synthesize(s)
    assert images.shape == (4, 3, 16, 16)
    assert images.dtype == torch.float32
    assert images.min() >= 0
    assert images.max() <= 1
    (gradient,) = torch.autograd.grad(images.sum(), s)
    assert gradient.abs().sum() > 0
    with pytest.raises(InputError, match=r"\(B, 50\)"):
        generator.synthesize(s[:, :10])


def test_gradient_with_respect_to_styles_by_finite_differences(generator):
    synthesis = generator.network.double().synthesis
    torch.manual_seed(0)
    s = torch.randn(1, generator.num_styles).double().requires_grad_()
    probe = torch.randn(1, 3, 16, 16).double()

    def value(x: torch.Tensor) -> torch.Tensor:
        return (synthesis(x) * probe).sum()

    (gradient,) = torch.autograd.grad(value(s), s)
    for layer in generator.layers:
        step = torch.zeros_like(s)
        step[0, layer.start] = 1e-2
        numeric = (value(s + step) - value(s - step)) / 2e-2
        assert numeric.item() == pytest.approx(gradient[0, layer.start].item(), rel=0.02, abs=0.02)


def test_sampling_is_seeded_and_noise_constant(generator):
    a, b = generator.sample_styles(3, seed=5), generator.sample_styles(3, seed=5)
    assert torch.equal(a, b)
    assert not torch.equal(a, generator.sample_styles(3, seed=6))
    assert torch.equal(generator.synthesize(a), generator.synthesize(b))
    random = generator.network.synthesis(a, noise="random")
    assert not torch.allclose(random, generator.network.synthesis(a, noise="none"))


def test_measure_and_truncation(generator):
    generator.measure(n=2000)
    s = generator.sample_styles(2000, seed=0)
    torch.testing.assert_close(generator.style_mean, s.mean(0))
    torch.testing.assert_close(generator.style_std, s.std(0))
    # psi = 0 collapses every sample on the mean w; psi = 0.5 halves the deviation (affine map)
    mean = generator.styles(generator.network.mapping.w_avg[None])
    torch.testing.assert_close(generator.sample_styles(2, 0, truncation=0.0), mean.expand(2, -1))
    half = generator.sample_styles(2, seed=0, truncation=0.5)
    torch.testing.assert_close(half - mean, 0.5 * (s[:2].expand(2, -1) - mean), atol=0.2, rtol=0.2)


def test_mapping_ignores_the_length_of_z(generator):
    z = torch.randn(4, 8)
    torch.testing.assert_close(generator.w(z), generator.w(3 * z))


def test_save_and_load(generator, tmp_path, monkeypatch):
    monkeypatch.setenv("VISIONDX_DATA", str(tmp_path))
    generator.measure(n=100)
    save_generator(
        generator, "tiny", notebook="train/04_generator.ipynb", seed=1, quality={"x": 1.0}
    )
    loaded = StyleGenerator.load("tiny")
    assert loaded.fingerprint == StyleGenerator.load("tiny").fingerprint
    assert loaded.fingerprint != generator.fingerprint  # weights were rounded to fp16
    s = generator.sample_styles(2, seed=0)
    torch.testing.assert_close(loaded.synthesize(s), generator.synthesize(s), atol=5e-3, rtol=0)
    assert torch.equal(loaded.style_std, generator.style_std.half().float())
    before = loaded.fingerprint
    loaded.network.synthesis.b8.conv1.weight.data[0, 0, 0, 0] += 1
    assert loaded.fingerprint != before


def test_minibatch_std_by_hand():
    x = torch.tensor([0.0, 10.0, 2.0, 10.0]).reshape(4, 1, 1, 1).expand(4, 1, 2, 2)
    # group 2: samples 0 and 2 (0, 2: std 1), samples 1 and 3 (10, 10: std 0)
    y = minibatch_std(x, group=2)[:, 1, 0, 0]
    torch.testing.assert_close(y, torch.tensor([1.0, 1e-4, 1.0, 1e-4]))


def test_discriminator_has_second_derivatives():
    torch.manual_seed(0)
    net = Discriminator({8: 4, 4: 8})
    images = torch.randn(4, 3, 16, 16, requires_grad=True)
    logits = net(images)
    assert logits.shape == (4,)
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    gradient.square().sum().backward()
    assert net.fromrgb.weight.grad.abs().sum() > 0
