from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from visiondx.core.errors import InputError
from visiondx.models.target import Target
from visiondx.show import plots, report
from visiondx.zoom.diagnose import diagnose
from visiondx.zoom.relevance import relevance_matrix
from visiondx.zoom.search import SearchSettings
from visiondx.zoom.sensitivity import Sensitivity
from visiondx.zoom.sweep import sweep
from visiondx.zoom.visibility import Visibility
from visiondx_worlds.marking.zoom.planted_examples import plot_examples
from visiondx_worlds.marking.zoom.score import Case, kept_sensitivity, run_case, score, to_frame
from visiondx_worlds.marking.zoom.truth import Interventions, label_prompts
from zoom_standins import (
    NEUTRAL,
    GridClassifier,
    GridEncoder,
    GridGenerator,
    GridWorld,
    along,
    prompt,
)

NAMES = ("a", "b", "c")


def of(a, b, c, source="search"):
    change = torch.tensor([[a, b, c]] * 4)
    return Sensitivity(NAMES, change, change > 0.5, source)


def test_planted_biases_and_controls_are_scored_by_hand():
    truth = of(0.9, 0.1, 0.01, "intervention")
    found = Case("x", (of(0.8, 0.1, 0.0), of(0.8, 0.2, 0.1)), truth, planted="a")
    missed = Case("y", (of(0.1, 0.8, 0.0), of(0.3, 0.2, 0.1)), truth, planted="a")
    metrics = score([found, missed])
    assert found.pooled.raw == pytest.approx([0.8, 0.15, 0.05])
    assert metrics["planted_rank.x"] == metrics["planted_rank.x.seeds_worst"] == 1
    assert metrics["planted_rank.y"] == metrics["planted_rank.y.seeds_worst"] == 2
    assert metrics["planted_rank.y.seeds_mean"].value == 1.5
    assert (metrics["planted_apart.x"], metrics["planted_apart.y"]) == (1, 0)
    assert (metrics["planted_rank"], metrics["planted_apart"]) == (2, 0)  # the worst
    assert metrics["truth.planted_rank"] == 1
    assert metrics["truth.spearman.x"].value == 1
    assert metrics["truth.spearman"].value == 0.5


def test_only_a_win_of_what_does_not_matter_is_a_false_alarm():
    truth = of(0.3, 0.1, 0.01, "intervention")
    wrong = Case("wrong", (of(0.0, 0.1, 0.4), of(0.4, 0.1, 0.0)), truth)
    right = Case("right", (of(0.4, 0.1, 0.0),), truth)
    open_ = Case("open", (of(0.2, 0.2, 0.2),), truth)
    assert [wrong.false_alarm(part) for part in wrong.measured] == [True, False]
    assert not right.false_alarm(right.pooled)
    assert right.false_alarm(right.pooled, matters=0.5)
    metrics = score([wrong, right, open_])
    assert metrics["controls.wins.right"] == 1
    assert metrics["controls.wins.open"] == 0
    assert metrics["controls.false_alarms"] == 0
    assert metrics["controls.false_alarm_rate"].value == pytest.approx(1 / 4)
    assert to_frame([wrong, right])["apart"].tolist() == [False, True]  # wrong's seeds disagree
    planted = Case("p", (of(0.0, 0.1, 0.4),), truth, planted="a")
    assert not planted.false_alarm(planted.pooled)


def test_a_label_that_was_asked_for_beats_what_would_else_alarm():
    truth = of(0.9, 0.01, 0.01, "intervention")
    case = Case("x", (of(0.8, 0.1, 0.3),), truth, label="a")
    assert case.unlabelled.attributes == ("b", "c")
    assert case.unlabelled.rank[0] == "c"
    metrics = score([case])
    assert (metrics["controls.false_alarms"], metrics["controls.unlabelled_alarms"]) == (0, 1)
    assert metrics["controls.unlabelled_alarms.x"] == 1


