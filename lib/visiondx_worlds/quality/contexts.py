"""What a classifier of tied scenes says where its classes belong, elsewhere, and where nothing is.

The same objects three times: before the context of their class, before any other background, and
the context again without them. Of a class without a tie, the context is any but the neutral one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from visiondx.models.target import Target
from visiondx_worlds.training.context_classifiers import ContextClassifier
from visiondx_worlds.worlds import scenes
from visiondx_worlds.worlds.contexts import CONTEXTS, tied

WHERE = ("in context", "elsewhere", "context alone")


@torch.no_grad()
def taken(
    classifier: ContextClassifier, target: Target, n: int, seed: int, batch: int = 250
) -> pd.DataFrame:
    """Whether a picture is taken for the class: a row an image, n of each class and `WHERE`.

    Columns: class, strength, seed, where, taken.
    """
    rows = []
    for k, name in enumerate(tqdm(scenes.classes, desc="classes", leave=False)):
        tie = classifier.held.get(name)
        source = np.random.default_rng([seed, k])
        own = [tie.context] if tie else list(CONTEXTS)
        others = [b for b in scenes.categories["background"] if b not in own] if tie else own
        objects = tied({}, [name]).sample(n, seed)
        there, away = (objects.replace(background=_drawn(source, b, n)) for b in (own, others))
        pictures = (scenes.render(there), scenes.render(away), scenes.render_context(there))
        for where, images in zip(WHERE, pictures, strict=True):
            said = torch.cat([target.logits(part).argmax(1) for part in images.split(batch)])
            about = {"class": name, "strength": tie.strength if tie else 0.0, "seed": seed}
            rows += [{**about, "where": where, "taken": right} for right in (said == k).tolist()]
    return pd.DataFrame(rows)


def _drawn(source: np.random.Generator, backgrounds: Sequence[str], n: int) -> torch.Tensor:
    """(n,) numbers of backgrounds, each as likely."""
    numbers = [scenes.categories["background"].index(b) for b in backgrounds]
    return torch.from_numpy(source.choice(numbers, n)).float()
