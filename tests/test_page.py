"""Results of all methods share a protocol, and one page holds any of them."""

import pytest
import torch

from test_zoom_diagnose import run
from visiondx.core.errors import InputError
from visiondx.core.results import Result
from visiondx.core.stats import Estimate
from visiondx.llm2loss.answers import Answers, Comparisons
from visiondx.llm2loss.audit import Audit
from visiondx.show.page import write_page

KNOWS, GUESSES = Estimate(0.5, 0.4, 0.6, 100), Estimate(0.1, -0.1, 0.3, 100)
RED, BLUE = torch.tensor([[2.0], [2.1], [1.9], [2.0]]), torch.tensor([[0.0], [0.1], [-0.1], [0.0]])


def results(skill):
    both = torch.cat([RED, BLUE], 1)
    return {
        "answers": Answers(("a <red> thing", "a blue one"), both, "ranker", "mean", 0, skill),
        "comparisons": Comparisons(("red",), ("blue",), RED - BLUE, "ranker", "mean", 0, skill),
        "audit": Audit(("red",), RED, BLUE, 1, "mean", 0, skill),
    }


def test_one_page_holds_the_results_of_two_methods(tmp_path):
    shown = [run(), *results(KNOWS).values()]
    assert all(isinstance(result, Result) for result in shown)
    page = write_page(shown, tmp_path, title="A & B", settings={"seed": 0}).read_text("utf-8")
    assert page.count('<div class="plate">') == page.count("Download this table") == 4
    assert "The largest rank score (larger: worse) is that of “a &lt;red&gt; thing”" in page
    assert "“red” against “blue”: worse on the first." in page
    assert "“red”: the model is worse with it." in page
    assert "<title>A &amp; B</title>" in page
    assert "<script" not in page


def test_a_model_that_knows_nothing_says_so_in_every_section():
    for result in results(GUESSES).values():
        assert result.said == [result.warning]
        assert "chance" in result.warning


@pytest.mark.parametrize(("given", "named"), [([], "none"), ([3], "int")])
def test_what_is_no_result_is_refused(tmp_path, given, named):
    with pytest.raises(InputError, match=f"got {named}"):
        write_page(given, tmp_path, title="x")
    assert not list(tmp_path.iterdir())
