"""A word as soft tokens: where a search for token embeddings starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from visiondx.core.errors import InputError

if TYPE_CHECKING:
    from visiondx.models.painter import Painter


def soft_word(painter: Painter, text: str, count: int) -> Tensor:
    """(count, d): the tokens of `text`, repeated or their means so that there are `count`.

    One is the mean of all tokens.

    Raises:
        InputError: a text without tokens.
    """
    ids = painter.tokenizer(text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise InputError(f"The word {text!r} has no token: write a word.")
    table = painter.token_embeddings(torch.tensor(ids, device=painter.device))
    if len(ids) <= count:
        return table[[k % len(ids) for k in range(count)]]
    return torch.stack([part.mean(0) for part in torch.tensor_split(table, count)])
