import pytest
import torch

from standins import ToyWorld
from visiondx.core.errors import InputError
from visiondx_worlds.models.tokenizer import BOS, EOS, PAD, Tokenizer
from visiondx_worlds.training.encoder import train_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([ToyWorld()], count=50)


@pytest.mark.parametrize(
    "text",
    ["a red shape", "日本語の顔", "😀 naïve ﬁancé", "\ud83d", "\x00\x07", "<eos> <pad>", "Ж" * 15],
)
def test_any_text_becomes_bytes_between_bos_and_eos(tokenizer: Tokenizer, text: str) -> None:
    row = tokenizer(text)[0]
    used = int((row != PAD).sum())
    assert row.dtype == torch.long
    assert row[0] == BOS
    assert row[used - 1] == EOS
    assert (row[1 : used - 1] > EOS).all()  # nothing a user types is a control token
    assert (row[used:] == PAD).all()
    assert row.max() < tokenizer.vocab_size


def test_decodes_to_the_normalised_text(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer("  A RED Shape, 日本 ﬁt ")[0]) == "a red shape, 日本 fit"


def test_words_of_the_grammar_are_single_pieces_and_others_are_not(tokenizer: Tokenizer) -> None:
    assert (tokenizer("stripes") != PAD).sum() == 3
    assert (tokenizer("zebras") != PAD).sum() > 4


def test_too_long_or_empty_is_an_error_not_a_cut(tokenizer: Tokenizer) -> None:
    exact = " ".join(["red"] * (tokenizer.context_length - 2))
    assert (tokenizer(exact) != PAD).all()
    with pytest.raises(InputError, match="needs 49 tokens and the encoder reads 48"):
        tokenizer(exact + " red")
    for text in ("", "  \n"):
        with pytest.raises(InputError, match="empty"):
            tokenizer(["a red shape", text])


def test_saved_tokenizer_is_the_same(tokenizer: Tokenizer, tmp_path) -> None:
    tokenizer.save(tmp_path / "t.json")
    again = Tokenizer.load(tmp_path / "t.json")
    assert again.fingerprint == tokenizer.fingerprint
    assert torch.equal(again("a blue <eos> 😀"), tokenizer("a blue <eos> 😀"))
    with pytest.raises(InputError, match="no tokenizer"):
        Tokenizer.load(tmp_path / "missing.json")


def test_training_does_not_depend_on_the_order_of_texts() -> None:
    texts = ["a hat", "a red hat", "the hatter", "red shapes"]
    forward, backward = Tokenizer.train(texts, 300), Tokenizer.train(texts[::-1], 300)
    assert forward.fingerprint == backward.fingerprint
    assert forward.vocab_size <= 300
