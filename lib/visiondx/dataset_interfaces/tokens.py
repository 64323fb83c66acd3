"""Class tokens: a word for each class, whose embeddings were learned, and prompts that use them.

    tokens = ClassTokens.load("tokens.safetensors", painter)
    prompts = [tokens.prompt("a photo of a <class> in the snow", name) for name in tokens.classes]
    condition = encode_prompts(painter, prompts, tokens)                      # (P, L, D)

The prompt of class "plate" holds "<plate>", in whose place the k learned vectors stand. The same
prompts go to diffusers' pipelines: ``pipe.load_textual_inversion(tokens.embeddings())``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.core.files import atomic_write, digest, reading
from visiondx.core.words import plain
from visiondx.dataset_interfaces.shifts import PLACE
from visiondx.models.painter import Painter
from visiondx.models.safe_weights import PICKLES

USUAL_NAME = "learned_embeds.safetensors"  # what diffusers looks for in a folder


@dataclass(frozen=True)
class ClassTokens:
    """Words for C classes.

    names: such as "<plate>". vectors: (C, k, d) float32 on the CPU. initialisers: the words that
    they started from; "" where that is not known. encoder: fingerprint of the text encoder that
    they belong to; "" where that is not known. losses: (T, C) of the steps that learned them; not
    saved.

    Raises:
        InputError: vectors of another shape, or two classes with the same word.
    """

    classes: tuple[str, ...]
    names: tuple[str, ...]
    vectors: Tensor
    initialisers: tuple[str, ...]
    encoder: str = ""
    losses: Tensor | None = None

    def __post_init__(self) -> None:
        count = len(self.classes)
        given = len(self.names), len(self.initialisers), len(self.vectors)
        if not count or given != (count,) * 3 or self.vectors.ndim != 3:
            raise InputError(
                f"{count} classes, {given[0]} names, {given[1]} initialisers and vectors of shape "
                f"{tuple(self.vectors.shape)} were given: give one of each class, (C, k, d)."
            )
        check_names(self.classes, self.names)
        if not self.vectors.isfinite().all():
            raise InputError("The tokens' vectors hold NaN or infinity: learn them again.")

    @property
    def count(self) -> int:
        """k, the vectors of a class."""
        return self.vectors.shape[1]

    def only(self, *classes: str) -> ClassTokens:
        """Of these classes alone. Raises InputError for one that has no token."""
        rows = [self._row(name) for name in classes]
        return replace(
            self,
            classes=tuple(classes),
            names=tuple(self.names[row] for row in rows),
            vectors=self.vectors[rows],
            initialisers=tuple(self.initialisers[row] for row in rows),
            losses=None if self.losses is None else self.losses[:, rows],
        )

    def prompt(self, text: str, name: str) -> str:
        """A prompt with "<class>" for one class: "a photo of a <plate>".

        Raises:
            InputError: a class without a token, or a text without "<class>".
        """
        if PLACE not in text:
            raise InputError(f"The prompt {text!r} holds no {PLACE}: write it where the class is.")
        return text.replace(PLACE, self.names[self._row(name)])

    def check(self, painter: Painter) -> None:
        """Raise InputError unless this painter reads these tokens.

        Those whose text encoder is not known must have its width.
        """
        width = painter.text_encoder.config.hidden_size
        if self.vectors.shape[2] != width:
            raise InputError(
                f"The tokens have {self.vectors.shape[2]} numbers a vector and the painter's text "
                f"encoder takes {width}: learn them for this painter."
            )
        if self.encoder and self.encoder != fingerprint(painter):
            raise InputError(
                "The tokens were learned with another text encoder than the painter's: learn them "
                "for this painter, or load theirs."
            )
        check_new(painter, self.names)

    def embeddings(self) -> list[dict[str, Tensor]]:
        """What diffusers' ``load_textual_inversion`` takes: {name: (d,) or (k, d)} of each class.

        It reads a token of k vectors only where its pipeline converts the prompt itself.
        """
        own = self.vectors[:, 0] if self.count == 1 else self.vectors
        return [{name: each.clone()} for name, each in zip(self.names, own, strict=True)]

    def save(self, file: str | Path) -> None:
        """One safetensors file. Of one class alone, diffusers loads it; see ``export``."""
        tensors = {name: value for each in self.embeddings() for name, value in each.items()}
        about = {
            "classes": json.dumps(self.classes),
            "names": json.dumps(self.names),
            "initialisers": json.dumps(self.initialisers),
            "encoder": self.encoder,
        }
        with atomic_write(file) as path:
            save_file(tensors, path, about)

    def export(self, folder: str | Path) -> list[Path]:
        """A folder a class, named as its word, with the ``learned_embeds.safetensors`` that
        diffusers' ``load_textual_inversion`` takes; the paths of these files.
        """
        paths = [Path(folder) / name.strip("<>") / USUAL_NAME for name in self.names]
        for name, path in zip(self.classes, paths, strict=True):
            self.only(name).save(path)
        return paths

    @classmethod
    def load(cls, file: str | Path, painter: Painter | None = None) -> ClassTokens:
        """What ``save`` wrote, or any ``learned_embeds.safetensors``; a folder with such files.

        Args:
            painter: which is to read them: see ``check``.

        Raises:
            InputError: no such file, a pickle, damaged, tokens of several lengths, or of another
                text encoder.
        """
        path = Path(file)
        paths = sorted(path.rglob(USUAL_NAME)) if path.is_dir() else [path]
        if not paths:
            raise InputError(f"The folder {path} holds no {USUAL_NAME}: check the path.")
        parts = [_read(each) for each in paths]
        if len({(part.vectors.shape[1:], part.encoder) for part in parts}) > 1:
            raise InputError(
                f"The tokens in {path} are of several lengths or text encoders: load them apart."
            )
        found = cls(
            tuple(name for part in parts for name in part.classes),
            tuple(name for part in parts for name in part.names),
            torch.cat([part.vectors for part in parts]),
            tuple(word for part in parts for word in part.initialisers),
            parts[0].encoder,
        )
        if painter is not None:
            found.check(painter)
        return found

    def _row(self, name: str) -> int:
        if name not in self.classes:
            raise InputError(f"No token of class {name!r}: choose from {', '.join(self.classes)}.")
        return self.classes.index(name)


def token_name(name: str) -> str:
    """The word of a class: "Red fox" is "<red-fox>".

    Raises:
        InputError: a class without a letter or digit.
    """
    word = re.sub(r"[\W_]+", "-", plain(name)).strip("-")
    if not word:
        raise InputError(f"The class {name!r} has no letter or digit to name its word by: name it.")
    return f"<{word}>"


def check_names(classes: Sequence[str], names: Sequence[str]) -> None:
    """Raise InputError for two classes with the same word; letter case does not count."""
    seen: dict[str, str] = {}
    for own, name in zip(classes, names, strict=True):
        if (other := seen.get(name.lower())) is not None:
            raise InputError(
                f"The classes {other!r} and {own!r} have the same token {name}: rename one."
            )
        seen[name.lower()] = own


def check_new(painter: Painter, names: Sequence[str]) -> None:
    """Raise InputError for a word that the painter's tokenizer knows already."""
    known = painter.tokenizer.get_vocab()
    for name in names:
        if name in known:
            raise InputError(
                f"The painter's tokenizer knows {name} already: rename the class, or load the "
                "painter without it."
            )


