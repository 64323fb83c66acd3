"""Selection frequencies of several methods, side by side: means over shifts, frames and figures."""

import numpy as np
import pandas as pd
import pytest
import torch

from dataset_interfaces_standins import ColourWords
from test_dataset_interfaces_truth import Told
from visiondx.core.errors import InputError
from visiondx.dataset_interfaces.clip_filter import ClipFilter, quality
from visiondx.dataset_interfaces.shifts import SHIFTS, Shift
from visiondx_worlds.marking.dataset_interfaces import methods
from visiondx_worlds.marking.dataset_interfaces.means import mean_gain, mean_share
from visiondx_worlds.marking.dataset_interfaces.pool import RenderPool, how_common
from visiondx_worlds.marking.dataset_interfaces.quality_figures import (
    frequency_figure,
    picked_figure,
    similarity_figure,
)
from visiondx_worlds.marking.dataset_interfaces.truth import true_images
from visiondx_worlds.worlds.scenes import CLASSES, STATES, scenes
from visiondx_worlds.worlds.scenes import SHIFTS as WORLD


def test_a_mean_share_counts_each_shift_alike():
    values = np.array([True] * 90 + [False] * 10 + [True] * 1 + [False] * 9)
    groups = ["easy"] * 100 + ["hard"] * 10
    found = mean_share(values, groups)
    assert found.value == pytest.approx((0.9 + 0.1) / 2)
    assert found.n == 110
    # each group's interval is Wilson's: .9 [.8256, .9448] and .1 [.0179, .4042]
    assert found.low == pytest.approx(0.5 - np.hypot(0.9 - 0.82563, 0.1 - 0.01788) / 2, abs=1e-4)
    assert found.high == pytest.approx(0.5 + np.hypot(0.94477 - 0.9, 0.40415 - 0.1) / 2, abs=1e-4)
    # nearly that of two independent shares, where there are many
    many = mean_share(
        np.repeat([True, False, True, False], [900, 100, 300, 700]), [0] * 1000 + [1] * 1000
    )
    error = np.sqrt(0.9 * 0.1 / 1000 + 0.3 * 0.7 / 1000) / 2
    assert many.high - many.low == pytest.approx(2 * 1.96 * error, rel=0.01)


def test_a_mean_share_of_few_or_equal_values():
    every = mean_share(np.ones(20, dtype=bool), [0] * 10 + [1] * 10)
    assert (every.value, every.high) == (1, 1)
    assert every.low == pytest.approx(1 - (1 - 0.72247) / np.sqrt(2), abs=1e-4)
    apart = mean_share(np.array([True, True, False, False]), [0, 0, 1, 1])
    assert apart.low < 0.2  # two groups of two say little, though all in each are alike
    one = mean_share(np.array([True, False]), ["a", "a"])
    assert one.value == 0.5
    assert one.low == pytest.approx(0.0945, abs=1e-3)
    assert np.isnan(mean_share(np.zeros(0, dtype=bool), []).value)
    with pytest.raises(InputError, match="\\(2,\\) int64 and 2 groups"):
        mean_share(np.array([1, 0]), [0, 1])
    with pytest.raises(InputError, match="3 groups"):
        mean_share(np.array([True, False]), [0, 1, 2])


def test_a_mean_gain_is_that_of_each_shift():
    # first shift: 3 of 4 kept are right, 4 of 8 of all; second: 1 of 1 and 1 of 2; third: none kept
    kept = np.array([1, 1, 1, 1, 0, 0, 0, 0, 1, 0, 0, 0], dtype=bool)
    right = np.array([1, 1, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0], dtype=bool)
    groups = [0] * 8 + [1] * 2 + [2] * 2
    found = mean_gain(kept, right, groups)
    assert found.value == pytest.approx(((3 / 4 - 4 / 8) + (1 - 1 / 2)) / 2)
    assert found.low < found.value < found.high
    alone = quality(kept[:8], right[:8])["precision_gain"]
    same = mean_gain(kept[:8], right[:8], groups[:8], draws=4000)
    assert same.value == alone.value
    assert (same.low, same.high) == pytest.approx((alone.low, alone.high), abs=0.12)
    assert np.isnan(mean_gain(~np.ones(3, dtype=bool), right[:3], [0, 0, 1]).value)
    # what only sorts shifts gains nothing: all of the easy one, none of the hard one
    easy = np.array([True] * 10 + [False] * 10)
    assert mean_gain(easy, easy, ["easy"] * 10 + ["hard"] * 10).value == 0
    with pytest.raises(InputError, match="float64"):
        mean_gain(kept, right.astype(float), groups)


