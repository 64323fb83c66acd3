"""Hard prompts: whole words of two kinds of tokenizer, what is drawn, what is found."""

import math

import pytest
import torch

from painter_standins import pipeline
from visiondx.core.errors import InputError
from visiondx.diffexplainer.hard_prompts import Words, annealed, gumbel, whole_words
from visiondx.diffexplainer.prompts import SoftPrompt
from visiondx.models.painter import Painter
from visiondx_worlds.models.painter_text import text_tokenizer
from visiondx_worlds.models.tokenizer import Tokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(scope="module")
def painter(tmp_path_factory) -> Painter:
    pipe = pipeline(tmp_path_factory.mktemp("painter"))
    return Painter(pipe.vae, pipe.unet, pipe.text_encoder, pipe.tokenizer, pipe.scheduler)


@pytest.fixture(scope="module")
def words(painter) -> Words:
    return Words.of(painter)


# Which words there are.
def test_whole_words_of_openais_kind(painter, words) -> None:
    """ "do" and the letters without an end are pieces; the start and the end are no words."""
    found = whole_words(painter.tokenizer)
    assert set(found) == {*LETTERS, "dog"}
    held = painter.tokenizer.get_vocab()
    assert found == {word: held[f"{word}</w>"] for word in found}
    assert words.texts == tuple(found)
    assert words.ids.tolist() == list(found.values())
    assert torch.equal(words.matrix, painter.token_embeddings(words.ids))


def test_whole_words_of_the_embedded_tokenizer() -> None:
    tokenizer = text_tokenizer(Tokenizer.load())
    words = whole_words(tokenizer)
    held = tokenizer.get_vocab()
    assert words == {word: held[f"Ġ{word}"] for word in words}
    assert {"dog", "snow", "grass"} <= set(words)
    assert not {"<pad>", "pad", ""} & set(words)
    some = whole_words(tokenizer, ["Snow", "dog", "snow"])
    assert some == {"snow": words["snow"], "dog": words["dog"]}
    assert list(some) == ["snow", "dog"]
    with pytest.raises(InputError, match="'snowdog', '犬' as no single token"):
        whole_words(tokenizer, ["dog", "snowdog", "犬"])


def test_words_that_are_none(painter) -> None:
    with pytest.raises(InputError, match="'cat' as no single"):
        whole_words(painter.tokenizer, ["dog", "cat"])
    with pytest.raises(InputError, match="'犬' as no single"):  # unknown: a special token
        whole_words(painter.tokenizer, ["犬"])
    for empty in ([], "dog"):
        with pytest.raises(InputError, match="non-empty list"):
            whole_words(painter.tokenizer, empty)


# Temperature and noise.
def test_the_temperature_falls_by_equal_factors() -> None:
    found = [annealed(step, 3, 4.0, 0.25) for step in range(3)]
    assert found == pytest.approx([4.0, 1.0, 0.25])
    assert annealed(0, 1, 2.0, 0.5) == 2.0
    with pytest.raises(InputError, match="Step 3"):
        annealed(3, 3)
    with pytest.raises(InputError, match="above 0"):
        annealed(0, 3, 1.0, 0.0)


def test_gumbel_noise_has_its_quantiles() -> None:
    drawn = gumbel([0], (20_000,))
    for level in (-1.0, 0.0, 2.0):  # P(g < x) = exp(-exp(-x))
        expected = math.exp(-math.exp(-level))
        assert (drawn < level).float().mean().item() == pytest.approx(expected, abs=0.012)


def test_a_rows_noise_follows_from_its_seed_alone() -> None:
    drawn = gumbel([3, 8, 3], (2, 5))
    assert torch.equal(drawn[0], drawn[2])
    assert torch.equal(gumbel([8], (2, 5))[0], drawn[1])
    assert not (drawn[0] == drawn[1]).any()
    with pytest.raises(InputError, match="seed"):
        gumbel([-1], (2, 5))


# Gumbel-softmax.
def test_words_are_drawn_with_the_probabilities_of_their_logits(painter) -> None:
    words = Words.of(painter, ["a", "b", "dog"])
    share = torch.tensor([[[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]], [[0.0, 0.4, 0.6], [0.6, 0.2, 0.2]]])
    logits = share.log()  # log 0: banned
    noise = gumbel(range(6000), (2, 3))
    drawn = words.draw(logits.repeat_interleave(3000, 0), noise, 0.5)
    assert drawn.shape == (6000, 2, 16)
    same = (drawn[:, :, None] == words.matrix).all(-1)  # each is exactly one word's embedding
    assert torch.equal(same.sum(-1), torch.ones(6000, 2, dtype=torch.long))
    found = same.view(2, 3000, 2, 3).float().mean(1)
    torch.testing.assert_close(found, share, atol=0.03, rtol=0)
    assert found[1, 0, 0] == 0
    assert words.read(logits) == [["a", "dog"], ["dog", "a"]]
    assert words.likeliest(logits, 2)[0][0] == ["a", "b"]
    assert words.likeliest(logits, 3)[1][0] == ["dog", "b", "a"]


