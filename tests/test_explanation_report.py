"""What classes want to see, on one page: escaped, self-contained, its numbers by hand."""

import ast
import base64
import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from test_report import HOSTILE, Page
from visiondx.core.results import Result
from visiondx.diffexplainer.explain import Found, Settings
from visiondx.diffexplainer.prompts import SoftPrompt
from visiondx.diffexplainer.result import Explanation
from visiondx.search.descent import Descent
from visiondx.show.explanation_report import python_lines, write_explanation

SETTINGS = Settings("a {t}", starts=2, noises=2, descent=Descent(3, 0.2, "adam"))


def explanation(names=("boat", "fc:1"), classes=("boat", None), word="boat", size=8):
    """Two aims with 10 pictures: of the first, all are taken, and an eighth of each is the object.

    Its n-th picture is of one colour, a red of 20 n levels.
    """
    images = torch.zeros(2, 10, 3, size, size)
    images[0, :, 0] = torch.arange(10)[:, None, None] * 20 / 255
    masks = torch.zeros(2, 10, size, size, dtype=torch.bool)
    masks[0, :, :, : size // 8] = True
    p = torch.full((2, 10), torch.nan)
    p[0] = 0.9
    taken = torch.zeros(2, 10, dtype=torch.bool)
    taken[0] = True
    r = torch.full((2, 10), torch.nan)
    r[0] = 0.125
    path = torch.tensor(
        [[[3.0, 4], [1, 1]], [[2, 3], [1, 1]], [[1, 2], [1, 1]], [[0.5, 1], [1, 1]]]
    )
    found = Found(
        names,
        SoftPrompt("a {t}", torch.zeros(4, dtype=torch.long), (1,)),
        torch.zeros(2, 2, 1, 3),
        None,
        torch.tensor([[0.5, 1.5], [1.0, 1.0]]),
        path,
        SETTINGS,
        7,
    )
    near = [[["sea", "wave"]], [["red", "dark"]]]
    known = (word is not None, False)
    return Explanation(
        names, classes, found, images, p, taken, (word, None), known, r, near, 0.05, masks,
        ("free", None),
    )  # fmt: skip


def written(tmp_path, found=None, **given):
    path = write_explanation(found or explanation(), tmp_path, title="T", **given)
    return path.read_text("utf-8"), Page(path.read_text("utf-8"))


def pictures(page):
    return [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(image["src"].partition("base64,")[2]))))
        for image in page.images()
    ]


def test_it_is_a_result():
    assert isinstance(explanation(), Result)


def test_nothing_is_fetched_nothing_runs_and_names_are_text(tmp_path):
    hostile = explanation((HOSTILE, "fc:1"), (HOSTILE, None), HOSTILE)
    text, page = written(
        tmp_path,
        replace(hostile, near=[[[HOSTILE]], [["red"]]]),
        asked={"Target": HOSTILE},
        settings={"preset": HOSTILE},
        command=HOSTILE,
    )
    assert "script" not in [tag for tag, _ in page.tags]
    assert not [a for _, a in page.tags if any(name.startswith("on") for name in a)]
    for _, attributes in page.tags:
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith(("data:", "#"))
    assert "url(" not in text
    assert "@import" not in text
    # verdict, contents, asked twice, heading, sentence, note, near, row, next, command, settings
    assert page.text.count(HOSTILE) >= 12
    links = [a["href"].removeprefix("#") for tag, a in page.tags if tag == "a" and "href" in a]
    anchors = {a["id"] for tag, a in page.tags if tag == "section"}
    assert {link for link in links if not link.startswith("data:")} == anchors


