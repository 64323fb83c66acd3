"""Models x shifts -> accuracy: by hand, answered once, resumed, and shown."""

import base64
import io
import json
import os

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import nn
from torchvision import models as torchvision_models

from test_imports import HEAVY, loaded
from test_report import HOSTILE, Page
from visiondx.core.errors import InputError
from visiondx.core.results import Result
from visiondx.dataset_interfaces import answers as answers_module
from visiondx.dataset_interfaces.answers import Answers, ask_models, check_models
from visiondx.dataset_interfaces.examples import examples
from visiondx.dataset_interfaces.measure import fit_slope, measure
from visiondx.dataset_interfaces.models import Model, open_model, short_names
from visiondx.dataset_interfaces.shifted_images import ShiftedImages
from visiondx.models.pixels import rgb
from visiondx.models.target import Target
from visiondx.run import cli, notebooks, runs
from visiondx.show.robustness_report import write_robustness


def answers_of(right, models, shifts, classes="abc"):
    """right: {(shift, class): (M, n)} of 0 and 1."""
    parts, shift, klass = [], [], []
    drawn = np.zeros((len(shifts), len(classes)), dtype=int)
    for (s, c), values in right.items():
        values = np.array(values, dtype=bool)
        parts.append(values)
        shift += [shifts.index(s)] * values.shape[1]
        klass += [classes.index(c)] * values.shape[1]
        drawn[shifts.index(s), classes.index(c)] = values.shape[1]
    rows = np.array(shift), np.array(klass)
    return Answers(models, shifts, tuple(classes), np.concatenate(parts, 1), *rows, drawn)


def first(n, *right):
    """(M, n): each model is right on the first so many images."""
    return [[k < count for k in range(n)] for count in right]


# ---------------------------------------------------------------- by hand


def test_accuracy_is_over_classes_with_five_images_and_the_base_over_the_same():
    answers = answers_of(
        {
            ("base", "a"): first(5, 4, 5),
            ("base", "b"): first(10, 5, 10),
            ("base", "c"): first(5, 5, 0),
            ("snow", "a"): first(5, 2, 4),
            ("snow", "b"): first(6, 3, 6),
            ("snow", "c"): first(4, 0, 4),  # four are too few
            ("rain", "c"): first(3, 1, 1),
        },
        ("m0", "m1"),
        ("base", "rain", "snow"),
    )
    found = measure(answers, draws=50)
    assert found.shifts == ("rain", "snow")
    assert found.counted.tolist() == [[False] * 3, [True, True, False]]
    # m0: (2/5 + 3/6) / 2 and (4/5 + 5/10) / 2; m1: (4/5 + 1) / 2 and 1
    np.testing.assert_allclose(found.accuracy[:, 1, 0], [0.45, 0.9], atol=1e-6)
    np.testing.assert_allclose(found.base[:, 1, 0], [0.65, 1.0], atol=1e-6)
    np.testing.assert_allclose(found.drop[:, 1, 0], [0.2, 0.1], atol=1e-6)
    assert found.impact[1, 0] == pytest.approx(0.15, abs=1e-6)
    np.testing.assert_allclose(found.own[:, 0], [(0.8 + 0.5 + 1) / 3, 2 / 3], atol=1e-6)
    assert np.isnan(found.impact[0]).all()
    assert np.isnan(found.slope).all()  # of two models
    assert found.said[0].startswith("“snow” costs most: 15 points of accuracy")
    assert "on average over 2 models" in found.said[0]
    assert found.said[-1].startswith("Nothing can be said of “rain”: no class has 5 images left")
    # fewer are enough: c counts, too
    three = measure(answers, least=3, draws=50)
    assert three.accuracy[0, 1, 0] == pytest.approx((0.4 + 0.5 + 0) / 3, abs=1e-6)
    assert three.drop[1, 0, 0] == pytest.approx(0 - 1 / 3, abs=1e-6)
    # where the base lacks a class, it does not count, however many there are under the shift
    short = answers_of(
        {("base", "a"): first(4, 4), ("base", "b"): first(5, 5)}
        | {("snow", name): first(9, 3) for name in "ab"},
        ("m",),
        ("base", "snow"),
        "ab",
    )
    assert measure(short, draws=50).counted.tolist() == [[False, True]]


