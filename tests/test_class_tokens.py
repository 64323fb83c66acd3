"""Data sets with words of their own: what they show, how their tokens are kept."""

import json

import pytest
import torch

from painter_standins import lcm_painter
from visiondx.core.errors import InputError
from visiondx.dataset_interfaces.tokens import ClassTokens, fingerprint
from visiondx_worlds.marking.dataset_interfaces.truth import true_images
from visiondx_worlds.models import zoo
from visiondx_worlds.models.judges import Judges
from visiondx_worlds.training.class_tokens import (
    DATA_SETS,
    breed_rows,
    class_images,
    class_tokens,
    save_class_tokens,
    words_of,
)
from visiondx_worlds.worlds.age_groups import TIED
from visiondx_worlds.worlds.animals import BREEDS, animals
from visiondx_worlds.worlds.faces import AGE_RANGES, SKIN_TONES

ABOUT = {"notebook": "train/19_class_tokens.ipynb", "seed": 3, "quality": {}, "settings": {}}


def test_each_data_set_has_images_of_its_own_classes():
    assert {name: len(each.words) for name, each in DATA_SETS.items()} == {
        "scenes": 12,
        "animals": 10,
        "faces": 6,
    }
    for name, each in DATA_SETS.items():
        images = class_images(name, 2, 5)
        assert tuple(images) == tuple(each.words), name
        assert {own.shape for own in images.values()} == {(2, 3, 64, 64)}
        again, other = class_images(name, 2, 5), class_images(name, 2, 6)
        last = list(images)[-1]
        assert torch.equal(again[last], images[last])
        assert not torch.equal(other[last], images[last])
    scenes = class_images("scenes", 2, 5)
    assert torch.equal(scenes["plate"], true_images("base", 2, 5)["plate"])
    with pytest.raises(InputError, match="No data set 'cars' has tokens: choose from scenes"):
        class_images("cars", 2, 5)
    with pytest.raises(InputError, match="n is 0"):
        class_images("faces", 0, 5)


def test_breeds_look_as_they_do_and_are_animals_of_their_species_in_all_else():
    rows = {name: breed_rows(name, 600, 1) for name in ("bengal", "beagle")}
    for number, name in enumerate(BREEDS):
        own = breed_rows(name, 4, 1)
        assert (animals.groups(own)["breed"] == number + 1).all()
    cats, dogs = rows["bengal"], rows["beagle"]
    assert (cats["fur_colour"] == 1).all()
    assert (cats["pattern"] == 3).all()
    assert animals.labels(cats)[:, 0].all()
    assert not animals.labels(dogs)[:, 0].any()
    # whiskers follow the species and no breed: 0.78 of cats, 0.36 of dogs
    column = animals.binary.index("whiskers")
    assert animals.labels(cats)[:, column].double().mean() == pytest.approx(0.78, abs=0.06)
    assert animals.labels(dogs)[:, column].double().mean() == pytest.approx(0.36, abs=0.06)


def test_the_judges_of_faces_see_age_and_the_ages_own_tone():
    images = class_images("faces", 10, 5)
    said = Judges.load("faces").answers(torch.cat(list(images.values())))
    for k, age in enumerate(AGE_RANGES):
        own = slice(10 * k, 10 * k + 10)
        tone = SKIN_TONES.index(TIED[age])
        assert (said["skin_tone"][:, own] == tone).double().mean() > 0.8, age
        assert (said["age_range"][:, own] == k).double().mean() > 0.4, age


def test_words_are_each_class_or_one_for_all():
    assert words_of("scenes")["plate"] == "plate"
    assert words_of("animals") == "animal"
    assert words_of("faces") == "face"
    assert DATA_SETS["animals"].words["maine coon"] == "maine coon cat"
    assert DATA_SETS["animals"].words["dalmatian"] == "dalmatian dog"


def test_tokens_are_kept_and_vouched_for(tmp_path, monkeypatch):
    painter = lcm_painter(tmp_path / "painter")
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("VISIONDX_DATA", str(tmp_path / "data"))
    with pytest.raises(InputError, match="No weights named 'tokens-faces'"):
        class_tokens("faces")
    ages = tuple(AGE_RANGES)
    names = tuple(f"<{age.replace(' ', '-')}>" for age in ages)
    tokens = ClassTokens(ages, names, torch.randn(6, 1, 16), ("face",) * 6, fingerprint(painter))
    path = save_class_tokens("faces", tokens, **{**ABOUT, "settings": {"steps": 3}})
    assert path == tmp_path / "data" / "weights" / "tokens" / "faces.safetensors"
    found = class_tokens("faces", painter)
    assert torch.equal(found.vectors, tokens.vectors)
    assert (found.classes, found.initialisers) == (ages, ("face",) * 6)
    assert zoo.manifest()["tokens-faces"]["config"] == {"steps": 3}
    with pytest.raises(InputError, match="and scenes has dog, "):
        save_class_tokens("scenes", tokens, **ABOUT)
    manifest = tmp_path / "data" / "weights" / "manifest.json"
    entries = json.loads(manifest.read_text())
    entries["tokens-faces"]["sha256"] = "0" * 64
    manifest.write_text(json.dumps(entries))
    with pytest.raises(InputError, match="was altered"):
        class_tokens("faces", painter)
