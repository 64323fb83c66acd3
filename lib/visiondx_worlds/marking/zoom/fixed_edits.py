"""Edits that no gradient chose: a grid of each attribute alone, random ones of all together.

They need no gradient, so a target cannot hide from them (see ``resistance``); and they show
what the edits do to the images themselves.
"""

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.zoom.directions import Directions
from visiondx.zoom.weights import random_weights
from visiondx_worlds.marking.zoom.resistance import BATCH, Jury, Resistance, answers


@torch.no_grad()
def harm(
    generator,
    directions: Directions,
    styles: Tensor,
    labels: Sequence[str],
    jury: Jury,
    epsilons: Sequence[float],
    draws: int = 4,
    seed: int = 0,
) -> pd.DataFrame:
    """What edits within ±ε do to the images themselves, at worst; no target is asked.

    Every attribute is at +ε or -ε, at random: in such corners strong searches end. Beyond some ε a
    target that withstands edits is wrong: its label has really changed, or there is no face any
    more. This table is for choosing ε.

    Args:
        styles: (B, c_S); each is edited to ``draws`` corners.

    Returns:
        One row an ε, the first is 0: ``real``, the share as real as renders are; and for each label
        the share of which both judges say what they said of the original (``<label>_same``), or
        the opposite (``<label>_changed``), of those originals that they agreed about.

    Raises:
        InputError: no judge reads a label.
    """
    columns = [jury.judges.column(label) for label in labels]
    corners = random_weights(directions.attributes, 1.0, draws, seed).sign()
    offset = (corners @ directions.delta_s.cpu()).to(styles)
    originals = torch.cat([generator.synthesize(part) for part in styles.split(BATCH)])
    known, unsure = (t[:, columns].cpu() for t in jury.judges.read(originals))
    known, asked = known.repeat(draws, 1), ~unsure.repeat(draws, 1)
    rows = []
    for epsilon in (0.0, *epsilons):
        moved = (styles + epsilon * offset[:, None]).flatten(0, 1)
        edited = torch.cat([generator.synthesize(part) for part in moved.split(BATCH)])
        seen, unsure = (t[:, columns].cpu() for t in jury.judges.read(edited))
        row = {"epsilon": epsilon, "real": jury.realism.real(edited).double().mean().item()}
        for i, label in enumerate(labels):
            agreed, own = ~unsure[asked[:, i], i], (seen == known)[asked[:, i], i]
            row[f"{label}_same"] = (own & agreed).double().mean().item()
            row[f"{label}_changed"] = (~own & agreed).double().mean().item()
        rows.append(row)
    return pd.DataFrame(rows).assign(n=len(known))


@torch.no_grad()
def fixed_edits(
    generator,
    targets: Mapping[str, object],
    directions: Directions,
    styles: Tensor,
    seeds: Tensor,
    weights: Mapping[str, Tensor],
    jury: Jury | None = None,
    labels: Mapping[str, str] | None = None,
    batch: int = BATCH,
) -> dict[str, Resistance]:
    """The same edits of the same images for several targets; no gradient chose them.

    Args:
        targets: name -> target. labels: name -> the judges' attribute that it is about.
        styles: (B, c_S). seeds: (B,).
        weights: column -> (points, N), a flip at any point counts. batch: edited images at once.
        jury: says which flips are kept; without one, raw flips are all that is known.

    Returns:
        name -> a column for each of ``weights``.
    """
    device = generator.style_mean.device
    w = torch.cat(list(weights.values()))
    offset = (w @ directions.delta_s.cpu()).to(device)  # (K, c_S)
    raw = {name: [] for name in targets}
    kept = {name: [] for name in targets}
    chunks = torch.arange(len(styles)).split(max(1, batch // len(w)))
    for rows in tqdm(chunks, desc="fixed edits", unit="batch"):
        own = styles[rows].to(device)
        originals = generator.synthesize(own)
        moved = (own[:, None] + offset).flatten(0, 1)
        edited = torch.cat([generator.synthesize(part) for part in moved.split(batch)])
        of = torch.arange(len(rows)).repeat_interleave(len(w))
        for name, target in targets.items():
            flipped = answers(target, edited) != answers(target, originals)[of]
            raw[name].append(flipped.unflatten(0, (len(rows), len(w))))
            if jury:
                keeps = flipped.clone()
                keeps[flipped] = jury.kept(labels[name], originals, edited[flipped], of[flipped])
                kept[name].append(keeps.unflatten(0, (len(rows), len(w))))
    sizes = [len(part) for part in weights.values()]

    def columns(parts: list[Tensor]) -> Tensor | None:
        if not parts:
            return None
        return torch.stack([part.any(1) for part in torch.cat(parts).split(sizes, 1)], 1)

    return {
        name: Resistance(tuple(weights), columns(raw[name]), columns(kept[name]), seeds)
        for name in targets
    }
