"""Soft prompts: fixed words around tokens that are searched (DiffExplainer, section 3.2).

    prompt = SoftPrompt.parse(painter, "a texture of {t}", tokens=2)
    start = prompt.start(painter, rows=12, seed=0)                      # (12, 2, d)
    condition = prompt.encode(painter, start)                           # (12, L, D)

t = [SOS, fixed words, t_1 ... t_N, fixed words, EOS]; "{t}" alone is the paper's base form.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.diffexplainer.hard_prompts import Words
from visiondx.diffexplainer.question import PLACE, check_template
from visiondx.models.painter import Painter
from visiondx.models.soft_words import soft_word


@dataclass(frozen=True)
class SoftPrompt:
    """A template's token ids, and where in them the searched tokens stand.

    ids: (L,) padded; what stands in the searched places is never read. places: k of them.
    """

    template: str
    ids: Tensor
    places: tuple[int, ...]

    @classmethod
    def parse(cls, painter: Painter, template: str, tokens: int = 1) -> SoftPrompt:
        """A template with one ``{t}``, in whose place `tokens` searched tokens stand.

        Raises:
            InputError: no ``{t}`` or several, fewer tokens than one, or a prompt longer than the
                painter's context.
        """
        check_template(template)
        if tokens < 1:
            raise InputError(f"tokens is {tokens}: search one at least.")
        before, after = template.split(PLACE)
        words = painter.tokenizer
        head, tail = words([before, after], add_special_tokens=False)["input_ids"]
        first = [words.bos_token_id, *head]
        row = [*first, *[words.bos_token_id] * tokens, *tail, words.eos_token_id]
        length = painter.context_length
        if len(row) > length:
            raise InputError(
                f"The template {template!r} with {tokens} tokens needs {len(row)} and the painter "
                f"reads {length}: shorten it."
            )
        row += [words.pad_token_id] * (length - len(row))
        places = tuple(range(len(first), len(first) + tokens))
        return cls(template, torch.tensor(row, device=painter.device), places)

    def start(self, painter: Painter, rows: int, seed: int) -> Tensor:
        """(rows, k, d) tokens of words drawn from the vocabulary's whole ones.

        A painter knows what to make of a word. Between words lies what it was never told, and a
        search that begins there tends to end in pictures that please the target alone.

        Raises:
            InputError: a tokenizer with fewer than two whole words.
        """
        return Words.of(painter).start(rows, len(self.places), seed)

    def word(self, painter: Painter, text: str) -> Tensor:
        """(k, d): the tokens of `text`, repeated or their mean so that there are k of them.

        Raises:
            InputError: a text without tokens.
        """
        return soft_word(painter, text, len(self.places))

    def encode(self, painter: Painter, soft: Tensor) -> Tensor:
        """(R, k, d) searched tokens -> prompt embeddings (R, L, D), with a gradient in them."""
        return painter.encode(self.ids.expand(len(soft), -1), soft, self.places)
