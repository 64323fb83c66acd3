"""Core and spurious features: a planted one of each is told, and an unknown word is said so."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from painter_standins import lcm_painter
from toy_painter import SIZE, Colours, RedPixels, ToyPainter
from visiondx.core.errors import InputError
from visiondx.diffexplainer import kept as keeping
from visiondx.diffexplainer import spurious
from visiondx.diffexplainer.explain import Found, Settings
from visiondx.diffexplainer.prompts import SoftPrompt
from visiondx.diffexplainer.spurious import discover, object_shares, probabilities, takes
from visiondx.diffexplainer.ways import Free
from visiondx.models.segmenter import Segmenter
from visiondx.models.target import Target
from visiondx.search.descent import Descent

SETTINGS = Settings(starts=2, noises=2, held=4, descent=Descent(60, 0.3, "adam"))


@pytest.fixture(scope="module")
def target() -> Target:
    return Target(Colours().eval(), "multiclass", ["nothing", "thing"])


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    found = torch.zeros(8, 3, SIZE, SIZE)
    found[:, 1] = 0.9  # a green ground with a red thing
    found[:, 0, 4:12, 4:12], found[:, 1, 4:12, 4:12] = 0.8, 0
    return found


def test_a_core_and_a_spurious_feature_are_told_apart(target, images) -> None:
    torch.manual_seed(0)
    segmenter = Segmenter(RedPixels(), ["thing"])
    found = discover(
        ToyPainter(), target, segmenter, {"thing": images}, k=2, settings=SETTINGS, pictures=5
    )
    order = found.features[0].tolist()
    assert sorted(order) == [0, 1]  # redness and greenness carry the class
    assert order[0] == 1  # there is more ground
    r = dict(zip(order, found.mean_r[0].tolist(), strict=True))
    assert r[0] > 0.1
    verdicts = dict(zip(order, found.verdicts[0], strict=True))
    assert verdicts[0] == "core"
    table = found.to_frame().set_index("feature")
    assert table.loc[0, "r"] == pytest.approx(r[0])
    assert table.loc[0, "low"] <= r[0] <= table.loc[0, "high"]
    assert found.images.shape == (1, 2, 5, 3, SIZE, SIZE)
    # the feature of the ground is shown without the thing
    assert r[1] < 0.5 * r[0]
    assert found.at(r[1] + 1e-6).verdicts[0][order.index(1)] == "spurious"
    assert found.at(r[1] - 1e-6).verdicts[0][order.index(1)] == "core"
    assert "of the 2 features" in found.sentences()[0]


def test_a_word_that_the_segmenter_has_never_seen_is_no_verdict(target, images) -> None:
    segmenter = Segmenter(RedPixels(), ["other"])
    quick = Settings(starts=1, noises=1, held=1, descent=Descent(1, 0.1, "adam"))
    settings = {"k": 1, "settings": quick, "pictures": 2}
    found = discover(ToyPainter(), target, segmenter, {"thing": images}, **settings)
    assert found.verdicts == [["unknown"]]
    assert np.isnan(found.to_frame()["r"]).all()
    assert "never seen the word 'thing'" in found.sentences()[0]
    told = discover(ToyPainter(), target, segmenter, {1: images}, words={1: "other"}, **settings)
    assert told.words == ("other",)
    assert told.classes == ("thing",)
    assert torch.isfinite(told.r).all()


def test_shares_by_hand() -> None:
    images = torch.zeros(2, 1, 2, 3, 4, 4)
    images[0, 0, 0, 0, :2] = 1  # half of the first picture
    found = object_shares(Segmenter(RedPixels(), ["a"]), images, ["a", None])
    assert found[0].tolist() == [[0.5, 0.0]]
    assert found[1].isnan().all()


def test_what_cannot_be_asked(target, images) -> None:
    segmenter = Segmenter(RedPixels(), ["thing"])
    with pytest.raises(InputError, match="one class at least"):
        discover(ToyPainter(), target, segmenter, {})
    with pytest.raises(InputError, match="no class 'thin'"):
        discover(ToyPainter(), target, segmenter, {"thin": images})
    with pytest.raises(InputError, match="k must be from 1 to 3"):
        discover(ToyPainter(), target, segmenter, {"thing": images}, k=4)
    for settings, message in (
        ({"pictures": 0}, "pictures is 0"),
        ({"delta": float("nan")}, "delta is nan"),
        ({"words": {"Thing": "red"}}, "no class 'Thing'"),
        ({"words": {"thing": " "}}, "needs words"),
    ):
        with pytest.raises(InputError, match=message):
            discover(ToyPainter(), target, segmenter, {"thing": images}, **settings)


def test_what_the_target_does_not_take_for_the_class_is_no_verdict(
    target, images, tmp_path
) -> None:
    segmenter = Segmenter(RedPixels(), ["thing"])
    quick = Settings(starts=1, noises=1, held=1, descent=Descent(1, 0.1, "adam"))
    found = discover(
        ToyPainter(), target, segmenter, {"thing": images}, k=1, settings=quick, pictures=2
    )
    missed = replace(found, taken=torch.zeros(1, 1, 2, dtype=torch.bool))
    assert missed.verdicts == [["unknown"]]
    assert "of 1 the target does not take" in missed.sentences()[0]
    reached = replace(found, taken=~missed.taken, r=torch.ones(1, 1, 2))
    assert reached.verdicts == [["core"]]
    reached.save(tmp_path)
    assert "core" in (tmp_path / "features.csv").read_text()
    assert (tmp_path / "features.png").stat().st_size > 1000


def test_a_killed_run_goes_on_to_the_same_features(target, tmp_path, monkeypatch) -> None:
    painter, segmenter = lcm_painter(tmp_path), Segmenter(RedPixels(), ["thing", "nothing"])
    shown = {"thing": torch.rand(3, 3, 16, 16), "nothing": torch.rand(3, 3, 16, 16)}
    few = Settings(starts=2, noises=1, held=2, batch=4, descent=Descent(3, 0.3, "adam"))
    how = {"k": 2, "settings": few, "pictures": 3, "seed": 4}
    how["way"] = Free(["dog", "dog", "cat", "cat"])  # a class's features stand together
    whole = discover(painter, target, segmenter, shown, **how)
    monkeypatch.setattr(keeping, "SAVE_SECONDS", 0.0)
    note, seen = keeping.Kept.note, []

    def dies(self, *at):
        note(self, *at)
        seen.append(at)
        if len(seen) == 6:  # in the second part of two
            raise KeyboardInterrupt

    kept = tmp_path / "kept"
    with monkeypatch.context() as patch:
        patch.setattr(keeping.Kept, "note", dies)
        with pytest.raises(KeyboardInterrupt):
            discover(painter, target, segmenter, shown, **how, kept=kept)
    resumed = discover(painter, target, segmenter, shown, **how, kept=kept)
    for name in ("features", "carries", "images", "taken", "r"):
        assert torch.equal(getattr(resumed, name), getattr(whole, name)), name
    assert resumed.to_frame().equals(whole.to_frame())
    assert whole.found.path.shape == (4, 4, 2)
    other = {**how, "way": Free(["dog"] * 4)}
    assert not torch.equal(
        discover(painter, target, segmenter, shown, **other, kept=kept).images, whole.images
    )


def test_taken_is_the_likeliest_class() -> None:
    class Thirds(torch.nn.Module):
        def forward(self, images):
            return torch.tensor([0.4, 0.3, 0.3]).log().expand(len(images), 3)

    three = Target(Thirds().eval(), "multiclass", ["a", "b", "c"])
    images = torch.rand(2, 2, 3, 8, 8)
    assert takes(three, images, 0).all()
    assert not takes(three, images, 1).any()
    assert probabilities(three, images).shape == (2, 2, 3)


def test_of_the_starts_one_is_chosen_that_the_target_takes(target) -> None:
    painter = ToyPainter()
    dark, light = torch.tensor([-9.0, -9.0]), torch.tensor([9.0, 9.0])
    soft = torch.stack([dark, light, dark, light, dark, dark]).view(3, 2, 1, 2)
    losses = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    prompt = SoftPrompt.parse(painter, "{t}")
    found = Found(("a", "b", "c"), prompt, soft, None, losses, losses[None], SETTINGS, 0)
    chosen = spurious._taken_first(painter, target, found, torch.tensor([1, 0, 1]))
    assert chosen.best.tolist() == [1, 0, 1]  # light is a thing, dark is none; none is taken
    assert torch.equal(chosen.tokens[0, 0], light)
    assert chosen.only(0).best.tolist() == [0, 0, 0]
    assert spurious._taken_first(painter, target, found.only(1), torch.ones(3)).choice is None
