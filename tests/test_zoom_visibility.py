"""What an edit shows, and what may be said: planted edits that do nothing, or something else."""

from dataclasses import replace
from types import SimpleNamespace

import matplotlib.colors as mcolors
import numpy as np
import pytest
import torch

from visiondx.core.errors import InputError
from visiondx.core.stats import proportion
from visiondx.models.target import Target
from visiondx.show import plots
from visiondx.zoom.diagnose import diagnose
from visiondx.zoom.directions import text_directions
from visiondx.zoom.multi_result import MultiResult
from visiondx.zoom.search import SearchSettings
from visiondx.zoom.sensitivity import MOVES, Sensitivity
from visiondx.zoom.verdict import measure, verdict
from visiondx.zoom.visibility import Visibility, clip_visibility
from visiondx_worlds.marking.zoom.truth import with_truth
from zoom_standins import (
    NEUTRAL,
    GridClassifier,
    GridEncoder,
    GridGenerator,
    GridJudges,
    GridWorld,
    along,
    prompt,
)

PUSH = SearchSettings(steps=4, eta=3.0, epsilon=9.0, starts=(-6.0, 6.0), beta=0.0, gamma=0.0)
ALWAYS = torch.ones(40, 3, dtype=torch.bool)


def test_an_edit_shows_where_the_score_moves_a_deviation_to_a_side_that_it_reaches():
    before = torch.tensor([[-0.2, 0.3], [-0.1, 0.3], [0.1, 0.3], [0.2, -0.3]])  # σ: 0.183, 0.3
    w = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 0.0], [-1.0, 1.0]])
    after = torch.tensor([[0.0, 0.05], [0.1, 0.1], [-0.05, -0.9], [0.0, 0.01]])
    # first: moved 0.2 to 0, no side; 0.2; 0.15 is too little; 0.2 away from where it was
    # second: the wrong way; 0.2 is too little; no weight; 0.31 to where it is just seen
    expected = torch.tensor([[0, 0], [1, 0], [0, 0], [1, 1]]).bool()

    class Pixels:  # an image is its own embedding
        def embed_images(self, images):
            return images[:, :2, 0, 0]

    def picture(scores):
        return torch.nn.functional.pad(scores, (0, 1))[:, :, None, None]

    def edited(rows, n):
        scores = torch.full((len(rows), 2), 9.0)  # what it does to the others does not count
        scores[:, n] = after[rows, n]
        return picture(scores)

    result = SimpleNamespace(
        attributes=("a", "b"),
        styles=torch.zeros(4, 1),
        w=w,
        originals=lambda rows: picture(before[rows]),
        images=edited,
        directions=SimpleNamespace(delta_t=torch.eye(2)),
        generator=SimpleNamespace(style_mean=torch.zeros(1)),
    )
    for batch in (64, 3):
        found = clip_visibility(result, Pixels(), batch)
        assert torch.equal(found.seen, expected)
    assert [share.value for share in found.share] == [0.5, 0.25]
    assert found.share[0].n == 4


def test_attributes_that_move_together_are_seen_in_one_picture():
    """Cell 0 is lit, cell 3 is darkened from where it was lit, and cell 11 has no weight."""
    generator, encoder = GridGenerator(), GridEncoder()
    directions = along(generator, 0, 3, 11)
    delta_t = text_directions(encoder, directions.attributes, NEUTRAL)
    styles = torch.zeros(4, 16)
    styles[:, 3] = torch.tensor([6.0, 6.0, -2.0, 6.0])  # the third has nothing to take away
    w = torch.tensor([[9.0, -9.0, 0.0]]).repeat(4, 1)
    w[3] = torch.tensor([-9.0, 0.0, 0.0])  # nor has the last, in cell 0
    result = MultiResult.from_trajectories(
        directions=replace(directions, delta_t=delta_t),
        styles=styles,
        p_original=torch.zeros(4),
        trajectory_w=w[:, None],
        trajectory_p=torch.zeros(4, 1),
        settings={},
        consistency=None,
        seed=None,
        generator=generator,
    )
    for batch in (64, 3):
        found = clip_visibility(result, encoder, batch)
        assert found.seen.tolist() == [
            [True, True, False],
            [True, True, False],
            [True, False, False],
            [False, False, False],
        ]
    assert [share.value for share in found.share] == [0.75, 0.5, 0]


