"""The animals world: what is drawn is what the attributes say."""

import pytest
import torch

from visiondx_worlds.worlds import animals, animals_balanced
from visiondx_worlds.worlds.animals import BREEDS, FOLLOWS, LOOK
from visiondx_worlds.worlds.animals_shape import geometry, outline

FURS = ("striped_fur", "spotted_fur", "patched_fur", "white_fur", "black_fur")


def _column(attributes, name):
    return animals.labels(attributes)[:, animals.binary.index(name)]


@pytest.mark.parametrize("name", animals.binary)
def test_switch_changes_nothing_else(name):
    """Other labels stay, but for colours or patterns that exclude each other; so do columns."""
    a = animals.sample(200, 6)
    mine = {"green_eyes": "eye_colour", "white_fur": "fur_colour", "black_fur": "fur_colour"}
    column = mine.get(name, "pattern" if name in FURS else name)
    for value in (True, False):
        b = animals.switch(a, name, value)
        same = [k for k in a.names if k not in (column, "breed")]
        assert all(torch.equal(a[k], b[k]) for k in same)
        for other in animals.binary:
            if column != mine.get(other, "pattern" if other in FURS else other):
                assert torch.equal(_column(a, other), _column(b, other)), other
        if column not in (*LOOK, "cat"):
            assert torch.equal(a["breed"], b["breed"])


def test_attributes_follow_the_species_as_declared():
    a = animals.sample(20_000, 11)
    cat = _column(a, "cat")
    assert cat.float().mean().item() == pytest.approx(0.5, abs=0.015)
    for name, (of_cat, of_dog) in FOLLOWS.items():
        column = _column(a, name).float()
        assert column[cat].mean().item() == pytest.approx(of_cat, abs=0.015), name
        assert column[~cat].mean().item() == pytest.approx(of_dog, abs=0.015), name
    green = _column(a, "green_eyes").float()
    assert green[cat].mean() > 0.5
    assert green[~cat].mean() < 0.22


def test_the_balanced_world_parts_species_and_attributes():
    a = animals_balanced.sample(20_000, 12)
    labels = animals_balanced.labels(a).float()
    cat = labels[:, 0] > 0.5
    difference = (labels[cat].mean(0) - labels[~cat].mean(0))[1:]
    assert difference.abs().max() < 0.03
    for name in FOLLOWS:
        assert _column(a, name).float().mean().item() == pytest.approx(0.5, abs=0.015), name
    # the same picture for the same attributes
    assert torch.equal(animals.render(a[:4]), animals_balanced.render(a[:4]))


def test_breeds_are_fixed_looks_of_one_species():
    a = animals.sample(4000, 2)
    breed, cat = animals.groups(a)["breed"], _column(a, "cat")
    assert breed.unique().tolist() == list(range(len(BREEDS) + 1))
    for index, look in enumerate(BREEDS.values(), 1):
        rows = breed == index
        assert cat[rows].all() if index <= 5 else not cat[rows].any()
        columns = torch.stack([a[name] for name in LOOK], 1)
        assert torch.allclose(columns[rows], torch.tensor(look, dtype=torch.float32))
        for name in ("slit_pupils", "pointed_ears", "long_muzzle", "tongue"):  # still vary
            assert 0 < _column(a, name)[rows].float().mean() < 1
    # neither fur colour nor pattern tells the species of a breed
    looks = list(BREEDS.values())
    for k in (0, 1):
        assert sorted(x[k] for x in looks[:5]) == sorted(x[k] for x in looks[5:])
    mixed = animals.switch(a, "cat", ~cat)
    assert (animals.groups(mixed)["breed"] == 0).all()


def test_labels_match_what_is_visible():
    a = animals.sample(64, 13)
    masks = animals.masks(a)
    assert sum(masks.values()).max() <= 1 + 1e-5
    for name in ("whiskers", "tongue", "collar"):
        area = masks[name].sum((1, 2))
        here = _column(a, name)
        assert area[here].min() > 14, f"{name}: {area[here].min()}"
        assert area[~here].max() < 14, f"{name}: {area[~here].max()}"
    plain = animals.groups(a)["pattern"] == 1
    assert masks["pattern"][plain].max() == 0
    assert masks["pattern"][~plain].sum((1, 2)).min() > 40


def test_keypoints_follow_the_geometry():
    a = animals.sample(16, 1).replace(tilt=0.0, shift_x=0.0, shift_y=0.0, scale=1.0)
    points = animals.keypoints(a)
    # the head's sides and top lie on its outline
    xy = points[:, 14:] * 2 - 1
    distance = outline(xy[..., 0][:, :, None], xy[..., 1][:, :, None], geometry(a))
    assert distance.abs().max() < 0.01
    # eye centres and the middle of the nose lie in their masks
    masks = animals.masks(a)
    for part, index in (("eyes", [3, 6]), ("nose", [9])):
        pixel = (points[:, index] * 64).long()
        seen = masks[part][torch.arange(16)[:, None], pixel[..., 1], pixel[..., 0]]
        assert seen.min() > 0.5, part
    # the nose comes down with the muzzle: 0.235 of half a picture
    down = [animals.keypoints(a.replace(long_muzzle=v))[:, 9, 1] for v in (0.0, 1.0)]
    assert torch.allclose(down[1] - down[0], torch.full((16,), 0.1175), atol=1e-6)
