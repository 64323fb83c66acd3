"""Sentences, truth and bias on a tiny folder of CelebA's shape, with a stand-in for CLIP."""

import csv
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

import llm2loss_standins
from celeba_standin import write_celeba
from llm2loss_standins import ColourEncoder
from visiondx.core.errors import InputError
from visiondx.core.files import data_dir
from visiondx.llm2loss.celeba.recogniser import celeba_faces, celeba_losses
from visiondx.llm2loss.fit import FitSettings
from visiondx_worlds.marking.llm2loss.celeba_study import (
    Pretrained,
    prepare_celeba_study,
    prepare_studies,
)
from visiondx_worlds.marking.llm2loss.found_truth import found_truth
from visiondx_worlds.marking.llm2loss.scores import predicted_gaps, zero_shot_auroc
from visiondx_worlds.marking.llm2loss.true_bias import true_bias
from visiondx_worlds.marking.llm2loss.truth import PairTruth, Sentence, matching
from visiondx_worlds.marking.llm2loss.words import CelebAWords

RECOGNISER = """
import torch
from torch import nn
from visiondx.models.target import Target

def load():
    torch.manual_seed(3)
    module = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(), nn.Linear(12, 6))
    return Target(module, "multiclass", labels=("1", "2", "3", "4", "5", "6"))

def of_two():
    return Target(nn.Linear(3, 1))
"""


@pytest.fixture
def given(tmp_path):
    write_celeba(tmp_path, images=160)
    (tmp_path / "mine.py").write_text(RECOGNISER)
    return Pretrained(tmp_path, f"{tmp_path / 'mine.py'}:load")


@pytest.fixture
def study(given):
    return prepare_celeba_study(given, 60, 80, 5, encoder=ColourEncoder())


@pytest.fixture(scope="module")
def forty():
    with (data_dir() / "papers" / "llm2loss_table5.csv").open() as file:
        return tuple(row["attribute"] for row in csv.DictReader(file))


def test_all_forty_attributes_have_words(forty):
    words = CelebAWords(forty)
    assert len(forty) == 40
    for name in forty:
        there = {words.prompt(name, True, seed) for seed in range(12)}
        denied = {words.prompt(name, False, seed) for seed in range(12)}
        assert min(len(there), len(denied)) > 3, name
        assert not there & denied
        assert words.prompt(name) == name.lower()
    assert words.prompt("Wearing Hat", seed=1) == words.prompt("Wearing Hat", seed=1, heldout=True)
    assert "a face" in {words.neutral(seed) for seed in range(32)}
    with pytest.raises(InputError, match="No words for CelebA's attributes Third Ear: add them"):
        CelebAWords((*forty, "Third Ear"))


def test_a_sentence_says_all_that_is_given(forty):
    grammar, rng = CelebAWords(forty).grammar, random.Random(0)
    for seed in range(60):
        said = {name: rng.random() < 0.5 for name in rng.sample(forty, 4)}
        text = grammar.sentence(said, seed, heldout=True)
        assert text == grammar.sentence(said, seed)
        for name, present in said.items():
            forms = grammar.words["attributes"][name]["present" if present else "absent"]
            assert any(phrase in text for some in forms.values() for phrase in some), text


NAMES = ("Bald", "Smiling", "Wearing Hat")
LABELS = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1], [0, 1, 0], [0, 1, 1], [0, 0, 1]]).bool()


def test_the_truth_that_is_found_by_hand():
    losses = torch.tensor([[1.0, 2.0, 6.0, 3.0, 5.0, 10.0]])
    bald, hair = Sentence("bald", {"Bald": True}), Sentence("hair", {"Bald": False})
    smile = Sentence("bald, smiling", {"Bald": True, "Smiling": True})
    hat = Sentence("a hat", {"Wearing Hat": True})
    assert matching(LABELS, NAMES, smile.given).tolist() == [True, False, True, False, False, False]
    found = found_truth(losses, LABELS, NAMES, [(bald, hair), (smile, hat), (bald, bald)])
    assert found.means[0].tolist() == [[3.0, 6.0], [3.5, 7.0], [3.0, 3.0]]
    assert found.difference[0].tolist() == [-3.0, -3.5, 0.0]
    assert found.known.tolist() == [[False, False, False]]  # Welch's error of the first is 2.6


def test_images_of_both_sentences_cannot_make_them_differ():
    """Means 9.5 and 10.5; each image's pull on the difference over √12 is ∓.5, and 1 in both."""
    names = ("a", "b")
    losses = torch.tensor([[9.0, 9.0, 2.0, 18.0, 11.0, 11.0]])
    labels = torch.tensor([[1, 0], [1, 0], [1, 1], [1, 1], [0, 1], [0, 1]]).bool()
    pair = [(Sentence("a", {"a": True}), Sentence("b", {"b": True}))]
    shared = found_truth(losses, labels, names, pair)
    assert shared.difference.item() == -1.0
    assert shared.known.item()  # the error is √(3 / 12) = .5, and 1 > .98
    apart = torch.tensor([[1, 0]] * 4 + [[0, 1]] * 4).bool()
    twice = torch.tensor([[9.0, 9.0, 2.0, 18.0, 2.0, 18.0, 11.0, 11.0]])
    separate = found_truth(twice, apart, names, pair)
    assert separate.difference.item() == -1.0
    assert not separate.known.item()  # Welch's error is 4.6
    with pytest.raises(InputError, match="Unknown attribute 'c': choose from a, b"):
        matching(labels, names, {"c": True})
    with pytest.raises(InputError, match="1 images match 'a': two are needed"):
        found_truth(losses[:, 1:], labels[1:] & torch.tensor([[1, 1]] + [[0, 1]] * 4), names, pair)


