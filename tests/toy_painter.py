"""A painter whose one token says how much of a red object and of a green ground it paints."""

from types import SimpleNamespace

import torch
from torch import Tensor, nn

from visiondx.models.denoising import Noise

SIZE = 16


class _Words:
    """A tokenizer of five words; any other is the first."""

    bos_token_id, eos_token_id, pad_token_id = 0, 1, 2
    all_special_ids = (0, 1, 2)
    words = ("", "", "", "thing", "ground", "dog", "cat", "none")

    def __len__(self):
        return len(self.words)

    def __call__(self, texts, add_special_tokens=True):
        known = {word: token for token, word in enumerate(self.words) if word}
        several = [texts] if isinstance(texts, str) else texts
        rows = [[known.get(word, 3) for word in text.split()] for text in several]
        return {"input_ids": rows[0] if isinstance(texts, str) else rows}

    def decode(self, tokens):
        return " ".join(self.words[token] for token in tokens)

    def batch_decode(self, rows):
        return [self.decode(row) for row in rows]


class ToyPainter(nn.Module):
    """Tokens (object, ground), each through a sigmoid; the noise moves the object about."""

    context_length, size, device = 4, SIZE, torch.device("cpu")
    tokenizer = _Words()

    def __init__(self) -> None:
        super().__init__()
        self.text_encoder = SimpleNamespace(get_input_embeddings=lambda: self.table)
        self.table = nn.Embedding(len(self.tokenizer), 2)
        nn.init.normal_(self.table.weight)

    def token_embeddings(self, ids: Tensor) -> Tensor:
        return self.table(ids)

    def encode(self, ids: Tensor, soft: Tensor, places) -> Tensor:
        return soft.sum(1, keepdim=True)

    def noise(self, seeds) -> Noise:
        return Noise.draw(seeds, (1, 1, 1), 0)

    def forward(self, condition: Tensor, noise: Noise, through: int | None = None) -> Tensor:
        thing, ground = condition[:, 0].sigmoid().unbind(1)
        line = torch.linspace(-1, 1, SIZE)
        x = line - 0.3 * noise.start[:, 0, 0].tanh()
        shape = torch.exp(-(((x[:, None] ** 2 + line[:, None] ** 2) * 4) ** 4))
        red = shape * thing[:, None, None]
        green = (1 - red) * ground[:, None, None]
        return torch.stack([red, green, torch.zeros_like(red)], 1)


class Colours(nn.Module):
    """Two classes; the features of "thing" are its redness, its greenness, and none."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[0.0, 0.0, 0.0], [9.0, 9.0, 0.1]]))

    def forward(self, images: Tensor) -> Tensor:
        red, green = images[:, 0].mean((1, 2)), images[:, 1].mean((1, 2))
        return self.head(torch.stack([red, green, torch.zeros_like(red)], 1)) - torch.tensor(
            [0.0, 1.5]
        )


class RedPixels(nn.Module):
    """A segmenter's module: the object is what is red."""

    def forward(self, images: Tensor, words) -> tuple[Tensor, Tensor]:
        found = images[:, :1].expand(-1, len(words), -1, -1)
        return found, found.flatten(2).max(2).values
