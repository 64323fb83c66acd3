"""The report: one file, everything inside, words escaped, and what a reader needs to know."""

import base64
import datetime
import io
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from visiondx.core.errors import InputError
from visiondx.show.report import image_png, words, write_report

matplotlib.use("Agg")


def table(*rows):
    """Rows (attribute, h, low, high, seen); n is 8, and a quarter flipped, for each."""
    frame = pd.DataFrame(rows, columns=["attribute", "h", "low", "high", "seen"])
    shown = {"seen_low": frame.seen / 2, "seen_high": frame.seen + 0.05, "shown": frame.seen > 0.2}
    return frame.assign(n=8, share=frame.h / frame.h.sum(), flip_rate=0.25, **shown)


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
        "added": True,
    }
    given = {
        "title": f"Title {HOSTILE}",
        "verdict": f"First {HOSTILE}\nThen “bangs”.",
        "what": f"the probability of “{HOSTILE}”",
        "asked": {"target": HOSTILE, "attributes": ["hat", HOSTILE], "neutral": None},
        "histogram": image_png(image),
        "sensitivity": table((HOSTILE, 0.1, 0.05, 0.15, 0.02), ("hat", 0.4, 0.3, 0.5, 0.62)),
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
            assert attributes.get(name, "data:").startswith(("data:", "#"))
    assert "url(" not in path.read_text("utf-8")
    assert "@import" not in path.read_text("utf-8")


def test_a_prompt_with_script_shows_as_text(tmp_path):
    _, page, _ = written(tmp_path)
    # title twice, verdict, asked twice, what thrice, row, strip, truth, settings, note
    assert page.text.count(HOSTILE) >= 12


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
    table_part, strips = page.text.rsplit("Pictures that change its mind", 1)
    table_part = table_part.rsplit("Answers flipped", 1)[1]
    assert table_part.index("hat\n") < table_part.index(HOSTILE)
    assert strips.index("hat\n") < strips.rindex(HOSTILE, 0, strips.index("No counterfactual"))
    assert "0.300 – 0.500" in table_part
    assert "80 %" in table_part  # of all movement
    assert "25 %" in table_part  # flipped
    assert "62 %" in table_part  # seen
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
    assert "Keep in mind" not in page.text


def test_writing_twice_replaces_the_file_and_leaves_no_other(tmp_path):
    written(tmp_path)
    written(tmp_path, title="second")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert "<h1>second</h1>" in (tmp_path / "report.html").read_text("utf-8")


def test_the_page_says_what_moves_who_is_hidden_and_how_to_go_on(tmp_path):
    path, page, _ = written(
        tmp_path, what="the probability of “male”", next_steps=["Ask again."], winner="hat"
    )
    rows = [a.get("class") for tag, a in page.tags if tag == "tr"]
    assert rows[1:3] == ["winner", "hidden"]
    histogram, before, after = (a["alt"] for a in page.images())
    assert "the probability of “male”: hat 0.40 (0.30 to 0.50)" in histogram
    assert before == "An image, the probability of “male”: 0.91"
    assert after == "The same with hat added, the probability of “male”: 0.12"
    assert "Hollow bars" in page.text
    assert "Diamond" in page.text
    assert "Ask again." in page.text
    assert f"report of {datetime.date.today().isoformat()}" in page.text
    assert "Zero-shot Model Diagnosis. CVPR 2023" in page.text
    links = [a["href"].removeprefix("#") for tag, a in page.tags if tag == "a" and "href" in a]
    anchors = {a["id"] for tag, a in page.tags if tag == "section"}
    assert {link for link in links if not link.startswith("data:")} == anchors
    (uri,) = (a["href"] for _, a in page.tags if a.get("download") == "sensitivity.csv")
    table = pd.read_csv(io.BytesIO(base64.b64decode(uri.partition("base64,")[2])))
    assert table["attribute"].tolist() == ["hat", HOSTILE]
    assert table["h"].tolist() == [0.4, 0.1]
    assert "<p>Then “bangs”.</p>" in path.read_text("utf-8")


def test_without_readers_or_truth_the_page_does_not_speak_of_them(tmp_path):
    plain = table(("hat", 0.4, 0.3, 0.5, 0.6)).drop(
        columns=["seen", "seen_low", "seen_high", "shown"]
    )
    _, page, _ = written(tmp_path, sensitivity=plain, truth=None)
    assert "CLIP sees" not in page.text
    assert "Hollow" not in page.text
    assert "Diamond" not in page.text


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
        written(tmp_path, sensitivity=table(("hat", 1, 1, 1, 1)).drop(columns="share"))
