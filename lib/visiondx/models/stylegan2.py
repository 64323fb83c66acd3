"""StyleGAN2 generator, config F, in plain PyTorch, with its StyleSpace exposed.

Karras et al., "Analyzing and Improving the Image Quality of StyleGAN" (2020). Parameter and
buffer names, initialisation and semantics follow NVlabs/stylegan2-ada-pytorch, so that its weights
only need renaming. Wu et al., "StyleSpace Analysis" (2021): the outputs of all affine layers,
concatenated, are the style vector s; `SynthesisNetwork.styles` gives it and `forward` takes it.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recomputed

from visiondx.kernels.modulate import demodulate_bias_act, demodulation

LEAK = 0.2
GAIN = math.sqrt(2.0)  # keeps the variance through a leaky ReLU


class FullyConnectedLayer(nn.Module):
    """Linear layer with equalised learning rate: (B, inputs) -> (B, outputs)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        activate: bool = False,
        lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
    ) -> None:
        super().__init__()
        self.activate = activate
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_multiplier)
        self.bias = nn.Parameter(torch.full([outputs], float(bias_init)))
        self.weight_gain = lr_multiplier / math.sqrt(inputs)
        self.bias_gain = lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        x = F.linear(x, self.weight * self.weight_gain, self.bias * self.bias_gain)
        return F.leaky_relu(x, LEAK) * GAIN if self.activate else x


def normalize_2nd_moment(x: Tensor, eps: float = 1e-8) -> Tensor:
    """x / sqrt(mean(x^2)) over the last dimension."""
    return x * (x.square().mean(dim=-1, keepdim=True) + eps).rsqrt()


class MappingNetwork(nn.Module):
    """z (B, z_dim) -> w (B, w_dim): normalised input, then ``num_layers`` leaky-ReLU layers."""

    def __init__(
        self, z_dim: int, w_dim: int, *, num_layers: int, width: int, lr_multiplier: float
    ) -> None:
        super().__init__()
        widths = [z_dim, *[width] * (num_layers - 1), w_dim]
        self.num_layers = num_layers
        for i, (inputs, outputs) in enumerate(pairwise(widths)):
            layer = FullyConnectedLayer(inputs, outputs, activate=True, lr_multiplier=lr_multiplier)
            setattr(self, f"fc{i}", layer)
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z: Tensor, truncation: float = 1.0) -> Tensor:
        """Truncation psi: w_avg + psi * (w - w_avg)."""
        x = normalize_2nd_moment(z if z.dtype == torch.float64 else z.float())
        with torch.autocast(z.device.type, enabled=False):  # w carries fine detail: float32
            for i in range(self.num_layers):
                x = getattr(self, f"fc{i}")(x)
        return x if truncation == 1.0 else self.w_avg.lerp(x, truncation)


