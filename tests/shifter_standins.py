"""Stand-ins that the tests of the explorer of shifts share."""

import torch

from dataset_interfaces_standins import ColourWords
from painter_standins import lcm_painter
from visiondx.dataset_interfaces.clip_filter import ClipFilter
from visiondx.dataset_interfaces.interface import DatasetInterface
from visiondx.dataset_interfaces.models import open_model
from visiondx.dataset_interfaces.tokens import ClassTokens, fingerprint
from visiondx.widgets.shift_rows import Progress, ShiftQuestion
from visiondx.widgets.shift_session import ShiftSession

RED = "a red <class> d"  # the stand-in painter reads a letter a token, CLIP the colour alone
QUESTION = ShiftQuestion("dog", RED, count=5, seed=3)
MINE = """
import torch
from torch import nn
from visiondx.models.target import Target

class Light(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.classes = classes

    def forward(self, images):
        light = 40 * (images.mean((1, 2, 3)) - 0.5)
        return torch.stack([-light, light, *[light - 99] * (self.classes - 2)], 1)

def load():
    return Target(Light(2).eval(), "multiclass", ["f", "dog"])

def more():
    return Target(Light(3).eval(), "multiclass", ["dog", "<i>cow</i>", "hen"])

def f_alone():
    return Target(Light(3).eval(), "multiclass", ["f", "cow", "hen"])

def strangers():
    return Target(Light(2).eval(), "multiclass", ["cow", "hen"])

def unnamed():
    return Light(3)
"""


def interface_in(folder):
    """A tiny painter with tokens of two classes; CLIP thresholds of 0, in art styles more."""
    painter = lcm_painter(folder)
    vectors = 9 * torch.randn(2, 1, 16, generator=torch.Generator().manual_seed(0))
    own = ("f", "dog")
    tokens = ClassTokens(own, ("<f>", "<dog>"), vectors, own, fingerprint(painter))
    clip = ClipFilter({"f": 0.0, "dog": 0.0}, {"f": 0.5, "dog": 0.6}, "first")
    return DatasetInterface(painter, ColourWords(), {"f": "f", "dog": "dog"}, clip, tokens)


def classifiers_in(folder):
    """A file with functions that return classifiers."""
    file = folder / "mine.py"
    file.write_text(MINE)
    return file


def reds(kind, shift, count, seed):
    """Drawn: ever less red; nothing but RED can be."""
    if shift.name != RED:
        return None
    colours = ColourWords.images("red", torch.linspace(1, 0, count).tolist())
    return colours[:, :, :1, :1].expand(-1, -1, 16, 16)


def by_three(interface, shift):
    """A judge who looks at three pictures."""
    if shift.name != RED:
        return None
    for k in range(3):
        yield Progress("Judging", k, 3)
    return 0.25, "a judge said so"


def start(interface, file):
    return ShiftSession(
        interface, open_model(f"{file}:load"), truth=reds, calibrate=by_three, part=2
    )
