"""What λ of Eq. 2 does: how far an edit gets and what else it changes, by channels kept."""

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.core.memory import keep_memory
from visiondx.zoom.directions import SIDES, from_relevance, text_directions, threshold_for
from visiondx.zoom.estimate import edit_relevance

BATCH = 128  # images at once; a memory limit


@torch.no_grad()
def sweep(
    generator,
    encoder,
    M: Tensor | None,
    attributes: Sequence[str],
    neutral: str,
    styles: Tensor,
    channels: Sequence[int] = (1, 5, 20, 80),
    w: float = 6.0,
    sides: Sequence[str] = SIDES,
    judges=None,
    names: Sequence[str] | None = None,
    estimator: str = "relevance",
) -> pd.DataFrame:
    """Edit every image by the same w, with λ chosen so that a given number of channels is left.

    CLIP's score of attribute n is e(x)·Δt_n, counted in its standard deviation over the unedited
    images. ``gain`` is the mean change of the edited attribute's score, ``others`` the mean
    |change| of the other attributes'. With judges, ``judged_gain`` and ``judged_others`` are the
    same in the judges' probabilities; images that they say had the attribute do not count.

    Args:
        styles: (B, c_S). w: in standard deviations of style.
        M, estimator: (c_S, c_T) and "relevance", or None and "gradient", see ``zoom.estimate``.
        judges, names: ``models.judges.Judges``, and its attribute that each prompt is about.

    Returns:
        One row for each attribute, side and number of channels.

    Raises:
        InputError: unusable prompts, more channels than are relevant, or an unknown name.
    """
    delta_t = text_directions(encoder, attributes, neutral)
    keep_memory()  # on the CPU, halves the time
    strength = edit_relevance(generator, encoder, delta_t, estimator, M)
    columns = [judges.column(name) for name in names] if judges is not None else []

    def read(changed: Tensor) -> tuple[Tensor, Tensor]:
        """CLIP's scores (B, N) and the judges' probabilities (B, N) or (B, 0)."""
        clip, judged = [], []
        for part in changed.split(BATCH):
            images = generator.synthesize(part)
            clip.append(encoder.embed_images(images) @ delta_t.T)
            judged.append(judges.scores(images)[:, columns] if columns else images.new_empty(0, 0))
        return torch.cat(clip), torch.cat(judged)

    before, seen = read(styles)
    scale = before.std(0).clamp_min(1e-6)
    rows = []
    total = len(sides) * len(channels) * len(attributes)
    with tqdm(total=total, desc="sweeping λ", unit="edit") as bar:
        for sided, count in [(s, c) for s in sides for c in channels]:
            thresholds = threshold_for(strength, count, sided)
            std = generator.style_std
            found = from_relevance(strength, attributes, neutral, delta_t, std, thresholds, sided)
            for n, attribute in enumerate(attributes):
                after, judged = read(styles + w * found.delta_s[n].to(styles))
                own, rest = _split((after - before) / scale, n)
                row = {"attribute": attribute, "sided": sided, "channels": count}
                row |= {"threshold": thresholds[n], "gain": own, "others": rest}
                if columns:
                    lacking = seen[:, n] < 0.5
                    own, rest = _split((judged - seen)[lacking], n)
                    row |= {"judged_gain": own, "judged_others": rest}
                rows.append(row)
                bar.update()
    return pd.DataFrame(rows)


def _split(change: Tensor, n: int) -> tuple[float, float]:
    """Mean change of column n, and mean |change| of the others (NaN where there are none)."""
    rest = torch.arange(change.shape[1]) != n
    return change[:, n].mean().item(), change[:, rest].abs().mean().item()