def test_unsure_readers_are_left_out():
    seen = torch.tensor([[1, 1], [0, 1], [1, 0]]).bool()
    sure = torch.tensor([[1, 0], [1, 0], [0, 0]]).bool()
    first, second = Visibility(seen, sure).share
    assert (first.value, first.n) == (0.5, 2)
    assert (second.value, second.low, second.high, second.n) == (0, 0, 1, 0)
    assert Visibility(seen, sure).of([1]).share == (second,)
    assert Visibility.pool([Visibility(seen, sure), None]) is None
    both = Visibility.pool([Visibility(seen, sure)] * 2)
    assert both.share[0].n == 4


def test_wilsons_interval_by_hand_and_how_often_it_covers():
    none = proportion(np.zeros(30, bool))
    assert (none.value, none.low, none.high) == (0, 0, pytest.approx(0.1135, abs=1e-4))
    assert proportion(np.zeros(40, bool)).low == 0
    assert proportion(np.ones(40, bool)).high == 1
    some = proportion(np.arange(10) < 4)
    assert (some.low, some.high) == (
        pytest.approx(0.1682, abs=1e-4),
        pytest.approx(0.6873, abs=1e-4),
    )
    rng = np.random.default_rng(0)
    for n, p in ((40, 0.1), (40, 0.5), (200, 0.03)):
        found = [proportion(rng.random(n) < p) for _ in range(1000)]
        covered = np.mean([each.low <= p <= each.high for each in found])
        assert 0.92 < covered < 0.985, (n, p, covered)
    with pytest.raises(InputError, match="bool"):
        proportion([0.2, 0.4])


def diagnosed(channels, weights, images=40, **change):
    """A diagnosis of a grid along these channels, named as the second of each pair says."""
    generator, encoder = GridGenerator(), GridEncoder()
    names = [prompt(name) for _, name in channels]
    edits = replace(
        along(generator, *(channel for channel, _ in channels)),
        attributes=tuple(names),
        delta_t=text_directions(encoder, names, NEUTRAL),
    )
    target = Target(GridClassifier(weights), labels=("dull", "bright"))
    target.config = {}
    found = diagnose(
        target, names, NEUTRAL, generator, encoder, images=images, settings=PUSH, edits=edits
    )
    return found if not change else with_truth(found, GridWorld(), target, **change)


def test_an_edit_that_does_nothing_is_said_to_be_not_shown():
    found = diagnosed([(0, 0), (3, 3), (15, 15)], {0: 4.0, 3: 40.0, 15: 40.0})
    assert found.sensitivity.winner == prompt(3)
    said = found.verdict
    assert said.startswith(
        f"The model hangs most on one attribute: “{prompt(3)}” moved the model's"
    )
    assert "probability of “bright”" in said
    hidden = f"Not shown: “{prompt(15)}” (CLIP sees it in 0 % of the pairs); "
    assert said.endswith(hidden + "nothing can be said about it.")
    frame = found.sensitivity.to_frame().set_index("attribute")
    assert frame.loc[prompt(15), "seen"] == 0
    assert frame.loc[prompt(15), "seen_high"] == pytest.approx(0.088, abs=1e-3)
    assert frame.loc[prompt(3), "seen_low"] > 0.2
    metrics = found.metrics()
    assert metrics[f"seen.{prompt(15)}"].value == 0
    assert metrics[f"seen.{prompt(3)}"].value == frame.loc[prompt(3), "seen"]