def resample_filter() -> Tensor:
    """The separable [1, 3, 3, 1] low-pass filter, (4, 4), sum 1."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    taps = taps.outer(taps)
    return taps / taps.sum()


def depthwise(x: Tensor, taps: Tensor) -> Tensor:
    """Filter every channel with the same (symmetric) taps."""
    channels = x.shape[1]
    kernel = taps.to(x.dtype).expand(channels, 1, *taps.shape).contiguous()
    return F.conv2d(x, kernel, groups=channels)


def upsample(x: Tensor, taps: Tensor) -> Tensor:
    """Insert zeros, then low-pass with gain 4: (B, C, H, W) -> (B, C, 2H, 2W)."""
    channels = x.shape[1]
    kernel = (taps * 4).to(x.dtype).expand(channels, 1, *taps.shape).contiguous()
    return F.conv_transpose2d(x, kernel, stride=2, padding=1, groups=channels)


def modulated_layer(
    x: Tensor,  # (B, I, H, W)
    weight: Tensor,  # (O, I, 3, 3), float32
    style: Tensor,  # (B, I), float32
    bias: Tensor,  # (O,)
    noise: Tensor | None,  # (B or 1, 1, H', W')
    strength: Tensor,  # of the noise, ()
    blur: Tensor | None,  # (4, 4) taps: upsample twofold; None: keep the size
    clamp: float | None = None,  # bound of the absolute value of the outcome
) -> Tensor:
    """Modulated convolution, demodulation, noise, bias, leaky ReLU: -> (B, O, H', W').

    Scaling the input instead of the weight is the same linear map and needs no grouped
    convolution: conv(x, style * W) * d = d * conv(x * style, W).
    """
    if x.dtype == torch.float16:  # d divides it out again; else sums pass 65,504, unseen if clamped
        weight = weight / _scale(weight.flatten(1), math.sqrt(weight[0].numel()))[..., None, None]
        style = style / _scale(style)
    with torch.autocast(x.device.type, enabled=False):
        dcoef = demodulation(weight, style)
    x = x * style.to(x.dtype)[:, :, None, None]
    if blur is None:
        x = F.conv2d(x, weight, padding=1)
    else:
        x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
        x = depthwise(F.pad(x, (1, 1, 1, 1)), blur * 4)
    return demodulate_bias_act(x, dcoef, noise, strength, bias, LEAK, GAIN, clamp)


def _scale(x: Tensor, times: float = 1.0) -> Tensor:
    """The power of 2 above ``times`` max |x| of each row (R, N): (R, 1), a constant to autograd.

    To divide by it rounds nothing.
    """
    largest = times * x.detach().float().abs().amax(1, keepdim=True)
    return torch.ldexp(torch.ones_like(largest), torch.frexp(largest).exponent)


class SynthesisLayer(nn.Module):
    """One styled 3 x 3 convolution, upsampling twofold if ``up``."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        w_dim: int,
        resolution: int,
        up: bool,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.up, self.clamp = up, clamp
        self.affine = FullyConnectedLayer(w_dim, inputs, bias_init=1.0)
        weight = torch.randn(outputs, inputs, 3, 3).contiguous(memory_format=torch.channels_last)
        self.weight = nn.Parameter(weight)
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.register_buffer("resample_filter", resample_filter())

    def forward(self, x: Tensor, style: Tensor, noise: str) -> Tensor:
        drawn = None
        if noise == "const":
            drawn = self.noise_const[None, None]
        elif noise == "random":
            drawn = torch.randn_like(self.noise_const.expand(len(x), 1, -1, -1))
        blur = self.resample_filter if self.up else None
        given = (self.weight, style, self.bias, drawn, self.noise_strength, blur, self.clamp)
        return modulated_layer(x, *given)


class ToRGBLayer(nn.Module):
    """Styled 1 x 1 convolution to RGB, without demodulation."""

    def __init__(self, inputs: int, w_dim: int, clamp: float | None = None) -> None:
        super().__init__()
        self.clamp = clamp
        self.affine = FullyConnectedLayer(w_dim, inputs, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(3, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3))
        self.weight_gain = 1 / math.sqrt(inputs)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        x = x * (style * self.weight_gain).to(x.dtype)[:, :, None, None]
        x = F.conv2d(x, self.weight, self.bias.to(x.dtype))
        return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)


class SynthesisBlock(nn.Module):
    """All layers of one resolution; the first block starts from a learned constant."""

    def __init__(
        self, inputs: int, outputs: int, w_dim: int, resolution: int, clamp: float | None = None
    ) -> None:
        super().__init__()
        self.first = inputs == 0
        if self.first:
            self.const = nn.Parameter(torch.randn(outputs, resolution, resolution))
        else:
            self.conv0 = SynthesisLayer(inputs, outputs, w_dim, resolution, True, clamp)
        self.conv1 = SynthesisLayer(outputs, outputs, w_dim, resolution, False, clamp)
        self.torgb = ToRGBLayer(outputs, w_dim, clamp)
        self.register_buffer("resample_filter", resample_filter())

    def named_layers(self) -> list[tuple[str, nn.Module]]:
        names = ["conv1", "torgb"] if self.first else ["conv0", "conv1", "torgb"]
        return [(name, getattr(self, name)) for name in names]

    def forward(
        self, x: Tensor | None, image: Tensor | None, styles: Sequence[Tensor], noise: str
    ) -> tuple[Tensor, Tensor]:
        """Features and image of the block before (None: this is the first), doubled in size.

        Args: styles (B, width) of ``named_layers``; noise as in ``SynthesisNetwork``.
        """
        *own, last = styles
        if self.first:
            const = self.const.expand(len(last), -1, -1, -1)
            if torch.is_autocast_enabled(last.device.type):
                const = const.to(torch.get_autocast_dtype(last.device.type))
            x = const.contiguous(memory_format=torch.channels_last)
        else:
            x = self.conv0(x, own[0], noise)
            image = upsample(image, self.resample_filter)
        x = self.conv1(x, own[-1], noise)
        rgb = self.torgb(x, last).float()
        return x, rgb if image is None else image + rgb


