"""Hard prompts: the searched tokens of a prompt are words of the text encoder's vocabulary.

DiffExplainer (Pennisi et al., 2024), section 4.4: logits over the words, sampled by Gumbel-softmax
(Jang et al., 2017), times the embedding matrix. Beside it PEZ (Wen et al., 2023): free embeddings,
read as the nearest words'.

    words = Words.of(painter)                     # or among=["snow", "grass", ...]
    logits = torch.zeros(8, 1, len(words))        # is searched: 8 prompts of 1 word
    noise = gumbel(seeds, (1, len(words)))        # a seed a prompt, others at every step
    soft = words.draw(logits, noise, annealed(step, steps))
    condition = prompt.encode(painter, soft)      # of a ``prompts.SoftPrompt``: (8, L, D)
    words.read(logits)                            # [["snow"], ...]

    free = words.start(8, 1, seed)                # is searched: (8, 1, d)
    soft = words.project(free)
    words.read(words.similarity(free))

Both pass a gradient straight through the choice. A prompt's k words are chosen each by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.core.seeds import check_seed
from visiondx.kernels.vocabulary import mix

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from visiondx.models.painter import Painter


def whole_words(
    tokenizer: PreTrainedTokenizerBase, among: Sequence[str] | None = None
) -> dict[str, int]:
    """The words that a tokenizer holds as one token, and their ids.

    A token is one if its text is letters, and alone gives back that token and no other: OpenAI's
    pieces within a word do not, nor ours. What only looks like a word stays ("ing", that ends words
    of OpenAI's, or "sno", that begins one of ours): a tokenizer cannot tell, a list of words can.

    Args:
        among: the words to keep, in any letter case; None for all, in the order of their ids.

    Raises:
        InputError: an empty list, or words in it that are no single token.
    """
    special = set(tokenizer.all_special_ids)
    if among is None:
        ids = [token for token in range(len(tokenizer)) if token not in special]
        texts = [text.strip() for text in tokenizer.batch_decode([[token] for token in ids])]
        pairs = [(token, text) for token, text in zip(ids, texts, strict=True) if text.isalpha()]
        alone = _tokens(tokenizer, [text for _, text in pairs])
        return {
            text: token for (token, text), own in zip(pairs, alone, strict=True) if own == [token]
        }
    if isinstance(among, str) or not len(among):
        raise InputError(f"among is {among!r}: give a non-empty list of words.")
    found = _tokens(tokenizer, list(among))
    wrong = [w for w, own in zip(among, found, strict=True) if len(own) != 1 or own[0] in special]
    if wrong:
        raise InputError(
            f"The tokenizer holds {', '.join(map(repr, wrong[:10]))} as no single token: leave out "
            "such words; whole_words(tokenizer) lists those that it holds."
        )
    return {tokenizer.decode(own).strip(): own[0] for own in found}


def _tokens(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    return tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []


def annealed(step: int, steps: int, first: float = 1.0, last: float = 0.1) -> float:
    """The temperature of a step from 0 to ``steps`` - 1: by equal factors from first to last.

    Raises:
        InputError: a step outside, or temperatures that are not above 0.
    """
    if not 0 <= step < steps:
        raise InputError(f"Step {step} is none of {steps}: count from 0 to {steps - 1}.")
    if not (first > 0 and last > 0):
        raise InputError(f"Temperatures must be above 0, got {first} and {last}.")
    return first * (last / first) ** (step / max(steps - 1, 1))


def gumbel(seeds: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Standard Gumbel noise (R, *shape) from a seed a row, float32, drawn on the CPU.

    Raises:
        InputError: a seed that is no whole number from 0.
    """
    drawn = torch.empty(len(seeds), *shape)
    for seed, row in zip(seeds, drawn, strict=True):
        check_seed(seed)
        row.exponential_(generator=torch.Generator().manual_seed(seed))
    return drawn.clamp_min_(torch.finfo(drawn.dtype).tiny).log_().neg_()


@dataclass(frozen=True)
class Words:
    """The W words that may be chosen.

    texts: as the tokenizer writes them. ids: (W,) their tokens. matrix: (W, d) what the text
    encoder looks up, a copy.
    """

    texts: tuple[str, ...]
    ids: Tensor
    matrix: Tensor

    @classmethod
    def of(cls, painter: Painter, among: Sequence[str] | None = None) -> Words:
        """The whole words of a painter's tokenizer, or those of a list; see ``whole_words``.

        Raises:
            InputError: see ``whole_words``; or a single word, which leaves no choice.
        """
        found = whole_words(painter.tokenizer, among)
        if len(found) < 2:
            raise InputError(f"The words {list(found)} leave nothing to choose: give two or more.")
        ids = torch.tensor(list(found.values()), device=painter.device)
        return cls(tuple(found), ids, painter.token_embeddings(ids).detach())

    def __len__(self) -> int:
        return len(self.texts)

    def some(self, count: int, seed: int) -> Words:
        """`count` of them, drawn; all in their order where there are no more."""
        check_seed(seed)
        if count >= len(self):
            return self
        source = torch.Generator().manual_seed(seed)
        rows = torch.randperm(len(self), generator=source)[:count].to(self.ids.device)
        texts = tuple(self.texts[row] for row in rows.tolist())
        return Words(texts, self.ids[rows], self.matrix[rows])

    def draw(self, logits: Tensor, noise: Tensor, temperature: float) -> Tensor:
        """Straight-through Gumbel-softmax: (R, k, d) embeddings of the words that are drawn.

        Forward is the embedding of the word of the largest logits + noise, exactly; backward is the
        gradient of softmax((logits + noise) / temperature) times the matrix.

        Args:
            logits: (R, k, W); -inf bans a word, and no gradient changes it. noise: the same shape,
                of ``gumbel``. temperature: above 0; see ``annealed``.

        Raises:
            InputError: logits or noise of another shape, or a temperature that is not above 0.
        """
        self._check(logits, len(self), "logits")
        self._check(noise, len(self), "noise")
        flat = logits.flatten(0, 1)
        flat_noise = noise.to(flat).flatten(0, 1)
        mixture = mix(flat, self.matrix, flat_noise, temperature=temperature)
        drawn = self.matrix[(flat.detach() + flat_noise).argmax(1)]
        # the difference is 0, so that the word's embedding is not rounded
        return (drawn + (mixture - mixture.detach())).unflatten(0, logits.shape[:2])

    def start(self, rows: int, tokens: int, seed: int) -> Tensor:
        """(R, k, d) embeddings, float32, of words drawn at random: where PEZ starts."""
        check_seed(seed)
        source = torch.Generator().manual_seed(seed)
        first = torch.randint(len(self), (rows, tokens), generator=source)
        return self.matrix[first.to(self.matrix.device)].float()

    def project(self, free: Tensor) -> Tensor:
        """PEZ's projection (Algorithm 1): (R, k, d) embeddings of the words nearest by angle.

        Forward is the embedding of a word, exactly; backward hands its gradient to the free
        embedding, which moves and may come nearer to another word.

        Args:
            free: (R, k, d).

        Raises:
            InputError: embeddings of another shape.
        """
        return self.chosen(self.similarity(free)) + (free - free.detach())

    @torch.no_grad()
    def similarity(self, free: Tensor) -> Tensor:
        """(R, k, d) embeddings -> (R, k, W), cosines to the words; see ``project``."""
        self._check(free, self.matrix.shape[1], "embeddings")
        return F.normalize(free, dim=-1) @ F.normalize(self.matrix.to(free), dim=1).T

    def chosen(self, scores: Tensor) -> Tensor:
        """Logits or similarities (R, k, W) -> (R, k, d), the embeddings of the likeliest words."""
        self._check(scores, len(self), "scores")
        return self.matrix[scores.argmax(-1)]

    def likeliest(self, scores: Tensor, count: int) -> list[list[list[str]]]:
        """Logits or similarities (R, k, W) -> for R prompts of k words the `count` likeliest each,
        the best first.

        Raises:
            InputError: scores of another shape, fewer than one, or more than there are words.
        """
        self._check(scores, len(self), "scores")
        if not 1 <= count <= len(self):
            raise InputError(f"{count} words were asked for: give a number from 1 to {len(self)}.")
        best = scores.detach().topk(count, dim=-1).indices.tolist()
        return [[[self.texts[w] for w in place] for place in places] for places in best]

    def read(self, scores: Tensor) -> list[list[str]]:
        """Logits or similarities (R, k, W) -> the likeliest words: R lists of k."""
        return [[place[0] for place in places] for places in self.likeliest(scores, 1)]

    def _check(self, given: Tensor, last: int, name: str) -> None:
        if given.ndim != 3 or given.shape[2] != last or not given.is_floating_point():
            raise InputError(
                f"{name} of shape {tuple(given.shape)} and {given.dtype} were given for "
                f"{len(self)} words: give floating-point (R, k, {last})."
            )