class Interface:
    """Of classes that an encoder of colours knows as colours."""

    classes = ("car", "boat")

    def __init__(self, words=("red", "blue")):
        self.words = dict(zip(self.classes, words, strict=True))
        self.encoder = ColourWords()
        limits = dict.fromkeys(self.classes, 0.7)
        self.clip = ClipFilter(limits, limits, "first", {"in the snow": -1.0})


@pytest.fixture
def rows():
    """Three images of each class, "in the snow"."""
    images = torch.stack(
        [ColourWords.images(c, s) for c, s in (("red", (0.3, 1, 0.6)), ("blue", (0.5, 0.2, 0.1)))]
    )
    car, boat = CLASSES.index("car"), CLASSES.index("boat")
    snow = int(WORLD["snow"][1])
    binary = torch.zeros(2, 6, len(scenes.binary), dtype=torch.bool)
    binary[:, 3:5, scenes.binary.index(STATES["boat"])] = True
    said = {
        "class": torch.tensor([[car, car, boat, boat, boat, boat]] * 2),
        "background": torch.tensor([[0, snow, snow, snow, 0, snow]] * 2),
        "binary": binary,
    }
    found = methods.judged("mine", images, Shift.named("in the snow"), Interface(), Told(said))
    return images, found


def test_a_row_says_what_clip_the_filter_and_the_judges_say(rows):
    _, found = rows
    assert found["class"].tolist() == ["car"] * 3 + ["boat"] * 3
    assert found["number"].tolist() == [0, 1, 2] * 2
    wanted = np.sqrt([0.3, 1, 0.6, 0.5, 0.2, 0.1])
    assert found["class_score"].to_numpy() == pytest.approx(wanted, abs=1e-6)
    assert found["kept"].tolist() == [False, True, True, True, False, False]
    assert found["seen_class"].tolist() == [True, True, False, True, True, True]
    assert found["asked"].tolist() == [False] * 3 + [True] * 3
    assert found["both"].tolist() == [False, True, False, True, False, True]
    assert found["right"].tolist() == [False, True, False, True, False, False]
    seen = ["class", "class, shift", "shift", "class, state, shift", "class, state", "class, shift"]
    assert methods.seen_words(found) == seen
    assert methods.seen_words(found.assign(seen_class=False, seen_shift=False))[:1] == ["nothing"]
    shares = {name: methods.frequency(found, name).value for name in methods.MEASURES}
    assert shares == pytest.approx(
        {"class": 5 / 6, "state": 2 / 3, "shift": 4 / 6, "both": 3 / 6, "right": 2 / 6}
    )
    with pytest.raises(InputError, match="No frequency of 'beauty'"):
        methods.frequency(found, "beauty")


def test_what_the_filter_keeps_is_a_method_of_its_own(rows):
    images, found = rows
    every = methods.with_filter(found, ["mine"])
    assert every["method"].tolist() == ["mine"] * 6 + ["mine + filter"] * 3
    assert {name: e.value for name, e in methods.frequencies(every, "right").items()} == (
        pytest.approx({"mine": 2 / 6, "mine + filter": 2 / 3})
    )
    with pytest.raises(InputError, match="No image is of the method 'yours'"):
        methods.with_filter(found, ["yours"])
    shown = methods.first_kept(images, found, 2)
    assert torch.equal(shown[0], images[0, 1:])
    assert torch.equal(shown[1, 0], images[1, 0])
    assert (shown[1, 1] == 1).all()
    with pytest.raises(InputError, match="5 rows"):
        methods.first_kept(images, found[:5])
    kept = found[found["kept"]]
    shifts = ["in the snow", "in the rain"]
    assert methods.uncovered(kept, ["car", "boat", "dog"], shifts) == pytest.approx(4 / 6)


def test_methods_are_compared_under_every_shift():
    mine, snow = Interface(), Shift.named("in the snow")
    strong, weak = (ColourWords.images("red", (k,)).expand(2, 1, -1, -1, -1) for k in (1.0, 0.2))
    ways = {"strong": lambda shift: strong, "by shift": lambda shift: (strong, weak)[shift == snow]}
    rows, pictures = methods.compare(ways, [SHIFTS[0], snow], mine, shown=["in the snow"])
    assert list(pictures) == [("strong", "in the snow"), ("by shift", "in the snow")]
    assert torch.equal(pictures["by shift", "in the snow"], weak)
    cars = rows[rows["class"] == "car"].set_index(["method", "shift"])["class_score"]
    assert cars.to_dict() == pytest.approx(
        {
            ("strong", "base"): 1,
            ("by shift", "base"): 1,
            ("strong", "in the snow"): 1,
            ("by shift", "in the snow"): 0.2**0.5,
        }
    )
    with pytest.raises(InputError, match="'at night' has no threshold"):
        methods.compare({"none": None}, [SHIFTS[0], Shift.named("at night")], mine)
    with pytest.raises(InputError, match="one method and one shift"):
        methods.compare({}, [snow], mine)