def test_a_finished_seed_is_not_measured_again(tmp_path):
    calls = []

    def measure():
        calls.append(1)
        return of(0.1, 0.2, 0.3).renamed(("$", "<b>", "é"))

    first, second = (kept_sensitivity(tmp_path, "key", measure) for _ in range(2))
    assert len(calls) == 1
    assert first.attributes == second.attributes == ("$", "<b>", "é")
    assert torch.equal(first.change, second.change)
    assert torch.equal(second.flipped, of(0.1, 0.2, 0.3).flipped)
    assert second.seen is None
    found = of(0.1, 0.2, 0.3)
    shown = replace(found, seen=Visibility(found.change > 0.15, found.change < 0.25))
    seen = [kept_sensitivity(tmp_path, "shown", lambda: shown).seen for _ in range(2)][1]
    assert [(each.value, each.n) for each in seen.share] == [(0, 4), (1, 4), (0, 0)]
    kept_sensitivity(tmp_path, "other", measure)
    kept_sensitivity(None, "key", measure)
    assert len(calls) == 3


@pytest.fixture
def embedded_case(monkeypatch):
    """A target of both cells, "embedded", whose label is bright; what run_case takes for it."""
    target = Target(GridClassifier({0: 5.0, 3: 20.0}))
    target.config = {"label": "bright", "planted": "dark", "world": "grid"}
    monkeypatch.setattr(Target, "load", lambda name: target)
    monkeypatch.setattr("visiondx_worlds.marking.zoom.score.fingerprint", lambda name: "weights")
    world = GridWorld()
    world.name, world.grammar = "grid", SimpleNamespace(neutral=NEUTRAL)
    generator = GridGenerator()
    settings = SearchSettings(steps=1, eta=1e-9, gamma=0.0, starts=(2.0,), epsilon=9.0)
    return target, world, generator, GridEncoder(), along(generator, 3, 0, 9), settings


def test_a_case_is_measured_with_the_edits_that_are_there(embedded_case, tmp_path, monkeypatch):
    target, world, generator, encoder, edits, settings = embedded_case

    def run(edits):
        return run_case(
            "grid@0", Interventions(world, 8, 0), world.binary, generator, encoder,
            edits=edits, seeds=[5], images=4, settings=settings, folder=tmp_path,
        )  # fmt: skip

    case = run(edits)
    assert case.pooled.attributes == ("dark",)  # its label is not asked about
    styles = generator.sample_styles(4, 5)
    moved = styles + 2 * edits.of([prompt(3)]).delta_s
    expected = (target(generator.synthesize(moved)) - target(generator.synthesize(styles))).abs()
    assert torch.allclose(case.pooled.change[:, 0], expected, atol=1e-6)
    before = generator.synthesized
    assert torch.equal(run(edits).pooled.change, case.pooled.change)
    assert generator.synthesized == before  # kept
    longer = run(replace(edits, delta_s=2 * edits.delta_s))
    assert (longer.pooled.change > case.pooled.change).all()  # and not mistaken for the other
    monkeypatch.setattr("visiondx_worlds.marking.zoom.score.METHODS", (99, 1, 1))
    before = generator.synthesized
    run(edits)
    assert generator.synthesized > before  # another method has other results


@torch.no_grad()
def test_examples_show_the_strongest_counterfactual_of_the_edits(embedded_case):
    target, world, generator, encoder, edits, settings = embedded_case
    row = {"classifier": "grid@0", "truly first": "dark", "found first": "bright", "margin": -0.1}
    figure = plot_examples(
        pd.DataFrame([row, row | {"truly first": "bright"}]), {"grid": world}, {"grid": generator},
        encoder, settings=settings, edits={"grid": edits}, images=4, seed=5,
    )  # fmt: skip
    styles = generator.sample_styles(4, 5)
    before, expected = target(generator.synthesize(styles)), []
    for word, cell, place in (("dark", 3, 0), ("bright", 0, 0), ("bright", 0, 0), ("bright", 0, 1)):
        after = target(generator.synthesize(styles + 2 * edits.of([prompt(cell)]).delta_s))
        best = (after - before).abs().argsort(descending=True)[place]
        expected += [f"{float(before[best]):.2f}", f"{word} {float(after[best]):.2f}"]
    assert [axis.get_title() for axis in figure.axes] == expected


