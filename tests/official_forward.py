"""StyleGAN2's forward straight from its formulas, in float64, without any of our layers.

Weights are modulated and demodulated for each image and convolved in groups; upsampling inserts
zeros, pads and filters.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

TAPS = (
    torch.tensor([1.0, 3.0, 3.0, 1.0]).double().outer(torch.tensor([1.0, 3.0, 3.0, 1.0]).double())
)
TAPS = TAPS / TAPS.sum()


@dataclass
class Conv:
    """A modulated layer: ``weight`` (O, I, k, k) as a correlation in the upsampled image."""

    affine: tuple[Tensor, Tensor]
    weight: Tensor
    bias: Tensor
    noise: Tensor | None = None  # strength times noise, (H, W)
    up: bool = False
    rgb: bool = False


@dataclass
class Network:
    mapping: list[tuple[Tensor, Tensor]]
    w_avg: Tensor
    const: Tensor
    layers: list[Conv]  # in the order of the style vector
    lr_multiplier: float = 0.01
    clamp: float | None = None
    embed: tuple[Tensor, Tensor] | None = None


def linear(x: Tensor, weight: Tensor, bias: Tensor, lr: float = 1.0) -> Tensor:
    return x @ (weight.double() * lr / math.sqrt(weight.shape[1])).T + bias.double() * lr


def normalized(x: Tensor) -> Tensor:
    return x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()


def activated(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.2 * x) * math.sqrt(2)


def w_of(net: Network, z: Tensor, k: int | None = None) -> Tensor:
    x = normalized(z.double())
    if net.embed is not None:
        c = torch.zeros(len(z), net.embed[0].shape[1]).double()
        c[:, k] = 1
        x = torch.cat([x, normalized(linear(c, *net.embed))], 1)
    for weight, bias in net.mapping:
        x = activated(linear(x, weight, bias, net.lr_multiplier))
    return x


def broadcast(net: Network, w: Tensor, psi: float = 1.0, cutoff: int | None = None) -> Tensor:
    """w (B, w_dim) -> W+ (B, num_ws, w_dim), the first ``cutoff`` of them truncated."""
    rows = sum(not layer.rgb for layer in net.layers) + 1
    w = w[:, None].repeat(1, rows, 1)
    mean = net.w_avg.double()
    w[:, :cutoff] = mean + psi * (w[:, :cutoff] - mean)
    return w


def styles_of(net: Network, ws: Tensor) -> list[Tensor]:
    found, row = [], 0
    for layer in net.layers:
        found.append(linear(ws[:, row], *layer.affine))
        row += not layer.rgb
    return found


def zeros_between(x: Tensor, pad: tuple[int, int]) -> Tensor:
    """Upsample: (B, C, H, W) -> zeros inserted, padded and filtered with a gain of 4."""
    b, c, h, w = x.shape
    out = x.new_zeros(b, c, h, 2, w, 2)
    out[:, :, :, 0, :, 0] = x
    out = F.pad(out.reshape(b, c, 2 * h, 2 * w), (*pad, *pad))
    out = F.conv2d(out.reshape(b * c, 1, *out.shape[2:]), 4 * TAPS[None, None])
    return out.reshape(b, c, *out.shape[2:])


def image_of(net: Network, styles: list[Tensor]) -> Tensor:
    """(B, 3, H, W), not limited to a range."""
    batch = len(styles[0])
    x = net.const.double().expand(batch, -1, -1, -1)
    image = None
    for layer, s in zip(net.layers, styles, strict=True):
        w = layer.weight.double()
        if layer.rgb:
            s = s / math.sqrt(w.shape[1])
        w = w[None] * s[:, None, :, None, None]
        if not layer.rgb:
            w = w / (w.square().sum((2, 3, 4), keepdim=True) + 1e-8).sqrt()
        outputs, edge = w.shape[1], w.shape[-1]
        at = zeros_between(x, (3, 2)) if layer.up else F.pad(x, [edge // 2] * 4)
        y = F.conv2d(at.reshape(1, -1, *at.shape[2:]), w.flatten(0, 1), groups=batch)
        y = y.reshape(batch, outputs, *y.shape[2:])
        if layer.noise is not None:
            y = y + layer.noise.double()
        y = y + layer.bias.double()[:, None, None]
        y = y if layer.rgb else activated(y)
        y = y if net.clamp is None else y.clamp(-net.clamp, net.clamp)
        if layer.rgb:
            image = y if image is None else zeros_between(image, (2, 1)) + y
        else:
            x = y
    return image


def from_ada(G) -> Network:
    """Of a network as ``official_files.read_officially`` gives it."""
    mapping = G._modules["mapping"]

    def pair(module) -> tuple[Tensor, Tensor]:
        return module._parameters["weight"], module._parameters["bias"]

    layers, const, size = [], None, 4
    blocks = G._modules["synthesis"]._modules
    while f"b{size}" in blocks:
        block = blocks[f"b{size}"]
        if size == 4:
            const = block._parameters["const"]
        for name in ("conv0", "conv1", "torgb"):
            if name not in block._modules:
                continue
            module = block._modules[name]
            up, rgb = name == "conv0", name == "torgb"
            weight, bias = pair(module)
            noise = None
            if "noise_const" in module._buffers:
                noise = module._buffers["noise_const"] * module._parameters["noise_strength"]
            # a true convolution after upsampling, a correlation elsewhere
            weight = weight.flip(2, 3) if up else weight
            layers.append(Conv(pair(module._modules["affine"]), weight, bias, noise, up, rgb))
        clamp = block._modules["conv1"].conv_clamp
        size *= 2
    fcs = [mapping._modules[f"fc{i}"] for i in range(mapping.num_layers)]
    return Network(
        [pair(fc) for fc in fcs],
        mapping._buffers["w_avg"],
        const,
        layers,
        fcs[0].bias_gain,
        clamp,
        pair(mapping._modules["embed"]) if "embed" in mapping._modules else None,
    )


def from_rosinality(state: dict[str, Tensor], w_avg: Tensor) -> Network:
    def conv(name: str, noise: int | None, up: bool = False) -> Conv:
        rgb = noise is None
        weight = state[f"{name}.conv.weight"][0]
        start = f"{name}.conv.modulation."
        affine = state[start + "weight"], state[start + "bias"]
        if rgb:  # its scale is that of image_of
            return Conv(affine, weight, state[f"{name}.bias"].reshape(-1), rgb=True)
        weight = weight / math.sqrt(weight[0].numel())
        weight = weight.flip(2, 3) if up else weight
        added = state[f"{name}.noise.weight"] * state[f"noises.noise_{noise}"][0, 0]
        return Conv(affine, weight, state[f"{name}.activate.bias"], added, up)

    layers = [conv("conv1", 0), conv("to_rgb1", None)]
    for k in range(2):
        layers += [conv(f"convs.{2 * k}", 2 * k + 1, True), conv(f"convs.{2 * k + 1}", 2 * k + 2)]
        layers += [conv(f"to_rgbs.{k}", None)]
    mapping = [(state[f"style.{i}.weight"], state[f"style.{i}.bias"]) for i in range(1, 4)]
    return Network(mapping, w_avg, state["input.input"][0], layers)


def from_tf(arrays: dict) -> Network:
    of = {name: torch.as_tensor(value) for name, value in arrays.items()}
    layers, noises = [], 0
    for size in (4, 8, 16):
        for name in ("Conv", "Conv0_up", "Conv1", "ToRGB"):
            start = f"synthesis/{size}x{size}/{name}/"
            if start + "weight" not in of:
                continue
            rgb = name == "ToRGB"
            affine = of[start + "mod_weight"].T, of[start + "mod_bias"] + 1
            weight = of[start + "weight"].permute(3, 2, 0, 1)  # TensorFlow correlates, always
            noise = None
            if not rgb:
                noise = of[start + "noise_strength"] * of[f"synthesis/noise{noises}"][0, 0]
                noises += 1
            layers.append(Conv(affine, weight, of[start + "bias"], noise, name == "Conv0_up", rgb))
    mapping = [(of[f"mapping/Dense{i}/weight"].T, of[f"mapping/Dense{i}/bias"]) for i in range(3)]
    return Network(mapping, of["dlatent_avg"], of["synthesis/4x4/Const/const"][0], layers)
