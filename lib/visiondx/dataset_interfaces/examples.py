"""A few images of each shift, to be looked at."""

import numpy as np
import torch
from torch import Tensor

from visiondx.dataset_interfaces.shifted_images import ShiftedImages
from visiondx.models.images import batches
from visiondx.models.preprocess import Preprocess


def examples(images: ShiftedImages, each: int = 2, size: int = 96) -> dict[str, Tensor]:
    """Up to `each` images of every shift that passed the filter, (k, 3, size, size) in [0, 1].

    Evenly spaced among them, so that they are of several classes; what cannot be read is left out.
    """
    found = {}
    for s, shift in enumerate(images.shifts):
        rows = np.flatnonzero(images.kept & (images.shift == s))
        count = min(each, len(rows))
        chosen = [rows[k * len(rows) // count] for k in range(count)]
        if not chosen:
            continue
        paths = [images.folder / images.paths[row] for row in chosen]
        parts, _ = batches(paths, each, Preprocess((size, size)))
        read = torch.cat([part.load()[0] for part in parts])
        if len(read):
            found[shift] = read
    return found
