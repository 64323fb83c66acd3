"""A StyleGAN2 generator as the methods see it: one style vector in, images in [0, 1] out."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from visiondx.core.errors import InputError
from visiondx.core.memory import free_memory
from visiondx.models import registry
from visiondx.models.activations import synthesis_bytes
from visiondx.models.stylegan2 import Generator

STATISTICS_SAMPLES = 10_000
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
    """

    style_mean: Tensor
    style_std: Tensor
    editable: Tensor

    def __init__(self, network: Generator, settings: dict[str, object]) -> None:
        """``settings`` are the arguments that `network` was made with; they are saved with it."""
        super().__init__()
        self.network, self.settings = network, settings
        self.checkpoint: bool | None = None
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

    def w(self, z: Tensor, truncation: float = 1.0) -> Tensor:
        """z (B, z_dim) -> w (B, w_dim), pulled towards the mean w by ``truncation`` < 1."""
        return self.network.mapping(z, truncation)

    def styles(self, w: Tensor) -> Tensor:
        """w (B, w_dim), or W+ (B, num_ws, w_dim), one for each layer -> s (B, c_S)."""
        return self.network.synthesis.styles(w)

    def synthesize(self, s: Tensor) -> Tensor:
        """s (B, c_S) -> images (B, 3, H, W) in [0, 1]; differentiable, noise constant.

        Raises:
            InputError: ``s`` is not a (B, c_S) tensor.
        """
        if s.ndim != 2 or s.shape[1] != self.num_styles:
            raise InputError(
                f"Styles must have shape (B, {self.num_styles}), not {tuple(s.shape)}: "
                "make them with sample_styles or styles."
            )
        checkpoint = torch.is_grad_enabled() and s.requires_grad and self.checkpoints
        image = self.network.synthesis(s, noise="const", checkpoint=checkpoint)
        return ((image + 1) / 2).clamp(0, 1)

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
    def sample_styles(self, n: int, seed: int, truncation: float = 1.0) -> Tensor:
        """n style vectors (n, c_S). Drawn on the CPU: one seed gives the same z on any device."""
        z = torch.randn(n, self.network.z_dim, generator=torch.Generator().manual_seed(seed))
        return self.styles(self.w(z.to(self.style_mean.device), truncation))

    @torch.no_grad()
    def measure(self, n: int = STATISTICS_SAMPLES, seed: int = 0) -> None:
        """Set mean w and the mean and standard deviation of the styles from ``n`` samples."""
        z = torch.randn(n, self.network.z_dim, generator=torch.Generator().manual_seed(seed))
        w = self.w(z.to(self.style_mean.device))
        s = self.styles(w)
        self.network.mapping.w_avg.copy_(w.mean(dim=0))
        self.style_mean.copy_(s.mean(dim=0))
        self.style_std.copy_(s.std(dim=0))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of names and float32 values of all weights and buffers; keys caches."""
        digest = hashlib.sha256()
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
    def load(cls, name: str = "faces") -> "StyleGenerator":
        """A generator that an installed package offers by name, such as the embedded worlds'.

        Raises:
            InputError: nobody offers it, or its weights are missing or altered.
        """
        return registry.ask("generator", name)
