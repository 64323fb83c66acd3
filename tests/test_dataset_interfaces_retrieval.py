"""Images found instead of painted: the nearest to a sentence, and those of a name."""

import pytest
import torch

from dataset_interfaces_standins import ColourWords
from visiondx.core.errors import InputError
from visiondx.dataset_interfaces.retrieval import Pool

STRENGTHS = (0.04, 1.0, 0.25, 0.64, 0.36)  # cosines with red .2 1 .5 .8 .6; with blue, the rest


@pytest.fixture
def pool():
    return Pool.embed(ColourWords.images("red", STRENGTHS), ColourWords(), list("aabba"))


def test_the_nearest_images_come_first(pool):
    rows, cosines = pool.nearest(["a photo red", "a photo blue"], ColourWords(), 3)
    assert rows.tolist() == [[1, 3, 4], [0, 2, 4]]
    assert cosines[0].tolist() == pytest.approx([1.0, 0.8, 0.6], abs=1e-6)
    assert cosines[1].tolist() == pytest.approx([0.96**0.5, 0.75**0.5, 0.8], abs=1e-6)


def test_the_index_is_exact():
    source = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(500, 4, generator=source), dim=1)
    found, _ = Pool(rows).nearest(["a photo red green", "a photo blue"], ColourWords(), 500)
    words = ColourWords().embed_texts(["a photo red green", "a photo blue"])
    wanted = (words.double() @ rows.double().T).sort(descending=True).values
    got = (words.double() @ rows.double().T).gather(1, found)
    assert torch.allclose(got, wanted, atol=1e-6)
    assert found.sort(1).values.tolist() == [list(range(500))] * 2


def test_a_search_engine_reads_names_alone(pool):
    assert sorted(pool.named("a", 3).tolist()) == [0, 1, 4]
    assert pool.named("b", 1, seed=3).tolist() == pool.named("b", 1, seed=3).tolist()
    drawn = {tuple(pool.named("a", 2, seed=seed).tolist()) for seed in range(20)}
    assert len(drawn) > 2  # at random
    with pytest.raises(InputError, match="2 images called 'b', so k cannot be 3"):
        pool.named("b", 3)
    with pytest.raises(InputError, match="have no names"):
        Pool(pool.embeddings).named("a")


def test_embeddings_are_kept(tmp_path):
    images, encoder, file = (
        ColourWords.images("red", STRENGTHS),
        ColourWords(),
        tmp_path / "p.safetensors",
    )
    first = Pool.embed(iter(images.split(2)), encoder, kept=file)
    again = Pool.embed(iter(images.split(2)), encoder, kept=file)
    assert torch.equal(first.embeddings, again.embeddings)
    assert encoder.seen == 5
    file.write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="is damaged"):
        assert torch.equal(Pool.embed(images, encoder, kept=file).embeddings, first.embeddings)


def test_wrong_pools_are_refused(pool):
    with pytest.raises(InputError, match="k is 6 and the pool has 5 images"):
        pool.nearest(["a photo red"], ColourWords(), 6)
    with pytest.raises(InputError, match="4 numbers, the pool 2"):
        Pool(torch.tensor([[1.0, 0.0]])).nearest(["a photo red"], ColourWords(), 1)
    with pytest.raises(InputError, match="unit norm"):
        Pool(torch.ones(2, 2))
    with pytest.raises(InputError, match="2 names were given for 5 images"):
        Pool(pool.embeddings, ("a", "b"))
    with pytest.raises(InputError, match="must be \\(N, D\\)"):
        Pool(torch.empty(0, 4))
