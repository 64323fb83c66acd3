"""Stand-ins that the tests of the explorer of edits share."""

import torch

from visiondx.models.target import Target
from visiondx.widgets.session import EditSession
from visiondx.zoom.search import SearchSettings
from zoom_standins import CELLS, NEUTRAL, GridClassifier, GridEncoder, GridGenerator, cells, prompt

SETTINGS = SearchSettings(
    steps=6, eta=0.5, epsilon=4.0, alpha=1.0, beta=0.0, starts=(0.0,), update="adam"
)


class GridJudges:
    """Both see "bright" (cell 0) and "dark" (cell 3); they disagree about "dim"."""

    binary = ("bright", "dark", "dim")

    def __init__(self):
        self.images = 0

    def read(self, images):
        self.images += len(images)
        present = torch.stack([cells(images)[:, 0] > 0, cells(images)[:, 3] < 0], 1)
        unsure = torch.zeros_like(present)
        column = torch.ones(len(images), 1, dtype=torch.bool)
        return torch.cat((present, column), 1), torch.cat((unsure, column), 1)


class CountingEncoder(GridEncoder):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def embed_images(self, images):
        self.calls += 1
        return super().embed_images(images)

    def embed_texts(self, texts):
        self.calls += 1
        return super().embed_texts(texts)


def grid_M() -> torch.Tensor:
    """Channel c does what "cell c" says, ToRGB channels nothing."""
    M = torch.zeros(CELLS, CELLS + 1)
    rows = torch.arange(CELLS)
    M[rows, rows + 1] = 1
    return M * GridGenerator().editable[:, None]


def start(channels=(0, 3, 11), weights=None, **given) -> EditSession:
    target = Target(GridClassifier(weights or {0: 30.0, 3: -8.0}), labels=("<off>", "<on>"))
    plain = {"channels": 1, "seed": 4, "settings": SETTINGS, "M": grid_M(), "judges": GridJudges()}
    names = [prompt(c) for c in channels]
    return EditSession(
        GridGenerator(), CountingEncoder(), target, names, NEUTRAL, **{**plain, **given}
    )
