"""A generator, an encoder, a target and a world small enough to know every answer by hand.

Style channel c brightens cell c of a 4 x 4 grid of patches; the encoder reads the cells' mean
brightness; "attribute c" points at cell c. So attribute c is edited by channel c and by no other.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visiondx.core.errors import InputError
from visiondx.models.generator import StyleGenerator
from visiondx.models.stylegan2 import Generator
from visiondx.zoom.directions import Directions

CELLS, PATCH = 16, 4
SIDE = 4 * PATCH
NEUTRAL = "a grid"


def prompt(cell: int) -> str:
    return f"a grid with cell {cell}"


def cells(images: Tensor) -> Tensor:
    """Mean brightness of each cell, minus one half: (B, 16)."""
    return F.avg_pool2d(images.mean(1, keepdim=True), PATCH).flatten(1) - 0.5


class GridGenerator(nn.Module):
    """Linear in its styles; channels 6-8 are ToRGB, channel 15 does nothing."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.05))
        self.layers = tuple(
            SimpleNamespace(name=name, start=start, width=width, resolution=8, torgb=torgb)
            for name, start, width, torgb in (
                ("b4.conv1", 0, 6, False),
                ("b4.torgb", 6, 3, True),
                ("b8.conv0", 9, 7, False),
            )
        )
        self.num_styles = CELLS
        self.register_buffer("style_mean", torch.linspace(-0.4, 0.4, CELLS))
        self.register_buffer("style_std", torch.linspace(0.5, 1.5, CELLS))
        self.register_buffer("editable", torch.tensor([True] * 6 + [False] * 3 + [True] * 7))
        self.fingerprint = "grid"
        self.synthesized = 0

    def synthesize(self, styles: Tensor) -> Tensor:
        self.synthesized += len(styles)
        alive = torch.ones(CELLS, dtype=styles.dtype)
        alive[15] = 0
        grid = (0.5 + self.gain.to(styles.dtype) * styles * alive).view(-1, 1, 4, 4)
        image = grid.repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)
        return image.expand(-1, 3, -1, -1)

    def sample_styles(self, n: int, seed: int, truncation: float = 1.0) -> Tensor:
        noise = torch.randn(n, CELLS, generator=torch.Generator().manual_seed(seed))
        return self.style_mean + truncation * self.style_std * noise


def along(generator, *channels) -> Directions:
    """Exact directions: attribute c moves channel c by its deviation."""
    delta_s = torch.zeros(len(channels), generator.num_styles)
    for row, channel in enumerate(channels):
        delta_s[row, channel] = generator.style_std[channel]
    names = tuple(prompt(c) for c in channels)
    return Directions(
        names, NEUTRAL, delta_s, torch.zeros(len(names), 17), (0.1,) * len(names), "two"
    )


class GridEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.logit_scale = 10.0
        self.fingerprint = self.image_fingerprint = "reader"

    def embed_images(self, images: Tensor) -> Tensor:
        read = 4 * cells(images)
        return F.normalize(torch.cat((torch.ones_like(read[:, :1]), read), 1), dim=1)

    def embed_texts(self, texts: list[str]) -> Tensor:
        rows = torch.zeros(len(texts), CELLS + 1)
        rows[:, 0] = 1
        for row, text in zip(rows, texts, strict=True):
            if text != NEUTRAL:
                row[1 + int(text.split()[-1])] = 1
        return F.normalize(rows, dim=1)


class Reader(nn.Module):
    """A small convolution: (B, 3, H, W) -> (B, 8), unit norm. ``gain`` makes its insides large."""

    def __init__(self, gain: float):
        super().__init__()
        self.gain, self.image_fingerprint = gain, f"reader {gain}"
        self.first = nn.Conv2d(3, 16, 3, stride=2)
        self.last = nn.Linear(16, 8)

    def embed_images(self, images: Tensor) -> Tensor:
        x = self.gain * F.gelu(self.first(images))
        return F.normalize(self.last(x.mean((2, 3)) / self.gain).float(), dim=1)


def real(resolution: int = 16, gain: float = 1.0) -> tuple[StyleGenerator, Reader]:
    """A StyleGAN2 synthesis, as small as it can be, and who reads its images; random weights."""
    channels = {4: 8, 8: 4, 16: 2, 32: 2, 64: 2}
    channels = {side: width for side, width in channels.items() if side <= resolution}
    generator = StyleGenerator(Generator(4, 4, channels, mapping_layers=1), {})
    generator.measure(64)
    return generator, Reader(gain)


class GridClassifier(nn.Module):
    """logit = Σ weight_c * cell_c; ``weights`` maps cells to numbers."""

    def __init__(self, weights: dict[int, float]):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(CELLS))
        for cell, value in weights.items():
            self.weight.data[cell] = value
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        return cells(images) @ self.weight.to(images.dtype)


class GridWorld:
    """Attributes: bright (cell 0) and dark (cell 3), on or off."""

    binary = ("bright", "dark")

    def sample(self, n: int, seed: int, given=None) -> Tensor:
        return torch.rand(n, CELLS, generator=torch.Generator().manual_seed(seed))

    def switch(self, scenes: Tensor, name: str, value: bool) -> Tensor:
        scenes = scenes.clone()
        scenes[:, {"bright": 0, "dark": 3}[name]] = float(value)
        return scenes

    def render(self, scenes: Tensor, size: int = SIDE) -> Tensor:
        grid = scenes.view(-1, 1, 4, 4).repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)
        return grid.expand(-1, 3, -1, -1)

    def prompt(self, name: str, present=True, seed=None, heldout=False) -> str:
        return prompt({"bright": 0, "dark": 3}[name]) if present else NEUTRAL


class GridJudges(nn.Module):
    """Two judges of cells 0 ("bright") and 3 ("dark"); the second one sees brightness later.

    Between cell values of 0 and 0.1 they disagree.
    """

    binary = ("bright", "dark")

    def column(self, name):
        if name not in self.binary:
            raise InputError(f"No judge reads {name!r}.")
        return self.binary.index(name)

    def read(self, images):
        seen = cells(images)[:, [0, 3]]
        return seen > 0, (seen > 0) != (seen > 0.1)

    def features(self, images):
        return torch.cat((torch.ones(len(images), 1), cells(images)), 1)
