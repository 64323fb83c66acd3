"""The small CLIP that comes with the repository: made, kept and loaded as an `Encoder`."""

from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path

import open_clip
import torch
from open_clip.model import set_model_preprocess_cfg
from open_clip.transform import PreprocessCfg

from visiondx.core.errors import InputError
from visiondx.models.encoder import Encoder
from visiondx.models.vocabulary import words_of
from visiondx_worlds.models import tower, zoo  # noqa: F401  (tower registers itself with timm)
from visiondx_worlds.models.tokenizer import Tokenizer
from visiondx_worlds.worlds.grammar import read_words

TINY = "visiondx-tiny"
READ = ("faces.yaml", "animals.yaml", "scenes.yaml", "fillers.yaml")  # its captions' words
open_clip.add_model_config(Path(__file__).parent / "configs")


@cache
def vocabulary() -> frozenset[str]:
    """All words of the captions that the embedded encoder was trained on."""
    texts = (text for file in READ for text in _texts(read_words(file)))
    return frozenset(word for text in texts for word in words_of(text))


def known(word: str) -> bool:
    """Whether a caption has it; the captions' words are read when this is first asked."""
    return word in vocabulary()


def _texts(node: object) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict | list):
        for each in node.values() if isinstance(node, dict) else node:
            yield from _texts(each)


def new_encoder(tokenizer: Tokenizer, seed: int = 0) -> Encoder:
    """The embedded architecture with random weights, to be trained.

    Raises:
        InputError: a tokenizer with more tokens than the model has rows for.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        clip = open_clip.CLIP(**open_clip.get_model_config(TINY))
    size = clip.visual.image_size
    set_model_preprocess_cfg(clip, asdict(PreprocessCfg(size=size)))
    if tokenizer.vocab_size > clip.vocab_size:
        raise InputError(
            f"A tokenizer of {tokenizer.vocab_size} tokens does not fit into {TINY}, which has "
            f"{clip.vocab_size}; train it with a smaller vocab_size."
        )
    tokenizer.context_length = clip.context_length
    return Encoder(clip, tokenizer, tokenizer.fingerprint)


def load_encoder(name: str = "embedded", device: str | torch.device = "cpu") -> Encoder:
    """An encoder kept in data/weights/ as "encoder-<name>", written by `save_encoder`.

    Raises:
        InputError: a missing or damaged file, or another tokenizer than it was trained with.
    """
    with zoo.opened(f"encoder-{name}") as (tensors, config):
        tokenizer = Tokenizer.load()
        if tokenizer.fingerprint != config["tokenizer"]:
            raise InputError(
                f"Encoder {name!r} was trained with another tokenizer than data/prompts/"
                "tokenizer.json; restore that file or train the encoder again."
            )
        encoder = new_encoder(tokenizer)
        encoder.clip.load_state_dict(tensors)
    encoder.knows = known
    return encoder.to(device)


def save_encoder(
    encoder: Encoder,
    name: str = "embedded",
    *,
    notebook: str,
    seed: int,
    quality: dict | None = None,
) -> None:
    """Keep the weights as "encoder-<name>" in data/weights/, with what made them."""
    config = {"model": TINY, "tokenizer": encoder.tokenizer_name}
    tensors = {key: value.contiguous() for key, value in encoder.clip.state_dict().items()}
    zoo.save(
        f"encoder-{name}", tensors, config, notebook=notebook, seed=seed, quality=quality or {}
    )