class Reader:
    """Judges that read cells 0 and 3 of the grid."""

    binary = ("bright", "dark")

    def column(self, name):
        return self.binary.index(name)

    def scores(self, images):
        return images.mean(1)[:, 0][:, [0, 12]]


def test_sweep_counts_channels_and_what_they_change():
    generator, encoder = GridGenerator(), GridEncoder()
    M = relevance_matrix(generator, encoder, 4, cache=None)
    styles = generator.sample_styles(16, seed=0)
    table = sweep(
        generator, encoder, M, [prompt(0), prompt(3)], NEUTRAL, styles, (1, 2), 2.0, ("two",),
        Reader(), ["bright", "dark"],
    )  # fmt: skip
    assert table["channels"].tolist() == [1, 1, 2, 2]
    one, two = (table[table.channels == k].reset_index() for k in (1, 2))
    assert (one["gain"] > 0.5).all()
    assert (one["threshold"] > two["threshold"]).all()
    assert two["gain"].tolist() == pytest.approx(one["gain"].tolist(), rel=0.01)  # alone in a cell
    again = sweep(
        generator, encoder, None, [prompt(0), prompt(3)], NEUTRAL, styles, (1,), 2.0, ("two",),
        estimator="gradient",
    )  # fmt: skip
    assert again["gain"].tolist() == pytest.approx(one["gain"].tolist(), rel=0.01)
    step = 2.0 * generator.style_std[[0, 3]] * 0.05
    assert one["judged_gain"].tolist() == pytest.approx(step.tolist(), abs=1e-5)
    assert one["judged_others"].tolist() == pytest.approx([0, 0], abs=1e-6)


def test_label_prompts_are_those_of_the_targets_card():
    target = Target(GridClassifier({0: 4.0}))
    assert label_prompts(GridWorld(), target) is None
    target.config = {"label": "dark"}
    assert label_prompts(GridWorld(), target) == (prompt(3), NEUTRAL)
    target.config = {"label": "cat", "world": "animals"}
    with pytest.raises(InputError, match=r"'cat', which this world does not have.*'animals'"):
        label_prompts(GridWorld(), target)


def test_report_and_path_of_a_diagnosis(tmp_path):
    generator, encoder = GridGenerator(), GridEncoder()
    target = Target(GridClassifier({0: 5.0, 3: 20.0}))
    found = diagnose(
        target, [prompt(0), prompt(3)], NEUTRAL, generator, encoder, images=4, threshold=0.7,
        M=relevance_matrix(generator, encoder, 4, cache=None),
        settings=SearchSettings(steps=3, eta=3.0, epsilon=4.0, batch=32, starts=(0.0,)),
    )  # fmt: skip
    path = report.write_diagnosis(
        found, tmp_path, title="<script>", asked={"Target": "<b>"}, settings={"preset": "smoke"}
    )
    page = path.read_text("utf-8")
    assert "<script>" not in page
    assert "&lt;b&gt;" in page
    assert prompt(3) in page
    assert "No consistency prompts" in page
    panels = [("one", found.sensitivity, None), ("$2", found.sensitivity, found.sensitivity)]
    both = plots.histograms([*panels, ("three", found.sensitivity, None)])
    assert [axis.get_title() for axis in both.axes] == ["one", r"\$2", "three", ""]
    assert len(both.axes[1].patches) == len(found.sensitivity.attributes)
    with pytest.raises(InputError, match="one panel"):
        plots.histograms([])
    figure = found.result.plot_paths([(0, 1), (1, 0)], target, frames=5)
    assert len(figure.axes) == 10
    first = f"{float(found.result.p_original[0]):.2f}"
    assert figure.axes[0].get_title() == first
    last = f"{float(found.result.p[0, 1]):.2f}"
    assert figure.axes[4].get_title() == last


def test_an_unsupported_task_is_refused_before_the_model_is_looked_for():
    with pytest.raises(InputError, match="Task 'captions' is not supported: choose one of binary"):
        Target.load("no_such_file.py:load", task="captions")
