"""What the tests of several worlds share: slopes of the renderer, phrases in a text."""

import re
from functools import cache

import torch


def slopes(world, attributes, name):
    """The renderer's gradient (B,) in one column: by autograd, and by finite differences."""
    a = type(attributes)(attributes.values.double(), attributes.names)
    source = torch.Generator().manual_seed(0)
    weight = torch.randn(1, 3, 64, 64, dtype=torch.float64, generator=source)
    column = a.column(name)

    def value(v):
        return (world.draw(type(a)(v, a.names), 64) * weight).sum(dim=(1, 2, 3))

    v = a.values.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(value(v).sum(), v)
    step = torch.zeros_like(a.values)
    step[:, column] = 1e-6
    finite = (value(a.values + step) - value(a.values - step)) / 2e-6
    return gradient[:, column], finite


@cache
def pattern(phrases):
    """Any of the phrases (a tuple), as whole words; "{}" stands for nothing."""
    bare = (re.escape(p.replace("{}", "").strip()) for p in phrases)
    return re.compile(rf"\b({'|'.join(bare)})\b")


def says(text, phrases):
    return pattern(tuple(phrases)).search(text) is not None


def heldout_phrases(world):
    sides = world.grammar.heldout["phrases"].values()
    return [p for side in sides for phrases in side.values() for p in phrases]
