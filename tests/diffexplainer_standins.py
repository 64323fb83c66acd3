"""Targets small enough to know every activation, and every maximiser, by hand."""

from torch import Tensor, nn

from visiondx.models.target import Target

LABELS = ("cat", "dog", "fox")
SIDE = 4


class Tiny(nn.Module):
    """conv (4 channels) -> ReLU in place -> pool (features) -> linear; counts its passes."""

    def __init__(self, classes: int = 3):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4, classes)
        self.passes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.passes.append(len(x))
        return self.fc(self.pool(self.relu(self.conv(x))).flatten(1))


def tiny() -> Target:
    return Target(Tiny().eval(), "multiclass", LABELS)


def flat() -> Target:
    """Linear in the pixels of images of 4 px."""
    return Target(
        nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, 3)).eval(), "multiclass", LABELS
    )


def weight_image(target: Target, channel: int) -> Tensor:
    """The weights (3, 4, 4) of a logit of ``flat``."""
    return target.module[1].weight[channel].detach().view(3, SIDE, SIDE)


def hooks(target: Target) -> int:
    """How many hooks the module and its parts hold."""
    return sum(
        len(part._forward_hooks) + len(part._forward_pre_hooks) for part in target.module.modules()
    )
