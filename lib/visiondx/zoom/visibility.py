"""Does an edit show what its words say? CLIP is asked about every counterfactual that was kept.

A short bar of the histogram has two readings: the target does not mind the attribute, or the edit
did not show it. A long one has two as well: the attribute moved the target, or something else did
that came along. How often the edit shows tells which.

With the score c(x) = e(x)·Δt of an attribute (Δt of Eq. 1, of unit length) and its standard
deviation σ over the originals, CLIP *sees* the edit of a pair x, x̂ of weight w if

    sign(w) (c(x̂) - c(x)) >= σ   and   c(x⁺) > 0,

where x⁺ is the picture that should have the attribute, x̂ if w adds it and x if w takes it away.
Where half of the originals have an attribute, their mean score lies at most 2 σ above that of the
others; so σ is half of the way from one to the other at least. The second is ``zoom.toggle``'s
question, and a car in the snow, which a face never shows however far it moves, fails it.

CLIP made the edits, and so marks its own work. Where a world has judges, they are asked too: theirs
is the share of pairs in which what they read switched as the edit meant (``marking.zoom.truth``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from visiondx.core.stats import Estimate, proportion
from visiondx.zoom.multi_result import MultiResult
from visiondx.zoom.result import SearchResult

METHOD = 1  # of seeing edits, for ``files.result_key``
BATCH = 64  # images at once, without gradient
SHOWN = 0.1  # an edit is shown if it surely shows in so many of its pairs, or more


@dataclass(frozen=True)
class Visibility:
    """In which of B x N pairs (image, attribute) the edit showed to one reader."""

    seen: Tensor  # (B, N) bool
    sure: Tensor  # (B, N) bool; where a reader is not sure, ``seen`` means nothing and is left out

    @cached_property
    def share(self) -> tuple[Estimate, ...]:
        """Of each attribute, the share of pairs in which its edit showed."""
        columns = zip(self.seen.T, self.sure.T, strict=True)
        return tuple(proportion(seen[sure].numpy()) for seen, sure in columns)

    @property
    def shown(self) -> tuple[bool, ...]:
        """Whether an attribute's edit surely shows in ``SHOWN`` of its pairs or more; True where no
        pair could be read.
        """
        return tuple(share.low >= SHOWN or not share.n for share in self.share)

    @classmethod
    def pool(cls, parts: Sequence["Visibility | None"]) -> "Visibility | None":
        """The images of several together; None if one of them is."""
        if any(part is None for part in parts):
            return None
        return cls(torch.cat([p.seen for p in parts]), torch.cat([p.sure for p in parts]))

    def of(self, columns: Sequence[int]) -> "Visibility":
        return Visibility(self.seen[:, columns], self.sure[:, columns])


def read_pairs(
    result: SearchResult | MultiResult, read, batch: int = BATCH
) -> tuple[Tensor, Tensor]:
    """What a reader says of originals and kept counterfactuals: (B, K) and (B, N, K).

    Where all attributes moved together, an image has one counterfactual: (B, K) and (B, K).

    Args:
        read: images (R, 3, H, W) on the generator's device -> (R, K).
        batch: images made and read at once, a memory limit.
    """
    device, rows = result.generator.style_mean.device, range(len(result.styles))
    parts = [list(rows[first : first + batch]) for first in rows[::batch]]

    def all_of(images) -> Tensor:
        return torch.cat([read(images(part).to(device)).cpu() for part in parts])

    if isinstance(result, MultiResult):
        return all_of(result.originals), all_of(result.images)
    edited = [
        all_of(lambda part, n=n: result.images(part, n)) for n in range(len(result.attributes))
    ]
    return all_of(result.originals), torch.stack(edited, 1)


@torch.no_grad()
def clip_visibility(result: SearchResult | MultiResult, encoder, batch: int = BATCH) -> Visibility:
    """In which kept pairs CLIP sees the edit; see above. A pass over B (N + 1) images.

    Where all attributes moved together, in which images CLIP sees each attribute's part of the
    edit, which its own weight turned; over 2 B images.
    """
    delta_t = result.directions.delta_t

    def read(images: Tensor) -> Tensor:
        e = encoder.embed_images(images)
        return e @ delta_t.to(e).T

    before, after = read_pairs(result, read, batch)
    if after.ndim == 3:
        after = after.diagonal(dim1=1, dim2=2)  # (B, N): each attribute in its own edits
    return by_scores(before, after, result.w)


def by_scores(before: Tensor, after: Tensor, w: Tensor) -> Visibility:
    """In which pairs CLIP sees the edit: c(x), c(x̂) and the weights, (B, N) each; see above."""
    moved = (after - before) * w.sign()
    there = torch.where(w > 0, after, before) > 0
    enough = before.std(0) if len(before) > 1 else torch.zeros_like(before[0])
    seen = (moved >= enough) & (moved > 0) & there
    return Visibility(seen, torch.ones_like(seen))
