import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from visiondx.core.errors import InputError
from visiondx.models.target import Target
from visiondx.show.report import write_diagnosis
from visiondx.zoom.diagnose import diagnose
from visiondx.zoom.overview import overview
from visiondx.zoom.relevance import relevance_matrix
from visiondx.zoom.search import SearchSettings
from visiondx_worlds.marking.zoom.edits import (
    EditReport,
    Edits,
    _choose,
    evaluate,
    seen,
    success_change,
    tune,
)
from visiondx_worlds.marking.zoom.truth import with_truth
from zoom_standins import (
    NEUTRAL,
    GridClassifier,
    GridEncoder,
    GridGenerator,
    GridWorld,
    cells,
    prompt,
)

PROMPTS = [prompt(0), prompt(3), prompt(11)]
FAST = SearchSettings(steps=6, eta=3.0, epsilon=4.0, alpha=1.0, beta=0.1, gamma=0.1, batch=32)


def pieces(weights=None):
    generator, encoder = GridGenerator(), GridEncoder()
    M = relevance_matrix(generator, encoder, 4, cache=None)
    return Target(GridClassifier(weights or {0: 5.0, 3: 20.0})), generator, encoder, M


def run(prompts=PROMPTS, weights=None, world=None, known=None, **settings):
    target, generator, encoder, M = pieces(weights)
    target.config = {"planted": "dark"}
    settings = {"M": M, "images": 8, "settings": FAST, "threshold": 0.7, **settings}
    found = diagnose(target, prompts, NEUTRAL, generator, encoder, **settings)
    return with_truth(found, world, target, known) if world else found


def test_planted_attribute_is_found_and_scored(tmp_path):
    found = run(world=GridWorld(), known={prompt(11): "bright"}, consistency=(prompt(1), NEUTRAL))
    assert found.sensitivity.rank[0] == found.planted == prompt(3)
    metrics = found.metrics()
    assert metrics["planted_rank"] == 1
    assert metrics["planted_apart"] == 1
    assert metrics["truth.planted_rank"] == 1
    assert metrics[f"h.{prompt(11)}"].value == pytest.approx(0)
    assert metrics["truth.spearman"].n == 3
    frame = found.truth_frame()
    assert frame["attribute"].iloc[0] == prompt(3)
    assert {"h_true", "h_measured", "true_low", "true_high"} <= set(frame.columns)
    found.save(tmp_path)
    assert (tmp_path / "sensitivity.csv").is_file()
    assert (tmp_path / "verdict.txt").read_text("utf-8") == found.verdict + "\n"


def test_counterfactuals_are_ready_for_the_report():
    found = run()
    strips = found.counterfactuals(pairs=2)
    assert [strip["attribute"] for strip in strips] == list(found.sensitivity.rank)
    pair, drawn = strips[0]["pairs"]
    assert (pair["random"], drawn["random"]) == (False, True)
    first = found.result.attributes.index(strips[0]["attribute"])
    image = found.result.strongest(first, 1)[0]
    assert pair["added"] == bool(found.result.w[image, first] > 0)
    assert pair["original"].shape == pair["counterfactual"].shape == (16, 16, 3)
    assert pair["original"].dtype == np.uint8
    assert abs(pair["p_original"] - pair["p_counterfactual"]) > 0.2


def test_without_a_matrix_it_goes_along_gradients_and_the_report_says_so(tmp_path):
    for more, estimator in (
        ({"M": None, "threshold": None, "channels": 2}, "gradient"),
        ({}, "relevance"),
    ):
        found = run(images=4, **more)
        assert found.directions.estimator == estimator
        page = write_diagnosis(found, tmp_path, title="A grid").read_text("utf-8")
        assert re.search(rf"directions estimated by</\w+>\s*<\w+>{estimator}<", page)


def test_an_own_target_has_no_truth():
    found = run()
    assert found.truth is None
    assert found.truth_frame() is None
    assert set(found.metrics()) == {f"{key}.{name}" for key in ("h", "seen") for name in PROMPTS}


