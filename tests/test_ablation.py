"""Errors of a benchmark, each part of it swapped for the truth: by hand, and on small images."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from dataset_interfaces_standins import ColourWords
from painter_standins import lcm_painter
from visiondx.core.errors import InputError
from visiondx.dataset_interfaces.answers import Answers
from visiondx.dataset_interfaces.clip_filter import ClipFilter
from visiondx.dataset_interfaces.generation import open_home
from visiondx.dataset_interfaces.interface import DatasetInterface
from visiondx.dataset_interfaces.measure import measure
from visiondx.dataset_interfaces.shifted_images import ShiftedImages
from visiondx.dataset_interfaces.shifts import Shift
from visiondx.models.preprocess import Preprocess
from visiondx_worlds.marking.dataset_interfaces import benchmark_images
from visiondx_worlds.marking.dataset_interfaces.ablation import (
    against,
    blame,
    by_model,
    marks,
    only,
)
from visiondx_worlds.marking.dataset_interfaces.benchmark_images import (
    clip_passes,
    decoded_images,
    drawn_images,
    judges_answers,
    painted_images,
    pairs,
    seen,
    unfiltered,
)
from visiondx_worlds.marking.dataset_interfaces.impact import compare
from visiondx_worlds.marking.dataset_interfaces.own import home_of
from visiondx_worlds.worlds.scenes import CLASSES, SHIFTS, scenes

MODELS, GROUPS = ("x", "y", "z"), ("base", "fog", "rain", "snow")


def answers(right, shifts=GROUPS, models=MODELS, classes=("a", "b")):
    """right: (M, 1 + S) how many tenths of 100 images of each class are, the first of them."""
    values = np.array(right)[:, :, None, None] > np.arange(100) // 10
    size = (len(models), len(shifts), len(classes), 100)
    values = np.broadcast_to(values, size).reshape(len(models), -1)
    shift, klass, _ = np.indices(size[1:]).reshape(3, -1)
    drawn = np.full(size[1:3], 100)
    return Answers(models, shifts, classes, values, shift, klass, drawn)


TRUE = answers([[8, 7, 6, 4], [9, 8, 7, 5], [10, 9, 8, 8]])
SAID = answers([[8, 7, 4, 2], [9, 8, 4, 3], [10, 9, 5, 4]])


def tenth(found):
    """Which tenth of the images of its shift and class each answer is to."""
    return np.tile(np.arange(100) // 10, len(found.shift) // 100)


# ---------------------------------------------------------------- by hand


def test_the_answers_of_those_that_passed():
    passed = ~((SAID.shift == 2) & (tenth(SAID) >= 6))  # in rain 60 are left
    found = only(SAID, passed)
    assert found.counts().tolist() == [[100, 100], [100, 100], [60, 60], [100, 100]]
    assert (found.drawn == 100).all()
    # of the first 60 40, 40 and 50 are right
    assert found.right[:, found.shift == 2].sum(1).tolist() == [80, 80, 100]
    assert only(SAID, None) is SAID
    with pytest.raises(InputError, match=r"must be \(800,\) bool, .* got \(3,\) bool"):
        only(SAID, np.ones(3, dtype=bool))
    with pytest.raises(InputError, match=r"got \(800,\) int64"):
        only(SAID, passed.astype(int))


def test_errors_are_estimated_less_true_drops_with_both_spreads():
    swap = against(SAID, TRUE)
    # the mean over three models of base - shift, in tenths: 3, 14, 18 and 3, 6, 10
    wanted = np.array([0, 8, 8]) / 30
    np.testing.assert_allclose(swap.errors[:, 0], wanted, atol=1e-6)
    one, other = swap.estimated.impact[2], swap.true.impact[2]
    arms = (
        np.hypot(one[0] - one[1], other[2] - other[0]),
        np.hypot(one[2] - one[0], other[0] - other[1]),
    )
    np.testing.assert_allclose(swap.errors[2, 1:] - wanted[2], [-arms[0], arms[1]], atol=1e-6)
    names, true, estimated = swap.points
    assert names == ["fog", "rain", "snow"]
    np.testing.assert_allclose(true[:, 0] * 30, [3, 6, 10], atol=1e-4)
    np.testing.assert_allclose(estimated[:, 0] * 30, [3, 14, 18], atol=1e-4)


def test_the_truth_is_of_the_classes_that_are_left():
    passed = ~((SAID.shift == 3) & (SAID.klass == 1) & (tenth(SAID) > 0))  # ten are left
    right = TRUE.right.copy()
    right[:, (TRUE.shift == 3) & (TRUE.klass == 1)] = False  # class b is never right in snow
    swap = against(SAID, replace(TRUE, right=right), passed, least=20)
    assert swap.estimated.counted[2].tolist() == [True, False]
    assert swap.true.counted[2].tolist() == [True, False]
    np.testing.assert_allclose(swap.true.impact[2, 0], 10 / 30, atol=1e-6)  # of a alone
    for what, other in (
        ("models", answers(np.full((3, 4), 5), models=("x", "y", "w"))),
        ("shifts", answers(np.full((3, 4), 5), shifts=("base", "fog", "rain", "moon"))),
        ("classes", answers(np.full((3, 4), 5), classes=("a", "c"))),
    ):
        with pytest.raises(InputError, match=f"other {what}, .* see [bcmwz]"):
            against(SAID, other)


def test_marks_are_those_of_the_comparison():
    swap, perfect = against(SAID, TRUE), against(TRUE, TRUE)
    found = marks({"as it is": swap, "the truth": perfect})
    assert list(found) == ["as it is", "the truth"]
    assert found["the truth"]["impact.skill"].value == 1
    wanted = compare(measure(SAID), measure(TRUE))
    assert found["as it is"]["impact.mean_abs_error"].value == pytest.approx(16 / 90, abs=1e-6)
    assert found["as it is"]["impact.pearson"].value == wanted["impact.pearson"].value
    few = against(answers([[8, 7]] * 3, ("base", "fog")), answers([[8, 7]] * 3, ("base", "fog")))
    with pytest.raises(InputError, match="one shift: Of 1 shifts"):
        marks({"one shift": few})


def test_each_classifier_has_marks_of_its_own():
    found = by_model(against(SAID, TRUE))
    assert list(found.index) == ["z", "y", "x"]
    row = found.loc["x"]  # drops of 1, 4, 6 and 1, 2, 4 tenths
    assert (row["base"], row["true_base"]) == (0.8, 0.8)
    assert row["drop"] == pytest.approx(11 / 30, abs=1e-6)
    assert row["true_drop"] == pytest.approx(7 / 30, abs=1e-6)
    assert row["mean_abs_error"] == pytest.approx(4 / 30, abs=1e-6)
    off = np.abs(np.array([1, 2, 4]) - 7 / 3).sum()
    assert row["skill"] == pytest.approx(1 - 4 / off, abs=1e-5)
    assert row["pearson"] == pytest.approx(np.corrcoef([1, 4, 6], [1, 2, 4])[0, 1])


def test_blame_goes_to_the_part_whose_swap_takes_most_of_the_error():
    filtered = answers([[8, 7, 5, 2], [9, 8, 5, 3], [10, 9, 7, 4]])  # rain: 4 of 8 are gone
    decoded = answers([[8, 7, 6, 5], [9, 8, 7, 5], [10, 9, 7, 8]])  # rain + 1, snow - 1 thirtieth
    chain = {"filter": against(SAID, TRUE), "painter": against(filtered, TRUE)}
    chain["decoder"] = against(decoded, TRUE)
    found = blame(chain)
    assert set(found.index[:2]) == {"rain", "snow"}
    assert found.index[2] == "fog"
    np.testing.assert_allclose(
        found.loc[["fog", "rain", "snow"], ["filter", "painter", "decoder"]] * 30,
        [[0, 0, 0], [4, 3, 1], [0, 9, -1]],
        atol=1e-4,
    )
    parts = found[["filter", "painter", "decoder"]].sum(axis=1)
    np.testing.assert_allclose(parts, found["error"], atol=1e-9)
    assert (found["low"] < found["error"]).all()
    assert found.loc[["fog", "rain", "snow"], "blame"].tolist() == ["", "filter", "painter"]
    np.testing.assert_allclose(found.loc["snow", ["estimated", "true"]] * 30, [18, 10], atol=1e-4)
    with pytest.raises(InputError, match="one swap or more"):
        blame({})
    with pytest.raises(InputError, match="of the same shifts"):
        blame(chain | {"x": against(*[answers(np.eye(3, 3) + 5, GROUPS[:3])] * 2)})


def test_nobody_is_blamed_for_an_estimate_that_is_too_low_by_a_part_that_raises_it():
    low = answers([[8, 8, 8, 8], [9, 9, 9, 9], [10, 9, 10, 10]])  # drops far below the true ones
    lower = answers([[8, 8, 9, 8], [9, 9, 9, 9], [10, 9, 10, 10]])
    found = blame({"filter": against(low, TRUE), "painter": against(lower, TRUE)})
    row = found.loc["rain"]
    assert row["error"] < 0 < row["filter"]
    assert row["blame"] == "painter"


# ---------------------------------------------------------------- images


SNOW = Shift("in the snow", Shift.named("in the snow").prompt, "a photo green")
KINDS = ("cat", "dog")


@pytest.fixture
def images(tmp_path):
    """Three of each class in base and snow: grey, redder from one to the next."""
    for shift in (Shift.named("base"), SNOW):
        home = tmp_path / "images" / shift.folder
        open_home(home, shift, "first")
        for kind in KINDS:
            (home / kind).mkdir(parents=True)
            for k in range(3):
                pixels = np.full((16, 16, 3), 60 + 20 * KINDS.index(kind), dtype=np.uint8)
                pixels[..., 0] = 100 + 60 * k
                Image.fromarray(pixels).save(home / kind / f"000{k}.png")
    return ShiftedImages.read(tmp_path / "images")


class Told:
    """Judges that see a cat in the first two images of a class, and snow in the reddest."""

    binary = scenes.binary

    def column(self, name):
        return self.binary.index(name)

    def answers(self, pixels):
        red = pixels[:, 0].mean((1, 2))
        kind = torch.where(red < 0.8, CLASSES.index("cat"), CLASSES.index("dog"))
        snow = torch.where(red > 0.5, int(SHIFTS["snow"][1]), 0)
        binary = torch.zeros(2, len(pixels), len(self.binary), dtype=torch.bool)
        return {
            "class": torch.stack([kind] * 2),
            "background": torch.stack([snow] * 2),
            "binary": binary,
        }


def test_judges_see_each_image_in_its_place(images, monkeypatch):
    monkeypatch.setattr(benchmark_images, "SIDE", 16)
    found = seen(images, Told())
    # base, then snow; of each three cats and three dogs, redder and redder
    assert found["class"].tolist() == [True, True, False, False, False, True] * 2
    assert found["shift"].tolist() == [True] * 6 + [False, True, True] * 2
    assert found["both"].tolist() == [
        *(True, True, False, False, False, True),
        *(False, True, False, False, False, True),
    ]
    # a dog's own state is to be bare, and a cat has none
    assert found["right"].tolist() == found["both"].tolist()
    told = judges_answers(images, found)
    assert told.models == ("judges",)
    assert told.counts().tolist() == [[3, 3], [3, 3]]
    assert told.right[0].tolist() == found["class"].tolist()
    assert unfiltered(replace(images, kept=np.zeros(12, dtype=bool))).kept.all()


def test_the_filter_is_asked_of_images_that_it_was_not_made_for(images, tmp_path):
    encoder = ColourWords()
    encoder.preprocess = Preprocess((16, 16))
    # shares of red of cats .45 .57 .65, blue of dogs .31 .25 .21; green .27 .21 .18 and as blue
    limits = {"cat": 0.5**0.5, "dog": 0.24**0.5}
    clip = ClipFilter(limits, limits, "first")
    painter, words = lcm_painter(tmp_path), {"cat": "red", "dog": "blue"}
    interface = DatasetInterface(painter, encoder, words, clip.with_shift(SNOW, 0.26**0.5))
    assert clip_passes(images, interface).tolist() == [
        *(False, True, True, True, True, False),
        *(False, False, False, True, False, False),
    ]
    with pytest.raises(InputError, match="'in the snow' has no threshold"):
        clip_passes(images, DatasetInterface(painter, encoder, words, clip))


def test_images_are_written_as_the_autoencoder_brings_them_back(images, tmp_path):
    painter = lcm_painter(tmp_path / "painter")
    found = decoded_images(images, painter, tmp_path)
    assert (found.paths, found.shifts) == (images.paths, images.shifts)
    assert found.folder != images.folder
    with Image.open(images.folder / images.paths[4]) as image:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        wanted = painter.decode(painter.latents(pixels))[0]
    with Image.open(found.folder / found.paths[4]) as image:
        kept = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
    assert (kept - wanted).abs().max() < 1.1 / 255
    assert (kept - pixels[0]).abs().max() > 0.1  # its weights are random
    # killed half-way
    gone, stays = (found.folder / found.paths[k] for k in (3, 4))
    before, content = stays.stat().st_mtime_ns, gone.read_bytes()
    gone.unlink()
    decoded_images(images, painter, tmp_path)
    assert gone.read_bytes() == content
    assert stays.stat().st_mtime_ns == before
    with torch.no_grad():
        next(painter.vae.parameters()).add_(1)
    assert decoded_images(images, painter, tmp_path).folder != found.folder  # another painter's


BASE, NIGHT = Shift.named("base"), Shift.named("at night")


def test_what_an_interface_paints_is_what_it_was_asked_for_and_no_more(tmp_path):
    encoder, words = ColourWords(), {"dog": "red", "cat": "blue"}
    painter, low = lcm_painter(tmp_path / "painter"), dict.fromkeys(words, -1.0)
    snow = Shift("in the snow", "a <class> in s", "a photo green")
    base = Shift("base", "a <class>", "")
    interface = DatasetInterface(painter, encoder, words, ClipFilter(low, low, "first"))
    with pytest.raises(InputError, match="'in the snow' has no threshold"):
        painted_images(interface, [base, snow], 3, 5, tmp_path)
    scores = interface.generate(snow, n=5, seed=5, folder=home_of(interface, 5, tmp_path))
    limit = scores["shift_score"].median()
    own = interface.with_threshold(snow, limit)
    interface.with_threshold(snow, 1.0).filter(home_of(interface, 5, tmp_path))
    found = painted_images(own, [base, snow], 3, 5, tmp_path)
    assert (found.shifts, found.classes) == (("base", "in_the_snow"), ("cat", "dog"))
    assert found.counts().tolist() == [[3, 3], [3, 3]]  # of five in the snow
    assert found.paths[:3] == tuple(f"base/cat/000{k}.png" for k in range(3))
    assert all((found.folder / path).is_file() for path in found.paths)
    first = scores[scores["number"] < 3]
    assert found.kept.tolist() == [True] * 6 + (first["shift_score"] >= limit).tolist()
    assert not found.kept.all()
    with pytest.raises(InputError, match="takes 'base' first"):
        painted_images(own, [snow, base], 3, 5, tmp_path)


def test_what_the_renderer_draws_is_in_the_same_order(tmp_path):
    found = drawn_images([BASE, NIGHT, SNOW], 1, 5, tmp_path)
    assert found.shifts == ("base", "at_night", "in_the_snow")
    assert found.classes == tuple(sorted(CLASSES))
    assert found.counts().tolist() == [[1] * 12] * 3
    assert found.kept.all()
    more = drawn_images([BASE, NIGHT], 2, 5, tmp_path)
    assert more.folder != found.folder


def test_painted_images_are_shown_beside_drawn_ones_of_their_class(images, monkeypatch):
    monkeypatch.setattr(benchmark_images, "SIDE", 16)
    kept = images.kept.copy()
    kept[6:] = [False, False, True, False, True, True]  # in snow one cat and two dogs
    found = pairs(replace(images, kept=kept), images, 4)
    assert list(found) == ["base", "in_the_snow"]
    painted, drawn = found["base"]  # of three cats and three dogs the 1st, 2nd, 4th and 5th
    red, rest = (painted * 255).mean((2, 3)).round().T[:2].tolist()
    assert (red, rest) == ([100, 160, 100, 160], [60, 60, 80, 80])
    assert (drawn * 255).mean((2, 3)).round()[:, 1].tolist() == rest
    painted, drawn = found["in_the_snow"]
    assert (painted * 255).mean((2, 3)).round()[:, 0].tolist() == [220, 160, 220]
    assert (drawn * 255).mean((2, 3)).round()[:, 1].tolist() == [60, 80, 80]
    kept[6:] = False
    assert list(pairs(replace(images, kept=kept), images)) == ["base"]