def test_the_pictures_are_the_first_with_what_was_found_beside_them(tmp_path):
    _, page = written(tmp_path)
    shown = pictures(page)
    assert len(shown) == 8 * 2 + 1 + 8 + 1  # pairs and a curve; pictures and a curve
    for n in range(8):
        picture, mask = shown[2 * n], shown[2 * n + 1]
        assert picture.shape == (8, 8, 3)
        assert (picture == [20 * n, 0, 0]).all()
        # outside of the mask 0.45 as bright, inside 0.45 on the way to a red
        assert (mask[:, 1:] == [9 * n, 0, 0]).all()
        assert mask[0, 0, 1] == round(255 * 0.45 * 0.15)
    alts = [image["alt"] for image in page.images()]
    assert alts[0] == "A picture painted for boat, probability of boat 0.90"
    assert alts[1] == "The same; boat, in red, covers 12 %"
    assert alts[17] == "A picture painted for fc:1"
    assert "from 3.50 on average over the starts to 0.50" in alts[16]


def test_large_pictures_are_made_small(tmp_path):
    _, page = written(tmp_path, explanation(size=512))
    assert pictures(page)[0].shape == (256, 256, 3)


def test_the_numbers_are_those_one_computes_by_hand(tmp_path):
    _, page = written(tmp_path)
    numbers = page.text.rsplit("The numbers", 1)[1].split("Loss: on noise")[0].split()
    numbers = " ".join(numbers)
    # Wilson's interval of 10 of 10: from 1 / (1 + 1.96² / 10)
    assert "boat 100 % 72 % – 100 % 0.9 12 % 12 % – 12 % 0.5 0.707" in numbers
    assert "fc:1 – – – – – 1 0" in numbers
    (uri,) = (a["href"] for _, a in page.tags if a.get("download") == "explanation.csv")
    frame = pd.read_csv(io.BytesIO(base64.b64decode(uri.partition("base64,")[2])))
    assert frame["r"].tolist()[0] == 0.125
    assert frame["near"].tolist() == ["sea/wave", "red/dark"]


@pytest.mark.parametrize(
    ("changes", "said", "unsaid"),
    [
        ({}, "another seed than 7", "search longer"),
        ({"taken": torch.zeros(2, 10, dtype=torch.bool)}, "search longer", "check photographs"),
        ({"known": (False, False)}, "never seen the word", "the part of a picture"),
        ({"delta": 0.2}, "Of “boat”, check photographs", "Where an interval holds"),
        (
            {"r": torch.tensor([[0.0] * 8 + [0.2] * 2, [torch.nan] * 10])},
            "half as wide takes about 40",
            "search longer",
        ),
    ],
)
def test_the_page_says_how_to_go_on(tmp_path, changes, said, unsaid):
    _, page = written(tmp_path, replace(explanation(), **changes))
    assert said in page.text
    assert unsaid not in page.text


def test_of_channels_alone_it_speaks_of_no_class(tmp_path):
    found = replace(explanation(), classes=(None, None), words=(None, None), known=(False, False))
    _, page = written(tmp_path, found)
    for word in ("probability of the class", "segmenter", "Taken for it", "Mean r"):
        assert word not in page.text
    assert len(page.images()) == 2 * (8 + 1)


def test_python_lines_hold_all_that_was_set():
    found = replace(explanation(word="a boat's hull"), delta=0.1)
    lines = python_lines(found, "target = painter = segmenter = None")
    tree = ast.parse(lines)
    (call,) = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and "vx" in ast.dump(n.func)]
    assert [ast.unparse(a) for a in call.args] == [
        *("target", "['boat', 'fc:1']", "painter", "segmenter")
    ]
    given = {k.arg: ast.unparse(k.value) for k in call.keywords}
    assert ast.literal_eval(given["words"]) == {"boat": "a boat's hull"}
    assert (given["pictures"], given["delta"], given["seed"]) == ("10", "0.1", "7")
    made = {}
    exec("\n".join(lines.splitlines()[:5]), made)  # up to the call
    assert made["settings"] == SETTINGS
    other = python_lines(replace(found, way=("drawn", ("red", "blue"), 1.0, 0.1)))
    assert "way=way,  # drawn" in other
    ast.parse(other)
