"""What CLIP sees is taken away, what it does not see is added, by the mildest edit that shows."""

from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from visiondx.core.errors import InputError
from visiondx.models.target import Target
from visiondx.zoom.diagnose import diagnose
from visiondx.zoom.directions import text_directions
from visiondx.zoom.estimate import edit_directions
from visiondx.zoom.multi import multi_search
from visiondx.zoom.relevance import relevance
from visiondx.zoom.search import SearchSettings, search
from visiondx.zoom.toggle import switching_edits, toggles
from zoom_standins import NEUTRAL, GridClassifier, GridEncoder, GridGenerator, along, cells, prompt

CHANNELS = (0, 3, 11)
HALF = 0.5**0.5


def seeing(generator):
    """Exact edits of three cells, with their Δt."""
    plain = along(generator, *CHANNELS)
    return replace(plain, delta_t=text_directions(GridEncoder(), plain.attributes, NEUTRAL))


def scores(generator, styles):
    """By hand: e is (1, 4 cells) at unit length, Δt that of (1, …, 1 at a cell) less that of 1."""
    read = 4 * cells(generator.synthesize(styles))
    e = F.normalize(torch.cat([torch.ones(len(read), 1), read], 1), dim=1)
    own = e[:, 0, None] * (HALF - 1) + e[:, [1 + c for c in CHANNELS]] * HALF
    return own / (2 - 2 * HALF) ** 0.5


def test_toggles_by_hand():
    generator = GridGenerator()
    styles = 4 * generator.sample_styles(9, 4)
    images = generator.synthesize(styles)
    sides = toggles(GridEncoder(), seeing(generator).delta_t, images)
    seen = scores(generator, styles) > 0
    assert seen.any()
    assert not seen.all()
    assert torch.equal(sides, torch.where(seen, -1.0, 1.0))


def test_a_search_starts_on_the_other_side():
    generator, directions = GridGenerator(), seeing(GridGenerator())
    styles = 4 * generator.sample_styles(9, 4)
    settings = SearchSettings(steps=1, eta=1e-9, starts=(2.0,), toggle=True, batch=4)
    target = Target(GridClassifier({0: 20.0}))
    found = search(generator, target, GridEncoder(), directions, styles, settings)
    seen = scores(generator, styles) > 0
    assert torch.allclose(found.trajectory_w[0], torch.where(seen, -2.0, 2.0))


def test_each_start_is_toggled_and_the_better_kept():
    """The target sees cell 0 alone and is nearly linear, so the longer of two edits wins."""
    generator = GridGenerator()
    styles = 4 * generator.sample_styles(9, 4)
    settings = SearchSettings(steps=1, eta=1e-9, starts=(1.0, 3.0), toggle=True)
    target = Target(GridClassifier({0: 2.0}))
    found = search(generator, target, GridEncoder(), seeing(generator), styles, settings)
    seen = scores(generator, styles)[:, 0] > 0
    assert torch.equal(found.w[:, 0], torch.where(seen, -3.0, 3.0))


def test_toggle_needs_an_encoder_and_single_attributes():
    generator, target = GridGenerator(), Target(GridClassifier({0: 20.0}))
    chosen, styles = SearchSettings(starts=(2.0,), toggle=True), generator.sample_styles(2, 0)
    with pytest.raises(InputError, match="starts above 0"):
        SearchSettings(toggle=True)
    with pytest.raises(InputError, match="pass an encoder"):
        search(generator, target, None, along(generator, 0), styles, chosen)
    with pytest.raises(InputError, match="toggle=False"):
        multi_search(generator, target, None, along(generator, 0), styles, chosen)


OPTIONS = [(1, 2.0), (1, 4.0), (2, 4.0)]  # channels, weight


