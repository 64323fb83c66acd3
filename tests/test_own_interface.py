"""A drawn data set's interface: its thresholds, calibrated by judges, and where images are kept."""

import numpy as np
import pytest
import torch

from dataset_interfaces_standins import ColourWords
from painter_standins import lcm_painter
from visiondx.core.errors import InputError
from visiondx.dataset_interfaces.clip_filter import ClipFilter
from visiondx.dataset_interfaces.interface import DatasetInterface
from visiondx.dataset_interfaces.shifts import PLACE, Shift
from visiondx.dataset_interfaces.tokens import ClassTokens, fingerprint
from visiondx.models.preprocess import Preprocess
from visiondx_worlds.marking.dataset_interfaces import own
from visiondx_worlds.marking.dataset_interfaces.own import (
    calibrated,
    home_of,
    load_images,
    own_interface,
)
from visiondx_worlds.training.class_tokens import class_images
from visiondx_worlds.worlds.scenes import CLASSES, SHIFTS, scenes

# the stand-in reads a letter a token; the judges know a shift by its name
SNOW = Shift("in the snow", f"a {PLACE} in s", "a photo red")
WORDS = {"dog": "red", "cat": "blue"}


@pytest.fixture(scope="module")
def painter(tmp_path_factory):
    return lcm_painter(tmp_path_factory.mktemp("painter"))


@pytest.fixture
def interface(painter):
    vectors = torch.randn(2, 1, 16, generator=torch.Generator().manual_seed(0))
    names = ("<dog-own>", "<cat-own>")
    tokens = ClassTokens(("dog", "cat"), names, vectors, ("red", "dog"), fingerprint(painter))
    clip = ClipFilter(dict.fromkeys(WORDS, -1.0), dict.fromkeys(WORDS, -1.0), "first")
    encoder = ColourWords()
    encoder.preprocess = Preprocess((16, 16))  # sees what the judges see
    return DatasetInterface(painter, encoder, WORDS, clip, tokens)


class Reddest:
    """Judges that see snow where an image is redder than most."""

    binary = scenes.binary

    def __init__(self, limit):
        self.limit = limit

    def column(self, name):
        return self.binary.index(name)

    def answers(self, images):
        value = ColourWords().embed_images(images) @ ColourWords().embed_texts([SNOW.caption])[0]
        snow = torch.where(value >= self.limit, int(SHIFTS["snow"][1]), 0)
        binary = torch.zeros(2, len(images), len(self.binary), dtype=torch.bool)
        kinds = torch.zeros(2, len(images), dtype=torch.long)
        return {"class": kinds, "background": torch.stack([snow, snow]), "binary": binary}


def test_the_threshold_is_where_the_judges_accept(interface, tmp_path):
    rows = interface.generate(SNOW, n=20, seed=9, folder=home_of(interface, 9, tmp_path))
    limit = float(np.percentile(rows["shift_score"], 50))
    found, table = calibrated(interface, Reddest(limit), ["base", SNOW], 20, 9, tmp_path)
    # of 40 images the upper 20; from 45 % on they would be 22, of whom 20 are red: 0.91
    assert table.loc["in the snow", "percentile"] == 50
    assert found.clip.shift == {"in the snow": pytest.approx(limit)}
    row = table.loc["in the snow"]
    assert (row["accepted"], row["n"], row["reached"]) == (1.0, 20, True)
    assert list(table.index) == ["in the snow"]  # the base has no threshold
    # more images of an earlier run do not count
    interface.generate(SNOW, n=22, seed=9, folder=home_of(interface, 9, tmp_path))
    again, _ = calibrated(interface, Reddest(limit), [SNOW], 20, 9, tmp_path)
    assert again.clip.shift == found.clip.shift


def test_what_cannot_be_calibrated_is_refused(interface, tmp_path):
    with pytest.raises(InputError, match="n is 3, 6 images of a shift: 20 are needed"):
        calibrated(interface, Reddest(0), [SNOW], 3, 9, tmp_path)
    with pytest.raises(InputError, match="cannot draw 'wearing a hat'"):
        calibrated(interface, Reddest(0), [Shift.of("wearing a hat")], 20, 9, tmp_path)
    with pytest.raises(InputError, match="Calibrating 'in the snow': None of the calibration"):
        calibrated(interface, Reddest(2.0), [SNOW], 10, 9, tmp_path)


def test_folders_belong_to_what_painted_them(interface, tmp_path, painter):
    names = interface.by_name()
    homes = [home_of(interface, 1, tmp_path), home_of(interface, 2, tmp_path)]
    homes.append(home_of(names, 1, tmp_path))
    assert len(set(homes)) == 3
    assert home_of(interface, 1, tmp_path) == homes[0]
    assert homes[0].name.startswith("tokens-1-")
    assert homes[2].name.startswith("words-1-")
    assert home_of(interface.with_threshold(SNOW, 0.1), 1, tmp_path) == homes[0]
    rows = interface.generate(SNOW, n=2, seed=1, folder=homes[0])
    images = load_images(homes[0] / SNOW.folder, rows["file"], painter.size)
    assert images.shape == (4, 3, 16, 16)
    assert rows["class"].tolist() == ["cat"] * 2 + ["dog"] * 2
    (homes[0] / SNOW.folder / rows["file"][1]).write_bytes(b"no image")
    with pytest.raises(InputError, match=r"0001.png cannot be read .*: generate it again"):
        load_images(homes[0] / SNOW.folder, rows["file"], painter.size)


def test_the_kept_tokens_with_thresholds_of_other_images(painter, monkeypatch):
    names = tuple(f"<{name}-own>" for name in CLASSES)
    tokens = ClassTokens(CLASSES, names, torch.randn(12, 1, 16), CLASSES, fingerprint(painter))
    asked = []
    monkeypatch.setattr(own, "class_tokens", lambda name, painter: asked.append(name) or tokens)
    encoder = ColourWords()
    found = own_interface(painter, encoder, "scenes", validation=3, seed=4)
    assert asked == ["scenes"]
    assert found.classes == CLASSES
    assert found.tokens is tokens
    real = class_images("scenes", 3, 4 * 1_000_003 + own.VALIDATION)
    assert found.clip.photo == ClipFilter.fit(real, encoder).photo
    assert found.words["plate"] == "plate"
