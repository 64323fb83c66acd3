"""Random edits of the same size: what they keep, and what stands out from them."""

import pytest
import torch

from task_standins import shifter
from visiondx.core.errors import InputError
from visiondx.zoom.multi import multi_search
from visiondx.zoom.result import SearchResult
from visiondx.zoom.search import SearchSettings
from visiondx.zoom.tasks import compare
from visiondx_worlds.marking.zoom.control import control, shuffled
from zoom_standins import GridGenerator, along, cells, prompt


def test_shuffled_directions_keep_count_and_norm_on_other_channels():
    generator = GridGenerator()
    delta_s = along(generator, 0, 3, 11).delta_s
    delta_s[:, 12] = 0.5
    source = torch.Generator().manual_seed(0)
    many = delta_s.repeat(50, 1)
    found = shuffled(many, generator.style_std, generator.editable, source)
    in_std = [t / generator.style_std for t in (found, many)]
    assert torch.allclose(in_std[0].norm(dim=1), in_std[1].norm(dim=1), atol=1e-5)
    assert torch.equal((found != 0).sum(1), (many != 0).sum(1))
    assert not found[:, ~generator.editable].any()
    assert (found != 0).any(0)[generator.editable].all()  # in 150 rows, every channel once
    with pytest.raises(InputError, match="not editable"):
        shuffled(along(generator, 7).delta_s, generator.style_std, generator.editable, source)


class Dim:
    """Realism that takes an image for real if cell 3 is dark."""

    def real(self, images):
        return cells(images)[:, 3] < 0


def fixed_result(w, channels=(0,), images=30) -> SearchResult:
    generator = GridGenerator()
    path = torch.full((1, images, len(channels)), w)
    return SearchResult.from_trajectories(
        directions=along(generator, *channels),
        styles=generator.sample_styles(images, 0),
        p_original=torch.zeros(images),
        trajectory_w=path,
        trajectory_p=torch.ones(1, images, len(channels)),
        settings={},
        consistency=None,
        seed=0,
        generator=generator,
        task="keypoints",
    )


def test_an_attribute_that_alone_moves_points_stands_out_from_random_edits():
    result = fixed_result(3.0, channels=(0, 3))
    found = control(result, shifter({0: 0.8}), Dim(), draws=4)
    assert torch.equal(found.change[:, 1], torch.zeros(30))
    # of 13 editable channels one is right
    assert found.ratios[prompt(0)].value > 6
    assert found.ratios[prompt(0)].low > 3
    assert found.ratio.n == 30
    assert found.rates["raw"][prompt(0)].value == 1  # fixed_result says p = 1
    dim = [cells(result.images(range(30), n))[:, 3] < 0 for n in range(2)]
    assert found.rates["kept"][prompt(1 + 2)].value == pytest.approx(dim[1].float().mean().item())
    assert torch.equal(found.real, torch.stack(dim, 1))
    frame = found.to_frame().set_index("name")
    assert frame.loc[prompt(0), "random"] == pytest.approx(found.random[:, 0].mean().item())
    again = control(result, shifter({0: 0.8}), Dim(), draws=4, batch=7)
    assert torch.allclose(found.change, again.change, atol=1e-6)


def test_a_target_to_which_all_channels_are_alike_has_a_ratio_of_one():
    """The dead channel 15 aside, all cells count alike where deviations are."""
    target = shifter(dict.fromkeys(range(16), 0.3))
    result = fixed_result(1.0)
    result.generator.style_std.fill_(1.0)
    found = control(result, target, Dim(), draws=6)
    assert 0.85 < found.ratio.value * 12 / 13 < 1.15
    assert 0.85 < found.pixel_ratio.value * 12 / 13 < 1.15
    with pytest.raises(InputError, match="1 or more, got 0"):
        control(result, target, Dim(), draws=0)


def test_all_attributes_together_are_one_edit():
    target = shifter({0: 0.8, 3: 0.8})
    generator = GridGenerator()
    styles, directions = generator.sample_styles(5, 0), along(generator, 0, 3)
    settings = SearchSettings(steps=6, eta=3.0, epsilon=4.0, alpha=1.0, beta=0.0, starts=(2.0,))
    result = multi_search(generator, target, None, directions, styles, settings)
    found = control(result, target, Dim(), draws=3)
    assert found.names == ("all attributes",)
    with torch.no_grad():
        step = result.w @ result.directions.delta_s
        images = [generator.synthesize(s) for s in (result.styles, result.styles + step)]
        _, p = compare(target, *images)
    assert torch.allclose(found.change[:, 0], p, atol=1e-6)
    assert torch.allclose(found.change[:, 0], result.change, atol=1e-6)
    assert torch.equal(found.flipped[:, 0], result.flipped)
    assert found.ratio.value > 2


def test_without_realism_nothing_is_said_to_be_kept():
    result, target = fixed_result(2.0, (0, 3)), shifter({0: 0.8})
    judged = control(result, target, Dim(), draws=2, seed=1)
    found = control(result, target, draws=2, seed=1)
    assert (judged.kinds, found.kinds) == (("raw", "kept"), ("raw",))
    for name in ("change", "random", "pixels", "random_pixels", "flipped"):
        assert torch.equal(getattr(found, name), getattr(judged, name))
    assert found.real is None
    assert found.rates == {"raw": judged.rates["raw"]}
    assert "kept" not in found.to_frame()
    assert "kept" in judged.to_frame()
