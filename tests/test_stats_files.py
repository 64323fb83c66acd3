"""Bootstrap intervals, and files that are whole or not there."""

import os

import numpy as np
import pytest
from scipy.stats import rankdata

from visiondx.core.errors import InputError
from visiondx.core.files import atomic_write, cache_dir, data_dir, result_key, sha256
from visiondx.core.stats import bootstrap, crossed, interval, jackknife, ranks


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


def test_targets_share_each_draw_of_the_images():
    values = np.random.default_rng(2).normal(size=(40, 1)) + [0.0, 3.0, 9.0]  # three targets

    def means(counts):
        return {"mean": (counts @ values / 40).T, "first": (counts @ values / 40).T[:1]}

    found = crossed(means, [40])
    assert found["mean"].value == pytest.approx(values.mean())
    assert found["mean"].n == 40
    widths = [found[name].high - found[name].low for name in ("mean", "first")]
    assert widths[0] == pytest.approx(widths[1])  # alike in all but their level: no surer than one
    with pytest.raises(InputError, match="one row or more"):
        crossed(means, [0])


def test_draws_that_lie_too_low_are_moved_up_to_the_figure():
    """A statistic that loses 0.2 wherever a row is there twice, and cannot be above 1."""

    def figure(counts):
        repeated = (counts > 1).any(1)
        return {"lost": [0.9 - 0.2 * repeated + 0.001 * counts[:, 0]]}

    found = crossed(figure, [50])["lost"]
    assert found.value == pytest.approx(0.901)
    assert found.low == pytest.approx(0.9, abs=0.001)
    assert found.value <= found.high < 0.904


def test_samples_of_a_figure_are_drawn_each_by_itself():
    one, other = np.random.default_rng(3).normal(size=(2, 100))
    found = crossed(lambda a, b: {"gap": [(a @ one - b @ other) / 100]}, [100, 100])["gap"]
    error = np.sqrt((one.var() + other.var()) / 100)
    assert found.high - found.low == pytest.approx(2 * 1.98 * error, rel=0.15)


def test_interval_by_hand():
    draws = np.arange(1.0, 1000.0)  # of 999 draws, the 25th and the 975th; their mean is 500
    plain = interval(500.0, draws, 10**9, 7)
    assert (plain.value, plain.low, plain.high, plain.n) == pytest.approx((500.0, 25.0, 975.0, 7))
    assert interval(1000.0, draws, 10**9, 7).high == 1000.0  # the value itself is never outside
    wider = interval(500.0, draws, 10, 7)
    # Student's t of 9 degrees, 2.262, times (10 / 9)^½ = 2.384: a normal tail of 0.00856
    assert wider.low == pytest.approx(8.56, abs=0.02)
    lost = interval(1.0, np.array([np.nan]), 5, 5)
    assert np.isnan([lost.low, lost.high]).all()


def test_jackknife_of_a_mean_is_students_interval():
    values = np.random.default_rng(5).normal(size=12)
    found = jackknife(lambda kept: values[kept].mean(), np.arange(12), n=12)
    half = 2.201 * values.std(ddof=1) / np.sqrt(12)
    assert found.value == values.mean()
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), 1e-3)


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


def test_rows_of_a_cluster_tell_no_more_than_one():
    values = np.random.default_rng(4).normal(size=30)
    once, fivefold = bootstrap(values), bootstrap(np.repeat(values, 5), groups=np.arange(150) // 5)
    assert fivefold.value == pytest.approx(once.value)
    assert (fivefold.low, fivefold.high) == pytest.approx((once.low, once.high))
    assert (once.n, fivefold.n) == (30, 150)
    assert bootstrap(values, groups=np.arange(30)) == once


def test_every_resample_is_of_whole_clusters():
    values, groups = np.array([0.0, 9.0, 3.0]), np.array([1, 2, 1])
    means = {1.5, 4.0, 9.0}  # two drawn: 1 1, 1 2 (a zero, a three and a nine), 2 2
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


def test_a_result_is_kept_under_its_method_and_all_that_it_is_made_of():
    given = ["weights", ["a hat", None], 3, {"steps": 5}]
    key = result_key(1, *given)
    assert key == result_key(1, *given)
    assert len(key) == 20
    others = [result_key(2, *given), result_key((1, 1), *given), result_key(1, *given, 0)]
    others += [result_key(1, "weights", ["a hat", None], 4, {"steps": 5})]
    assert len({key, *others}) == 5


def test_sha256(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256(tmp_path / "abc") == known
    with pytest.raises(InputError, match="nowhere"):
        sha256(tmp_path / "nowhere")


def test_cache_dir_follows_the_environment_then_the_system(tmp_path, monkeypatch):
    monkeypatch.setenv("VISIONDX_CACHE", str(tmp_path / "own"))
    assert cache_dir() == tmp_path / "own"
    monkeypatch.delenv("VISIONDX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "visiondx"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # which the standard has ignored
    monkeypatch.setattr("visiondx.core.files.Path.home", lambda: tmp_path)
    monkeypatch.setattr("sys.platform", "linux")
    assert cache_dir() == tmp_path / ".cache" / "visiondx"
    monkeypatch.setattr("sys.platform", "darwin")
    assert cache_dir() == tmp_path / "Library" / "Caches" / "visiondx"
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert cache_dir() == tmp_path / "local" / "visiondx"
    assert not any(tmp_path.iterdir())  # nothing is made by asking


def test_data_dir_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("VISIONDX_DATA", str(tmp_path))
    assert data_dir() == tmp_path
    monkeypatch.setenv("VISIONDX_DATA", str(tmp_path / "gone"))
    with pytest.raises(InputError, match="gone"):
        data_dir()
