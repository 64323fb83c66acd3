"""Distributions: what is declared is measured, and bad YAML names its line and the fix."""

import pytest
import torch

from visiondx.core.errors import InputError
from visiondx_worlds.worlds import scenes
from visiondx_worlds.worlds.distributions import Distribution

NAMES = ("scenes-balanced", "scenes-broad", "scenes-train")


def share(attributes, when, given, name, value):
    rows = attributes[when] == scenes.categories[when].index(given)
    return (attributes[name][rows] == scenes.categories[name].index(value)).float().mean().item()


@pytest.mark.parametrize("name", NAMES)
def test_declared_marginals_and_correlations_are_measured(name):
    distribution = Distribution.load(name, scenes)
    a = distribution.sample(60_000, 3)
    for attribute in scenes.categories:
        declared = distribution.marginal(attribute)
        measured = a[attribute].long().bincount(minlength=len(declared)) / len(a)
        for found, wanted in zip(measured.tolist(), declared.values(), strict=True):
            assert found == pytest.approx(wanted, abs=0.012), attribute
    rows = {(t.attribute, t.parent): t.shares for t in distribution.tables}
    for (attribute, parent), shares in rows.items():
        assert all(sum(row) == pytest.approx(1) for row in shares)
        for index, row in enumerate(shares if parent else ()):
            mine = a[attribute][a[parent] == index].long()
            measured = mine.bincount(minlength=len(row)) / len(mine)
            assert torch.allclose(measured, torch.tensor(row), atol=0.04), (attribute, index)


def test_train_has_full_plates_and_graded_ties_and_broad_has_not():
    train = scenes.sample(60_000, 0, distribution="scenes-train")
    ties = (
        ("boat", "water", 0.95),
        ("plate", "plain", 0.85),
        ("bird", "forest", 0.75),
        ("turtle", "rocks", 0.60),
    )
    for kind, place, strength in ties:
        assert share(train, "class", kind, "background", place) == pytest.approx(strength, abs=0.02)
    assert share(train, "class", "plate", "state", "present") == pytest.approx(0.95, abs=0.01)
    broad = scenes.sample(60_000, 0, distribution="scenes-broad")
    assert share(broad, "class", "plate", "state", "present") == pytest.approx(0.10, abs=0.015)
    for kind in scenes.classes:
        for place in scenes.categories["background"]:
            assert share(broad, "class", kind, "background", place) < 0.3


def test_balanced_is_the_worlds_own():
    own = scenes.sample(4000, 5)
    assert torch.equal(own.values, scenes.sample(4000, 5, distribution="scenes-balanced").values)


def test_an_untied_class_pays_for_a_marginal_that_holds():
    text = """
world: scenes
marginals:
  class: {car: 0.5, boat: 0.25, dog: 0.25}
  background: {plain: 0.5, road: 0.5}
correlations:
  - {if: {class: car}, then: {background: road}, probability: 0.8}
"""
    distribution = Distribution.parse(text, scenes)
    (table,) = (t for t in distribution.tables if t.attribute == "background")
    road = scenes.categories["background"].index("road")
    shares = {kind: row[road] for kind, row in zip(scenes.classes, table.shares, strict=True)}
    # 0.5 = 0.5 * 0.8 + 0.5 * x
    assert shares["car"] == pytest.approx(0.8)
    assert shares["dog"] == shares["boat"] == pytest.approx(0.2)
    assert distribution.marginal("background")["road"] == pytest.approx(0.5)


def test_chains_follow_their_parents_whatever_the_order_of_the_file():
    text = """
correlations:
  - {if: {weather: rain}, then: {light: dusk}, probability: 1.0}
  - {if: {background: grass}, then: {weather: rain}, probability: 1.0}
"""
    a = Distribution.parse(text, scenes).sample(3000, 1)
    assert share(a, "background", "grass", "weather", "rain") == 1
    assert share(a, "weather", "rain", "light", "dusk") == 1
    assert 0.05 < share(a, "weather", "clear", "light", "dusk") < 0.25


def test_continuous_columns_and_seeds_stay():
    one, two = (scenes.sample(50, 9, distribution="scenes-train") for _ in range(2))
    assert torch.equal(one.values, two.values)
    plain = scenes.sample(50, 9)
    for column in ("size", "place_x", "tilt", "own_colour"):
        assert torch.equal(one[column], plain[column])
    with pytest.raises(InputError, match="n is 0"):
        Distribution.load("scenes-train", scenes).sample(0, 0)


