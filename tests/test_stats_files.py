"""Bootstrap intervals, and files that are whole or not there."""

import os

import numpy as np
import pytest
from scipy.stats import rankdata

from visiondx.core.errors import InputError
from visiondx.core.files import atomic_write, data_dir, sha256
from visiondx.core.stats import bootstrap, ranks, redraw


def test_interval_of_a_mean_is_the_normal_one():
    values = np.random.default_rng(1).normal(3, 2, size=400)
    estimate = bootstrap(values, n=4000)
    half = 1.96 * values.std() / 20
    assert estimate.value == values.mean()
    assert estimate.n == 400
    assert estimate.low == pytest.approx(values.mean() - half, abs=0.03)
    assert estimate.high == pytest.approx(values.mean() + half, abs=0.03)
    narrow = bootstrap(values, n=4000, level=0.5)
    assert narrow.high - narrow.low == pytest.approx(2 * 0.6745 * values.std() / 20, rel=0.1)


def test_targets_are_drawn_anew_and_share_each_draw_of_the_images():
    images = np.random.default_rng(2).normal(size=1000)
    alike = redraw([images] * 3, np.random.default_rng(0))
    np.testing.assert_allclose(alike, images)  # which of them is drawn makes no difference
    apart = redraw([np.zeros(4000), np.ones(4000)], np.random.default_rng(0))
    shares = [(apart == mean).mean() for mean in (0, 0.5, 1)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.03)


def test_ranks_of_equal_values_are_their_mean():
    rows = np.random.default_rng(3).integers(0, 4, size=(5, 2, 7)).astype(float)
    np.testing.assert_array_equal(ranks(np.array([3.0, 1.0, 3.0, 2.0])), [3.5, 1, 3.5, 2])
    np.testing.assert_array_equal(ranks(rows), rankdata(rows, axis=-1))


def test_same_seed_same_interval():
    values = np.arange(30.0)
    assert bootstrap(values, seed=4) == bootstrap(values, seed=4)
    assert bootstrap(values, seed=4) != bootstrap(values, seed=5)


def test_vectorised_and_plain_statistics_agree():
    values = np.random.default_rng(2).random(50)
    assert bootstrap(values, np.median) == bootstrap(values, lambda v: np.median(v))


def test_rows_stay_together():
    x = np.random.default_rng(3).random(40)
    table = np.column_stack([x, 2 * x])

    def ratio(rows):
        return rows[:, 1].mean() / rows[:, 0].mean()

    estimate = bootstrap(table, ratio, n=200)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((2, 2, 2))
    assert estimate.n == 40


def test_groups_widen_the_interval_to_the_spread_between_them():
    rng = np.random.default_rng(4)
    groups = np.repeat(np.arange(5), [40, 30, 50, 20, 60])
    offset = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    values = offset[groups] + 0.01 * rng.normal(size=200)
    plain, clustered = bootstrap(values), bootstrap(values, groups=groups)
    assert clustered.value == plain.value
    assert clustered.high - clustered.low > 3 * (plain.high - plain.low)
    one = bootstrap(values, groups=np.full(200, "seed 100"))
    assert one.high - one.low == pytest.approx(plain.high - plain.low, rel=0.15)


def test_every_resample_is_of_whole_groups():
    values, groups = np.array([0.0, 0.0, 9.0]), np.array([1, 1, 2])
    means = {0.0, 3.0, 9.0}  # two groups drawn: 1 1, 1 2 (two zeros and a nine), 2 2
    seen = set()
    bootstrap(values, lambda v: seen.add(float(v.mean())) or v.mean(), groups=groups, n=200)
    assert seen == means


@pytest.mark.parametrize(
    ("values", "options", "said"),
    [
        ([], {}, "N >= 1"),
        ([1.0, np.nan], {}, "1 NaN"),
        ([1.0, 2.0], {"groups": [1]}, r"\(2,\)"),
        ([1.0, 2.0], {"level": 1.0}, "level=1.0"),
    ],
)
def test_bad_values(values, options, said):
    with pytest.raises(InputError, match=said):
        bootstrap(values, **options)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "deep" / "metrics.json"
    with atomic_write(path) as temporary:
        assert temporary.suffix == ".json"
        temporary.write_text("whole")
        assert not path.exists()

    def stopped():
        with atomic_write(path) as temporary:
            temporary.write_text("ha")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        stopped()
    assert path.read_text() == "whole"
    assert os.listdir(path.parent) == ["metrics.json"]


def test_sha256(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256(tmp_path / "abc") == known
    with pytest.raises(InputError, match="nowhere"):
        sha256(tmp_path / "nowhere")


def test_data_dir_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("VISIONDX_DATA", str(tmp_path))
    assert data_dir() == tmp_path
    monkeypatch.setenv("VISIONDX_DATA", str(tmp_path / "gone"))
    with pytest.raises(InputError, match="gone"):
        data_dir()