def test_images_of_nobody_judged_have_no_frequencies():
    images = ColourWords.images("red", (0.3, 1)).expand(2, -1, -1, -1, -1)
    found = methods.judged("mine", images, SHIFTS[0], Interface())
    assert "right" not in found
    assert found["shift_score"].isna().all()
    with pytest.raises(InputError, match="must be \\(C, n, 3, S, S\\)"):
        methods.judged("mine", images[:1], SHIFTS[0], Interface())
    with pytest.raises(InputError, match="'at night' has no threshold"):
        methods.judged("mine", images, Shift.named("at night"), Interface())


def test_ways_to_find_images():
    pool, mine = RenderPool.draw(200, 5), Interface(("car", "boat"))
    index = pool.embed(ColourWords())
    night = Shift.named("at night")
    found = methods.searched(pool, index, mine, 3, 0)(night)
    assert found.shape == (2, 3, 3, 64, 64)
    for own, kind in zip(found, mine.classes, strict=True):
        called = pool.images(torch.tensor([k for k, n in enumerate(pool.names) if n == kind]))
        assert all((called == image).flatten(1).all(1).any() for image in own)
    again, other = (methods.searched(pool, index, mine, 3, 0)(s) for s in (night, SHIFTS[0]))
    assert torch.equal(found, again)
    assert not torch.equal(found, other)
    coloured = Interface()  # what CLIP sees of "a photo of a red at night" is red
    near = methods.retrieved(pool, index, coloured, 4)(night)
    red = coloured.encoder.embed_images(near[0])[:, 0]
    assert red.min() == pytest.approx(index.embeddings[:, 0].topk(4).values[-1].item(), abs=1e-6)
    control = methods.drawn(mine, 2, 3)(night)
    assert control.shape == (2, 2, 3, 64, 64)
    assert not torch.equal(control[0], true_images("base", 2, 3, ["car"])["car"])
    assert control.mean() < methods.drawn(mine, 2, 3)(Shift.named("in bright sunlight")).mean()


def test_how_common_a_pair_is():
    found = [how_common(kind, shift) for shift in SHIFTS[1:] for kind in CLASSES]
    assert [found.count(name) for name in ("absent", "rare", "usual")] == [46, 46, 184]
    assert {how_common(kind, SHIFTS[0]) for kind in CLASSES} == {"usual"}


def test_figures_show_every_method(rows):
    _, found = rows
    every = methods.with_filter(found, ["mine"])
    panels = {
        name: {
            method: {
                "in the snow": methods.frequency(own, name),
                "at night": methods.frequency(own[:0], name),  # a gap
            }
            for method, own in every.groupby("method", sort=False)
        }
        for name in ("class", "right")
    }
    figure = frequency_figure(panels)
    heights = [[bar.get_height() for bar in axis.patches] for axis in figure.axes]
    assert heights == [pytest.approx([5 / 6, 2 / 3]), pytest.approx([2 / 6, 2 / 3])]
    with pytest.raises(InputError, match="one panel"):
        frequency_figure({})
    figure = similarity_figure(every, ["in the snow"], {"in the snow": 0.2})
    lines = figure.axes[0].lines
    assert [line.get_label() for line in lines] == ["mine", "mine + filter"]
    assert lines[0].get_xdata().tolist() == sorted(found["class_score"])
    assert figure.axes[1].lines[-1].get_xdata() == [0.2, 0.2]
    with pytest.raises(InputError, match="no image is of 'at night'"):
        similarity_figure(every, ["at night"])
    assert pd.isna(methods.frequency(every[:0], "class").value)


def test_pictures_are_shown_with_what_is_seen(rows):
    images, found = rows
    flat, kept = images.flatten(0, 1), found["kept"].to_numpy()
    parts = {"all": (flat, found), "kept": (flat[kept], found[kept]), "none": (flat[:0], found[:0])}
    figure = picked_figure(parts, 4)
    titles = [axis.get_title() for axis in figure.axes]
    said = ["car\nclass", "car\nclass, shift", "boat\nclass, state, shift", "boat\nclass, state"]
    assert titles[:4] == said
    assert [axis.get_ylabel() for axis in figure.axes[::4]] == ["all", "kept"]
    assert titles[7] == ""
    bare = found.drop(columns="seen_class")
    assert picked_figure({"all": (flat, bare)}, 1).axes[0].get_title() == "car\n"
    with pytest.raises(InputError, match="6 rows were given for 3 images"):
        picked_figure({"kept": (flat[kept], found)})
    with pytest.raises(InputError, match="nothing to show"):
        picked_figure({"none": parts["none"]})