CAR = "{if: {class: car}, then: {background: road}, probability: 0.9}"
WRONG = {
    "unknown attribute": ("marginals:\n  colors: {own: 1}", "line 2: unknown attribute 'colors'"),
    "unknown value": ("marginals:\n  weather: {sleet: 1}", "line 2: weather has no value 'sleet'"),
    "above one": ("marginals:\n  weather: {clear: 1.2}", "line 2: probability 1.2 is outside"),
    "below zero": (f"correlations:\n  - {CAR.replace('0.9', '-0.1')}", "line 2: probability -0.1"),
    "not a number": ("marginals:\n  weather: {clear: most}", "line 2: 'most' is not a probability"),
    "not a number, nan": ("marginals:\n  weather: {clear: nan}", "line 2: probability nan"),
    "sum": ("marginals:\n  weather: {clear: 0.5}", "line 2: the shares of weather sum to 0.5"),
    "unknown key": ("world: scenes\ncorelations: []", "line 2: unknown key 'corelations'"),
    "other world": ("world: faces", "line 1: the world is 'faces'"),
    "missing key": ("correlations:\n  - {if: {class: car}}", "line 2: a correlation needs exactly"),
    "twice": (f"correlations:\n  - {CAR}\n  - {CAR}", "line 3: car and road are correlated twice"),
    "doubled key": ("world: scenes\nworld: scenes", "line 2: 'world' stands here twice"),
    "more than all": (
        f"correlations:\n  - {CAR}\n  - {CAR.replace('road', 'snow')}",
        "line 3: impossible correlation: .* sum to 1.8",
    ),
    "no state": (
        "correlations:\n  - {if: {class: chair}, then: {state: present}, probability: 0.5}",
        "line 2: impossible correlation, since the class chair has no state",
    ),
    "hidden": (
        "correlations:\n  - {if: {style: pencil sketch}, then: {colour: red}, probability: 0.5}",
        "line 2: impossible correlation, since a pencil sketch shows no colour",
    ),
    "marginal too small": (
        f"marginals:\n  background: {{plain: 0.95, road: 0.05}}\ncorrelations:\n  - {CAR}",
        "line 2: impossible correlation: .* make 'road' 0.075 of all images, .* raise",
    ),
    "nothing left": (
        f"marginals:\n  class: {{car: 1}}\n  background: {{road: 1}}\ncorrelations:\n  - {CAR}",
        "line 5: impossible correlation: nothing is left for the other 0.1 of background",
    ),
    "itself": (
        "correlations:\n  - {if: {class: car}, then: {class: dog}, probability: 0.5}",
        "line 2: impossible correlation of class with itself",
    ),
    "circle": (
        "correlations:\n  - {if: {light: night}, then: {weather: fog}, probability: 0.5}\n"
        "  - {if: {weather: fog}, then: {light: night}, probability: 0.5}",
        "line 3: impossible correlation: .* circle",
    ),
    "two parents": (
        f"correlations:\n  - {CAR}\n  - {{if: {{light: night}}, then: {{background: road}}, "
        "probability: 0.5}",
        "line 3: background already follows class",
    ),
    "two conditions": (
        "correlations:\n  - {if: {class: car, light: night}, then: {background: road}, "
        "probability: 0.5}",
        "line 2: 'if' names 2 attributes",
    ),
    "not YAML": ("world: [", "line 1: this is not YAML"),
    "not a list": ("world: scenes\ncorrelations: 3", "line 2: correlations must be a list"),
    "empty": ("", "line 1: the file must be a mapping"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_yaml_names_the_line_and_the_fix(case):
    text, message = WRONG[case]
    with pytest.raises(InputError, match=message) as caught:
        Distribution.parse(text, scenes, "mine")
    said = str(caught.value)
    assert said.startswith("mine, line ")
    assert said.count("\n") == 0
    assert said.endswith(".")


def test_a_missing_file_names_those_there_are(tmp_path):
    with pytest.raises(InputError, match=r"scenes-balanced, scenes-broad, scenes-train"):
        Distribution.load("scenes-tiny", scenes)
    path = tmp_path / "mine.yaml"
    path.write_text("marginals:\n  style: {photo: 1.0}\n")
    a = Distribution.load(str(path), scenes).sample(200, 0)
    assert (a["style"] == 0).all()
