"""The report: one file, everything inside, words escaped, a verdict from the numbers."""

import base64
import io
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from visiondx.core.errors import InputError
from visiondx.show.report import image_png, verdict, words, write_report

matplotlib.use("Agg")


def table(*rows):
    """Rows (attribute, h, low, high[, behind_low]); n is 8, and surely behind, for each."""
    rows = [row if len(row) == 5 else (*row, 0.05) for row in rows]
    frame = pd.DataFrame(rows, columns=["attribute", "h", "low", "high", "behind_low"])
    return frame.assign(n=8, share=frame.h / frame.h.sum())


class Page(HTMLParser):
    """Tags with their attributes, and the text that a reader sees."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data + "\n"

    def images(self):
        return [a for tag, a in self.tags if tag == "img"]


HOSTILE = "bangs <script>alert('x')</script> \" onerror=\"alert(1)"


def written(tmp_path, **changes):
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    pair = {
        "original": image,
        "counterfactual": 255 - image,
        "p_original": 0.91,
        "p_counterfactual": 0.12,
    }
    given = {
        "title": f"Title {HOSTILE}",
        "asked": {"target": HOSTILE, "attributes": ["hat", HOSTILE], "neutral": None},
        "histogram": image_png(image),
        "sensitivity": table((HOSTILE, 0.1, 0.05, 0.15), ("hat", 0.4, 0.3, 0.5)),
        "counterfactuals": [
            {"attribute": HOSTILE, "weight": 1.5, "pairs": []},
            {"attribute": "hat", "weight": 2.0, "pairs": [pair]},
        ],
        "truth": pd.DataFrame({"attribute": [HOSTILE], "true": [float("nan")]}),
        "settings": {"prompt": HOSTILE, "seed": 3},
        "versions": {"torch": "2.15.0"},
        "notes": [HOSTILE],
    } | changes
    path = write_report(tmp_path, **given)
    return path, Page(path.read_text("utf-8")), image


def test_nothing_is_fetched_and_nothing_runs(tmp_path):
    path, page, _ = written(tmp_path)
    assert path == tmp_path / "report.html"
    assert "script" not in [tag for tag, _ in page.tags]
    assert not [a for _, a in page.tags if any(name.startswith("on") for name in a)]
    for _, attributes in page.tags:
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:")
    assert "url(" not in path.read_text("utf-8")
    assert "@import" not in path.read_text("utf-8")


def test_a_prompt_with_script_shows_as_text(tmp_path):
    _, page, _ = written(tmp_path)
    # title twice, asked twice, histogram row, strip, truth, settings, note
    assert page.text.count(HOSTILE) >= 9


def test_pictures_are_the_pixels_that_were_given(tmp_path):
    _, page, image = written(tmp_path)
    shown = [a["src"].removeprefix("data:image/png;base64,") for a in page.images()]
    decoded = [np.asarray(Image.open(io.BytesIO(base64.b64decode(s)))) for s in shown]
    assert len(decoded) == 3  # the histogram and one pair
    assert np.array_equal(decoded[1], image)
    assert np.array_equal(decoded[2], 255 - image)
    assert "0.91" in page.images()[1]["alt"]
    assert "0.12" in page.images()[2]["alt"]


def test_strongest_attribute_comes_first_everywhere(tmp_path):
    _, page, _ = written(tmp_path)
    table_part, strips = page.text.split("What changes its mind")
    table_part = table_part.split("How sensitive the model is")[1]
    assert table_part.index("hat") < table_part.index(HOSTILE)
    assert strips.index("hat") < strips.index(HOSTILE)
    assert "0.300 – 0.500" in table_part
    assert "80 %" in table_part
    assert "No counterfactual was found." in strips


def test_figures_are_taken_as_they_are_and_truth_may_be_absent(tmp_path):
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(4, 2))
    axes.bar(["a"], [1.0])
    _, page, _ = written(tmp_path, histogram=figure, truth=None, notes=[])
    pyplot.close(figure)
    picture = page.images()[0]["src"].removeprefix("data:image/png;base64,")
    assert Image.open(io.BytesIO(base64.b64decode(picture))).width > 400
    assert "measured by intervention" not in page.text
    assert "Notes" not in page.text


def test_writing_twice_replaces_the_file_and_leaves_no_other(tmp_path):
    written(tmp_path)
    written(tmp_path, title="second")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert "<h1>second</h1>" in (tmp_path / "report.html").read_text("utf-8")


def test_verdict_names_a_winner_only_where_the_others_are_surely_behind():
    apart = verdict(table(("hat", 0.1, 0.05, 0.35), ("bangs", 0.4, 0.3, 0.5)))  # in pairs: apart
    assert apart.startswith("The model hangs most on one attribute: “bangs”")
    assert "0.40 on average (95 % interval 0.30 to 0.50, 8 images), 80 %" in apart
    close = verdict(table(("hat", 0.3, 0.2, 0.31, -0.01), ("bangs", 0.4, 0.3, 0.5)))
    assert close.startswith("No single attribute stands out: “bangs”")
    assert "not surely more than “hat”" in close


def test_verdict_of_a_rival_with_a_wide_interval_is_not_missed():
    rows = [("a", 0.4, 0.3, 0.5), ("b", 0.2, 0.1, 0.25), ("c", 0.15, 0.0, 0.6, -0.2)]
    assert "not surely more than “c”" in verdict(table(*rows))


def test_verdict_of_one_attribute_and_of_none_that_moves():
    assert "nothing to compare" in verdict(table(("hat", 0.4, 0.3, 0.5)))
    still = table(("hat", 0.001, 0.0, 0.002), ("bangs", 0.0, 0.0, 0.001))
    assert verdict(still).startswith("None of these attributes moved")


def test_words():
    assert words(0.123456) == "0.123"
    assert words(np.float32("nan")) == words(None) == words([]) == "–"
    assert words(["a", 2, True]) == "a · 2 · yes"


@pytest.mark.parametrize("shape", [(64, 64), (3, 64, 64), (64, 64, 4)])
def test_an_image_of_another_shape_is_refused(shape):
    with pytest.raises(InputError, match="uint8"):
        image_png(np.zeros(shape, np.uint8))
    with pytest.raises(InputError, match="float64"):
        image_png(np.zeros((64, 64, 3)))


def test_a_missing_column_is_named(tmp_path):
    with pytest.raises(InputError, match="share"):
        written(tmp_path, sensitivity=table(("hat", 1, 1, 1)).drop(columns="share"))
