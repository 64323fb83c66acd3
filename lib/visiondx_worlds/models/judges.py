"""Judges: two attribute classifiers of different architecture that abstain where they disagree.

They read from an image what a world's renderer knows, and so measure what generated images show.
They are not CLIP: CLIP never marks its own work.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from visiondx.core.errors import InputError
from visiondx_worlds.models import zoo


def _conv(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class GridJudge(nn.Module):
    """Plain 3x3 convolutions; the last 4x4 grid is flattened, so that place counts."""

    width = 256

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv(3, 24),
            _conv(24, 48, 2),
            _conv(48, 48),
            _conv(48, 80, 2),
            _conv(80, 80),
            _conv(80, 112, 2),
            _conv(112, 64, 2),
            nn.Flatten(),
            nn.Linear(64 * 16, self.width),
            nn.ReLU(),
        )
        self.head = nn.Linear(self.width, outputs)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, 64, 64) -> features (B, 256), logits (B, outputs)."""
        x = (images - 0.5) * 4
        features = self.body(x.contiguous(memory_format=torch.channels_last))
        return features, self.head(features)


class _Bottleneck(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv(channels, channels // 2, kernel=1),
            _conv(channels // 2, channels // 2),
            nn.Conv2d(channels // 2, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.body(x))


class PooledJudge(nn.Module):
    """Bottleneck residual blocks on a 2x2 space-to-depth stem; each channel's maximum is pooled."""

    width = 256

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.PixelUnshuffle(2),
            _conv(12, 64),
            _Bottleneck(64),
            _conv(64, 96, 2),
            _Bottleneck(96),
            _Bottleneck(96),
            _conv(96, 160, 2),
            _Bottleneck(160),
            nn.AdaptiveMaxPool2d(2),
            nn.Flatten(),
            nn.Linear(640, self.width),
            nn.ReLU(),
        )
        self.head = nn.Linear(self.width, outputs)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, 64, 64) -> features (B, 256), logits (B, outputs)."""
        x = (images - 0.5) * 4
        features = self.body(x.contiguous(memory_format=torch.channels_last))
        return features, self.head(features)


SUFFIX = "-judges"  # of a world's judges in the zoo
ARCHITECTURES = {"grid": GridJudge, "pooled": PooledJudge}


class Judges(nn.Module):
    """Two judges of one world.

    Args:
        binary: names of the binary attributes, one logit each.
        groups: multi-way attributes and their number of values, one logit a value.
    """

    def __init__(self, binary: tuple[str, ...], groups: dict[str, int]) -> None:
        super().__init__()
        self.binary, self.groups = tuple(binary), dict(groups)
        outputs = len(binary) + sum(groups.values())
        self.nets = nn.ModuleDict({k: make(outputs) for k, make in ARCHITECTURES.items()})
        self.eval().requires_grad_(False)

    @classmethod
    def load(cls, world: str = "faces", device: str = "cpu") -> Judges:
        """The embedded judges of a world. Raises InputError for missing or altered weights."""
        kept = [n.removesuffix(SUFFIX) for n in zoo.manifest() if n.endswith(SUFFIX)]
        zoo.choose("judges of a world", world, kept)
        with zoo.opened(world + SUFFIX) as (tensors, config):
            judges = cls(tuple(config["binary"]), config["groups"])
            judges.load_state_dict(tensors)
        return judges.to(device)

    def save(self, world: str = "faces", **about: object) -> None:
        """Keep the weights in data/weights/; `about` (notebook, seed, quality) as in `zoo.save`."""
        config = {"binary": list(self.binary), "groups": self.groups}
        zoo.save(world + SUFFIX, self.state_dict(), config, **about)

    def split(self, logits: Tensor) -> dict[str, Tensor]:
        """Logits (…, outputs) as {"binary": (…, A), group: (…, values), …}."""
        parts = logits.split([len(self.binary), *self.groups.values()], dim=-1)
        return dict(zip(["binary", *self.groups], parts, strict=True))

    def probabilities(self, images: Tensor, batch: int = 128) -> Tensor:
        """(2, B, A): each judge's probability of each binary attribute."""
        return self._read(images, batch)[1][..., : len(self.binary)].sigmoid()

    def scores(self, images: Tensor) -> Tensor:
        """(B, A): mean probability of the two judges."""
        return self.probabilities(images).mean(0)

    def read(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What is visible, and where the judges disagree: two (B, A) bool tensors.

        Where they disagree the label means nothing and must be left out.
        """
        one, two = self.probabilities(images) > 0.5
        return one, one != two

    def answers(self, images: Tensor, batch: int = 128) -> dict[str, Tensor]:
        """What each judge says, in one pass: {"binary": (2, B, A) bool, group: (2, B) int64, …}."""
        parts = self.split(self._read(images, batch)[1])
        said = {name: parts[name].argmax(-1) for name in self.groups}
        return {"binary": parts["binary"].sigmoid() > 0.5, **said}

    def group_probabilities(self, images: Tensor, name: str, batch: int = 128) -> Tensor:
        """(2, B, values): each judge's probabilities of the values of a multi-way attribute.

        Raises:
            InputError: an attribute that no judge reads.
        """
        if name not in self.groups:
            raise InputError(f"No judge reads {name!r}: choose from {', '.join(self.groups)}.")
        return self.split(self._read(images, batch)[1])[name].softmax(-1)

    def read_groups(self, images: Tensor, batch: int = 128) -> dict[str, tuple[Tensor, Tensor]]:
        """The value of each multi-way attribute, (B,) int64, and where the judges disagree, (B,).

        Where they disagree the value means nothing and must be left out. Neither knows that a group
        cannot be seen at all, such as the state of a chair: they name a value all the same.
        """
        said = self.answers(images, batch)
        return {name: (said[name][0], said[name][0] != said[name][1]) for name in self.groups}

    def features(self, images: Tensor, batch: int = 128) -> Tensor:
        """(B, 512): last hidden layers of both judges, for Fréchet distances."""
        return self._read(images, batch)[0]

    @torch.no_grad()
    def _read(self, images: Tensor, batch: int) -> tuple[Tensor, Tensor]:
        """Features (B, 512) and the logits of both judges (2, B, outputs)."""
        if images.ndim != 4 or images.shape[1:] != (3, 64, 64):
            raise InputError(
                f"Judges read (B, 3, 64, 64) images, not {tuple(images.shape)}: resize them first."
            )
        features, logits = [], []
        for part in images.split(batch):
            read = [net(part) for net in self.nets.values()]
            features.append(torch.cat([r[0] for r in read], 1))
            logits.append(torch.stack([r[1] for r in read]))
        return torch.cat(features), torch.cat(logits, 1)

    def column(self, name: str) -> int:
        """Index of a binary attribute. Raises InputError for an unknown one."""
        if name not in self.binary:
            raise InputError(f"No judge reads {name!r}: choose from {', '.join(self.binary)}.")
        return self.binary.index(name)