def fingerprint(painter: Painter) -> str:
    """Of a text encoder's weights, the same of those saved in half precision."""
    # by number: the names of the parts change with transformers' versions
    weights = enumerate(painter.text_encoder.parameters())
    return digest(**{f"{number:05}": weight.half() for number, weight in weights})


def lay_out(
    painter: Painter, prompts: Sequence[str], names: Sequence[str], count: int
) -> tuple[Tensor, Tensor]:
    """Prompts with words of `count` vectors each, as diffusers' tokenizers would read them.

    Returns:
        ids (P, L), padded; and (P, L) which vector stands there, -1 for none: that of names[n] are
        from n * count on.

    Raises:
        InputError: no list, a word in angle brackets that is not one of `names`, or a prompt longer
            than the context.
    """
    if isinstance(prompts, str) or not prompts:
        raise InputError(f"Prompts {prompts!r} were given; give a non-empty list of texts.")
    number = {name.lower(): n for n, name in enumerate(names)}
    longest = sorted(map(re.escape, names), key=len, reverse=True)
    pattern = re.compile(f"({'|'.join(longest)})", re.IGNORECASE)
    pieces = [pattern.split(text) for text in prompts]  # words between names, in turn
    for text, row in zip(prompts, pieces, strict=True):
        if odd := re.search(r"<[^<>\s]+>", " ".join(row[::2])):
            raise InputError(
                f"The prompt {text!r} holds {odd[0]}, which is no token here: the tokens are "
                f"{', '.join(names[:5])}{', …' if len(names) > 5 else ''}."
            )
    words, length = painter.tokenizer, painter.context_length
    texts = list(dict.fromkeys(piece for row in pieces for piece in row[::2]))
    read = words(texts, add_special_tokens=False, verbose=False)["input_ids"]
    known = dict(zip(texts, read, strict=True))
    ids = torch.full((len(prompts), length), words.pad_token_id)
    which = torch.full((len(prompts), length), -1)
    for place, (text, row) in enumerate(zip(prompts, pieces, strict=True)):
        line, stand = [words.bos_token_id], [-1]
        for turn, piece in enumerate(row):
            if turn % 2:
                start = number[piece.lower()] * count
                stand += range(start, start + count)
                line += [words.bos_token_id] * count  # never read
            else:
                line += known[piece]
                stand += [-1] * len(known[piece])
        line.append(words.eos_token_id)
        if len(line) > length:
            raise InputError(
                f"The prompt {text!r} needs {len(line)} tokens and the painter reads {length}; "
                "shorten it."
            )
        ids[place, : len(line)] = torch.tensor(line)
        which[place, : len(stand)] = torch.tensor(stand)
    return ids.to(painter.device), which.to(painter.device)