def test_the_truth_can_be_measured_over_the_classes_of_an_estimate():
    right = {(s, c): first(6, n) for s in ("base", "snow") for c, n in zip("abc", (6, 3, 0))}
    answers = answers_of(right, ("m",), ("base", "snow"))
    assert measure(answers, draws=20).own[0, 0] == pytest.approx(0.5)
    some = measure(answers, draws=20, counted=np.array([[True, True, False]]))
    assert some.accuracy[0, 0, 0] == pytest.approx(0.75)
    with pytest.raises(InputError, match="classes that have images"):
        measure(answers, counted=np.ones((2, 3), bool))
    without = answers_of(
        {("base", "a"): first(6, 6), ("snow", "b"): first(6, 6)}, ("m",), ("base", "snow")
    )
    with pytest.raises(InputError, match="classes that have images"):
        measure(without, counted=np.ones((1, 3), bool))
    with pytest.raises(InputError, match="No class has 5 images left"):
        measure(without)
    with pytest.raises(InputError, match="least and draws must be 1 or more"):
        measure(answers, least=0)


def test_intervals_are_as_wide_as_the_spread_of_other_images_makes_them():
    """Against p (1 - p) / (n - 1) of each class, whose images are few."""
    classes = "abcdefghij"
    right = {("base", c): first(5, 3) for c in classes} | {
        ("snow", c): first(5, 1) for c in classes
    }
    found = measure(answers_of(right, ("m",), ("base", "snow"), classes), draws=6000)
    error = np.sqrt(10 * (0.6 * 0.4 / 4)) / 10, np.sqrt(10 * (0.2 * 0.8 / 4)) / 10
    for values, known in (
        (found.base[0, 0], error[0]),
        (found.accuracy[0, 0], error[1]),
        (found.drop[0, 0], np.hypot(*error)),
    ):
        assert (values[2] - values[1]) / (2 * 1.96) == pytest.approx(known, rel=0.07)


def test_all_models_see_the_same_draws_of_the_images():
    one = np.random.default_rng(0).random(40) < 0.6
    right = {("base", c): [one[:20], one[:20]] for c in "ab"}
    right |= {("snow", "a"): [one[20:], one[20:]], ("snow", "b"): [one[:20], one[:20]]}
    found = measure(answers_of(right, ("m0", "m1"), ("base", "snow"), "ab"), draws=200)
    np.testing.assert_allclose(found.impact[0], found.drop[0, 0], atol=1e-6)
    np.testing.assert_array_equal(found.drop[0], found.drop[1])


def test_where_all_are_right_the_interval_still_has_a_width():
    right = {(s, c): first(10, n) for s, n in (("base", 10), ("snow", 0)) for c in "ab"}
    found = measure(answers_of(right, ("m",), ("base", "snow"), "ab"), draws=50)
    # Wilson's, 20 of 20: z² / (n + z²) below 1
    assert found.base[0, 0].tolist() == pytest.approx([1, 1 - 3.8415 / 23.8415, 1], abs=1e-4)
    assert found.accuracy[0, 0].tolist() == pytest.approx([0, 0, 3.8415 / 23.8415], abs=1e-4)


def test_the_slope_is_that_of_the_line_over_models():
    assert fit_slope(np.array([[0.2, 0.1], [0.4, 0.3], [0.6, 0.2]])) == pytest.approx(0.25)
    assert np.isnan(fit_slope(np.array([[0.4, 0.1], [0.4, 0.3], [0.4, 0.2]])))
    base, under = (2, 4, 6, 8), (1, 3, 2, 4)
    right = {("base", c): first(10, *base) for c in "ab"}
    right |= {("snow", c): first(10, *under) for c in "ab"}
    found = measure(answers_of(right, tuple("wxyz"), ("base", "snow"), "ab"), draws=400)
    assert found.slope[0, 0] == pytest.approx(np.polyfit(base, under, 1)[0], abs=1e-6)  # 0.4
    assert found.slope[0, 1] < 0.4 < found.slope[0, 2]
    alike = {key: first(10, 5, 5, 5) for key in right}
    assert np.isnan(measure(answers_of(alike, tuple("xyz"), ("base", "snow"), "ab")).slope).all()


