"""A diagnosis in one picture: its histogram beside what moved the model most."""

import io
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

from visiondx.show.report import png
from visiondx.zoom.result import examples, pairs_grid

if TYPE_CHECKING:
    from visiondx.zoom.diagnose import Diagnosis

HEIGHT = 5.2  # inches


def overview(found: "Diagnosis", attributes: int = 4, pairs: int = 3) -> Figure:
    """The sensitivity histogram beside the pictures of the most influential attributes.

    Args:
        attributes: rows of pictures, the most influential first. pairs: in a row, the last one
            random, see ``examples``.
    """
    chosen = examples(found.result.change, pairs, found.result.seed)
    rows = dict(list(chosen.items())[:attributes])
    sides = [found.plot(), pairs_grid(found.result, rows)]
    pictures = [Image.open(io.BytesIO(png(side))).convert("RGB") for side in sides]
    # the histogram has few words: it stands smaller than the pictures
    widths = [scale * p.width / p.height for scale, p in zip((0.62, 1.0), pictures, strict=True)]
    figure, axes = plt.subplots(
        1,
        2,
        figsize=(HEIGHT * sum(widths), HEIGHT),
        width_ratios=widths,
        gridspec_kw={"left": 0, "right": 1, "bottom": 0, "top": 1, "wspace": 0.01},
    )
    for axis, picture in zip(axes, pictures, strict=True):
        axis.imshow(picture)
        axis.set_axis_off()
    plt.close(figure)
    return figure
