"""The published numbers: every table is there, and gives the figures that the papers quote."""

import pytest
from scipy.stats import kendalltau, spearmanr

from visiondx.core.errors import InputError
from visiondx.core.files import data_dir
from visiondx.run.papers import published


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


def test_llm2loss_tables_give_the_figures_of_the_paper():
    table = published("llm2loss_table1").pivot(index="ood_set", columns="model", values="auroc")
    assert table["regressor"].min() == 0.978
    assert table.loc["random", "ranker"] == 0.686
    two = published("llm2loss_table2").set_index(["model", "correlation"])["coefficient"]
    found = two["ranker"].round(3).to_dict()
    assert found == {"Pearson": 0.133, "Spearman": 0.560, "Kendall": 0.399}
    three = published("llm2loss_table3").set_index(["model", "correlation"])["coefficient"]
    # the p-values of Table 3's first row cannot belong to 40 attributes: left out
    p_values = published("llm2loss_table3").set_index("model")["p_value"]
    assert p_values["regressor"].isna().all()
    assert p_values.drop("regressor").notna().all()
    assert three["ranker"].to_dict() == {"Kendall": 0.253, "Pearson": 0.324, "Spearman": 0.366}


def test_llm2loss_table_5_recomputes_what_can_be_recomputed():
    table = published("llm2loss_table5")
    assert len(table) == 40
    gap = (table["auroc_true"] - table["auroc_false"]).abs()
    assert (gap - table["rmm_true"]).abs().max() < 0.0009  # printed cells are cut
    assert table.set_index("attribute").loc["Rosy Cheeks", "rmm_predicted"] == 3.8824e-05
    truth, predicted = table["rmm_true"], table["rmm_predicted"]
    assert round(spearmanr(truth, predicted).statistic, 3) == 0.209
    assert round(kendalltau(truth, predicted).statistic, 3) == 0.147
    reliable = spearmanr(table["zero_shot_auroc"], -truth).statistic  # Table 4: printed .348
    assert round(reliable, 2) == 0.34
    assert (
        published("llm2loss_table4").set_index("correlation")["coefficient"]["Spearman"] == 0.3482
    )
