"""Models x shifts -> accuracy, impact and slope by hand; their tables, figures and page."""

import base64
import io

import numpy as np
import pandas as pd
import pytest
import torch

from test_report import HOSTILE, Page
from visiondx.core.errors import InputError
from visiondx.core.results import Result
from visiondx.dataset_interfaces.answers import Answers
from visiondx.dataset_interfaces.measure import fit_slope, measure
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
    both = found.plot_plane("painted", {"true": found}).axes
    assert [axis.get_title() for axis in both] == ["painted", "true"]
    assert [len(axis.texts) for axis in both] == [2, 2]
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