def test_an_edit_that_moves_the_model_by_something_else_wins_nothing():
    found = diagnosed([(0, 0), (3, 7)], {0: 4.0, 3: 40.0})  # the words say cell 7, the edit cell 3
    measured = found.sensitivity
    assert measured.rank[0] == prompt(7)
    assert measured.apart
    assert measured.winner is None
    assert found.verdict.startswith(f"No attribute is named: “{prompt(7)}” moved")
    assert "may be something else that came along" in found.verdict
    side = f"What moved the model under “{prompt(7)}” is something else that the edit changes."
    assert side in found.verdict
    second = diagnosed([(3, 3), (0, 7)], {0: 14.0, 3: 40.0})
    assert second.sensitivity.winner == prompt(3)
    assert side in second.verdict


def test_judges_that_do_not_see_an_edit_are_heard_too():
    class Blind(GridJudges):
        def read(self, images):
            return torch.zeros(len(images), 2).bool(), torch.zeros(len(images), 2).bool()

    known = {prompt(0): "bright", prompt(3): "dark"}
    channels, weights = [(0, 0), (3, 3), (5, 5)], {0: 4.0, 3: 40.0}
    found = diagnosed(channels, weights, known=known, judges=GridJudges())
    judged = found.sensitivity.judged
    assert found.sensitivity.winner == prompt(3)
    assert judged.share[1].value > 0.2
    assert judged.share[2].n == 0  # of words that no judge reads
    assert f"judged.{prompt(3)}" in found.metrics()
    assert f"judged.{prompt(5)}" not in found.metrics()
    blind = diagnosed(channels, weights, known=known, judges=Blind())
    assert blind.sensitivity.winner is None
    assert blind.sensitivity.shown == (False, False, found.sensitivity.shown[2])
    assert f"“{prompt(3)}” (the judges see it in 0 %" in blind.verdict


def test_an_untrained_network_has_no_winner():
    found = diagnosed([(0, 0), (3, 3)], {0: 0.05, 3: 0.2})
    assert found.sensitivity.apart  # the paired rule alone would name one
    assert found.sensitivity.winner is None
    assert found.verdict.startswith("None of these attributes moved")


def of(columns, flips=True, shown=(True, True, True), unknown=()):
    """A sensitivity of 40 images whose changes are (mean, deviation) each."""
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((40, len(columns)))
    noise = (noise - noise.mean(0)) / noise.std(0)
    change = torch.tensor([m for m, _ in columns]) + torch.tensor(noise) * torch.tensor(
        [s for _, s in columns]
    )
    n = len(columns)
    seen = Visibility(torch.tensor(shown[:n]).expand(40, n), ALWAYS[:, :n])
    flipped = torch.full((40, n), flips)
    names = ("a hat", "bangs", "a beard")[:n]
    return Sensitivity(names, change, flipped, "search", 1, seen, None, unknown)


def test_what_flips_nothing_is_no_winner():
    assert of([(0.4, 0.1), (0.1, 0.1)]).winner == "a hat"
    idle = of([(0.4, 0.1), (0.1, 0.1)], flips=False)
    assert idle.winner is None
    assert verdict(idle).startswith("No attribute is named: “a hat” moved")
    assert "it changed no answer" in verdict(idle)


def test_too_little_and_too_unsure_are_not_named():
    unsure = of([(0.03, 0.09), (0.001, 0.001)])
    assert unsure.h[0].low < MOVES < unsure.h[0].high
    assert unsure.winner is None
    assert "too little or too unsure" in verdict(unsure)


def test_more_images_are_advised_only_where_they_would_tell_and_how_many():
    near = of([(0.40, 0.2), (0.34, 0.2)])
    change = near.change.numpy()
    gap = change[:, 0] - change[:, 1]
    needed = np.ceil((1.96 * gap.std() / gap.mean()) ** 2)
    assert near.needed.tolist() == [np.inf, needed]
    assert 40 < needed < 200
    said = verdict(near)
    assert said.startswith("No single attribute stands out: “a hat” moved")
    assert (
        f"About {-int(-needed // 10) * 10 if needed >= 100 else int(needed)} images would tell."
        in said
    )
    assert "differs by less than" in verdict(of([(0.40, 0.2), (0.39, 0.2)]))
    assert "more than 1,000 images" in verdict(of([(0.40, 0.5), (0.37, 0.5)]))
    assert "images would tell" not in verdict(of([(0.4, 0.1), (0.1, 0.1)]))


