import pytest
import torch
from torch import nn

from visiondx.core.errors import InputError
from visiondx.models.target import Target
from visiondx.zoom.multi import multi_search
from visiondx.zoom.search import SearchSettings, search
from visiondx_worlds.marking.zoom.kept import (
    ALL,
    Flips,
    Realism,
    clear,
    flips,
    judge_flips,
    label_kept,
)
from zoom_standins import GridClassifier, GridGenerator, GridJudges, GridWorld, along, cells, prompt


def picture(bright: float, others: float = -0.05) -> torch.Tensor:
    """One image (1, 3, 16, 16): cell 0 at 0.5 + bright, the others at 0.5 + others."""
    grid = torch.full((1, 16), 0.5 + others)
    grid[0, 0] = 0.5 + bright
    return GridWorld().render(grid)


@pytest.fixture(scope="module")
def realism():
    return Realism.fit(GridJudges(), GridWorld(), n=1200, seed=3)


def test_held_out_renders_are_real_and_what_is_unlike_them_is_not(realism):
    fresh = GridWorld().render(GridWorld().sample(1000, 77))
    assert realism.real(fresh).double().mean() == pytest.approx(0.95, abs=0.03)
    assert not realism.real(torch.ones(1, 3, 16, 16)).any()  # no render has 16 white cells
    striped = torch.arange(16).remainder(2).float()[None]
    near, far = (realism.distance(GridWorld().render(0.5 + k * (striped - 0.5)))
                 for k in (0.2, 1.0))  # fmt: skip
    assert near < realism.limit < far
    assert (realism.n, realism.seed) == (1200, 3)


def test_distance_is_mahalanobis_of_unit_features(realism):
    """Recomputed in float64 with scikit-learn's estimator on the three quarters that are fitted."""
    from sklearn.covariance import LedoitWolf

    images = GridWorld().render(GridWorld().sample(1200, 3))
    unit = nn.functional.normalize(GridJudges().features(images), dim=1).double().numpy()
    model = LedoitWolf().fit(unit[300:])
    expected = model.mahalanobis(unit) ** 0.5
    assert realism.distance(images).numpy() == pytest.approx(expected, rel=1e-3)
    held = torch.tensor(expected[:300]).quantile(0.95)
    assert realism.limit == pytest.approx(float(held), rel=1e-3)


def test_the_same_seed_fits_the_same(realism):
    again = Realism.fit(GridJudges(), GridWorld(), n=1200, seed=3, batch=500)
    assert again.limit == pytest.approx(realism.limit, rel=1e-5)
    with pytest.raises(InputError, match="40 renders"):
        Realism.fit(GridJudges(), GridWorld(), n=39)


def judge(originals, edited, p_original, p, realism, label="bright") -> Flips:
    return flips(
        torch.cat(originals), torch.cat(edited)[:, None], torch.tensor(p_original),
        torch.tensor(p)[:, None], GridJudges(), label, realism,
    )  # fmt: skip


def test_each_reason_not_to_keep_a_flip(realism):
    before = [picture(0.3)] * 5 + [picture(0.05)]
    after = [
        picture(0.2),  # kept
        picture(-0.2),  # both judges see another label
        picture(0.05),  # they disagree afterwards
        picture(0.3, 0.5),  # all other cells are white: no render
        picture(0.2),  # the prediction stays
        picture(0.3),  # they disagreed beforehand
    ]
    p = [0.6, 0.6, 0.6, 0.6, 0.4, 0.6]
    found = judge(before, after, [0.3] * 6, p, realism)
    assert found.raw[:, 0].tolist() == [True, True, True, True, False, True]
    assert found.same[:, 0].tolist() == [True, False, False, True, True, False]
    assert found.abstained[:, 0].tolist() == [False, False, True, False, False, True]
    assert found.real[:, 0].tolist() == [True, True, True, False, True, True]
    assert found.kept[:, 0].tolist() == [True, False, False, False, False, False]
    reasons = ["kept", "label changed", "judges disagree", "unlike renders", "not flipped"]
    assert found.why() == [*reasons, "judges disagree"]
    row = found.to_frame().iloc[0]
    assert (row.raw, row.kept, row.n) == (pytest.approx(5 / 6), pytest.approx(1 / 6), 6)
    assert row.label_changed == row.unreal == pytest.approx(1 / 6)
    assert row.abstained == pytest.approx(2 / 6)
    assert row.kept_low <= row.kept <= row.kept_high < row.raw
    other = judge(before, after, [0.3] * 6, p, realism, "dark")  # only the white image changed it
    assert other.same[:, 0].tolist() == [True, True, True, False, True, True]
    assert found.rates["kept"][ALL].n == 6


