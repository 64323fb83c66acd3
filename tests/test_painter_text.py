"""The embedded CLIP's text tower as the painter's text encoder: the same ids, the same outputs."""

import pytest
import torch
from transformers import AutoTokenizer, CLIPTextModel

from visiondx_worlds.models.painter_text import text_model, text_tokenizer
from visiondx_worlds.models.tiny_encoder import load_encoder
from visiondx_worlds.models.tokenizer import EOS

TEXTS = [
    "a photo of a dog",
    "Two  CATS, not in the snow!",
    "a naïve façade 犬",
    "<eos> a <pad> dog",  # typed by a user: plain text
    "x",
]


@pytest.fixture(scope="module")
def encoder():
    return load_encoder()


@pytest.fixture(scope="module")
def carried(encoder, tmp_path_factory):
    """Model and tokenizer, saved and loaded again."""
    folder = tmp_path_factory.mktemp("text")
    text_model(encoder).save_pretrained(folder / "text_encoder")
    text_tokenizer(encoder.tokenize).save_pretrained(folder / "tokenizer")
    model = CLIPTextModel.from_pretrained(folder / "text_encoder").eval()
    return model, AutoTokenizer.from_pretrained(folder / "tokenizer")


def test_ids_are_equal(encoder, carried) -> None:
    _, tokenizer = carried
    ours = encoder.tokens(TEXTS)
    theirs = tokenizer(TEXTS, padding="max_length", max_length=48)["input_ids"]
    assert torch.equal(torch.tensor(theirs), ours)
    assert (ours == EOS).sum(1).tolist() == [1] * len(TEXTS)
    assert tokenizer.model_max_length == 48


@torch.no_grad()
def test_token_outputs_are_equal(encoder, carried) -> None:
    model, _ = carried
    clip, ids = encoder.clip, encoder.tokens(TEXTS)
    x = clip.token_embedding(ids) + clip.positional_embedding
    ours = clip.ln_final(clip.transformer(x, attn_mask=clip.attn_mask))
    theirs = model(ids)
    assert ours.std() > 0.1
    torch.testing.assert_close(theirs.last_hidden_state, ours, atol=1e-5, rtol=1e-5)
    # pooled at the end of the text, and not at the largest id: open_clip's embedding
    embedded = torch.nn.functional.normalize(theirs.pooler_output @ clip.text_projection, dim=-1)
    torch.testing.assert_close(embedded, encoder.embed_texts(TEXTS), atol=1e-5, rtol=1e-5)
