"""Tiny generators in the official formats, randomly initialised: what people's files look like.

Written without the official sources, see ``visiondx_worlds.models.official``.
"""

import argparse
import pickle
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from visiondx_worlds.models.official import SOURCE, Persistent, dump, official_names

TAPS = torch.tensor([1.0, 3.0, 3.0, 1.0]).outer(torch.tensor([1.0, 3.0, 3.0, 1.0])) / 64


def _linear(inputs: int, outputs: int, *, lr: float = 1.0, bias: float = 0.0, activation="linear"):
    gains = {"weight_gain": lr / np.sqrt(inputs), "bias_gain": lr}
    made = Persistent("FullyConnectedLayer", activation=activation, **gains)
    made.weight = nn.Parameter(torch.randn(outputs, inputs) / lr)
    made.bias = nn.Parameter(bias + 0.2 * torch.randn(outputs) / lr)
    return made


def _layer(inputs: int, outputs: int, w_dim: int, size: int, clamp, noise: bool, channels_last):
    made = Persistent(
        "SynthesisLayer",
        use_noise=noise,
        activation="lrelu",
        conv_clamp=clamp,
        act_gain=np.sqrt(2),
    )
    made.register_buffer("resample_filter", TAPS.clone())
    made.affine = _linear(w_dim, inputs, bias=1.0)
    form = torch.channels_last if channels_last else torch.contiguous_format
    made.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3).to(memory_format=form))
    if noise:
        made.register_buffer("noise_const", torch.randn(size, size))
        made.noise_strength = nn.Parameter(torch.tensor(0.3))
    made.bias = nn.Parameter(0.2 * torch.randn(outputs))
    return made


