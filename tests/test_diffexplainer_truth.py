"""True labels of features: planted ones are told, and classes are tied to places as they should."""

from collections import Counter

import pytest
import torch
from torch import nn

from visiondx.core.errors import InputError
from visiondx.models.target import Target
from visiondx_worlds.marking.diffexplainer.truth import (
    FeatureTruth,
    Interventions,
    label,
    ties_of,
    true_features,
)
from visiondx_worlds.models.scene_classifier import build_scene_classifier
from visiondx_worlds.quality.contexts import WHERE, taken
from visiondx_worlds.training.context_classifiers import (
    CLASSIFIERS,
    PLAIN,
    ROBUST,
    ContextClassifier,
    class_images,
    context_classifier,
    save_context_classifier,
)
from visiondx_worlds.worlds import scenes
from visiondx_worlds.worlds.contexts import (
    CONTEXTS,
    FIRST,
    PLACES,
    SECOND,
    STRENGTHS,
    VALIDATION,
    Tie,
    tied,
    untied,
)
from visiondx_worlds.worlds.scenes import CLASSES


class Planted(nn.Module):
    """Feature 0: green all over; 1: red in the middle; 2: always 1. Each carries every class."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, len(CLASSES))
        nn.init.ones_(self.fc.weight)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        red, green, blue = images.unbind(1)
        everywhere = (green - (red + blue) / 2).mean((1, 2))
        middle = (red - (green + blue) / 2)[:, 28:36, 28:36].mean((1, 2))
        return self.fc(torch.stack([everywhere, middle, torch.ones_like(middle)], 1))


@pytest.fixture(scope="module")
def planted() -> Target:
    return Target(Planted().eval(), "multiclass", CLASSES)


@pytest.fixture(scope="module")
def drawn() -> Interventions:
    """Red objects in the middle of clear photos."""
    found = Interventions(12, seed=3)
    plain = dict.fromkeys(("light", "weather", "style", "beside", "occluder", "place_x"), 0.0)
    found.rows = found.rows.replace(**plain, place_y=0.4, size=0.65, colour=3.0)
    return found


# ---------------------------------------------------------------- labels


def test_a_feature_of_the_place_is_spurious_and_one_of_the_object_core(planted, drawn) -> None:
    ties = {"mug": Tie("forest", 1.0), "chair": Tie("grass", 0.4)}
    images = {name: torch.rand(4, 3, 64, 64) for name in ("mug", "cat")}
    truth = true_features(planted, ties, images, k=3, interventions=drawn)
    assert truth.classes == ("mug", "cat")
    assert truth.ties == (Tie("forest", 1.0), None)
    for c in range(2):
        labels = dict(zip(truth.features[c].tolist(), truth.labels[c], strict=True))
        assert labels == {0: "spurious", 1: "core", 2: "undecided"}
    assert truth.spurious == [1, 1]
    assert truth.groups == ["medium", "medium"]
    table = truth.to_frame()
    assert len(table) == 6
    assert table["strength"].tolist() == [1.0] * 3 + [0.0] * 3
    assert table["kind"].tolist() == ["inanimate"] * 3 + ["animate"] * 3
    row = table[(table["class"] == "mug") & (table["feature"] == 1)].iloc[0]
    assert row["difference"] == pytest.approx(row["object_rise"] - row["context_rise"])
    assert 0 < row["low"] < row["difference"] < row["high"]


def test_rises_are_measured_against_the_neutral_background_alone(planted, drawn) -> None:
    images = {"mug": torch.rand(4, 3, 64, 64)}
    truth = true_features(planted, {}, images, k=3, interventions=drawn)

    def greens(pictures: torch.Tensor) -> torch.Tensor:
        return (pictures[:, 1] - (pictures[:, 0] + pictures[:, 2]) / 2).mean((1, 2))

    at = truth.features[0].tolist().index(0)
    rows = drawn.rows.replace(**{"class": float(CLASSES.index("mug"))})
    places = {b: rows.replace(background=float(k)) for k, b in enumerate(PLACES)}
    nothing = greens(scenes.render_context(places["plain"]))
    shown = greens(scenes.render(places["plain"])) - nothing
    # of a class without a tie, the mean over all other places
    each = torch.stack([greens(scenes.render_context(places[b])) for b in CONTEXTS])
    around = each.mean(0) - nothing
    torch.testing.assert_close(truth.object_rise[0, at], shown, atol=0.005, rtol=0)
    torch.testing.assert_close(truth.context_rise[0, at], around, atol=0.005, rtol=0)


@pytest.mark.parametrize(
    ("objects", "contexts", "said"),
    [
        ([1.0, 1.2, 0.9, 1.1], [0.1, 0.3, 0.2, 0.0], "core"),
        ([0.1, 0.3, 0.2, 0.0], [1.0, 1.2, 0.9, 1.1], "spurious"),
        ([1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0], "undecided"),
        ([1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0], "undecided"),
        # nothing raises it, the context least of all
        ([-1.0, -1.1, -1.2, -1.0], [-3.0, -3.1, -3.2, -3.0], "undecided"),
        ([-3.0, -3.1, -3.2, -3.0], [-1.0, -1.1, -1.2, -1.0], "undecided"),
    ],
)
def test_labels_by_hand(objects, contexts, said) -> None:
    assert label(torch.tensor(objects), torch.tensor(contexts)) == said


def test_groups_count_the_spurious() -> None:
    high, low = torch.tensor([2.0, 2.1, 2.2]), torch.tensor([0.1, 0.2, 0.3])
    core, bad = (high, low), (low, high)
    rows = [[core, core], [core, bad], [bad, bad]]
    rises = [torch.stack([torch.stack([f[k] for f in row]) for row in rows]) for k in (0, 1)]
    numbers = torch.zeros(3, 2, dtype=torch.int64)
    truth = FeatureTruth(("cat", "dog", "car"), (None,) * 3, numbers, numbers.float(), *rises, 0)
    assert truth.spurious == [0, 1, 2]
    assert truth.groups == ["unbiased", "medium", "biased"]


def test_what_cannot_be_labelled(planted, drawn) -> None:
    images = torch.rand(2, 3, 64, 64)
    with pytest.raises(InputError, match="n of 2 scenes or more, got 1"):
        Interventions(1)
    with pytest.raises(InputError, match="one class at least"):
        true_features(planted, {}, {}, interventions=drawn)
    with pytest.raises(InputError, match="can draw no 'lion'"):
        true_features(planted, {}, {"lion": images}, interventions=drawn)
    with pytest.raises(InputError, match="k must be from 1 to 3"):
        true_features(planted, {}, {"cat": images}, k=5, interventions=drawn)
    with pytest.raises(InputError, match="says nothing of ties"):
        ties_of(planted)


# ---------------------------------------------------------------- pictures without their object


def test_a_context_is_the_picture_without_its_object() -> None:
    a = scenes.sample(24, 5).replace(style=0.0, weather=0.0, light=0.0)
    images, around = scenes.render(a), scenes.render_context(a)
    thing = scenes.masks(a)["object"] + scenes.masks(a)["state"]
    change = (images - around).abs().amax(1)
    assert (change[thing > 0.9] > 0.02).float().mean() > 0.9
    top = torch.zeros_like(thing, dtype=torch.bool)
    top[:, :32] = True  # no shadow falls so high
    assert change[top & (thing < 1e-4)].max() < 0.02
    assert (thing[:, :32] < 1e-4).float().mean() > 0.3
    other = a.replace(**{"class": (a["class"] + 5) % 12, "state": 1 - a["state"], "pose": 0.3})
    assert torch.equal(scenes.render_context(other), around)
    assert not torch.equal(scenes.render_context(a.replace(background=4.0)), around)
    assert scenes.render_context(a[:2], 32).shape == (2, 3, 32, 32)


# ---------------------------------------------------------------- ties


@pytest.mark.parametrize("ties", [FIRST, SECOND], ids=["first", "second"])
def test_two_classes_a_strength_one_of_them_animate_one_in_each_half(ties) -> None:
    strength = {name: ties[name].strength if name in ties else 0.0 for name in CLASSES}
    for half in (CLASSES[:6], CLASSES[6:]):
        assert sorted(strength[name] for name in half) == sorted(STRENGTHS)
    assert sorted(strength[name] for name in VALIDATION) == sorted(STRENGTHS)
    assert sum(name in CLASSES[:6] for name in VALIDATION) == 3
    # the strongest have their context nearly to themselves
    shared = Counter(tie.context for tie in ties.values())
    assert set(shared) == set(CONTEXTS)
    assert all(shared[tie.context] == 1 for tie in ties.values() if tie.strength > 0.9)
    assert max(shared.values()) == 2


def test_every_class_has_another_strength_in_the_second() -> None:
    strength = [[t[n].strength if n in t else 0.0 for n in CLASSES] for t in (FIRST, SECOND)]
    assert all(abs(a - b) > 0.15 for a, b in zip(*strength, strict=True))


def test_classes_stand_where_their_ties_say() -> None:
    a = tied(FIRST).sample(6000, 1)
    truth = scenes.groups(a)
    for name, tie in FIRST.items():
        there = truth["background"][truth["class"] == CLASSES.index(name)]
        share = (there == list(PLACES).index(tie.context)).float().mean().item()
        expected = tie.strength + (1 - tie.strength) * 0.06
        assert share == pytest.approx(expected, abs=0.07), name
    cats = truth["background"][truth["class"] == CLASSES.index("cat")]
    for index, share in enumerate(tied(FIRST).marginal("background").values()):  # as all together
        assert (cats == index).float().mean().item() == pytest.approx(share, abs=0.05)
    assert (truth["style"] == 0).float().mean().item() == pytest.approx(0.97, abs=0.01)
    assert set(scenes.groups(tied(FIRST, ["car", "dog"]).sample(50, 1))["class"].tolist()) == {0, 9}


def test_the_control_sees_as_much_of_every_place_but_learns_nothing_from_it() -> None:
    places, control = (d.marginal("background") for d in (tied(FIRST), untied(FIRST)))
    assert control == pytest.approx(places)
    assert sum(control.values()) == pytest.approx(1)
    (table,) = [t for t in untied(FIRST).tables if t.attribute == "background"]
    assert len(set(table.shares)) == 1


def test_impossible_ties_are_refused() -> None:
    with pytest.raises(InputError, match=r"tied to 'plain'.*grass"):
        Tie("plain", 0.5)
    with pytest.raises(InputError, match=r"got 1\.5"):
        Tie("grass", 1.5)
    with pytest.raises(InputError, match="no class 'lion'"):
        tied({"lion": Tie("grass", 0.5)})
    with pytest.raises(InputError, match="one class at least"):
        tied({}, [])


# ---------------------------------------------------------------- the classifiers


def test_robust_and_control_differ_from_the_first_in_nothing_else() -> None:
    first, robust = CLASSIFIERS["contexts-first"], CLASSIFIERS["contexts-first-robust"]
    control = CLASSIFIERS["contexts-null"]
    assert first.held == robust.held == FIRST
    assert ROBUST.epsilon == pytest.approx(4 / 255)
    assert robust.recipe == ROBUST
    assert control.recipe == first.recipe == PLAIN
    assert control.held == {}
    assert control.pictures() == untied(FIRST)
    assert first.pictures(["dog"]) == tied(FIRST, ["dog"])
    images = class_images(robust, n=3)
    assert list(images) == list(CLASSES)
    assert images["fish"].shape == (3, 3, 64, 64)


class Green(nn.Module):
    """A mug where a picture is green, else a dog."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        red, green, blue = images.unbind(1)
        logits = torch.zeros(len(images), len(CLASSES))
        logits[:, 0] = 0.03
        logits[:, CLASSES.index("mug")] = (green - (red + blue) / 2).mean((1, 2))
        return logits