# ---------------------------------------------------------------- tables, figures, the page


@pytest.fixture(scope="module")
def found():
    rng = np.random.default_rng(1)
    shifts = ("base", "in_the_snow", "red", "lost")
    skill = {"base": 0.9, "in_the_snow": 0.4, "red": 0.8}
    right = {
        (s, c): rng.random((4, 12)) < skill[s] - 0.1 * np.arange(4)[:, None]
        for s in shifts[:3]
        for c in "abc"
    }
    right["lost", "a"] = first(2, 1, 1, 1, 1)
    answers = answers_of(right, ("m0", "m1", HOSTILE, "m3"), shifts)
    return measure(answers, draws=100)


def test_tables_hold_every_figure_once(found, tmp_path):
    assert isinstance(found, Result)
    tidy = found.to_frame()
    assert len(tidy) == 4 * 3
    row = tidy.set_index(["model", "shift"]).loc[("m1", "red")]
    assert (
        row[["accuracy", "accuracy_low", "accuracy_high"]].tolist() == found.accuracy[1, 1].tolist()
    )
    assert row["base"] - row["accuracy"] == pytest.approx(row["drop"])
    assert (row["classes"], row["images"]) == (3, 36)
    shifts = found.shift_frame()
    assert shifts["shift"].tolist() == ["in_the_snow", "red", "lost"]  # the largest impact first
    assert shifts["impact"].iloc[0] == pytest.approx(
        tidy.loc[tidy["shift"] == "in_the_snow", "drop"].mean()
    )
    assert shifts["classes"].tolist() == [3, 3, 0]
    models = found.model_frame()
    assert models["base"].is_monotonic_decreasing
    assert set(models["worst"]) == {"in_the_snow"}
    metrics = found.metrics()
    assert metrics["impact.red"].as_dict() | {"n": 36} == metrics["impact.red"].as_dict()
    assert "impact.lost" not in metrics
    assert not [name for name in metrics if name.startswith("yield")]  # nothing was filtered
    found.save(tmp_path)
    read = pd.read_csv(tmp_path / "robustness.csv")
    pd.testing.assert_frame_equal(read, tidy)
    assert (tmp_path / "verdict.txt").read_text("utf-8").splitlines() == found.said


def test_figures_show_what_the_tables_say(found):
    axis = found.plot().axes[0]
    texts = [float(text.get_text()) for text in axis.texts]
    models = found.model_frame()["model"].tolist()
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert names == [name if name != HOSTILE else f"…{HOSTILE[-39:]}" for name in models]
    tidy = found.to_frame().set_index(["model", "shift"])["drop"]
    shown = [tidy[(m, s)] for m in models for s in ("in_the_snow", "red")]
    np.testing.assert_allclose(texts, shown, atol=0.006)
    assert [t.get_text() for t in axis.get_xticklabels()] == ["in the snow", "red"]
    panels = found.plot_lines(["red"]).axes
    assert panels[0].get_title() == f"red\nslope {found.slope[1, 0]:.2f}"
    _, dots, line = panels[0].get_lines()
    np.testing.assert_array_equal(dots.get_xdata(), found.base[:, 1, 0])
    np.testing.assert_array_equal(dots.get_ydata(), found.accuracy[:, 1, 0])
    rise = np.diff(line.get_ydata()) / np.diff(line.get_xdata())
    assert rise[0] == pytest.approx(found.slope[1, 0], abs=1e-6)
    axis = found.plot_plane().axes[0]
    assert [t.get_text() for t in axis.texts] == ["in the snow", "red"]
    (points,) = [line for line in axis.get_lines() if line.get_marker() == "o"]
    np.testing.assert_array_equal(points.get_xdata(), found.impact[:2, 0])
    with pytest.raises(InputError, match="There is no shift 'lost' to show: choose from"):
        found.plot_lines(["lost"])