def generator(
    resolution: int = 16,
    *,
    z_dim: int = 8,
    c_dim: int = 0,
    w_dim: int = 12,
    img_channels: int = 3,
    channel_base: int = 96,
    channel_max: int = 8,
    num_fp16_res: int = 0,
    conv_clamp: float | None = None,
    num_layers: int = 3,
    embed_features: int | None = None,
    layer_features: int | None = None,
    lr_multiplier: float = 0.01,
    architecture: str = "skip",
    use_noise: bool = True,
) -> Persistent:
    """A random network as ``training.networks.Generator`` would make it, biases and noise not 0."""
    mapping = Persistent("MappingNetwork", z_dim=z_dim, c_dim=c_dim, w_dim=w_dim)
    mapping.num_layers = num_layers
    embed = (embed_features or w_dim) if c_dim else 0
    if c_dim:
        mapping.embed = _linear(c_dim, embed)
    widths = [z_dim + embed, *[layer_features or w_dim] * (num_layers - 1), w_dim]
    for i in range(num_layers):
        layer = _linear(widths[i], widths[i + 1], lr=lr_multiplier, activation="lrelu")
        setattr(mapping, f"fc{i}", layer)
    mapping.register_buffer("w_avg", 0.3 * torch.randn(w_dim))

    synthesis = Persistent("SynthesisNetwork", w_dim=w_dim, img_channels=img_channels)
    inputs, size = 0, 4
    fp16 = max(2 * resolution // 2**num_fp16_res, 8)
    while size <= resolution:
        width = min(channel_base // size, channel_max)
        last, half = size == resolution, size >= fp16
        block = Persistent("SynthesisBlock", architecture=architecture, use_fp16=half)
        block.register_buffer("resample_filter", TAPS.clone())
        rest = (conv_clamp, use_noise, half)
        if inputs:
            block.conv0 = _layer(inputs, width, w_dim, size, *rest)
        else:
            block.const = nn.Parameter(torch.randn(width, size, size))
        block.conv1 = _layer(width, width, w_dim, size, *rest)
        if last or architecture == "skip":
            block.torgb = Persistent("ToRGBLayer", conv_clamp=conv_clamp)
            block.torgb.affine = _linear(w_dim, width, bias=1.0)
            block.torgb.weight = nn.Parameter(torch.randn(img_channels, width, 1, 1))
            block.torgb.bias = nn.Parameter(0.2 * torch.randn(img_channels))
        setattr(synthesis, f"b{size}", block)
        inputs, size = width, 2 * size

    network = Persistent("Generator", z_dim=z_dim, c_dim=c_dim, w_dim=w_dim)
    network.img_resolution, network.img_channels = resolution, img_channels
    network.synthesis, network.mapping = synthesis, mapping
    return network.eval().requires_grad_(False)


def write_ada(path: Path, *, seed: int = 0, protocol: int = 4, **options: object) -> Path:
    """A network pickle as stylegan2-ada-pytorch writes it; ``options`` of ``generator``."""
    torch.manual_seed(seed)
    critic = Persistent("Discriminator", c_dim=0, img_resolution=16)
    critic.b4 = _linear(4, 4)
    held = {"G": generator(**options), "D": critic, "G_ema": generator(**options)}
    return dump(path, {**held, "augment_pipe": None}, protocol)


def read_officially(path: Path) -> dict:
    """As anybody with the official code reads it: the dict, its networks as namespaces."""
    with official_names():
        return pickle.loads(path.read_bytes())


def write_rosinality(
    path: Path, *, seed: int = 0, mean: bool = True, zipped: bool = True, **more: object
) -> dict[str, Tensor]:
    """A checkpoint of rosinality's, 16 px, training options included; its ``g_ema``."""
    torch.manual_seed(seed)
    w_dim, widths = 10, [8, 6, 4]
    state = {}
    for i in range(1, 4):
        state[f"style.{i}.weight"] = torch.randn(w_dim, w_dim) / 0.01
        state[f"style.{i}.bias"] = 0.2 * torch.randn(w_dim) / 0.01
    state["input.input"] = torch.randn(1, widths[0], 4, 4)

    def conv(name: str, inputs: int, outputs: int, size: int) -> None:
        state[f"{name}.conv.weight"] = torch.randn(1, outputs, inputs, size, size)
        state[f"{name}.conv.modulation.weight"] = torch.randn(inputs, w_dim)
        state[f"{name}.conv.modulation.bias"] = 1 + 0.2 * torch.randn(inputs)
        if size == 3:
            state[f"{name}.noise.weight"] = torch.tensor([0.3])
            state[f"{name}.activate.bias"] = 0.2 * torch.randn(outputs)
        else:
            state[f"{name}.bias"] = 0.2 * torch.randn(1, 3, 1, 1)

    conv("conv1", widths[0], widths[0], 3)
    conv("to_rgb1", widths[0], 3, 1)
    for k, (inputs, outputs) in enumerate(pairwise(widths)):
        conv(f"convs.{2 * k}", inputs, outputs, 3)
        state[f"convs.{2 * k}.conv.blur.kernel"] = TAPS * 4
        conv(f"convs.{2 * k + 1}", outputs, outputs, 3)
        conv(f"to_rgbs.{k}", outputs, 3, 1)
        state[f"to_rgbs.{k}.upsample.kernel"] = TAPS * 4
    for i, size in enumerate([4, 8, 8, 16, 16]):
        state[f"noises.noise_{i}"] = torch.randn(1, 1, size, size)
    held = {"g": {}, "g_ema": state, "g_optim": {"state": {}}, "args": argparse.Namespace(size=16)}
    if mean:
        held["latent_avg"] = 0.3 * torch.randn(w_dim)
    torch.save(held | more, path, _use_new_zipfile_serialization=zipped)
    return state


def write_tf(path: Path, *, seed: int = 0, **options: object) -> dict[str, np.ndarray]:
    """A pickle of the TensorFlow code, 16 px: (G, D, Gs); the variables of Gs."""
    random = np.random.default_rng(seed)

    def drawn(*shape: int) -> np.ndarray:
        return random.standard_normal(shape, dtype=np.float32)

    w_dim, widths = 10, {4: 8, 8: 6, 16: 4}
    mapping, synthesis = {}, {}
    for i in range(3):
        mapping[f"Dense{i}/weight"] = drawn(w_dim, w_dim) / np.float32(0.01)
        mapping[f"Dense{i}/bias"] = drawn(w_dim)
    synthesis["4x4/Const/const"] = drawn(1, widths[4], 4, 4)
    noises, inputs = 0, widths[4]
    for size, width in widths.items():
        convs = {"Conv": width} if size == 4 else {"Conv0_up": inputs, "Conv1": width}
        for name, reads in {**convs, "ToRGB": width}.items():
            start, rgb = f"{size}x{size}/{name}/", name == "ToRGB"
            edge, outputs = (1, 3) if rgb else (3, width)
            synthesis[start + "weight"] = drawn(edge, edge, reads, outputs)
            synthesis[start + "bias"] = drawn(outputs)
            synthesis[start + "mod_weight"] = drawn(w_dim, reads)
            synthesis[start + "mod_bias"] = drawn(reads) / 5
            if not rgb:
                synthesis[start + "noise_strength"] = np.float32(0.3)  # a scalar, as run() gives
                synthesis[f"noise{noises}"] = drawn(1, 1, size, size)
                noises += 1
        inputs = width
    own = {"dlatent_avg": drawn(w_dim), "lod": np.float32(0)}

    with official_names() as official:

        def network(variables: dict, components: dict, kwargs: dict) -> object:
            made = official.Network()
            made.__dict__.update(
                version=4,
                name="Gs",
                static_kwargs=official.EasyDict(kwargs),
                components=official.EasyDict(components),
                build_module_src=SOURCE,
                build_func_name="G_main",
                variables=list(variables.items()),
            )
            return made

        kwargs = {"num_channels": 3, "resolution": 16, "label_size": 0, **options}
        parts = {"mapping": network(mapping, {}, {}), "synthesis": network(synthesis, {}, {})}
        Gs = network(own, parts, kwargs)
        path.write_bytes(pickle.dumps((network({}, {}, {}), network({}, {}, {}), Gs), 4))
    found = {f"mapping/{n}": v for n, v in mapping.items()}
    return own | found | {f"synthesis/{n}": v for n, v in synthesis.items()}
