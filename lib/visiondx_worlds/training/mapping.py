"""The mapping network's own lesson, before any picture is drawn: which z stands for what."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from visiondx.core.loop import check_finite, cosine
from visiondx.models.stylegan2 import normalize_2nd_moment
from visiondx_worlds.worlds.base import Attributes


def mapping_targets(attributes: Attributes) -> Tensor:
    """What w should hold so that an affine layer can read it: (B, targets), each of unit size.

    Every column standardised over the batch; columns of few values one-hot; the others also as
    cosine and sine of their value over their range, because a hue's colour turns with it.
    """
    parts = []
    for column in attributes.values.unbind(1):
        parts.append(((column - column.mean()) / column.std().clamp_min(1e-6))[:, None])
        values = column.unique()
        if len(values) <= 8:
            parts.append(2 * (column[:, None] == values).to(column))
        elif column.std() > 0:
            turn = 2 * torch.pi * (column - values[0]) / (values[-1] - values[0])
            parts.append(torch.stack([turn.cos(), turn.sin()], 1))
    return torch.cat(parts, 1)


def pretrain_mapping(
    mapping: nn.Module, world, *, z_dim: int, w_dim: int, steps: int, batch: int, lr: float
) -> float:
    """Teach the mapping network which attributes a z stands for; returns the last mean error.

    A linear reading of w, thrown away afterwards, is fitted to `mapping_targets`. Without it the
    regression finds one attribute after another, the smallest (earrings) last.
    """
    count = 200 * batch
    z = torch.randn(count, z_dim)
    u = normalize_2nd_moment(z)[:, : world.latent_dim]
    targets = mapping_targets(world.from_normal(u))
    mapping.cpu()
    reading = nn.Linear(w_dim, targets.shape[1])
    adam = torch.optim.Adam([*mapping.parameters(), *reading.parameters()], betas=(0.9, 0.99))
    recent = []
    for i in tqdm(range(steps), desc="mapping", mininterval=1.0):
        adam.param_groups[0]["lr"] = lr * cosine(i, steps, warmup=50)
        rows = torch.randint(count, (batch,))
        loss = F.mse_loss(reading(mapping(z[rows])), targets[rows])
        check_finite(i, "mapping", loss.detach())
        adam.zero_grad(set_to_none=True)
        loss.backward()
        adam.step()
        recent = [*recent[-19:], loss.item()]
    return sum(recent) / max(1, len(recent))