def test_the_gradient_is_that_of_the_mixture(words) -> None:
    logits = torch.randn(2, 3, len(words), requires_grad=True)
    noise, upstream = gumbel([5, 6], (3, len(words))), torch.randn(2, 3, 16)
    (got,) = torch.autograd.grad(words.draw(logits, noise, 0.7), logits, upstream)
    mixture = ((logits + noise) / 0.7).softmax(-1) @ words.matrix
    (expected,) = torch.autograd.grad(mixture, logits, upstream)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert not words.matrix.requires_grad


def test_a_banned_word_stays_banned(words) -> None:
    dog = words.texts.index("dog")
    logits = torch.zeros(1, 1, len(words))
    logits[0, 0, dog] = -torch.inf
    logits.requires_grad_()
    descent = torch.optim.Adam([logits], lr=0.3)
    for step in range(5):
        descent.zero_grad()
        drawn = words.draw(logits, gumbel([step], logits.shape[1:]), 1.0)
        (drawn - words.matrix[dog]).square().sum().backward()
        descent.step()
    assert logits.isfinite().sum() == len(words) - 1
    assert words.read(logits) != [["dog"]]


# PEZ.
def test_the_nearest_word_by_angle_and_its_gradient(words) -> None:
    dog, b = (words.texts.index(word) for word in ("dog", "b"))
    free = torch.stack([9 * words.matrix[dog] + 0.1, 0.2 * words.matrix[b]])[None]
    free.requires_grad_()  # far in length, near in angle
    assert words.read(words.similarity(free)) == [["dog", "b"]]
    made = words.project(free)
    assert torch.equal(made[0], words.matrix[[dog, b]])
    upstream = torch.randn(1, 2, 16)
    assert torch.equal(torch.autograd.grad(made, free, upstream)[0], upstream)


def test_the_first_words_follow_from_the_seed(words) -> None:
    one, two, other = (words.start(4, 2, seed) for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(words.project(one), one)  # they are words
    assert len({word for places in words.read(words.similarity(one)) for word in places}) > 1


# Both.
@pytest.mark.parametrize("kind", ["gumbel", "nearest"])
def test_planted_words_are_found(painter, words, kind) -> None:
    """Searched so that the text encoder's outputs are those of "x q dog" and "x z a"."""
    prompt = SoftPrompt.parse(painter, "x {t}", tokens=2)
    target, steps = painter.encode(painter.tokens(["x q dog", "x z a"])), 60
    searched = torch.zeros(2, 2, len(words)) if kind == "gumbel" else words.start(2, 2, seed=3)
    searched.requires_grad_()
    descent = torch.optim.Adam([searched], lr=0.2)
    for step in range(steps):
        if kind == "gumbel":
            noise = gumbel([2 * step, 2 * step + 1], searched.shape[1:])
            soft = words.draw(searched, noise, annealed(step, steps, 2.0, 0.5))
        else:
            soft = words.project(searched)
        loss = (prompt.encode(painter, soft) - target).square().mean()
        descent.zero_grad()
        loss.backward()
        descent.step()
    scores = searched if kind == "gumbel" else words.similarity(searched)
    assert words.read(scores) == [["q", "dog"], ["z", "a"]]


def test_the_words_typed_give_the_same_condition(painter, words) -> None:
    scores = torch.randn(2, 2, len(words))
    prompt = SoftPrompt.parse(painter, "x {t} b", tokens=2)
    inserted = prompt.encode(painter, words.chosen(scores))
    typed = [prompt.template.format(t=" ".join(places)) for places in words.read(scores)]
    torch.testing.assert_close(inserted, painter.encode(painter.tokens(typed)))


def test_half_precision_painters(words) -> None:
    """The logits and the free embeddings stay float32, as an optimiser needs them."""
    half = Words(words.texts, words.ids, words.matrix.bfloat16())
    logits = torch.randn(1, 1, len(words), requires_grad=True)
    drawn = half.draw(logits, gumbel([0], (1, len(words))), 1.0)
    assert drawn.dtype == torch.bfloat16
    assert torch.autograd.grad(drawn.float().sum(), logits)[0].dtype == torch.float32
    free = half.start(1, 1, seed=0).requires_grad_()
    assert free.dtype == torch.float32
    assert torch.equal(half.project(free), free)


def test_bad_input(painter, words) -> None:
    logits, noise = torch.zeros(2, 1, len(words)), gumbel([0, 1], (1, len(words)))
    with pytest.raises(InputError, match=r"\['dog'\] leave nothing"):
        Words.of(painter, ["dog"])
    with pytest.raises(InputError, match=r"logits of shape \(2, 1, 26\).*for 27 words"):
        words.draw(logits[..., 1:], noise, 1.0)
    with pytest.raises(InputError, match="noise must have"):
        words.draw(logits, noise[:1], 1.0)
    with pytest.raises(InputError, match="temperature"):
        words.draw(logits, noise, 0.0)
    with pytest.raises(InputError, match=r"embeddings of shape \(2, 1, 27\)"):
        words.project(logits)
    with pytest.raises(InputError, match="1 to 27"):
        words.likeliest(logits, 28)
