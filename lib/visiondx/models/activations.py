"""What a StyleGAN2 synthesis holds in memory, from the sizes of its layers alone.

A layer of width C at side R reads C·R² float32 numbers. With a gradient, autograd keeps of each
layer the scaled input, the convolution's output and the activation. Measured with config F (by
``core.timing.peak_memory``): 3.3 times the sum of what the layers read at 64 px, 2.3 at 256 px.
Without a gradient, two of the largest layer's inputs from 128 px on.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol

BYTES = 4  # of a float32
KEPT = 3  # numbers for each that a layer reads
PASSING = 3  # without a gradient, for each that the largest layer reads


class Layer(Protocol):
    """As ``StyleLayer``: ``width`` channels go in, at ``resolution``."""

    width: int
    resolution: int
    torgb: bool


def synthesis_bytes(
    layers: Sequence[Layer], gradient: bool = True, checkpoint: bool = False
) -> int:
    """About how many bytes one image takes at the most, from ``s`` to its gradient there.

    Args:
        gradient: False: drawn only. checkpoint: see ``SynthesisNetwork``: the features and the
            image between blocks are kept, and all of the largest block while it is computed again.
    """
    read = [layer.width * layer.resolution**2 for layer in layers]
    if not gradient:
        return BYTES * PASSING * max(read)
    if not checkpoint:
        return BYTES * KEPT * sum(read)
    blocks: dict[int, int] = defaultdict(int)
    for layer, numbers in zip(layers, read, strict=True):
        blocks[layer.resolution] += numbers
    between = sum((layer.width + 3) * layer.resolution**2 for layer in layers if layer.torgb)
    return BYTES * (between + KEPT * max(blocks.values()))