def test_the_report_says_what_was_found_and_escapes_words(found, tmp_path):
    shown = {"base": torch.rand(2, 3, 8, 8), "in_the_snow": torch.rand(1, 3, 8, 8)}
    path = write_robustness(
        found, tmp_path, title=f"Title {HOSTILE}", asked={"Run": HOSTILE}, examples=shown
    )
    page = Page(path.read_text("utf-8"))
    assert "script" not in [tag for tag, _ in page.tags]
    for _, attributes in page.tags:
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith(("data:", "#"))
    assert page.text.count(HOSTILE) == 4  # title twice, asked, a model
    links = [a["href"].removeprefix("#") for tag, a in page.tags if tag == "a" and "href" in a]
    anchors = {a["id"] for tag, a in page.tags if tag == "section"}
    assert {link for link in links if not link.startswith("data:")} == anchors
    assert len(page.images()) == 3 + 3
    for line in found.said:
        assert line in page.text
    assert f"{100 * found.impact[0, 0]:.1f}" in page.text
    files = {a["download"]: a["href"] for tag, a in page.tags if "download" in a}
    read = pd.read_csv(io.BytesIO(base64.b64decode(files["shifts.csv"].partition("base64,")[2])))
    pd.testing.assert_frame_equal(read, found.shift_frame())
    assert "Filter them, if they were painted" in page.text
    two = answers_of(
        {(s, c): first(6, 5) for s in ("base", "snow") for c in "ab"},
        ("m",),
        ("base", "snow"),
        "ab",
    )
    page = write_robustness(measure(two, draws=20), tmp_path, title="One").read_text("utf-8")
    assert "Give three models or more" in page


# ---------------------------------------------------------------- what models answer

MINE = """
import torch
from torch import nn
from visiondx.models.target import Target

class Colours(nn.Module):
    def __init__(self, order):
        super().__init__()
        self.order = order
        self.scale = nn.Parameter(torch.tensor(4.0))

    def forward(self, images):
        return self.scale * images.mean((2, 3))[:, self.order]

def load():
    return Target(Colours([2, 0, 1]), "multiclass", ["Blue", "red", "grass_green"])

def sized():
    return Target(Colours([2, 0, 1]), "multiclass", ["Blue", "red", "grass_green"], size=4)

def redder():
    return Target(Colours([2, 0]), "binary", ["blue", "red"])

def bare():
    return Colours([0, 1, 2])

def wrong():
    return Target(Colours([0, 1, 2]), "multiclass", ["blue", "reed", "grass green"])

def narrow():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3, 3))
    return Target(net, "multiclass", ["blue", "red", "grass green"])
"""
COLOURS = {"red": (200, 60, 50), "blue": (40, 50, 190), "grass green": (60, 180, 70)}


@pytest.fixture
def home(tmp_path):
    """A folder of 8 px images, three of each class; under "odd", the second is of another class."""
    (tmp_path / "mine.py").write_text(MINE)
    for shift in ("base", "odd"):
        for name, colour in COLOURS.items():
            for k in range(3):
                own = COLOURS["red"] if shift == "odd" and k == 1 else colour
                path = tmp_path / "images" / shift / name / f"{k}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (8, 8), own).save(path)
    return tmp_path


def test_each_image_is_answered_once_and_the_answers_are_kept(home, monkeypatch):
    images = ShiftedImages.read(home / "images")
    specs = [f"{home}/mine.py:load", f"{home}/mine.py:sized"]
    found = ask_models(specs, images, kept=home / "kept", batch=4)
    # the folders' order: blue, grass green, red; the second of "odd" is red
    odd = [True, False, True, True, False, True, True, True, True]
    assert found.right.tolist() == [[True] * 9 + odd] * 2
    assert found.models == ("mine:load", "mine:sized")
    assert found.counts().tolist() == found.drawn.tolist() == [[3, 3, 3], [3, 3, 3]]
    assert len(list((home / "kept").iterdir())) == 2  # one a model
    read = []
    plain = answers_module._picture
    monkeypatch.setattr(answers_module, "_picture", lambda m, p: read.append(p) or plain(m, p))
    again = ask_models(specs, images, kept=home / "kept", batch=4)
    np.testing.assert_array_equal(again.right, found.right)
    assert read == []
    path = home / "images" / "base" / "red" / "1.png"
    Image.new("RGB", (8, 8), (0, 0, 255)).save(path)
    os.utime(path, ns=(1, 1))
    Image.new("RGB", (8, 8), (0, 0, 255)).save(home / "images" / "odd" / "red" / "new.png")
    more = ask_models(specs[:1], ShiftedImages.read(home / "images"), kept=home / "kept")
    assert [each.name for each in read] == ["1.png", "new.png"]
    assert more.right.tolist()[0] == [True] * 7 + [False, True] + odd + [False]


