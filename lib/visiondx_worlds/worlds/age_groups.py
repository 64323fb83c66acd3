"""Faces whose age range is tied to a group of skin tone, as in DiffExplainer's section 4.5.

Each of six age ranges has one of six tones for its own, in an order that is neither the ages' nor
the tones', so that neither can be told from the other's rank. With strength s a face has the tone
of its age in a share s of the pictures, and else any of the six. All other things - light, pose,
hair, what is worn - are as in the world, and independent of both.
"""

from __future__ import annotations

import torch
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.core.seeds import step_seed
from visiondx_worlds.worlds.base import Attributes
from visiondx_worlds.worlds.faces import AGE_RANGES, AGES, SKIN_TONES, faces

TIED = {
    "child": "tan",
    "teenager": "pale",
    "young adult": "dark",
    "middle-aged": "light",
    "older": "brown",
    "elderly": "medium",
}


def own_tones() -> Tensor:
    """(6,) int64: the number of the tone that each age range is tied to."""
    return torch.tensor([SKIN_TONES.index(TIED[age]) for age in AGE_RANGES])


def people(ages: Tensor, tones: Tensor, seed: int) -> Attributes:
    """Faces of given age ranges and skin tones, numbers (B,) each; all else is random.

    The age in years is uniform within its range.
    """
    rows = faces.sample(len(ages), seed)
    low, high = torch.tensor(AGES).unbind(1)
    within = torch.rand(len(ages), generator=torch.Generator().manual_seed(step_seed(seed, 1)))
    years = low[ages] + (high - low)[ages] * within
    return rows.replace(age=years, skin_tone=tones)


def aged(n: int, seed: int, strength: float) -> Attributes:
    """n faces, every age range as likely, and so every tone.

    Draws of one seed differ with the strength in nothing but the tones.

    Args:
        strength: of the tie; 0 is the control, whose tones are independent of the age.

    Raises:
        InputError: a strength outside [0, 1], or n below 1.
    """
    if not 0 <= strength <= 1:
        raise InputError(f"The tie's strength is {strength}: give a share, from 0 to 1.")
    source = torch.Generator().manual_seed(step_seed(seed, 2))
    ages, others = torch.randint(len(AGE_RANGES), (2, max(n, 0)), generator=source)
    held = torch.rand(max(n, 0), generator=source) < strength
    return people(ages, torch.where(held, own_tones()[ages], others), seed)
