"""A byte-level BPE tokenizer for captions: every Unicode text has tokens, nothing is cut silently.

Byte-level BPE (Sennrich et al. 2016; Radford et al. 2019): the 256 bytes are in the vocabulary, so
a word that the merges never saw falls back to pieces and, in the end, to bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from visiondx.core import files
from visiondx.core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

# `<eos>` is not 2: transformers' CLIP pools by the largest id for a model whose eos is 2.
SPECIAL = ("<pad>", "<unused>", "<bos>", "<eos>")
PAD, BOS, EOS = 0, 2, 3


class Tokenizer:
    """Called like an open_clip tokenizer: texts -> LongTensor (N, context_length).

    A row is `<bos> pieces <eos> <pad>...`. Text is NFKC-normalised and lower-cased.

    Raises:
        InputError: an empty prompt, or one with more than `context_length` tokens.
    """

    never_cuts = True

    def __init__(self, bpe: tokenizers.Tokenizer, context_length: int) -> None:
        self.bpe = bpe
        self.context_length = context_length

    @classmethod
    def train(
        cls, texts: Iterable[str], vocab_size: int = 1024, context_length: int = 48
    ) -> Tokenizer:
        """Learn the merges from a corpus; the result does not depend on the order of the texts."""
        bpe = tokenizers.Tokenizer(models.BPE())
        bpe.normalizer = normalizers.Sequence(
            [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip()]
        )
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        bpe.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(SPECIAL),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        bpe.train_from_iterator(sorted(texts), trainer)
        # Special tokens typed by a user are plain text, never control ids.
        bpe.encode_special_tokens = True
        return cls(bpe, context_length)

    @classmethod
    def load(cls, path: Path | None = None, context_length: int = 48) -> Tokenizer:
        """Read the JSON file that `save` wrote (default: data/prompts/tokenizer.json).

        Raises:
            InputError: no such file, or one that holds no tokenizer.
        """
        path = path or files.data_dir() / "prompts" / "tokenizer.json"
        if not path.is_file():
            raise InputError(f"There is no tokenizer at {path}; train one with Tokenizer.train.")
        fix = "restore it with 'git checkout data/prompts', or train one with Tokenizer.train"
        with files.reading(path, fix):
            bpe = tokenizers.Tokenizer.from_file(str(path))
        bpe.encode_special_tokens = True
        return cls(bpe, context_length)

    def save(self, path: Path | None = None) -> Path:
        """Write the JSON file and return its path."""
        path = path or files.data_dir() / "prompts" / "tokenizer.json"
        with files.atomic_write(path) as temporary:
            temporary.write_text(self.bpe.to_str(pretty=True), encoding="utf-8")
        return path

    @property
    def vocab_size(self) -> int:
        return self.bpe.get_vocab_size()

    @property
    def fingerprint(self) -> str:
        """sha256 of the vocabulary and the merges."""
        model = json.loads(self.bpe.to_str())["model"]
        kept = json.dumps([model["vocab"], model["merges"]], sort_keys=True)
        return hashlib.sha256(kept.encode()).hexdigest()

    def decode(self, row: Tensor) -> str:
        """The (normalised) text of one row of ids."""
        ids = [i for i in row.tolist() if i not in (PAD, BOS, EOS)]
        return self.bpe.decode(ids).strip()

    def __call__(self, texts: str | list[str], context_length: int | None = None) -> Tensor:
        import torch

        texts = [texts] if isinstance(texts, str) else list(texts)
        length = context_length or self.context_length
        rows = torch.full((len(texts), length), PAD, dtype=torch.long)
        for row, ids in zip(rows, self.ids(texts, length), strict=True):
            row[: len(ids)] = torch.tensor(ids)
        return rows

    def ids(self, texts: list[str], length: int) -> list[list[int]]:
        """The ids of each text, from `<bos>` to `<eos>`; without torch.

        Raises:
            InputError: an empty text, or one with more than ``length`` ids.
        """
        # A lone surrogate (half a character) has no UTF-8 form: it becomes "?".
        clean = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        found = []
        for text, encoding in zip(
            texts, self.bpe.encode_batch(clean, add_special_tokens=False), strict=True
        ):
            ids = [BOS, *encoding.ids, EOS]
            if len(ids) == 2:
                raise InputError(f"The prompt {text!r} is empty; write a few words.")
            if len(ids) > length:
                raise InputError(
                    f"The prompt {text!r} needs {len(ids)} tokens and the encoder reads {length}; "
                    "shorten it."
                )
            found.append(ids)
        return found