def test_a_killed_run_goes_on_to_the_same(home, monkeypatch):
    images, spec = ShiftedImages.read(home / "images"), [f"{home}/mine.py:load"]
    whole = ask_models(spec, images, batch=4)
    plain, calls = Model.answer, []

    def killed(self, batch):
        calls.append(len(batch))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return plain(self, batch)

    monkeypatch.setattr(Model, "answer", killed)
    with pytest.raises(KeyboardInterrupt):
        ask_models(spec, images, kept=home / "kept", batch=4)
    assert not list((home / "kept").glob(".*"))
    resumed = ask_models(spec, images, kept=home / "kept", batch=4)
    assert sum(calls[:2]) + sum(calls[3:]) == 18  # none twice
    np.testing.assert_array_equal(resumed.right, whole.right)
    (file,) = (home / "kept").iterdir()
    file.write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="is damaged .* made again"):
        again = ask_models(spec, images, kept=home / "kept")
    np.testing.assert_array_equal(again.right, whole.right)


def test_only_what_passed_is_asked_about_and_the_unreadable_is_left_out(home):
    images = ShiftedImages.read(home / "images")
    images.kept[[0, 12]] = False
    (home / "images" / "base" / "red" / "2.png").write_bytes(b"no image")
    with pytest.warns(
        UserWarning, match=r"1 of 16 images .* such as base/red/2.png \(it is no image"
    ):
        found = ask_models([f"{home}/mine.py:load"], images, kept=home / "kept")
    assert found.counts().tolist() == [[2, 3, 2], [3, 2, 3]]
    assert found.drawn.tolist() == [[3, 3, 3], [3, 3, 3]]
    assert found.right.sum() == 15 - 2
    figures = measure(found, least=2, draws=20)
    assert figures.metrics()["yield.base"].value == pytest.approx(7 / 9)
    shown = examples(images, 9, 16)
    assert {name: each.shape for name, each in shown.items()} == {
        "base": (7, 3, 16, 16),
        "odd": (8, 3, 16, 16),
    }
    colours = examples(images, 3, 16)["odd"].mean((2, 3)).argmax(1)
    assert colours.tolist() == [2, 2, 0]  # of the eight the first, third and sixth
    images.kept[:] = False
    with pytest.raises(InputError, match=r"No image of .* passed the filter"):
        ask_models([f"{home}/mine.py:load"], images)


