from itertools import combinations

import torch
from matplotlib.text import Text

from visiondx_worlds.marking.llm2loss.figures import named


def test_no_name_stands_on_another():
    """Twenty dots so near to each other that names beside them would all overlap."""
    spread = torch.linspace(0, 0.05, 20)
    spread[-1] = 1.0
    names = [f"attribute_{i}" for i in range(20)]
    figure = named(spread, 1 - spread / 50, names, "x", "y")
    labels = figure.axes[0].texts
    assert [label.get_text() for label in labels] == [n.replace("_", " ") for n in names]
    boxes = [Text.get_window_extent(label) for label in labels]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    assert all(box.x1 <= figure.bbox.x1 for box in boxes)
