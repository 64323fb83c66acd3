"""What tells one state of a target from another, for the keys of what is kept."""

import torch

from visiondx.core.files import digest
from visiondx.models.target import Target

ASKED = 4  # images whose answers tell two targets of equal weights apart


@torch.no_grad()
def target_state(target: Target, generator, asked: bool) -> str:
    """A hash of the target's weights, and of what it says of a few images.

    Args:
        asked: whether it is asked: the code of one from a file may change while its weights do not.
    """
    found = {f"module.{name}": t.float() for name, t in target.state_dict().items()}
    if asked:
        found["answers"] = target(generator.synthesize(generator.sample_styles(ASKED, seed=0)))
    return digest(**found)