@pytest.mark.parametrize(
    ("function", "named"),
    [
        ("bare", "returned a bare module, whose classes"),
        ("wrong", "'red' is none of the 3 labels of .*wrong; nearest are reed"),
        ("redder", "'grass green' is none of the 2 labels"),
        ("narrow", "failed on 2 images of 8 x 8 pixels"),
        ("none", "has no function 'none'"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_before_any_long_work(home, function, named):
    images = ShiftedImages.read(home / "images")
    with pytest.raises(InputError, match=named):
        check_models([f"{home}/mine.py:load", f"{home}/mine.py:{function}"], images)


def test_images_of_several_sizes_need_the_models_size(home):
    Image.new("RGB", (9, 12), "red").save(home / "images" / "odd" / "blue" / "0.png")
    images = ShiftedImages.read(home / "images")
    with pytest.raises(InputError, match="8 x 8 and 12 x 9"):
        check_models([f"{home}/mine.py:load"], images)
    check_models([f"{home}/mine.py:sized"], images)


def test_one_logit_and_two_folders(home):
    target = open_model(f"{home}/mine.py:redder")
    assert target.columns(["Red", "blue"]) == [1, 0]
    colours = torch.tensor([COLOURS["red"], COLOURS["blue"]])[:, :, None, None] / 255
    assert target.answer(colours.expand(2, 3, 4, 4)).tolist() == [1, 0]


def test_models_are_called_by_what_tells_them_apart():
    assert short_names(["timm:resnet18", "a/mine.py:load", "scenes-vit-w32-d4"]) == (
        "resnet18",
        "mine",
        "scenes-vit-w32-d4",
    )
    both = ("timm:resnet18", "torchvision:resnet18")
    assert short_names(both) == both
    assert short_names(["timm:local-dir:/a/b"]) == ("b",)
    two = ("a/mine.py:load", "b/mine.py:load", "b/mine.py:other")
    assert short_names(two) == ("a/mine.py:load", "b/mine.py:load", "mine:other")
    with pytest.raises(InputError, match="timm:resnet18 is named twice"):
        short_names(["timm:resnet18", "timm:resnet18"])
    with pytest.raises(InputError, match="must be a list"):
        short_names("timm:resnet18")


# ---------------------------------------------------------------- names of classes


def named(*names):
    labels = [own[0] for own in names]
    target = Target(nn.Identity(), "multiclass", labels)
    return Model("some:model", target, names, lambda image: image, "key")


def test_a_folder_may_use_any_name_of_a_class():
    model = named(
        ("n01", "tench", "tench, Tinca tinca", "Tinca tinca"), ("n02", "crane"), ("n03", "crane")
    )
    assert model.columns(["tinca_tinca", "n03"]) == [0, 2]
    assert model.columns(["Tench", "n02"]) == [0, 1]
    assert model.columns(["002", "000"]) == [2, 0]  # numbers alone: places
    with pytest.raises(InputError, match=r"'crane' is 2 of the labels of some:model \(n02, n03\)"):
        model.columns(["tench", "crane"])
    with pytest.raises(InputError, match=r"'tensh' is none of the 3 labels .* nearest are tench"):
        model.columns(["tensh"])
    with pytest.raises(InputError, match="'3' is none of the 3 labels"):
        model.columns(["0", "3"])
    # where the model itself calls its classes by numbers, these are meant
    assert named(("1", ""), ("0", "")).columns(["0", "1"]) == [1, 0]


# ---------------------------------------------------------------- timm and torchvision


@pytest.fixture
def picture():
    noise = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def test_a_model_of_timm_sees_images_as_timm_shows_them(tmp_path, picture):
    torch.manual_seed(0)
    net = timm.create_model("test_resnet", num_classes=3).eval()
    cfg = dict(net.pretrained_cfg, num_classes=3, crop_pct=0.8, interpolation="bicubic")
    cfg |= {"label_names": ["n1", "n2", "n3"], "label_descriptions": {"n2": "grass green, lawn"}}
    net.pretrained_cfg = cfg
    timm.models.save_for_hf(net, tmp_path / "net", safe_serialization=True)
    model = open_model(f"timm:local-dir:{tmp_path}/net")
    transform = create_transform(**resolve_data_config({}, model=net))
    with torch.no_grad():
        known = net(transform(picture)[None])[0]
        logits = model.target.logits(model.picture(rgb(picture))[None])[0]
    torch.testing.assert_close(logits, known, atol=1e-4, rtol=1e-4)
    assert known.std() > 1e-3
    assert model.columns(["lawn", "n3"]) == [1, 2]
    for file in (tmp_path / "net").glob("*.safetensors"):
        file.rename(file.with_suffix(".bin"))
    with pytest.raises(InputError, match=r"holds no \*\.safetensors"):
        open_model(f"timm:local-dir:{tmp_path}/net")


def test_a_model_of_torchvision_sees_images_as_torchvision_shows_them(monkeypatch, picture):
    torch.manual_seed(0)
    net = torchvision_models.squeezenet1_1().eval()
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url", lambda *_, **__: net.state_dict()
    )
    model = open_model("torchvision:squeezenet1_1")
    weights = torchvision_models.SqueezeNet1_1_Weights.DEFAULT
    with torch.no_grad():
        known = net(weights.transforms()(picture)[None])[0]
        logits = model.target.logits(model.picture(rgb(picture))[None])[0]
    torch.testing.assert_close(logits, known, atol=1e-4, rtol=1e-4)
    # a class of ImageNet by its synset, its word and its number
    assert model.columns(["n01440764", "plastic bag"]) == [
        0,
        weights.meta["categories"].index("plastic bag"),
    ]
    assert model.columns(["999", "0"]) == [999, 0]
    with pytest.raises(InputError, match="'crane' is 2 of the labels"):
        model.columns(["crane"])


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ("timm:resnet5O", "timm has no model 'resnet5O'; nearest are resnet5"),
        ("timm:test_resnet.nothing", "timm has no weights of 'test_resnet.nothing'"),
        ("timm:local-dir:/nowhere", "no config.json of timm"),
        ("torchvision:resnet5O", "torchvision has no classifier 'resnet5O'; nearest are resnet5"),
        ("torchvision:fcn_resnet50", "torchvision has no classifier"),
        ("scenes-resnet", "No target 'scenes-resnet'"),
        ("young", "names no classes|'blue' is none of"),
    ],
)
def test_what_is_no_model_is_refused(home, spec, named):
    with pytest.raises(InputError, match=named):
        check_models([spec], ShiftedImages.read(home / "images"))