def test_clear_images_can_be_read_and_are_real(realism):
    images = torch.cat([picture(0.3), picture(-0.2), picture(0.05), picture(0.3, 0.5)])
    assert clear(images, GridJudges(), "bright", realism).tolist() == [True, True, False, False]
    assert clear(images, GridJudges(), "dark", realism).tolist() == [True, True, True, False]
    found = judge([picture(0.05)], [picture(0.3)], [0.3], [0.6], realism)
    assert found.raw.all()
    assert not found.kept.any()  # what is not clear is never kept
    with pytest.raises(InputError, match="No judge reads 'blue'"):
        clear(images, GridJudges(), "blue", realism)


def test_prediction_at_one_half_counts_as_present(realism):
    images = [picture(0.3)] * 3
    found = judge(images, images, [0.5, 0.4, 0.6], [0.6, 0.5, 0.5], realism)
    assert found.raw[:, 0].tolist() == [False, True, False]


def test_single_and_multi_searches_are_judged_alike(realism, tmp_path):
    """The target sees the label itself and cell 9; only flips by cell 9 are kept."""
    generator = GridGenerator()
    target = Target(GridClassifier({0: 40.0, 9: 40.0}))
    styles = generator.sample_styles(12, 0)
    styles[:, 0] = 4.0 * (1 - 2 * (torch.arange(12) % 2))  # judges agree: cell 0 at ±0.2
    styles[:, 9] = 0
    directions = along(generator, 0, 9)
    settings = SearchSettings(steps=30, eta=0.7, epsilon=30.0, beta=0, starts=(0.0,), update="sign")
    single = search(generator, target, None, directions, styles, settings)
    assert single.flipped.all()
    found = judge_flips(single, GridJudges(), "bright", realism, batch=7)
    assert found.names == (prompt(0), prompt(9))
    assert torch.equal(found.raw, single.flipped)
    assert not found.same[:, 0].any()  # Eq. 5 led cell 0 to the mirrored side
    assert found.same[:, 1].all()
    assert not found.kept[:, 0].any()
    assert torch.equal(found.kept[:, 1], found.real[:, 1])

    means = GridJudges()
    means.scores = lambda images: 0.5 + cells(images)[:, [0, 3]]  # present above 0
    assert label_kept(single, means, "bright").tolist() == [[False, True]] * 12
    with pytest.raises(InputError, match="No judge reads 'age'"):
        label_kept(single, means, "age")

    multi = multi_search(generator, target, None, directions, styles, settings)
    both = judge_flips(multi, GridJudges(), "bright", realism, batch=5)
    edited = multi.images(range(12))
    assert both.names == (ALL,)
    assert torch.equal(both.raw[:, 0], multi.flipped)
    assert torch.allclose(both.distance[:, 0], realism.distance(edited), atol=1e-4)
    fewer = judge_flips(multi.upto(2), GridJudges(), "bright", realism)
    assert fewer.raw.sum() < both.raw.sum()

    for result, judged in ((single, found), (multi, both)):
        alone = judge_flips(result)
        assert (alone.names, alone.kinds, alone.judged) == (judged.names, ("raw",), False)
        assert torch.equal(alone.raw, judged.raw)
        assert alone.rates == {"raw": judged.rates["raw"]}
        said = alone.to_frame()
        assert list(said) == ["name", "raw", "raw_low", "raw_high", "n"]
        assert said["raw"].tolist() == judged.to_frame()["raw"].tolist()
        assert alone.why() == ["flipped" if flip else "not flipped" for flip in alone.raw[:, 0]]
        for unknown in ("kept", "real"):
            with pytest.raises(InputError, match="nobody knows which of these flips are kept"):
                getattr(alone, unknown)

    both.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["flips.csv"]
    labels = [text.get_text() for text in found.plot().axes[0].get_legend().get_texts()]
    assert labels == ["raw", "kept"]


def test_input_is_checked(realism):
    image, p = picture(0.3), torch.tensor([0.3])
    with pytest.raises(InputError, match="No judge reads 'age'"):
        flips(image, image[:, None], p, p[:, None], GridJudges(), "age", realism)
    with pytest.raises(InputError, match=r"shape \(1, 1\), got \(1, 3\)"):
        flips(image, image, p, p[:, None], GridJudges(), "bright", realism)
