"""The published numbers: every table is there, and gives the figures that the papers quote."""

import pytest

from visiondx.errors import InputError
from visiondx.files import data_dir
from visiondx.papers import published


def test_unknown_table_names_those_there_are():
    with pytest.raises(InputError, match=r"'zoom_table9': choose from .*zoom_table1, zoom_table2"):
        published("zoom_table9")
    with pytest.raises(InputError, match="choose from"):
        published("../weights/manifest")


def test_every_table_can_be_read_and_is_tidy():
    tables = [path.stem for path in (data_dir() / "papers").glob("*.csv")]
    assert {"zoom_table1", "zoom_table2", "zoom_fig6"} <= set(tables)
    for name in tables:
        frame = published(name)
        assert len(frame), name
        assert not frame.duplicated().any(), name
        assert all(column == column.strip() for column in frame.columns), name


def test_fig_6_gives_the_quoted_ratios():
    found = {}
    for classifier, part in published("zoom_fig6").groupby("classifier"):
        assert len(part) == 25
        assert set(part["changed"]) == set(part["edited"])
        own = part["changed"] == part["edited"]
        on, off = part["variation"][own].mean(), part["variation"][~own].mean()
        found[classifier] = (round(on, 3), round(off, 3), round(on / off, 1))
    assert found == {"moustache": (0.435, 0.141, 3.1), "age": (0.473, 0.131, 3.6)}
    cell = published("zoom_fig6").set_index(["classifier", "changed", "edited"])["variation"]
    assert cell["age", "lipstick", "beard"] == 0.218  # a row is what changed, a column what was
    assert cell["age", "beard", "lipstick"] == 0.088  # edited: the figure is not symmetric


def test_table_1_grows_the_attribute_space_one_by_one():
    table = published("zoom_table1").pivot(index="step", columns="classifier", values="flip_rate")
    assert table["age"].tolist() == [61.95, 72.08, 87.47, 90.96, 92.91]
    assert table["big lips"].tolist() == [83.47, 90.07, 96.27, 94.07, 94.87]
    counts = published("zoom_table1").drop_duplicates("step")
    assert counts["attributes"].tolist() == [5, 6, 7, 8, 8]
    assert counts["iterations"].iloc[-1] == 200
    assert counts["iterations"].iloc[:-1].isna().all()


def test_table_2_gains_resistance_without_losing_accuracy():
    table = published("zoom_table2").set_index(["classifier", "metric"])
    gain = (table["counterfactual"] - table["regular"]).round(2)
    expected = {
        ("age", "accuracy"): 0.19,
        ("age", "FR-25"): 77.82,
        ("age", "FR-100"): 86.61,
        ("big lips", "accuracy"): 1.03,
        ("big lips", "FR-25"): 85.07,
        ("big lips", "FR-100"): 82.98,
    }
    assert gain.to_dict() == expected
    assert table.index.is_unique