# ---------------------------------------------------------------- the command


@pytest.fixture
def called(monkeypatch, home):
    given = []
    monkeypatch.setattr(runs, "run_notebook", lambda *each: given.append(each) or home)
    monkeypatch.chdir(home)
    return given


def test_images_and_models_become_the_notebooks_parameters(called, home, capsys):
    (home / "verdict.txt").write_text("Snow costs most.\n", "utf-8")
    models = ["mine.py:load", "timm:resnet18", "torchvision:resnet50", "scenes-vit-w32-d4"]
    how = ["--shifts", "odd", "--least", "3", "--batch", "8", "--seed", "2", "--device", "cpu"]
    assert cli.main(["benchmark", "--images", "images", "--models", *models, *how]) == 0
    ((path, preset, parameters, out),) = called
    assert path == notebooks.ROOT / "notebooks" / "robustness.ipynb"
    assert (preset, out) == ("embedded", notebooks.ROOT / "runs" / "robustness" / "images")
    assert parameters == {
        "name": "images",
        "images": f"{home}/images",
        "models": [f"{home}/mine.py:load", *models[1:]],
        "shifts": ["odd"],
        "least": 3,
        "batch": 8,
        "seed": 2,
        "device": "cpu",
    }
    assert capsys.readouterr().out.endswith("report.html\n\nSnow costs most.\n")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--images", "nowhere", "--models", "mine.py:load"], "No folder of images at"),
        (["--images", "images/base", "--models", "mine.py:load"], "has no folder 'base'"),
        (["--images", "images", "--models", "other.py:load"], "there is no file"),
        (["--images", "images", "--models", "mine.py:lod"], "has no function 'lod'"),
        (["--images", "images", "--models", "scenes"], "No target 'scenes'"),
        (["--images", "images", "--models", "timm:"], "names none: write timm:resnet50"),
        (["--images", "images", "--models", "timm:local-dir:x"], "no config.json of timm"),
        (["--images", "images", "--models", "mine.py:load", "mine.py:load"], "is named twice"),
        (["--images", "images", "--models", "mine.py:load", "--least", "0"], "'least' must be 1"),
        (["--images", "images", "--models", "mine.py:load", "--shifts", "od"], "no shift 'od'"),
        (["--images", "images", "--models", "mine.py:load", "--masks", "m.npy"], "m.npy cannot be"),
        (["--images", "images", "--models", "mine.py:load", "--device", "tpu"], "device must be"),
        (["--images", "embedded", "--models", "young", "--masks", "mine.py"], "have no filter"),
    ],
)
def test_a_wrong_question_is_refused_before_anything_runs(called, options, named, capsys):
    assert cli.main(["benchmark", *options]) == 2
    assert named in capsys.readouterr().err
    assert called == []


def test_the_notebook_shows_its_own_preset_and_a_refusal_needs_no_torch(home):
    tagged = notebooks.parameters(notebooks.ROOT / "notebooks" / "robustness.ipynb")
    assert tagged["images"] == "embedded"
    assert json.dumps(tagged)  # plain values
    assert not loaded("import visiondx.run.benchmark_checks") & (HEAVY | {"numpy"})