@torch.no_grad()
def encode_prompts(painter: Painter, prompts: Sequence[str], tokens: ClassTokens) -> Tensor:
    """Prompts with words such as "<plate>", see ``ClassTokens.prompt`` -> (P, L, D).

    The UNet's condition, as ``Painter.encode`` gives it of plain prompts.

    Raises:
        InputError: tokens of another text encoder, and see ``lay_out``.
    """
    tokens.check(painter)
    ids, which = lay_out(painter, prompts, tokens.names, tokens.count)
    vectors = tokens.vectors.flatten(0, 1).to(painter.device)
    parts = zip(ids.split(256), which.split(256), strict=True)
    return torch.cat([painter.encode(row, vectors[at[at >= 0]], at >= 0) for row, at in parts])


def _read(path: Path) -> ClassTokens:
    """One file's tokens."""
    if not path.is_file():
        raise InputError(f"No token file at {path}: check the path.")
    if path.suffix in PICKLES:
        raise InputError(
            f"{path} is a pickle, which could run any code: have the tokens saved as safetensors."
        )
    with reading(path, "learn the tokens again, or fetch the file again"):
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            held = {name: file.get_tensor(name).float() for name in file.keys()}
        names = json.loads(about["names"]) if "names" in about else sorted(held)
        vectors = [held[name] if held[name].ndim == 2 else held[name][None] for name in names]
        if not vectors or any(v.ndim != 2 or v.shape != vectors[0].shape for v in vectors):
            raise InputError(
                f"{path} holds no tokens of one length, (d,) or (k, d) each, but "
                f"{', '.join(f'{name} {tuple(each.shape)}' for name, each in held.items())}."
            )
        plain_names = [name.strip("<>") for name in names]
        return ClassTokens(
            tuple(json.loads(about["classes"]) if "classes" in about else plain_names),
            tuple(names),
            torch.stack(vectors),
            tuple(json.loads(about.get("initialisers", json.dumps([""] * len(names))))),
            about.get("encoder", ""),
        )
