"""Scores of loss models against planted truths."""

import numpy as np
import pytest
import torch

from visiondx.core.errors import InputError
from visiondx.llm2loss.data import LossData
from visiondx.llm2loss.fit import FitSettings
from visiondx.llm2loss.model import LossModel
from visiondx_worlds.marking.llm2loss.scores import (
    bias_correlations,
    correlation,
    image_correlations,
    phrasings,
    predicted_gaps,
    sign_accuracy,
    zero_shot_auroc,
)
from visiondx_worlds.marking.llm2loss.true_bias import TrueBias
from visiondx_worlds.worlds import faces


def test_correlations_by_hand():
    a, b = np.array([1.0, 2, 3, 4]), np.array([1.0, 3, 2, 40])
    assert correlation(a, b, "Kendall") == pytest.approx(4 / 6)
    assert correlation(a, b, "Spearman") == pytest.approx(0.8)
    assert correlation(a, np.ones(4), "Pearson") == 0.0


def test_image_correlations_are_means_within_black_boxes():
    # the order agrees in one black box and is reversed in the other; pooled it would be neither
    y = torch.stack([torch.arange(40.0), torch.arange(40.0) + 1000])
    x = torch.stack([y[0], -y[1]])
    found = image_correlations(x, y, n=50)
    assert found["Spearman"].value == pytest.approx(0.0, abs=1e-9)
    # these two boxes, whatever the images: every draw of them has one in order and one reversed
    assert found["Spearman"].low == pytest.approx(0, abs=1e-9)
    assert found["Spearman"].high == pytest.approx(0, abs=1e-9)
    same = image_correlations(y, y, n=20)
    assert all(e.value == pytest.approx(1) for e in same.values())
    assert same["Kendall"].n == 40
    with pytest.raises(InputError, match="one row a black box"):
        image_correlations(x[:, :3], y)


def planted_bias(images=300):
    source = torch.Generator().manual_seed(0)
    labels = torch.rand(images, 5, generator=source) < 0.5
    size = torch.tensor([4.0, 3.0, 2.0, 1.0, 0.0])
    losses = (labels * size).sum(1) + 0.1 * torch.rand(images, generator=source)
    return TrueBias(tuple("abcde"), labels, losses[None].repeat(2, 1), torch.empty(0)), size


def test_bias_correlations_find_the_planted_order():
    bias, size = planted_bias()
    right = bias_correlations(size.repeat(2, 1), bias, "loss", n=20)
    wrong = bias_correlations(-size.repeat(2, 1), bias, "loss", n=20)
    assert right["Kendall"].value == pytest.approx(1)
    assert wrong["Spearman"].value == pytest.approx(-1)
    assert right["Pearson"].low > 0.95
    with pytest.raises(InputError, match="a black box a row"):
        bias_correlations(size[None], bias, "loss")


def test_phrasings_go_attribute_by_attribute():
    said = phrasings(faces, ("hat", "beard"), True, 3, 0, heldout=True)
    assert len(said) == 6
    assert all("cap" in text for text in said[:3])
    assert all("beard" in text for text in said[3:])


class Words:
    """An encoder whose texts say in their first coordinate whether a hat is denied."""

    fingerprint = "words"
    mean = torch.zeros(1)

    def embed_texts(self, texts):
        rows = torch.zeros(len(texts), 2)
        for row, text in zip(rows, texts, strict=True):
            hat = any(word in text for word in ("hat", "cap"))
            row[0] = (-1.0 if "no " in text else 1.0) if hat else 0.0
            row[1] = 1.0
        return rows / rows.norm(dim=1, keepdim=True)


@pytest.fixture
def hats():
    source = torch.Generator().manual_seed(1)
    on = torch.rand(200, generator=source) < 0.5
    first = torch.where(on, 1.0, -1.0) + 0.1 * torch.randn(200, generator=source)
    rows = torch.stack([first, torch.ones(200)], 1)
    return rows / rows.norm(dim=1, keepdim=True), on


def test_a_planted_gap_is_asked_for_in_words(hats):
    embeddings, on = hats
    losses = torch.where(on, 3.0, 1.0) + 0.01 * torch.arange(200) / 200
    data = LossData(embeddings, losses, "words")
    settings = FitSettings(members=2, epochs=60, batch=64, learning_rate=0.1)
    model = LossModel.fit(data, Words(), kind="regressor", settings=settings)
    gaps = predicted_gaps(model, faces, ("hat", "beard"), 2)
    assert gaps.shape == (2, 2)
    assert (gaps[:, 0] > 0.5).all()
    assert (gaps[:, 1].abs() < 0.05).all()


def test_zero_shot_auroc_of_what_is_seen_and_what_is_not(hats):
    embeddings, on = hats
    labels = torch.stack([on, torch.arange(200) % 2 == 0], 1)
    found = zero_shot_auroc(Words(), embeddings, labels, faces, ("hat", "beard"), 2)
    assert found["hat"] > 0.99
    assert abs(found["beard"] - 0.5) < 0.1


def test_sign_accuracy_by_hand():
    right = torch.tensor([[True, True, False], [False, True, True]])
    confident = torch.tensor([[True, True, True], [False, False, True]])
    everything = torch.ones(2, 3).bool()
    found = sign_accuracy(right, confident, everything)
    assert found["sign_accuracy"].value == pytest.approx(3 / 4)
    assert found["confident_share"].value == pytest.approx(4 / 6)
    assert found["all_accuracy"].value == pytest.approx(4 / 6)
    assert found["all_accuracy"].n == 6
    known = torch.tensor([[True, True, False], [True, True, True]])
    assert sign_accuracy(right, confident, known)["sign_accuracy"].value == 1
    assert set(sign_accuracy(right, ~everything, everything)) == {"confident_share", "all_accuracy"}
    with pytest.raises(InputError, match="known of no pair"):
        sign_accuracy(right, everything, ~everything)
    with pytest.raises(InputError, match=r"must all be \(S, P\)"):
        sign_accuracy(right[0], confident[0], known[0])


def test_black_boxes_that_answer_alike_are_not_more_pairs():
    source = torch.Generator().manual_seed(3)
    right = torch.rand(1, 60, generator=source) < 0.7
    known = torch.ones(1, 60).bool()
    one, three = (
        sign_accuracy(*(side.expand(count, -1) for side in (right, known, known)))["all_accuracy"]
        for count in (1, 3)
    )
    assert (one.value, one.low, one.high) == (three.value, three.low, three.high)
    assert (one.n, three.n) == (60, 180)
