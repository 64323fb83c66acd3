"""Class tokens: their files, their prompts, and diffusers' own pipeline with the same words."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from painter_standins import pipeline
from visiondx.core.errors import InputError
from visiondx.dataset_interfaces.tokens import (
    ClassTokens,
    encode_prompts,
    fingerprint,
    lay_out,
    token_name,
)
from visiondx.models.painter import Painter

CLASSES = ("plate", "Red mug")
NAMES = ("<plate>", "<red-mug>")
PROMPTS = ["a <plate> dog", "the <red-mug>", "a <plate> <red-mug>"]
SEEDS = [3, 8, 5]


def painter_of(pipe) -> Painter:
    return Painter(pipe.vae, pipe.unet, pipe.text_encoder, pipe.tokenizer, pipe.scheduler)


@pytest.fixture(scope="module")
def painter(tmp_path_factory) -> Painter:
    return painter_of(pipeline(tmp_path_factory.mktemp("painter")))


def tokens_of(painter: Painter, count: int = 1) -> ClassTokens:
    vectors = torch.randn(2, count, 16, generator=torch.Generator().manual_seed(count))
    return ClassTokens(CLASSES, NAMES, vectors, ("dog", "a dog"), fingerprint(painter))


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("way", ["tensors", "files"])
def test_diffusers_pipeline_paints_the_same(painter, tmp_path, count, way) -> None:
    tokens = tokens_of(painter, count)
    pipe = pipeline(tmp_path)  # of the same weights
    if way == "tensors":
        pipe.load_textual_inversion(tokens.embeddings())
    else:
        for path in tokens.export(tmp_path / "tokens"):
            pipe.load_textual_inversion(str(path.parent))
    # who asks the tokenizer directly has one vector of a token, so as diffusers does it
    told = pipe.encode_prompt(PROMPTS, "cpu", 1, False)[0]
    ours = encode_prompts(painter, PROMPTS, tokens)
    torch.testing.assert_close(ours, told, atol=1e-6, rtol=0)
    plain = painter.encode(painter.tokens(["a dog dog", "the dog", "a dog dog"]))
    assert (ours - plain).abs().amax((1, 2)).min() > 0.1  # the words matter
    sources = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    made = pipe(
        PROMPTS, generator=sources, num_inference_steps=3, guidance_scale=4.0, output_type="pt"
    )
    with torch.no_grad():
        shown = painter(ours, painter.noise(SEEDS), steps=3, guidance=4.0)
    torch.testing.assert_close(shown, made.images.float(), atol=2e-5, rtol=0)


def test_a_file_of_diffusers_is_read(painter, tmp_path) -> None:
    value = torch.randn(3, 16)
    save_file({"<cat-toy>": value.half()}, tmp_path / "learned_embeds.safetensors")
    tokens = ClassTokens.load(tmp_path, painter)
    assert (tokens.classes, tokens.names) == (("cat-toy",), ("<cat-toy>",))
    assert (tokens.initialisers, tokens.encoder) == (("",), "")
    assert torch.equal(tokens.vectors, value.half().float()[None])
    save_file({"sks": value[0]}, tmp_path / "one.safetensors")  # no angle brackets, one vector
    one = ClassTokens.load(tmp_path / "one.safetensors", painter)
    assert one.vectors.shape == (1, 1, 16)
    ids, which = lay_out(painter, ["a sks dog"], one.names, 1)
    assert which[0].tolist() == [-1, -1, 0, *[-1] * 9]
    assert ids[0, 3] == painter.tokenizer("dog", add_special_tokens=False)["input_ids"][0]


def test_what_is_saved_comes_back(painter, tmp_path) -> None:
    tokens = tokens_of(painter, 2)
    tokens.save(tmp_path / "tokens.safetensors")
    tokens.export(tmp_path / "each")
    with safe_open(tmp_path / "tokens.safetensors", "pt") as file:
        assert sorted(file.keys()) == sorted(NAMES)
    for path in ("tokens.safetensors", "each"):
        found = ClassTokens.load(tmp_path / path, painter)
        assert found.classes == CLASSES
        assert found.names == NAMES
        assert found.initialisers == ("dog", "a dog")
        assert found.encoder == tokens.encoder
        assert torch.equal(found.vectors, tokens.vectors)
    one = tokens.only("Red mug")
    assert one.names == ("<red-mug>",)
    assert torch.equal(one.vectors, tokens.vectors[1:])
    with pytest.raises(InputError, match="No token of class 'fork': choose from plate, Red mug"):
        tokens.only("fork")


def test_tokens_of_another_text_encoder_are_refused(painter, tmp_path) -> None:
    tokens_of(painter).save(tmp_path / "tokens.safetensors")
    other = painter_of(pipeline(tmp_path / "other", seed=1))
    with pytest.raises(InputError, match="learned with another text encoder"):
        ClassTokens.load(tmp_path / "tokens.safetensors", other)
    with pytest.raises(InputError, match="learned with another text encoder"):
        encode_prompts(other, PROMPTS, tokens_of(painter))
    save_file({"<x>": torch.zeros(8)}, tmp_path / "narrow.safetensors")
    with pytest.raises(InputError, match=r"have 8 numbers a vector and .* takes 16"):
        ClassTokens.load(tmp_path / "narrow.safetensors", painter)
    # one that was saved in half precision is no other
    half = painter_of(pipeline(tmp_path / "half"))
    half.text_encoder.half().float()
    assert fingerprint(half) == fingerprint(painter)
    ClassTokens.load(tmp_path / "tokens.safetensors", half)
    half.tokenizer.add_tokens("<plate>")
    with pytest.raises(InputError, match="tokenizer knows <plate> already"):
        ClassTokens.load(tmp_path / "tokens.safetensors", half)


def test_bad_token_files_are_refused(painter, tmp_path) -> None:
    with pytest.raises(InputError, match="No token file at"):
        ClassTokens.load(tmp_path / "none.safetensors")
    with pytest.raises(InputError, match=r"holds no learned_embeds\.safetensors"):
        ClassTokens.load(tmp_path)
    (tmp_path / "learned_embeds.bin").write_bytes(b"x")
    with pytest.raises(InputError, match="is a pickle"):
        ClassTokens.load(tmp_path / "learned_embeds.bin")
    (tmp_path / "broken.safetensors").write_bytes(b"x" * 40)
    with pytest.raises(InputError, match=r"broken.safetensors is damaged"):
        ClassTokens.load(tmp_path / "broken.safetensors")
    save_file({"<a>": torch.ones(16), "<b>": torch.ones(2, 16)}, tmp_path / "mixed.safetensors")
    with pytest.raises(InputError, match="no tokens of one length"):
        ClassTokens.load(tmp_path / "mixed.safetensors")
    save_file({"<a>": torch.full((16,), torch.nan)}, tmp_path / "nan.safetensors")
    with pytest.raises(InputError, match="NaN"):
        ClassTokens.load(tmp_path / "nan.safetensors")
    about = {"names": json.dumps(["<a>", "<lost>"])}
    save_file({"<a>": torch.ones(16)}, tmp_path / "lost.safetensors", about)
    with pytest.raises(InputError, match=r"lost.safetensors is damaged \(it has no '<lost>'"):
        ClassTokens.load(tmp_path / "lost.safetensors")


def test_two_classes_with_one_token_are_refused() -> None:
    assert [token_name(n) for n in ("Red fox", "n01440764", " T-shirt ", "Ä_b")] == [
        *("<red-fox>", "<n01440764>", "<t-shirt>", "<ä-b>")
    ]
    with pytest.raises(InputError, match="no letter or digit"):
        token_name("--")
    names = [token_name(name) for name in ("Red fox", "red_fox")]
    with pytest.raises(
        InputError, match="'Red fox' and 'red_fox' have the same token <red-fox>: rename"
    ):
        ClassTokens(("Red fox", "red_fox"), tuple(names), torch.zeros(2, 1, 4), ("", ""))


def test_prompts(painter) -> None:
    tokens = tokens_of(painter, 2)
    assert tokens.prompt("a <class> dog", "Red mug") == "a <red-mug> dog"
    with pytest.raises(InputError, match="'a dog' holds no <class>"):
        tokens.prompt("a dog", "plate")
    with pytest.raises(InputError, match=r"holds <class>, which is no token here: .*<plate>, <red"):
        encode_prompts(painter, ["a <class>"], tokens)
    with pytest.raises(InputError, match="needs 13 tokens and the painter reads 12"):
        encode_prompts(painter, ["abcdefg <plate> <plate>"], tokens)
    with pytest.raises(InputError, match="non-empty list"):
        encode_prompts(painter, "a <plate>", tokens)
    # without a token, as the painter reads it; letter case does not count
    plain = painter.encode(painter.tokens(["the dog"]))
    assert torch.equal(encode_prompts(painter, ["the dog"], tokens), plain)
    both = encode_prompts(painter, ["a <Plate>", "a <plate>"], tokens)
    assert torch.equal(both[0], both[1])
    # the second vector stands behind the first
    ids, which = lay_out(painter, ["a <red-mug> dog"], tokens.names, 2)
    assert which[0, :6].tolist() == [-1, -1, 2, 3, -1, -1]
    assert ids[0, -1] == painter.tokenizer.pad_token_id