@pytest.fixture(scope="module")
@torch.no_grad()
def scene():
    """M, prompts, images, and what each option gains of each attribute's own score (N, 3)."""
    generator, encoder = GridGenerator(), GridEncoder()
    M = relevance(generator, encoder, 4, cache=None)
    prompts, styles = [prompt(c) for c in CHANNELS], 4 * generator.sample_styles(24, 1)
    before = scores(generator, styles)
    sides = torch.where(before > 0, -1.0, 1.0)
    gains = torch.empty(len(CHANNELS), len(OPTIONS))
    for k, (channels, weight) in enumerate(OPTIONS):
        made = edit_directions(generator, encoder, prompts, NEUTRAL, channels=channels, M=M)
        for n, row in enumerate(made.delta_s):
            after = scores(generator, styles + weight * sides[:, n, None] * row)[:, n]
            gains[n, k] = (sides[:, n] * (after - before[:, n])).mean() / before[:, n].std()
    return generator, encoder, M, prompts, styles, gains


def test_an_edit_is_the_mildest_that_shows(scene):
    generator, encoder, M, prompts, styles, gains = scene
    assert (gains[:, 1] > gains[:, 0]).all()
    between = gains[:, 0].sort().values[:2].mean()  # enough for some at the first option
    for gain in (between, 1e3):
        found = switching_edits(
            generator, encoder, prompts, NEUTRAL, styles, OPTIONS, gain=float(gain), M=M
        )
        shows = gains >= gain
        option = torch.where(shows.any(1), shows.int().argmax(1), len(OPTIONS) - 1).tolist()
        assert len(set(option)) > 1 or gain == 1e3
        for n, (channels, weight) in enumerate(OPTIONS[k] for k in option):
            made = edit_directions(generator, encoder, prompts, NEUTRAL, channels=channels, M=M)
            # a weight of 2, that of the first option, is the chosen one
            assert torch.allclose(2.0 * found.delta_s[n], weight * made.delta_s[n], atol=1e-6)
            assert found.n_channels[n] == made.n_channels[n] == channels
            assert found.threshold[n] == made.threshold[n]
        assert found.attributes == tuple(prompts)


@pytest.mark.parametrize("options", [[], [(1, 0.0)], [(1, 2.0), (1, -2.0)], [9.0], [[20]]])
def test_options_are_pairs(scene, options):
    generator, encoder, M, prompts, styles, _ = scene
    with pytest.raises(InputError, match="options"):
        switching_edits(generator, encoder, prompts, NEUTRAL, styles, options, M=M)


def test_one_image_has_no_deviation(scene):
    generator, encoder, M, prompts, styles, _ = scene
    with pytest.raises(InputError, match="2 images"):
        switching_edits(generator, encoder, prompts, NEUTRAL, styles[:1], OPTIONS, M=M)


def test_a_diagnosis_takes_edits_that_are_there(scene):
    """Those of its attributes, in its order; the second here is twice as long."""
    generator, encoder, M, prompts, _, _ = scene
    run = partial(
        diagnose, Target(GridClassifier({0: 5.0, 3: 20.0})), prompts[1::-1], NEUTRAL,
        generator, encoder, images=4, channels=1, M=M,
    )  # fmt: skip
    made = edit_directions(generator, encoder, prompts, NEUTRAL, channels=1, M=M)
    longer = replace(made, delta_s=torch.tensor([[1.0], [2.0], [1.0]]) * made.delta_s)
    chosen = {"steps": 1, "eta": 1e-9, "toggle": True, "epsilon": 9.0}
    found = run(edits=longer, settings=SearchSettings(starts=(2.0,), **chosen))
    assert found.sensitivity.attributes == (prompts[1], prompts[0])
    for n, weight in enumerate((4.0, 2.0)):
        plain = run(settings=SearchSettings(starts=(weight,), **chosen))
        own = (part.sensitivity.change[:, n] for part in (found, plain))
        assert torch.allclose(*own, atol=1e-6)
    with pytest.raises(InputError, match="no direction"):
        run(edits=made.of(prompts[:1]), settings=SearchSettings(starts=(2.0,), **chosen))
    with pytest.raises(InputError, match="start from"):
        run(edits=replace(made, neutral="a wall"))