def test_the_images_of_a_class_do_not_depend_on_the_others() -> None:
    first = context_classifier("contexts-first")
    alone = class_images(first, 2, kinds=["dog"])
    assert list(alone) == ["dog"]
    assert torch.equal(alone["dog"], class_images(first, 2, kinds=["bird", "dog"])["dog"])
    with pytest.raises(InputError, match="no class 'dgo'"):
        class_images(first, 2, kinds=["dgo"])
    with pytest.raises(InputError, match="No classifier of tied scenes 'contexts-third'"):
        context_classifier("contexts-third")


def test_who_looks_at_the_place_alone_is_caught() -> None:
    classifier = ContextClassifier("green", {"mug": Tie("forest", 1.0)})
    target = Target(Green().eval(), "multiclass", CLASSES)
    rows = taken(classifier, target, n=12, seed=1, batch=5)
    assert len(rows) == 12 * 12 * 3
    assert set(rows["where"]) == set(WHERE)
    share = rows.groupby(["class", "where"])["taken"].mean()
    assert share["mug", "in context"] > 0.8
    assert share["mug", "context alone"] > 0.8  # there is no mug
    assert share["mug", "elsewhere"] < 0.5
    assert share["boat"].max() == 0
    assert rows[rows["class"] == "mug"]["strength"].unique().tolist() == [1.0]
    assert rows[rows["class"] == "dog"]["strength"].unique().tolist() == [0.0]


def test_a_kept_classifier_knows_its_ties(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("VISIONDX_DATA", str(tmp_path))
    net = build_scene_classifier("resnet", 16, 1, 12).eval()
    target = Target(net, "multiclass", CLASSES)
    for name, ties in (("contexts-second", SECOND), ("contexts-null", {})):
        save_context_classifier(CLASSIFIERS[name], target, notebook="train/17", quality={})
        loaded = Target.load(name)
        assert ties_of(loaded) == ties
        assert loaded.config["steps"] == PLAIN.steps
        assert (tmp_path / "weights" / f"target-{name}.safetensors").stat().st_size < 400_000
