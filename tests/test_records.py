"""What a notebook records: flat metrics, and figures."""

import json

import numpy as np
import pytest
from PIL import Image

from visiondx.core.errors import InputError
from visiondx.core.stats import Estimate
from visiondx.run import runs


def test_record_is_flat_with_an_interval_for_each_key(tmp_path):
    frame = runs.record(
        {
            "a.mean": Estimate(0.5, 0.4, 0.6, 20),
            "a.rank": 1,
            "a.apart": np.bool_(True),
            "a.dict": {"value": np.float32(0.25), "low": 0.0, "high": 1.0, "n": np.int64(5)},
        },
        tmp_path,
    )
    assert json.loads((tmp_path / "metrics.json").read_text()) == {
        "a.mean": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 20},
        "a.rank": {"value": 1, "low": 1, "high": 1, "n": 1},
        "a.apart": {"value": 1, "low": 1, "high": 1, "n": 1},
        "a.dict": {"value": 0.25, "low": 0.0, "high": 1.0, "n": 5},
    }
    assert frame.loc["a.mean", "high"] == 0.6


@pytest.mark.parametrize(
    "bad",
    [float("nan"), np.inf, None, "0.5", [1], {"value": 1, "low": float("nan")}, {"mean": 1}],
)
def test_record_refuses_what_is_no_finite_number_and_keeps_the_old_file(tmp_path, bad):
    runs.record({"fine": 1}, tmp_path)
    with pytest.raises(InputError, match=r"'the\.key'"):
        runs.record({"fine": 2, "the.key": bad}, tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text())["fine"]["value"] == 1


def test_figure_is_saved_returned_and_closed(tmp_path):
    from matplotlib import pyplot

    fig, axes = pyplot.subplots()
    axes.plot([0, 1])
    assert runs.figure(fig, "curve", tmp_path) is fig
    assert Image.open(tmp_path / "figures" / "curve.png").width > 300
    assert not pyplot.fignum_exists(fig.number)
    with pytest.raises(InputError, match="a/b"):
        runs.figure(fig, "a/b", tmp_path)


# ---------------------------------------------------------------- stored outputs