def test_words_that_the_encoder_does_not_know_win_nothing():
    found = of([(0.4, 0.1), (0.1, 0.1)], unknown=(("qwxzk",), ()))
    assert found.shown == (False, True)
    assert found.winner is None
    said = verdict(found)
    assert said.startswith("No attribute is named: “a hat” moved")
    assert "The encoder does not know “qwxzk”: nothing can be said" in said
    assert "Not shown" not in said
    assert found.of(["bangs"]).unknown == ((),)


def test_hardly_shown_is_not_not_shown():
    found = of([(0.4, 0.1), (0.01, 0.001), (0.01, 0.001)])
    rows = torch.zeros(40, 3, dtype=torch.bool)
    rows[:, 0], rows[:6, 1], rows[:1, 2] = True, True, True
    said = verdict(replace(found, seen=Visibility(rows, ALWAYS)))
    assert "Hardly shown: “bangs” (CLIP sees it in 15 % of the pairs)" in said
    assert "Not shown: “a beard” (CLIP sees it in 2 % of the pairs)" in said
    assert "something else that the edit changes" in said.splitlines()[2]
    assert "What moved the model" not in said


def test_a_single_attribute_is_compared_with_nothing():
    assert "nothing compares" in verdict(of([(0.4, 0.1)]))


def test_measures_name_what_moves():
    assert measure("binary", ("female", "male")) == "the model's probability of “male”"
    assert "points" in measure("keypoints", ("nose",))
    found = of([(0.4, 0.1), (0.1, 0.1)])
    assert "“a hat” moved the model's points by 0.40" in verdict(found, "the model's points")


def test_the_histogram_shows_who_sees_an_edit_and_reddens_the_winner_alone():
    found = of([(0.4, 0.1), (0.1, 0.02), (0.05, 0.01)], shown=(True, True, False))
    (axis,) = found.plot().axes
    red, full, hollow = axis.patches
    assert mcolors.to_hex(red.get_facecolor()) == plots.FIRST
    assert mcolors.to_hex(full.get_facecolor()) == plots.REST
    assert hollow.get_facecolor()[3] == 0
    assert [text.get_text() for text in axis.texts] == ["CLIP sees", "100 %", "100 %", "0 %"]
    readers = replace(found, judged=Visibility(ALWAYS, torch.eye(3)[:1].expand(40, 3).bool()))
    (axis,) = readers.plot().axes
    assert [text.get_text() for text in axis.texts][4:] == ["judges", "100 %", "–", "–"]
    assert mcolors.to_hex(
        of([(0.4, 0.1), (0.39, 0.1)]).plot().axes[0].patches[0].get_facecolor()
    ) == (plots.REST)


def test_a_diagnosis_asks_its_encoder_which_words_it_knows():
    class Reader(GridEncoder):
        def unknown_words(self, texts):
            return [["cell"] if text.endswith("3") else [] for text in texts]

    generator = GridGenerator()
    names = [prompt(0), prompt(3)]
    edits = replace(along(generator, 0, 3), delta_t=text_directions(Reader(), names, NEUTRAL))
    target = Target(GridClassifier({0: 4.0, 3: 40.0}))
    found = diagnose(
        target, names, NEUTRAL, generator, Reader(), images=40, settings=PUSH, edits=edits
    )
    assert found.sensitivity.unknown == ((), ("cell",))
    assert found.sensitivity.seen.shown[1]  # the edit shows, but what its words mean nobody knows
    assert found.sensitivity.winner is None
    assert "CLIP does not know its words" in found.verdict
    assert "The encoder does not know “cell”" in found.verdict
