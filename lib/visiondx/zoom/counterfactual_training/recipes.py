"""What a round finds is kept as, and what a training step learns from it: two recipes.

**paper**: Eq. 12 as it is printed. The counterfactuals x̂ of the latest round, each once, and their
labels f(x), "the model's original predictions": those of the regular target, as probabilities.
Nothing else but the regular training set is learned from.

**bank**: ours. What it does otherwise, and why:

- The edits are few numbers an image, and what the target makes of them is nearly linear there. So
  one long signed step, to the corner that its slope points at, finds most of what a long search
  finds; and the mirrored edit moves the target the other way. The bank holds five views of each
  image: x, x̂, x̂ mirrored, and a random corner and its mirror, which the next target's slope may
  point at. All go farther than the target is tried later. The images of all rounds stay in it.
- The max is played again at every step, on the bank: of an image's views, the two that the target
  now tells apart most are learned from. Views that it already takes for the same teach nothing.
- Labels. The original prediction is that of the regular target on average over the views. Where it
  is unsure it is noise, a matter of the edits themselves; there the label is what the target as it
  now is says, so that it is free to decide, but must decide.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from visiondx.core.loop import cosine
from visiondx.models.target import Target
from visiondx.zoom.counterfactual_training.bank import Bank, to_bytes
from visiondx.zoom.multi import MultiResult
from visiondx.zoom.weights import random_weights

SURE = 1.0  # mean logit beyond which the regular target's answer is the label
BATCH = 64  # views at once, about; a memory limit


class Recipe(ABC):
    """A way to play the game of Eq. 12."""

    @abstractmethod
    def views(self, generator, regular: Target, found: MultiResult, seed: int):
        """Of a search's B images: what is kept (B, V, 3, H, W), uint8, x and x̂ first, and the
        regular target's logit (B,), both on the CPU.

        Args:
            seed: of whatever is drawn.
        """

    @abstractmethod
    def draw(self, bank: Bank, n: int, source: torch.Generator, learning: Target):
        """n images to learn from, some views of each (n, v, 3, H, W), and their labels (n, v), on
        the target's device."""

    @abstractmethod
    def rate(self, step: int, total: int) -> float:
        """The learning rate's factor at this step of so many."""


class Plain(Recipe):
    """The paper's."""

    def views(self, generator, regular, found, seed):
        views, logits = _views(generator, regular, found, found.w[None])
        return views, logits[:, 0]

    def draw(self, bank, n, source, learning):
        latest = bank.rounds[-1]
        rows = torch.randperm(len(latest.views), generator=source)[:n]
        device = learning.mean.device
        label = latest.regular[rows, None].sigmoid()
        return latest.views[rows, 1:2].to(device) / 255, label.to(device)

    def rate(self, step, total):
        return 1.0


class Views(Recipe):
    """Ours: a bank of views."""

    def views(self, generator, regular, found, seed):
        corners = random_weights(found.attributes, 1.0, len(found.w), seed).sign()
        weights = torch.stack([found.w, found.settings["epsilon"] * corners])
        mirrored = torch.stack([weights, -weights], 1).flatten(0, 1)
        views, logits = _views(generator, regular, found, mirrored)
        return views, logits.mean(1)

    def draw(self, bank, n, source, learning):
        device = learning.mean.device
        views, regular = (t.to(device) for t in bank.draw(n, source))
        return hardest(learning, views / 255, regular)

    def rate(self, step, total):
        return cosine(step, total, warmup=20, final=0.02)


RECIPES: dict[str, Recipe] = {"bank": Views(), "paper": Plain()}


@torch.no_grad()
def _views(generator, target: Target, found: MultiResult, weights: Tensor):
    """Images unedited, and edited by each of K weights (K, B, N): (B, 1 + K, 3, H, W), uint8, and
    a target's logits of them (B, 1 + K), both on the CPU."""
    device = generator.style_mean.device
    edits = weights @ found.directions.delta_s.cpu()
    moves = torch.cat([torch.zeros_like(edits[:1]), edits])
    views, logits = [], []
    for part in (found.styles + moves).transpose(0, 1).split(BATCH // 4):
        images = generator.synthesize(part.flatten(0, 1).to(device))
        logits.append(target.logit(images).unflatten(0, part.shape[:2]).cpu())
        views.append(to_bytes(images).unflatten(0, part.shape[:2]))
    return torch.cat(views), torch.cat(logits)


@torch.no_grad()
def hardest(target: Target, views: Tensor, regular: Tensor) -> tuple[Tensor, Tensor]:
    """The two views (B, 2, 3, H, W) with the largest and the smallest logit, of (B, V, 3, H, W),
    and the label of both (B, 2)."""
    logit = target.logit(views.flatten(0, 1)).unflatten(0, views.shape[:2])
    picked = torch.stack([logit.argmax(1), logit.argmin(1)], 1)
    said = torch.where(regular.abs() > SURE, regular, logit.mean(1)) >= 0
    return views[torch.arange(len(views))[:, None], picked], said.float()[:, None].repeat(1, 2)
