"""What a classifier of ages goes by: faces with the class's age, with its group's tone, or both.

Of each class n faces of three kinds: of its age and its own tone; of its age in another tone; and
of its tone at another age. What is taken for the class in the last kind is so for its skin.
"""

from __future__ import annotations

import pandas as pd
import torch
from tqdm.auto import tqdm

from visiondx.core.seeds import step_seed
from visiondx.models.target import Target
from visiondx_worlds.worlds.age_groups import own_tones, people
from visiondx_worlds.worlds.faces import AGE_RANGES, faces

SHOWS = ("age and group", "age alone", "group alone")


@torch.no_grad()
def taken(target: Target, n: int, seed: int, batch: int = 250) -> pd.DataFrame:
    """Whether a face is taken for the class: a row an image, n of each class and `SHOWS`.

    Columns: class, seed, shows, taken.
    """
    count, own = len(AGE_RANGES), own_tones()
    rows = []
    for k, name in enumerate(tqdm(AGE_RANGES, desc="classes", leave=False)):
        now = step_seed(seed, k)
        source = torch.Generator().manual_seed(step_seed(now, 3))
        # another age, and another class's tone: one to five places further round
        away = (k + 1 + torch.randint(count - 1, (2, n), generator=source)) % count
        here = torch.full((n,), k)
        kinds = ((here, own[here]), (here, own[away[0]]), (away[1], own[here]))
        for shows, (ages, tones) in zip(SHOWS, kinds, strict=True):
            images = faces.render(people(ages, tones, now))
            said = torch.cat([target.logits(part).argmax(1) for part in images.split(batch)])
            about = {"class": name, "seed": seed, "shows": shows}
            rows += [{**about, "taken": right} for right in (said == k).tolist()]
    return pd.DataFrame(rows)
