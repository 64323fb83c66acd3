"""Pictures of planted biases: where a diagnosis named something else, and where it was right."""

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from visiondx.models.target import Target
from visiondx.show import plots
from visiondx.zoom.diagnose import diagnose
from visiondx.zoom.directions import Directions
from visiondx.zoom.search import SearchSettings
from visiondx_worlds.marking.zoom.truth import label_prompts


def worst_and_best(table: pd.DataFrame, worst: int = 10, best: int = 3) -> pd.DataFrame:
    """The rows of a ``planted_frame`` with the lowest and with the highest margin, each once."""
    table = table.sort_values("margin", ignore_index=True)
    return pd.concat([table.head(worst), table.tail(best).iloc[::-1]]).drop_duplicates("classifier")


def plot_examples(
    table: pd.DataFrame,
    worlds: Mapping[str, object],
    generators: Mapping[str, object],
    encoder,
    *,
    settings: SearchSettings,
    edits: Mapping[str, Directions],
    images: int = 4,
    seed: int = 100,
) -> Figure:
    """A row a classifier: a picture and its strongest counterfactual, for two attributes.

    On the left the attribute that is truly first, on the right the one that was measured as first,
    or, if they are the same, its second strongest; above the pictures the classifier's
    probabilities, beside them the margin.

    Args:
        table: rows of a ``planted_frame``.
        worlds, generators, edits: by the name of a world. settings: see ``diagnose``.
        images: searched, of this seed.
    """
    pictures, titles, rows = [], [], []
    for _, row in table.iterrows():
        asked = (row["truly first"], row["found first"])
        shown, words = _strip(
            row["classifier"],
            asked,
            worlds,
            generators,
            encoder,
            settings=settings,
            edits=edits,
            images=images,
            seed=seed,
        )
        pictures.append(shown)
        titles += words
        rows.append(f"{row['classifier']}: {row['margin']:+.3f}")
    return plots.image_grid(torch.cat(pictures), titles, columns=4, rows=rows)


def _strip(
    name: str,
    attributes: Sequence[str],
    worlds: Mapping[str, object],
    generators: Mapping[str, object],
    encoder,
    edits: Mapping[str, Directions],
    **how,
) -> tuple[Tensor, list[str]]:
    """Original and counterfactual for each of two attributes, and what stands above."""
    target = Target.load(name)
    world = worlds[target.config["world"]]
    found = diagnose(
        target,
        [world.prompt(a) for a in dict.fromkeys(attributes)],
        world.grammar.neutral,
        generators[world.name],
        encoder,
        consistency=label_prompts(world, target),
        edits=edits[world.name],
        **how,
    ).result
    pictures, titles = [], []
    for place, attribute in enumerate(attributes):
        n = found.attributes.index(world.prompt(attribute))
        best = found.strongest(n, 2)[place if attributes[0] == attributes[1] else 0]
        pictures += [found.originals([best])[0], found.images([best], n)[0]]
        titles += [f"{float(found.p_original[best]):.2f}"]
        titles += [f"{attribute} {float(found.p[best, n]):.2f}"]
    return torch.stack(pictures).cpu(), titles
