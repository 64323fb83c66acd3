"""Enrolled people, their photographs, and the recogniser that learns from them."""

import copy

import pytest
import torch
import yaml

from visiondx.core.errors import InputError
from visiondx.core.files import data_dir
from visiondx_worlds.models import zoo
from visiondx_worlds.models.recogniser import load_recogniser, recogniser_target, save_recogniser
from visiondx_worlds.training.recogniser import (
    Photographs,
    RecogniserConfig,
    blurred,
    train_recogniser,
)
from visiondx_worlds.worlds import faces
from visiondx_worlds.worlds.people import People


@pytest.fixture(scope="module")
def people():
    return People.load()


@pytest.fixture
def recipe():
    path = data_dir() / "llm2loss" / "recogniser.yaml"
    return copy.deepcopy(yaml.safe_load(path.read_text("utf-8")))


def label(attributes, name):
    return faces.labels(attributes)[:, faces.binary.index(name)]


def test_enough_people(people):
    assert len(people) >= 200
    assert len(set(people.classes)) == len(people)


def test_a_person_keeps_identity_and_changes_the_rest(people):
    one, two = (people.photograph(torch.full((40,), 7), seed) for seed in (1, 2))
    for name in (*faces.identity, "male", "age"):
        assert one[name].unique().numel() == 1
        assert torch.equal(one[name], two[name])
    assert label(one, "hat").float().mean().item() not in (0.0, 1.0)


def test_fixed_attributes_follow_from_what_is_kept(people):
    assert set(people.fixed) == {
        "male",
        "young",
        "pale_skin",
        "big_lips",
        "pointy_nose",
        "bushy_eyebrows",
        "blond_hair",
        "black_hair",
    }


def test_given_holds_for_every_photograph_and_no_identity_is_changed(people):
    given = {"male": False, "young": True, "hat": True, "beard": False, "blond_hair": True}
    attributes, who = people.sample(300, 3, given)
    for name, value in given.items():
        assert (label(attributes, name) == value).all()
    for name in people.kept:
        assert torch.equal(attributes[name], people.persons[name][who])


def test_hair_of_another_colour_means_another_person(people):
    for wanted in (True, False):
        attributes, who = people.sample(300, 2, {"black_hair": wanted})
        assert (label(attributes, "black_hair") == wanted).all()
        assert torch.equal(attributes["hair_colour"], people.persons["hair_colour"][who])


def test_people_are_drawn_alike_often(people):
    _, who = people.sample(3 * len(people), 5)
    assert (who.bincount(minlength=len(people)) - 3).abs().max() <= 1
    _, again = people.sample(3 * len(people), 5)
    assert torch.equal(who, again)


def test_nobody_matches(recipe):
    recipe["people"] = 2
    few = People(recipe)
    labels = few.labels_of_persons()
    shared = (labels[0] == labels[1]).nonzero()[:, 0].tolist()
    name = next(faces.binary[k] for k in shared if faces.binary[k] in few.fixed)
    there = bool(labels[0, faces.binary.index(name)])
    assert len(few.sample(4, 0, {name: there})[1]) == 4
    with pytest.raises(InputError, match="Nobody who is enrolled"):
        few.sample(4, 0, {name: not there})


def test_training_photographs_are_as_uneven_as_the_recipe_says(people):
    album = people.training(4000, 0)
    for name, share in people.recipe["training"]["shares"].items():
        found = label(album.attributes, name).float().mean().item()
        assert found == pytest.approx(share, abs=0.02), name
    young = label(album.attributes, "young")
    persons = people.labels_of_persons()[:, faces.binary.index("young")]
    rate = [(young == side).sum() / (persons == side).sum() for side in (True, False)]
    assert rate[1] / rate[0] < 0.6
    for name, sigma in people.recipe["training"]["blurred"].items():
        assert (album.blur[label(album.attributes, name)] >= sigma).all()
    assert (album.blur == 0).any()
    turned = torch.zeros(len(album), dtype=torch.bool)
    for name in people.recipe["training"]["posed"]:
        turned |= label(album.attributes, name)
    assert (album.attributes["yaw"][turned].abs() >= 0.69).all()
    assert (album.attributes["yaw"][~turned].abs() < 0.5).any()


def test_recipe_with_an_unknown_attribute_is_refused(recipe):
    recipe["training"]["shares"]["monocle"] = 0.1
    with pytest.raises(InputError, match="monocle"):
        People(recipe)


def test_recipe_with_one_person_is_refused(recipe):
    recipe["people"] = 1
    with pytest.raises(InputError, match="two or more"):
        People(recipe)


def test_missing_recipe_is_named():
    with pytest.raises(InputError, match=r"nobody\.yaml"):
        People.load("nobody")


def test_blur_is_a_gaussian_of_each_image_s_own_width():
    images = torch.zeros(2, 3, 31, 31)
    images[:, :, 15, 15] = 1
    out = blurred(images, torch.tensor([0.0, 1.3]))
    assert torch.allclose(out[0], images[0], atol=1e-6)
    at = torch.arange(31) - 15.0
    spread = (out[1, 0].sum(0) * at.square()).sum().sqrt()
    assert spread.item() == pytest.approx(1.3, abs=0.01)
    assert out[1].sum().item() == pytest.approx(3, abs=1e-3)


@pytest.fixture(scope="module")
def taken(people):
    return Photographs.take(people, people.training(64, 0))


def small():
    return RecogniserConfig(images=64, steps=4, batch=16, width=4, dim=8)


def test_training_resumes_to_the_same_weights(people, taken, tmp_path):
    whole = train_recogniser(people, taken, small(), tmp_path / "whole")
    assert train_recogniser(people, taken, small(), tmp_path / "parts", time_limit=0) is None
    parts = train_recogniser(people, taken, small(), tmp_path / "parts")
    for key, value in whole.module.state_dict().items():
        assert torch.equal(value, parts.module.state_dict()[key]), key
    assert not parts.training


def test_recogniser_is_kept_and_loaded(tmp_path, monkeypatch):
    monkeypatch.setenv("VISIONDX_DATA", str(tmp_path))
    torch.manual_seed(0)
    target = recogniser_target(12, width=4, dim=8).eval()
    save_recogniser(5, target, notebook="n.ipynb", quality={}, width=4, dim=8)
    loaded = load_recogniser(5)
    images = torch.rand(3, 3, 64, 64)
    assert torch.allclose(loaded.logits(images), target.logits(images), atol=2e-2)
    assert not loaded.training
    with pytest.raises(InputError, match="recogniser-6"):
        load_recogniser(6)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_embedded_recognisers_know_the_people(people, seed):
    entry = zoo.manifest()[f"recogniser-{seed}"]
    assert entry["bytes"] < 650_000
    target = load_recogniser(seed)
    assert target.labels == people.classes
    album = people.training(200, 5)
    sharp = album.blur == 0
    images = faces.render(album.attributes[sharp])
    right = target.logits(images).argmax(1) == album.answers[sharp]
    assert right.float().mean() > 0.5  # chance is 1 in 200
