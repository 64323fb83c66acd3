"""Words inside and outside of what a black box of faces has seen, and how they are told apart."""

import numpy as np
import pytest
import torch

from llm2loss_standins import ColourEncoder
from visiondx.core.errors import InputError
from visiondx_worlds.marking.llm2loss.ood import (
    aurocs,
    embed_words,
    inside_words,
    mahalanobis,
    outside_words,
    random_vectors,
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


def test_mahalanobis_measures_in_the_images_own_deviations():
    drawn = torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0))
    images = drawn * torch.tensor([1.0, 0.3, 0.5]) + torch.tensor([0.0, 0.0, 1.0])
    texts, centre = torch.eye(3) * 2, torch.tensor([0.1, 0.1, 0.2])
    unit = images.double() / images.double().norm(dim=1, keepdim=True)
    inverse = np.linalg.inv(np.cov(unit.numpy().T))  # so many images hardly shrink
    away = np.eye(3) - centre.double().numpy()  # texts are brought to unit length
    expected = torch.tensor(np.diag(away @ inverse @ away.T)).float()
    torch.testing.assert_close(mahalanobis(texts, centre, images), expected, rtol=0.01, atol=0)
    assert mahalanobis(centre[None], centre / centre.norm(), images)[0] < 1e-6
    few = mahalanobis(texts, centre, images[:4])  # in three dimensions: shrunk, but finite
    assert few.isfinite().all()
    assert (few > 0).all()


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