class SynthesisNetwork(nn.Module):
    """Style vector s (B, num_styles) -> image (B, 3, H, W) in about [-1, 1], float32."""

    def __init__(
        self, w_dim: int, channels: Mapping[int, int], conv_clamp: float | None = None
    ) -> None:
        super().__init__()
        self.w_dim, self.resolutions = w_dim, sorted(channels)
        inputs = 0
        for resolution in self.resolutions:
            block = SynthesisBlock(inputs, channels[resolution], w_dim, resolution, conv_clamp)
            setattr(self, f"b{resolution}", block)
            inputs = channels[resolution]
        #: (name, layer, width) of everything with an affine, in the order of the style vector
        self.widths = [layer.affine.weight.shape[0] for _, layer in self.named_layers()]
        self.num_styles = sum(self.widths)

    def named_layers(self) -> list[tuple[str, nn.Module]]:
        """("b4.conv1", layer), ("b4.torgb", layer), ("b8.conv0", layer) ... as in s."""
        blocks = [(f"b{r}", getattr(self, f"b{r}")) for r in self.resolutions]
        return [
            (f"{b}.{name}", layer) for b, block in blocks for name, layer in block.named_layers()
        ]

    @property
    def num_ws(self) -> int:
        """How many w an image may have: a convolution each, and one for the last ToRGB."""
        return 2 * len(self.resolutions)

    def styles(self, w: Tensor) -> Tensor:
        """w (B, w_dim), or one for each layer, W+ (B, num_ws, w_dim) -> s (B, num_styles).

        Of W+, a ToRGB shares the w of the convolution after it, as in the official networks. A
        single w is one matrix product.
        """
        affines = [layer.affine for _, layer in self.named_layers()]
        with torch.autocast(w.device.type, enabled=False):
            if w.ndim == 3:
                own = zip(affines, self._w_of_layers(), strict=True)
                return torch.cat([affine(w[:, row].float()) for affine, row in own], dim=1)
            weight = torch.cat([affine.weight for affine in affines]) / math.sqrt(self.w_dim)
            return F.linear(w.float(), weight, torch.cat([affine.bias for affine in affines]))

    def _w_of_layers(self) -> list[int]:
        """For each of ``named_layers``, the row of W+ that it reads."""
        rows, following = [], 0
        for name, _ in self.named_layers():
            rows.append(following)
            following += not name.endswith("torgb")
        return rows

    def forward(self, s: Tensor, noise: str = "const", checkpoint: bool = False) -> Tensor:
        """Args: s (B, num_styles); noise "const" (stored), "random" or "none".

        checkpoint: keep for the backward pass what goes from block to block, and compute the rest
        again there (Chen et al., 2016): a forward pass more, the same gradient, less memory.
        """
        parts = iter(s.split(self.widths, dim=1))
        x = image = None
        for resolution in self.resolutions:
            block = getattr(self, f"b{resolution}")
            given = x, image, [next(parts) for _ in block.named_layers()], noise
            if checkpoint:
                drawn = noise == "random"  # again, the same
                x, image = recomputed(block, *given, use_reentrant=False, preserve_rng_state=drawn)
            else:
                x, image = block(*given)
        return image


class Generator(nn.Module):
    """Mapping and synthesis.

    Args:
        channels: each resolution, 4 upwards, and its width.
        conv_clamp: bound of the absolute value of what each convolution gives, None for none. The
            official networks that were trained in half precision have 256.
    """

    def __init__(
        self,
        z_dim: int = 64,
        w_dim: int = 128,
        channels: Mapping[int, int] | None = None,
        *,
        mapping_layers: int = 4,
        mapping_width: int | None = None,
        mapping_lr_multiplier: float = 0.01,
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        channels = dict(channels or {4: 128, 8: 128, 16: 96, 32: 64, 64: 32})
        self.z_dim, self.resolution = z_dim, max(channels)
        self.mapping = MappingNetwork(
            z_dim,
            w_dim,
            num_layers=mapping_layers,
            width=mapping_width or w_dim,
            lr_multiplier=mapping_lr_multiplier,
        )
        self.synthesis = SynthesisNetwork(w_dim, channels, conv_clamp)

    def forward(self, z: Tensor, truncation: float = 1.0, noise: str = "const") -> Tensor:
        w = self.mapping(z, truncation)
        return self.synthesis(self.synthesis.styles(w), noise)
