"""What CLIP sees is taken away, what it does not see is added; weak edits are stretched."""

from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from visiondx.errors import InputError
from visiondx.models.target import Target
from visiondx.zoom.diagnose import diagnose
from visiondx.zoom.directions import text_directions
from visiondx.zoom.multi import multi_search
from visiondx.zoom.relevance import relevance
from visiondx.zoom.search import SearchSettings, search
from visiondx.zoom.toggle import stretches, toggles
from zoom_standins import NEUTRAL, GridClassifier, GridEncoder, GridGenerator, along, cells, prompt

CHANNELS = (0, 3, 11)
HALF = 0.5**0.5


def seeing(generator, lengths=(1.0, 1.0, 1.0)):
    """Exact edits of three cells, with their Δt, so many times their usual length."""
    plain = along(generator, *CHANNELS)
    delta_t = text_directions(GridEncoder(), plain.attributes, NEUTRAL)
    return replace(plain, delta_t=delta_t).stretched(lengths)


def scores(generator, styles):
    """By hand: e is (1, 4 cells) at unit length, Δt that of (1, …, 1 at a cell) less that of 1."""
    read = 4 * cells(generator.synthesize(styles))
    e = F.normalize(torch.cat([torch.ones(len(read), 1), read], 1), dim=1)
    own = e[:, 0, None] * (HALF - 1) + e[:, [1 + c for c in CHANNELS]] * HALF
    return own / (2 - 2 * HALF) ** 0.5


def test_toggles_by_hand():
    generator = GridGenerator()
    styles = 4 * generator.sample_styles(9, 4)
    sides = toggles(generator, GridEncoder(), seeing(generator), styles)
    seen = scores(generator, styles) > 0
    assert seen.any()
    assert not seen.all()
    assert torch.equal(sides, torch.where(seen, -1.0, 1.0))


def test_a_search_starts_on_the_other_side():
    generator, directions = GridGenerator(), seeing(GridGenerator())
    styles = 4 * generator.sample_styles(9, 4)
    settings = SearchSettings(steps=1, eta=1e-9, starts=(2.0,), toggle=True)
    target = Target(GridClassifier({0: 20.0}))
    found = search(generator, target, GridEncoder(), directions, styles, settings)
    seen = scores(generator, styles) > 0
    assert torch.allclose(found.trajectory_w[0], torch.where(seen, -2.0, 2.0))


def test_each_start_is_toggled_and_the_better_kept():
    generator = GridGenerator()
    directions = along(generator, 0, 3)  # Δt is zero: CLIP sees nothing, so all is added
    settings = SearchSettings(steps=1, eta=1e-9, starts=(1.0, 3.0), toggle=True)
    target = Target(GridClassifier({0: 20.0}))
    styles = generator.sample_styles(4, 4)
    found = search(generator, target, GridEncoder(), directions, styles, settings)
    assert torch.equal(found.w[:, 0], torch.full((4,), 3.0))


def test_toggle_needs_an_encoder_and_single_attributes():
    generator, target = GridGenerator(), Target(GridClassifier({0: 20.0}))
    chosen, styles = SearchSettings(toggle=True), generator.sample_styles(2, 0)
    with pytest.raises(InputError, match="pass one"):
        search(generator, target, None, along(generator, 0), styles, chosen)
    with pytest.raises(InputError, match="single-attribute"):
        multi_search(generator, target, None, along(generator, 0), styles, chosen)


def test_stretches_take_the_least_weight_that_shows():
    """The same edit at a third of the length needs three times the weight."""
    generator, encoder, weights = GridGenerator(), GridEncoder(), (2.0, 4.0, 6.0, 8.0)
    styles = generator.sample_styles(24, 1)
    directions = seeing(generator, (1.0, 1 / 3, 1e-3))
    before = scores(generator, styles)
    sides = torch.where(before > 0, -1.0, 1.0)
    gains = torch.stack(
        [
            torch.stack(
                [scores(generator, styles + w * sides[:, n, None] * row)[:, n] for w in weights]
            )
            for n, row in enumerate(directions.delta_s)
        ]
    )  # (N, weights, B)
    gains = ((gains - before.T[:, None]) * sides.T[:, None]).mean(2) / before.std(0)[:, None]
    enough = gains[0, :2].mean().item()  # between what the first edit gains at 2 and at 4
    found = stretches(generator, encoder, directions, styles, weights, enough)
    expected = [
        weights[int((row >= enough).int().argmax()) if (row >= enough).any() else -1] / 2
        for row in gains
    ]
    assert list(found) == list(directions.attributes)
    assert list(found.values()) == expected
    assert expected[0] == 2.0
    assert expected[2] == 4.0  # none shows: the largest


def test_stretched_directions_are_so_much_longer():
    directions = along(GridGenerator(), 0, 3)
    longer = directions.stretched([1.0, 2.5])
    assert torch.equal(longer.delta_s[0], directions.delta_s[0])
    assert torch.allclose(longer.delta_s[1], 2.5 * directions.delta_s[1])
    for factors in ([1.0], [1.0, 0.0]):
        with pytest.raises(InputError, match="factors"):
            directions.stretched(factors)


@pytest.mark.parametrize("weights", [(), (0.0, 1.0), (2.0, 1.0), (1.0, 1.0)])
def test_weights_must_ascend(weights):
    generator = GridGenerator()
    styles = generator.sample_styles(4, 1)
    with pytest.raises(InputError, match="ascend"):
        stretches(generator, GridEncoder(), seeing(generator), styles, weights)


def test_one_image_has_no_deviation():
    generator = GridGenerator()
    with pytest.raises(InputError, match="2 images"):
        stretches(
            generator, GridEncoder(), seeing(generator), generator.sample_styles(1, 1), (1.0, 2.0)
        )


def test_a_diagnosis_of_stretched_edits_is_one_of_larger_weights():
    generator, encoder = GridGenerator(), GridEncoder()
    run = partial(
        diagnose, Target(GridClassifier({0: 5.0, 3: 20.0})), [prompt(0), prompt(3)], NEUTRAL,
        generator, encoder, images=4, threshold=0.7,
        M=relevance(generator, encoder, 4, cache=None),
    )  # fmt: skip
    chosen = {"steps": 1, "eta": 1e-9, "toggle": True, "epsilon": 9.0}
    longer = run(stretched=[1.0, 2.0], settings=SearchSettings(starts=(2.0,), **chosen))
    shorter, plain = (run(settings=SearchSettings(starts=(w,), **chosen)) for w in (2.0, 4.0))
    for n, other in enumerate((shorter, plain)):
        own = (part.sensitivity.change[:, n] for part in (longer, other))
        assert torch.allclose(*own, atol=1e-6)