def test_a_world_without_the_words_has_no_truth():
    assert run(prompts=[prompt(5), prompt(11)], world=GridWorld()).truth is None


def test_no_threshold_takes_twenty_channels_or_says_how_many_there_are():
    with pytest.raises(InputError, match="channels must be from 1 to"):
        run(threshold=None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompts": []}, "list of prompts"),
        ({"prompts": ["  "]}, "needs words"),
        ({"images": 1}, "at least 2 images"),
        ({"images": 2.5}, "at least 2 images"),
        ({"seed": -1}, "seed must be a whole number from 0"),
        ({"seed": 2**63}, "seed must be a whole number from 0"),
        ({"consistency": ("one",)}, "two prompts"),
        ({"consistency": ("one", "One ")}, "two prompts of consistency are named twice"),
        ({"weights": {0: float("nan")}}, "NaN"),
        ({"weights": {0: 0.0}}, "no gradient"),
        ({"threshold": 2.0}, "largest λ that works"),
    ],
)
def test_bad_input_is_found_before_the_search(change, words, monkeypatch):
    monkeypatch.setattr("visiondx.zoom.diagnose.search", lambda *_: pytest.fail("searched"))
    with pytest.raises(InputError, match=words):
        run(**change)


class GridJudges:
    """Attribute c is there if cell c is brighter than a half; unsure within a margin."""

    binary = tuple(f"cell {c}" for c in range(16))
    margin = 0.002

    def scores(self, images):
        return torch.sigmoid(40 * cells(images))

    def read(self, images):
        return cells(images) > 0, cells(images).abs() < self.margin


def test_edits_are_tuned_by_clip_and_judged_by_others(tmp_path):
    _, generator, encoder, M = pieces()
    styles = generator.sample_styles(32, seed=0)
    weights = (0.5, 2.0, 6.0)
    edits = tune(generator, encoder, M, PROMPTS, NEUTRAL, styles, (1,), weights, wanted=0.9)
    assert edits.directions.n_channels == (1, 1, 1)
    assert (edits.w == 6.0).all()
    assert (edits.reached >= 0.9).all()

    names = ["cell 0", "cell 3", "cell 11"]
    report = evaluate(edits, generator, GridJudges(), names, seeds=(100, 101), images=16)
    assert report.success_min.value > 0.9
    assert report.success_mean.n == 32
    assert report.diagonal_ratio.value > 1e3  # the grid is perfectly disentangled
    table = report.to_frame().set_index("attribute")
    assert table.loc["cell 3", "n"] <= 32
    assert table.loc["cell 3", "change"] == pytest.approx(report.matrix.iloc[1, 1])
    report.save(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"edits.csv", "edit_matrix.csv"}
    assert edits.to_frame()["w"].tolist() == [6.0] * 3
    with pytest.raises(InputError, match="nose"):
        evaluate(edits, generator, GridJudges(), ["cell 0", "cell 3", "nose"])


@torch.no_grad()
def test_clip_reads_tuned_edits_on_fresh_images():
    _, generator, encoder, M = pieces()
    tuning = generator.sample_styles(32, seed=0)
    edits = tune(generator, encoder, M, PROMPTS, NEUTRAL, tuning, (1,), (6.0,))
    edits = replace(edits, w=torch.tensor([5.0, 0.0, -6.0]))
    found = seen(edits, generator, encoder, seeds=(100, 101), images=16)
    styles = torch.cat([generator.sample_styles(16, each) for each in (100, 101)])

    def c(n, w):
        moved = styles + w * edits.directions.delta_s[n]
        return encoder.embed_images(generator.synthesize(moved)) @ edits.directions.delta_t[n]

    added = (c(0, 5.0) - c(0, 0) >= c(0, 0).std()) & (c(0, 5.0) > 0)
    taken = (c(2, 0) - c(2, -6.0) >= c(2, 0).std()) & (c(2, 0) > 0)
    assert torch.equal(found.seen, torch.stack([added, torch.zeros(32).bool(), taken], 1))
    assert 0 < added.sum() < 32


