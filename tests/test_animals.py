"""The animals world: what is drawn and said is what the attributes say."""

import re

import pytest
import torch

from visiondx.errors import InputError
from visiondx.worlds import animals, animals_balanced
from visiondx.worlds.animals import BREEDS, FOLLOWS, LOOK
from visiondx.worlds.animals_shape import geometry, outline

GRAMMAR = animals.grammar
AMOUNTS = ("cat", *FOLLOWS, "collar")
FURS = ("striped_fur", "spotted_fur", "patched_fur", "white_fur", "black_fur")


def _column(attributes, name):
    return animals.labels(attributes)[:, animals.binary.index(name)]


def test_same_seed_same_attributes_and_image():
    one, two = animals.sample(6, 3), animals.sample(6, 3)
    assert torch.equal(one.values, two.values)
    assert torch.equal(animals.render(one), animals.render(two))
    assert not torch.equal(one.values, animals.sample(6, 4).values)
    with pytest.raises(InputError, match="u must be"):
        animals.from_normal(torch.zeros(2, 3))


def test_render_does_not_depend_on_the_batch():
    a = animals.sample(40, 1)
    whole = animals.render(a)
    assert whole.shape == (40, 3, 64, 64)
    assert whole.min() >= 0
    assert whole.max() <= 1
    assert torch.allclose(whole[33:35], animals.render(a[33:35]), atol=1e-6)


@pytest.mark.parametrize("name", animals.binary)
def test_switch_sets_the_label_and_shows(name):
    a = animals.sample(64, 5)
    on, off = animals.switch(a, name, True), animals.switch(a, name, False)
    assert _column(on, name).all()
    assert not _column(off, name).any()
    already = _column(a, name)
    assert torch.equal(on.values[already], a.values[already])
    difference = (animals.render(on) - animals.render(off)).abs().amax(1)
    changed = (difference > 0.1).flatten(1).sum(1)
    least = 150 if name == "cat" else 20  # the species shows whatever else is there
    assert changed.min() >= least, f"{name}: {changed.min()} pixels"


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


def test_a_gap_separates_present_from_absent():
    a = animals.sample(4000, 7)
    for name in AMOUNTS:
        assert not ((a[name] > 0.03) & (a[name] < 0.97)).any(), name


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


@pytest.mark.parametrize(
    "name", ["cat", "slit_pupils", "long_muzzle", "tongue", "pointed_ears", "scale", "yaw"]
)
def test_gradient_of_the_renderer(name):
    a = animals.sample(2, 11)
    a = type(a)(a.values.double(), a.names)
    a = a.replace(**{name: a[name] * 0 + (0.4 if name in animals.binary else 0.97)})
    weight = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    column = a.column(name)

    def value(v):
        return (animals.draw(type(a)(v, a.names), 64) * weight).sum(dim=(1, 2, 3))

    v = a.values.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(value(v).sum(), v)
    step = torch.zeros_like(a.values)
    step[:, column] = 1e-6
    finite = (value(a.values + step) - value(a.values - step)) / 2e-6
    assert finite.abs().min() > 1e-3
    assert torch.allclose(gradient[:, column], finite, rtol=1e-3, atol=1e-3)


def test_keypoints_follow_the_geometry():
    a = animals.sample(16, 1).replace(tilt=0.0, shift_x=0.0, shift_y=0.0, scale=1.0)
    points = animals.keypoints(a)
    assert points.shape == (16, 17, 2)
    moved = animals.keypoints(a.replace(shift_x=0.1))
    assert torch.allclose(moved - points, torch.tensor([0.05, 0.0]).expand(16, 17, 2), atol=1e-6)
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
    # a quarter turn about the centre takes (x, y) to (1 - y, x)
    turned = animals.keypoints(a.replace(tilt=torch.pi / 2))
    assert torch.allclose(turned, torch.stack([1 - points[..., 1], points[..., 0]], -1), atol=1e-5)
    # the nose comes down with the muzzle: 0.235 of half a picture
    down = [animals.keypoints(a.replace(long_muzzle=v))[:, 9, 1] for v in (0.0, 1.0)]
    assert torch.allclose(down[1] - down[0], torch.full((16,), 0.1175), atol=1e-6)


@pytest.fixture(scope="module")
def captions():
    return animals.caption(animals.sample(6000, 21), 5)


def _training_phrases(name):
    sides = GRAMMAR.words["attributes"][name]
    kinds = [sides[side] for side in ("present", "absent")]
    return {p for side in kinds for phrases in side.values() for p in phrases}


def _names(caption, phrases):
    return any(re.search(rf"\b{re.escape(p)}\b", caption) for p in phrases)


def _heldout_phrases():
    sides = GRAMMAR.heldout["phrases"].values()
    return [p for side in sides for phrases in side.values() for p in phrases]


def test_captions_are_deterministic_varied_and_name_the_species(captions):
    a = animals.sample(50, 1)
    assert animals.caption(a, 3) == animals.caption(a, 3)
    assert animals.caption(a, 3) != animals.caption(a, 4)
    assert len(set(captions)) > 5000
    cat = _column(animals.sample(6000, 21), "cat").tolist()
    said = [(_names(c, {"cat", "kitty"}), _names(c, {"dog", "doggy"})) for c in captions]
    assert sum(x or y for x, y in said) > 0.7 * len(said)
    for (says_cat, says_dog), is_cat, caption in zip(said, cat, captions, strict=True):
        assert not (says_dog if is_cat else says_cat), caption


def test_held_out_words_never_occur_and_are_known(captions):
    texts = captions + [
        animals.prompt(name, present, seed=s)
        for name in animals.binary
        for present in (True, False)
        for s in range(60)
    ]
    openings = tuple(t.replace("{}", "") for t in GRAMMAR.heldout["templates"])
    for text in texts:
        assert not text.startswith(openings), text
        assert not _names(text, _heldout_phrases()), text
    known = set(re.findall(r"[a-z-]+", " ".join(texts)))
    heldout = " ".join(_heldout_phrases() + GRAMMAR.heldout["templates"])
    assert set(re.findall(r"[a-z-]+", heldout)) <= known


def test_held_out_combinations_never_occur(captions):
    for first, second in GRAMMAR.heldout["combinations"]:
        one, two = _training_phrases(first), _training_phrases(second)
        both = [c for c in captions if _names(c, one) and _names(c, two)]
        assert not both, f"{first} and {second}: {both[0]}"


@pytest.mark.parametrize("name", animals.binary)
def test_a_caption_says_only_what_is_true(name):
    """With one attribute absent everywhere, no caption uses a phrase of its presence."""
    forms = GRAMMAR.words["attributes"][name]["present"]
    for caption in animals.caption(animals.switch(animals.sample(400, 8), name, False), 2):
        for phrase in forms["with"]:
            assert not re.search(rf"(?<!no )\b{re.escape(phrase)}\b", caption), caption


def test_breeds_have_no_words(captions):
    assert not any(_names(caption, BREEDS) for caption in captions)


def test_prompts():
    assert animals.prompt("cat") == "a cat"
    assert animals.prompt("cat", present=False) == "a dog"
    assert animals.prompt("green_eyes") == "an animal with green eyes"
    assert animals.prompt("collar", present=False) == "an animal with no collar"
    assert len({animals.prompt("collar", seed=s) for s in range(30)}) > 10
    heldout = animals.prompt("tongue", seed=0, heldout=True)
    assert "an animal with its tongue hanging down" in heldout
    with pytest.raises(InputError, match="monocle"):
        animals.prompt("monocle")
