"""A StyleGAN2 generator as the methods see it: one style vector in, images in [0, 1] out."""

import copy
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from visiondx.core.errors import InputError
from visiondx.core.files import reading
from visiondx.core.memory import free_memory
from visiondx.models import registry
from visiondx.models.activations import synthesis_bytes
from visiondx.models.stylegan2 import Generator
from visiondx.models.stylegan2_files import read_generator

STATISTICS_SAMPLES = 10_000
SMALL = 2**28  # bytes, of which there are so many that nobody looks
SHARE = 8  # an image that keeps more than one part in so many of the free memory is checkpointed


@dataclass(frozen=True)
class StyleLayer:
    """The part ``[start, start + width)`` of the style vector that one layer reads."""

    name: str  # such as "b16.conv0"
    start: int
    width: int
    resolution: int
    torgb: bool


class StyleGenerator(nn.Module):
    """StyleSpace view of a `Generator`.

    Attributes:
        layers: one `StyleLayer` for each affine, in the order of the style vector.
        num_styles: c_S, the length of the style vector.
        style_mean, style_std: (c_S,), over 10,000 samples, from `measure`.
        editable: (c_S,) bool, False for ToRGB: those only tint, and are left alone by edits.
        checkpoint: whether a backward pass computes the activations again instead of keeping them
            (see `SynthesisNetwork`): the same gradient in less memory, a third slower. None: where
            a single image would keep more than an eighth of the memory that is free then.
        card: of one that was read by `open`: its file's name and sha256, format and class.
    """

    style_mean: Tensor
    style_std: Tensor
    editable: Tensor

    def __init__(self, network: Generator, settings: dict[str, object]) -> None:
        """``settings`` are the arguments that `network` was made with; they are saved with it."""
        super().__init__()
        self.network, self.settings = network, settings
        self.checkpoint: bool | None = None
        self.card: dict[str, object] = {}
        layers, start = [], 0
        synthesis = network.synthesis
        for (name, _), width in zip(synthesis.named_layers(), synthesis.widths, strict=True):
            resolution = int(name.split(".")[0][1:])
            layers.append(StyleLayer(name, start, width, resolution, name.endswith("torgb")))
            start += width
        self.layers = tuple(layers)
        self.num_styles = start
        self.register_buffer("style_mean", torch.zeros(start))
        self.register_buffer("style_std", torch.ones(start))
        editable = torch.cat([torch.full((layer.width,), not layer.torgb) for layer in layers])
        self.register_buffer("editable", editable, persistent=False)
        self.eval().requires_grad_(False)

    @property
    def resolution(self) -> int:
        return self.network.resolution

    @property
    def num_ws(self) -> int:
        """How many w an image has in W+: 2 log2(resolution) - 2."""
        return self.network.synthesis.num_ws

    def w(self, z: Tensor, truncation: float = 1.0, cutoff: int | None = None) -> Tensor:
        """z (B, z_dim) -> w (B, w_dim), pulled towards the mean w by ``truncation`` < 1.

        Args:
            cutoff: pull only the first ``cutoff`` w of W+, which is then what comes: (B, num_ws,
                w_dim). Those are the coarse layers; the others keep their variety.

        Raises:
            InputError: a cutoff below 0 or above num_ws.
        """
        if cutoff is None:
            return self.network.mapping(z, truncation)
        if not 0 <= cutoff <= self.num_ws:
            raise InputError(f"The cutoff must be from 0 to {self.num_ws}, got {cutoff}.")
        w = self.network.mapping(z)
        near = self.network.mapping.w_avg.lerp(w, truncation)
        coarse = torch.arange(self.num_ws, device=w.device)[:, None] < cutoff
        return torch.where(coarse, near[:, None], w[:, None])

    def styles(self, w: Tensor) -> Tensor:
        """w (B, w_dim), or W+ (B, num_ws, w_dim), one for each layer -> s (B, c_S)."""
        return self.network.synthesis.styles(w)

    def synthesize(self, s: Tensor) -> Tensor:
        """s (B, c_S) -> images (B, 3, H, W) in [0, 1]; differentiable, noise constant.

        Without a gradient, as many are drawn at once as half of the free memory holds.

        Raises:
            InputError: ``s`` is not a (B, c_S) tensor.
        """
        if s.ndim != 2 or s.shape[1] != self.num_styles:
            raise InputError(
                f"Styles must have shape (B, {self.num_styles}), not {tuple(s.shape)}: "
                "make them with sample_styles or styles."
            )
        if torch.is_grad_enabled() and s.requires_grad:
            images = self.network.synthesis(s, noise="const", checkpoint=self.checkpoints)
        else:
            parts = s.split(self._at_once(len(s)))
            images = torch.cat([self.network.synthesis(part, noise="const") for part in parts])
        return ((images + 1) / 2).clamp(0, 1)

    def _at_once(self, images: int) -> int:
        """How many of these images to draw together, without a gradient."""
        each = self.image_bytes(gradient=False)
        if images * each < SMALL or (free := free_memory(self.style_mean.device)) is None:
            return max(1, images)
        return max(1, min(images, free // 2 // each))

    @property
    def checkpoints(self) -> bool:
        """Whether a gradient would be had by checkpointing now, see ``checkpoint``."""
        if self.checkpoint is not None:
            return self.checkpoint
        free = free_memory(self.style_mean.device)
        return free is not None and synthesis_bytes(self.layers) > free // SHARE

    def image_bytes(self, gradient: bool = True) -> int:
        """About how many bytes the synthesis of an image needs, see ``models.activations``."""
        return synthesis_bytes(self.layers, gradient, gradient and self.checkpoints)

    @torch.no_grad()
    def sample_w(self, n: int, seed: int) -> Tensor:
        """n random w (n, w_dim), without truncation; of the same z as ``sample_styles``."""
        return self.w(self._z(n, seed))

    @torch.no_grad()
    def sample_styles(
        self, n: int, seed: int, truncation: float = 1.0, cutoff: int | None = None
    ) -> Tensor:
        """n style vectors (n, c_S). Drawn on the CPU: one seed gives the same z on any device.

        Args:
            truncation, cutoff: see ``w``.
        """
        return self.styles(self.w(self._z(n, seed), truncation, cutoff))

    def _z(self, n: int, seed: int) -> Tensor:
        z = torch.randn(n, self.network.z_dim, generator=torch.Generator().manual_seed(seed))
        return z.to(self.style_mean.device)

    @torch.no_grad()
    def measure(self, n: int = STATISTICS_SAMPLES, seed: int = 0) -> None:
        """Set mean w and the mean and standard deviation of the styles from ``n`` samples."""
        w = self.sample_w(n, seed)
        s = self.styles(w)
        self.network.mapping.w_avg.copy_(w.mean(dim=0))
        self.style_mean.copy_(s.mean(dim=0))
        self.style_std.copy_(s.std(dim=0))

    @torch.no_grad()
    def _measure_styles(self, mean_w: bool) -> None:
        """As ``measure``, but the mean w only if ``mean_w``, and the same on every machine.

        The statistics are part of the fingerprint that keys caches: they are taken in float64 and
        rounded to 12 bits, so that another order of summation gives the same numbers. Styles are
        affine in w, s = A w + b, so their variance is that of w: diag(A cov(w) A').
        """
        z = self._z(STATISTICS_SAMPLES, 0).double()
        w = copy.deepcopy(self.network.mapping).double()(z)
        affines = [layer.affine for _, layer in self.network.synthesis.named_layers()]
        A = torch.cat([affine.weight for affine in affines]).double() / math.sqrt(w.shape[1])
        b = torch.cat([affine.bias for affine in affines]).double()
        mean = w.mean(dim=0)
        if mean_w:
            self.network.mapping.w_avg.copy_(_rounded(mean))
        self.style_mean.copy_(_rounded(A @ mean + b))
        variance = ((A @ torch.cov(w.T)) * A).sum(dim=1)
        self.style_std.copy_(_rounded(variance.clamp(min=0).sqrt()))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of names and float32 values of all weights and buffers, and of the clamp that
        they are used with, if any; keys caches.
        """
        clamp = self.settings.get("conv_clamp")
        digest = hashlib.sha256(b"" if clamp is None else f"conv_clamp {float(clamp)}".encode())
        for name, value in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().float().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @classmethod
    def build(cls, tensors: Mapping[str, Tensor], settings: Mapping) -> "StyleGenerator":
        """The generator with these weights and buffers; ``settings`` as they were saved."""
        # JSON turns the resolutions into strings
        channels = {int(resolution): c for resolution, c in settings["channels"].items()}
        settings = {**settings, "channels": channels}
        generator = cls(Generator(**settings), settings)
        generator.load_state_dict(tensors)
        return generator

    @classmethod
    def open(cls, path: str | Path, class_index: int | None = None) -> "StyleGenerator":
        """A generator from a file; nothing that the file holds is run.

        Read are StyleGAN2 generators of configuration F, 32 to 1024 px, as official pickles
        (stylegan2-ada-pytorch, and TensorFlow's), rosinality's checkpoints, and what ``visiondx
        convert`` wrote. The mean w is the file's own where it has one, noise is as stored.

        Args:
            class_index: of a conditional network, from 0; the generator is then that class's.

        Raises:
            InputError: no such file, damage, code in place of weights, another architecture, or a
                class that is missing or that there is not.
        """
        found = read_generator(path, class_index)
        if "style_mean" in found.tensors:
            with reading(path, "convert it again with 'visiondx convert'"):
                generator = cls.build(found.tensors, found.settings)
        else:
            generator = cls(Generator(**found.settings), found.settings)
            lacks = generator.load_state_dict(found.tensors, strict=False).missing_keys
            generator._measure_styles(mean_w="network.mapping.w_avg" in lacks)
        generator.card = found.card
        return generator

    @classmethod
    def load(cls, name: str = "faces") -> "StyleGenerator":
        """A generator that an installed package offers by name, such as the embedded worlds'.

        A path, one that holds a "/" or ends as weights do, is opened, see `open`.

        Raises:
            InputError: nobody offers it, or its weights are missing or altered.
        """
        if registry.names_file(name):
            return cls.open(name)
        return registry.ask("generator", name)


def _rounded(x: Tensor) -> Tensor:
    """To 12 significant bits, as float32."""
    mantissa, exponent = torch.frexp(x)
    return torch.ldexp((mantissa * 4096).round() / 4096, exponent).float()