def test_an_edit_that_does_nothing_has_no_success():
    _, generator, encoder, M = pieces()
    styles = generator.sample_styles(8, seed=0)
    edits = tune(generator, encoder, M, PROMPTS, NEUTRAL, styles, (1,), (1.0,))
    idle = Edits(edits.directions, torch.zeros(3), edits.reached, edits.others)
    names = ["cell 0", "cell 3", "cell 11"]
    report = evaluate(idle, generator, GridJudges(), names, seeds=(100,), images=16)
    assert report.success_mean.value == 0
    assert report.success_min.value == 0


def test_edits_along_gradients_are_tuned_and_compared_with_those_along_m():
    _, generator, encoder, M = pieces()
    styles = generator.sample_styles(32, seed=0)
    arguments = (PROMPTS, NEUTRAL, styles, (1,), (0.5, 2.0, 6.0))
    names = ["cell 0", "cell 3", "cell 11"]

    def judged(edits):
        return evaluate(edits, generator, GridJudges(), names, seeds=(100, 101), images=16)

    along_m = tune(generator, encoder, M, *arguments)
    along_gradients = tune(generator, encoder, None, *arguments, estimator="gradient")
    assert torch.allclose(along_gradients.directions.delta_s, along_m.directions.delta_s, atol=1e-5)
    alike = success_change(judged(along_gradients), judged(along_m))
    assert (alike.value, alike.low, alike.high, alike.n) == (0, 0, 0, 32)
    idle = judged(Edits(along_m.directions, torch.zeros(3), along_m.reached, along_m.others))
    change = success_change(idle, judged(along_m))
    assert change.value == pytest.approx(-judged(along_m).success_mean.value)
    assert change.high < -0.8
    with pytest.raises(InputError, match="same attributes, seeds and images"):
        success_change(idle, evaluate(along_m, generator, GridJudges(), names, (100,), 16))


def test_choice_prefers_what_works_then_what_leaves_others_alone_else_the_most_reached():
    reached = torch.tensor([[0.2, 0.95, 0.99], [0.2, 0.5, 0.4], [0.5, 0.5, 0.4]])
    others = torch.tensor([[0.0, 0.7, 0.3], [0.0, 0.9, 0.1], [0.1, 0.2, 0.0]])
    near = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.2, 0.3], [0.1, 0.2, 0.3]])
    assert _choose(reached, near, others, 0.9).tolist() == [2, 1, 1]


def test_edit_report_by_hand():
    nan = np.nan
    gained = np.array([[1, nan], [0, 1], [1, 1], [nan, nan]])
    change = np.zeros((4, 2, 2))
    change[:, 0, 0], change[:, 0, 1] = (0.8, 0.2, 0.5, 9), (-0.1, 0.1, 0.1, 9)
    change[:, 1, 1], change[:, 1, 0] = (9, 0.6, 0.9, 9), (9, -0.2, 0.4, 9)
    report = EditReport(("a", "b"), gained, change, np.zeros((4, 2)), np.array([1, 1, 2, 2]))
    assert report.success["a"].value == pytest.approx(2 / 3)
    assert report.success["b"].value == 1
    assert report.success["a"].n == 3
    assert report.success_mean.value == pytest.approx(5 / 6)
    assert report.success_min.value == pytest.approx(2 / 3)
    assert np.allclose(report.matrix, [[0.5, 0.1], [0.3, 0.75]])
    # images without the attribute: (0.8 + 0.2 + 0.5 + 0.6 + 0.9) / (0.1 * 3 + 0.2 + 0.4)
    assert report.diagonal_ratio.value == pytest.approx(3.0 / 0.9)
    assert report.to_frame()["worst_seed"].tolist() == [0.5, 1.0]


def test_one_picture_holds_histogram_and_the_strongest_attributes():
    figure = overview(run(), attributes=2, pairs=2)
    left, right = (axis.images[0].get_array() for axis in figure.axes)
    assert left.shape[1] > 100
    assert right.shape[1] > right.shape[0]  # two rows of two pairs
