"""A target from a file, diagnosed on pictures that a world draws and on others."""

from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from visiondx.zoom.search import SearchSettings
from visiondx_worlds.ground import Ground, Words
from visiondx_worlds.marking.zoom.own import case_of, own_metrics
from visiondx_worlds.marking.zoom.score import to_frame
from visiondx_worlds.marking.zoom.truth import Interventions
from zoom_standins import NEUTRAL, GridEncoder, GridGenerator, GridWorld, along, prompt

CELLS = {"bright": 0, "dark": 3, "loud": 9}
CODE = """
from visiondx.models.target import Target
from zoom_standins import GridClassifier

class Doubled(GridClassifier):
    def forward(self, images):
        return {factor} * super().forward(images)

def load():
    return Target(Doubled({{0: 5.0, 3: 20.0}}), labels={labels})
"""
SETTINGS = SearchSettings(steps=1, eta=1e-9, gamma=0.0, starts=(2.0,), epsilon=9.0)


def ground(world=None) -> Ground:
    words = Words(NEUTRAL, {name: prompt(cell) for name, cell in CELLS.items()}, {})
    return Ground(GridGenerator(), GridEncoder(), words, world)


@pytest.fixture
def case(tmp_path):
    """Diagnose the file's target, with this code and these labels."""

    def measure(on, factor=1, labels=("dim", "bright"), interventions=None):
        (tmp_path / "mine.py").write_text(CODE.format(factor=factor, labels=labels))
        return case_of(
            on, f"{tmp_path / 'mine.py'}:load", list(CELLS), interventions,
            edits=along(on.generator, 3, 0, 9), seeds=[5, 6], images=4, settings=SETTINGS,
            folder=tmp_path / "kept",
        )  # fmt: skip

    return measure


def test_without_a_world_there_is_what_was_measured_and_nothing_else(case):
    here = ground()
    found = case(here)
    assert (found.name, found.truth, found.planted) == ("mine.py:load", None, None)
    assert found.pooled.attributes == ("dark", "loud")  # its label, bright, is not asked about
    styles = torch.cat([here.generator.sample_styles(4, seed) for seed in (5, 6)])

    def p(moved):
        grid = 0.05 * moved
        return (5 * grid[:, 0] + 20 * grid[:, 3]).sigmoid()

    step = 2 * here.generator.style_std * torch.nn.functional.one_hot(torch.tensor(3), 16)
    assert found.pooled.change[:, 0] == pytest.approx(
        (p(styles + step) - p(styles)).abs(), abs=1e-5
    )
    assert found.pooled.change[:, 1].max() < 1e-6
    assert own_metrics(found).keys() == {
        *("apart", "h.dark", "h.loud", "flip_rate.dark", "flip_rate.loud"),
        *("seen.dark", "seen.loud"),
    }
    assert own_metrics(found)["h.dark"].value == pytest.approx(found.pooled.raw[0])
    assert list(to_frame([found])) == ["target", "planted", "first", "apart", "h", "images"]
    expected = pd.DataFrame({"measured": found.pooled.raw}, index=["dark", "loud"])
    pd.testing.assert_frame_equal(found.to_frame(), expected)


def test_a_world_knows_the_truth_of_ones_own_target_too(case):
    world = GridWorld()
    world.name, world.grammar = "grid", SimpleNamespace(neutral=NEUTRAL)
    world.binary = tuple(CELLS)
    world.switch = lambda scenes, name, value: scenes.index_fill(
        1, torch.tensor(CELLS[name]), float(value)
    )
    interventions = Interventions(world, 8, 0)
    found = case(ground(world), labels=("no", "yes"), interventions=interventions)
    assert found.truth.attributes == ("bright", "dark", "loud")  # nobody knows its label
    assert found.truth.rank[0] == "dark"
    assert own_metrics(found)["truth.dark"].value == pytest.approx(found.to_frame()["true"]["dark"])
    assert own_metrics(found)["truth.spearman"].value == 1
    assert not to_frame([found])["false alarm"].item()


def test_what_is_kept_is_another_targets_once_the_code_changes(case):
    here = ground()
    found = case(here)
    before = here.generator.synthesized
    assert torch.equal(case(here).pooled.change, found.pooled.change)
    drawn = here.generator.synthesized - before
    assert drawn == 4  # those that the target is known by
    before = here.generator.synthesized
    assert (case(here, factor=2.5).pooled.change != found.pooled.change).any()
    assert here.generator.synthesized - before > drawn