def test_the_truth_that_is_drawn_by_hand():
    losses = torch.tensor(
        [[[[1.0, 2.0, 3.0], [3.0, 4.5, 4.5]], [[1.0, 0.0, 5.0], [2.0, 3.0, 1.0]]]]
    )
    found = PairTruth.of_drawn(losses)
    assert found.means.tolist() == [[[2.0, 4.0], [2.0, 2.0]]]
    assert found.difference.tolist() == [[-2.0, 0.0]]
    assert found.known.tolist() == [[True, False]]


def test_the_study_holds_what_the_first_notebook_learns_from(given, study):
    faces, target = celeba_faces(given.root, given.recogniser)
    data = celeba_losses(faces, target, ColourEncoder(), (60, 80), 5)
    for part, name in zip(data, ("train", "test"), strict=True):
        assert torch.equal(study.embeddings[name], part.embeddings)
        assert torch.equal(study.losses[name][0], part.losses)
    names = [{path.name for path in part.faces.paths} for part in study.examples.values()]
    assert [len(part) for part in names] == [60, 80]
    assert not names[0] & names[1]


def test_sentences_are_asked_of_the_test_images(study):
    test = study.examples["test"]
    pairs = study.draw_pairs(6, 5, 0)
    assert len({(a.text, b.text) for a, b in pairs}) == 6
    found = study.pair_truth(pairs, 5, 0)
    assert found.means.shape == (1, 6, 2)
    for k, pair in enumerate(pairs):
        for side, sentence in enumerate(pair):
            rows = [
                i
                for i, row in enumerate(test.labels.tolist())
                if all(row[study.words.binary.index(n)] == v for n, v in sentence.given.items())
            ]
            assert len(rows) >= 5
            by_hand = study.losses["test"][0, rows].double().mean()
            assert found.means[0, k, side].item() == pytest.approx(by_hand.item(), rel=1e-6)
            shown = study.pictures(sentence, 3, 5, 0)
            file = np.array(Image.open(test.faces.paths[rows[2]]))
            assert torch.equal(shown[2], torch.from_numpy(file).permute(2, 0, 1) / 255)
    with pytest.raises(InputError, match=r"Only \d+ of 2000 pairs of sentences have enough images"):
        study.draw_pairs(2000, 5, 0)


def test_verification_among_the_enrolled(study):
    test, (target,) = study.examples["test"], study.targets.values()
    bias = true_bias(study.targets, test, study.words.binary)
    assert torch.allclose(bias.losses, study.losses["test"], atol=1e-5)
    with torch.no_grad():
        scores = target.logits(test.pictures()).log_softmax(1)
    true = torch.nn.functional.one_hot(test.answers, 6).bool()
    for k, name in enumerate(bias.attributes):
        on = test.labels[:, study.words.binary.index(name)]
        by_hand = roc_auc_score(true[on].flatten(), scores[on].flatten())
        assert bias.auroc()[0, k, 0].item() == pytest.approx(by_hand, abs=1e-5)


def test_loss_models_are_asked_in_celebas_words(study, monkeypatch):
    monkeypatch.setattr(llm2loss_standins, "CONTEXT", 20)
    (model,) = study.fit("ranker", FitSettings(epochs=2, members=2)).values()
    names = study.words.binary
    gaps = predicted_gaps(model, study.words, names, 3)
    assert gaps.shape == (2, 4)
    assert gaps.isfinite().all()
    labels = study.examples["test"].labels
    seen = zero_shot_auroc(ColourEncoder(), study.embeddings["test"], labels, study.words, names, 3)
    assert list(seen) == list(names)
    assert model.audit([study.words.prompt(n) for n in names]).attributes[0] == "bald"


def test_what_is_missing_is_told_before_the_encoder_is_read(given):
    def prepare(train=60, backend="pretrained", **changed):
        settings = replace(given, encoder_weights="gone", **changed)
        return prepare_studies(backend, ["faces"], train, 80, 0, None, settings)

    with pytest.raises(InputError, match="No backend 'real': choose embedded or pretrained"):
        prepare(backend="real")
    with pytest.raises(InputError, match="needs CelebA and a recogniser: set root"):
        prepare(root="")
    with pytest.raises(InputError, match="1080 images were asked for and CelebA has 160"):
        prepare(train=1000)
    with pytest.raises(InputError, match="is a binary target: return a multiclass one"):
        prepare(recogniser=given.recogniser.replace(":load", ":of_two"))
    with pytest.raises(InputError, match="open_clip could not load 'ViT-B-32'"):
        prepare()
