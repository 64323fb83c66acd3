"""Words inside and outside of what a black box of faces has seen, and how they are told apart."""

import pytest
import torch

from llm2loss_standins import ColourEncoder
from visiondx.errors import InputError
from visiondx.llm2loss.ood import (
    aurocs,
    embed_words,
    inside_words,
    outside_words,
    random_vectors,
    span_share,
)


@pytest.mark.parametrize("heldout", [False, True])
def test_the_words_of_each_set(heldout):
    inside, outside = inside_words(heldout), outside_words(heldout)
    assert {"a face", "a person", "a woman"} <= set(inside)
    assert ("a face with a fringe" in inside) != heldout
    assert list(outside) == ["animals", "scene classes", "scene super-classes"]
    for words in (inside, *outside.values()):
        assert len(words) == len(set(words))
        assert not any("{" in word for word in words)
    assert not set(inside) & {word for words in outside.values() for word in words}


def test_held_out_words_were_not_tuned_on():
    before, after = outside_words(False), outside_words(True)
    for name in ("animals", "scene classes"):
        assert not set(before[name]) & set(after[name])


def test_aurocs_by_hand():
    inside = torch.tensor([[3.0, 1.0], [5.0, 6.0]])
    outside = {"x": torch.tensor([[0.0, 2.0, 0.5, 0.0], [1.0, 2.0, 3.0, 4.0]])}
    found = aurocs(inside, outside)["x"]
    assert found.value == pytest.approx((7 / 8 + 1) / 2)
    assert found.low <= found.value <= found.high
    assert found.n == 4
    assert aurocs(inside[0], {"x": outside["x"][0]})["x"].value == pytest.approx(7 / 8)
    with pytest.raises(InputError, match="1 black boxes and inside of 2"):
        aurocs(inside, {"x": outside["x"][:1]})


def test_a_text_that_speaks_of_what_varies_is_inside():
    images = torch.zeros(200, 6)
    images[:, :2] = torch.randn(200, 2)
    images[:, 2] = 2
    texts = torch.eye(6) + 0.0
    share = span_share(texts, torch.zeros(6), images)
    assert (share[:2] > 0.95).all()
    assert (share[3:] < 0.1).all()
    # what is neutral carries nothing
    shifted = span_share(texts[:1] + texts[4:5], texts[4] * 0.5**0.5, images)
    assert shifted > 0.99


def test_random_vectors_are_unit_and_seeded():
    drawn = random_vectors(10, 5, 0)
    torch.testing.assert_close(drawn.norm(dim=1), torch.ones(10))
    assert not torch.equal(drawn, random_vectors(10, 5, 1))
    torch.testing.assert_close(drawn, random_vectors(10, 5, 0), rtol=0, atol=0)


def test_words_are_embedded_in_sentences_or_alone():
    encoder = ColourEncoder()
    alone = embed_words(encoder, ["red", "blue"], templates=False)
    torch.testing.assert_close(alone, encoder.embed_texts(["red", "blue"]))
    among = embed_words(encoder, ["red", "blue"], heldout=True)
    torch.testing.assert_close(among.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(among, alone)  # this encoder reads colours only
