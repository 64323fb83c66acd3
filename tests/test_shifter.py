"""The explorer of shifts without a browser: its widgets as a kernel has them."""

import asyncio
import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from shifter_standins import QUESTION, RED, classifiers_in, interface_in, start
from visiondx.core.errors import InputError
from visiondx.dataset_interfaces.shifts import Shift
from visiondx.widgets import shift_figures, shift_parts
from visiondx.widgets.shift_rows import NAME, TOKEN, TRUTH, Row
from visiondx.widgets.shifter import OWN, OWN_WORDS, Shifter


@pytest.fixture(scope="module")
def interface(tmp_path_factory):
    return interface_in(tmp_path_factory.mktemp("painter"))


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    return classifiers_in(tmp_path_factory.mktemp("mine"))


@pytest.fixture
def session(interface, mine):
    return start(interface, mine)


@pytest.fixture
def shifter(session):
    return Shifter(session, QUESTION)


def left_out(shifter, name):
    """Numbers of a row's pictures that the style sheet makes pale."""
    (rule,) = re.findall(r"[^}]*\{ opacity: .3 \}", shifter.sheet.value) or [""]
    return [int(k) for k in re.findall(rf"vdx-row-{name} \.n(\d+) img", rule)]


def test_the_widgets_paint_and_tell(shifter):
    session = shifter.session
    assert [shifter.shots[name].value.count("<img") for name in (NAME, TOKEN, TRUTH)] == [5] * 3
    assert shifter.shift.value == OWN_WORDS
    assert shifter.words.value == RED
    for name, row in session.rows.items():
        assert left_out(shifter, name) == np.flatnonzero(~session.keeps(row)).tolist()
        for k, value in enumerate(row.p[:, 1].tolist()):
            cell = shifter.shots[name].value.split("<figure ")[k + 1]
            assert f'"n{k}"' in cell
            hit = "vdx-hit" if value > 0.5 else "vdx-miss"
            assert f'<span class="{hit}">{value:.2f}</span>' in cell
            assert ("<span>f</span>" in cell) == (value < 0.5)
            assert f"shift</i>{row.of_shift[k]:.3f}" in cell
    assert left_out(shifter, TRUTH) == [4]  # cosines .5 √(1, .75, .5, .25, 0) against 0.25
    assert "a red &lt;dog&gt; d" in shifter.heads[TOKEN].value
    assert "the renderer draws" in shifter.heads[TRUTH].value
    assert "a judge said so" in shifter.passed.value
    assert session.verdict() in shifter.said.value.replace("&#x27;", "'")
    assert shifter.bar.layout.visibility == "hidden"
    assert shifter.limit.value == 0.25
    assert shifter.undo.layout.display == "none"
    assert "“a photo of a dog”, which must reach 0.000" in shifter.about.value


def test_the_slider_changes_what_is_kept_and_sends_no_picture(shifter):
    shots = [each.value for each in shifter.shots.values()]
    scores = shifter.session.rows[TRUTH].of_shift
    for limit in (0.4, float(scores.max()), float(shifter.limit.min)):
        shifter.limit.value = limit
        assert left_out(shifter, TRUTH) == np.flatnonzero(scores < limit).tolist()
        kept = shifter.session.measures(shifter.session.rows[TOKEN])["yield"]
        assert shift_parts.percent(kept) in shifter.passed.value
        assert "chosen by eye" in shifter.passed.value
        assert shifter.undo.layout.display is None
    assert "yield <b class='vdx-yield'>100%" in shifter.passed.value
    assert [each.value for each in shifter.shots.values()] == shots
    shifter.undo.click()
    assert shifter.limit.value == 0.25
    assert left_out(shifter, TRUTH) == [4]
    assert shifter.undo.layout.display == "none"
    # a slider that rounds what it was given has not been moved
    shifter.limit.value = 0.2504
    assert shifter.session.t_shift == 0.25
    assert "a judge said so" in shifter.passed.value
    shifter.limit.value = 0.251
    assert shifter.session.t_shift == 0.251


def test_pictures_are_sorted_by_the_shift(shifter):
    shifter.sorted.value = True
    for name, row in shifter.session.rows.items():
        order = [int(k) for k in re.findall(r'"n(\d+)"', shifter.shots[name].value)]
        assert sorted(order) == list(range(5))
        assert (np.diff(row.of_shift[order]) <= 0).all()


def test_own_words_are_typed_and_bad_ones_change_nothing(shifter):
    shots, verdict = shifter.shots[TOKEN].value, shifter.said.value
    for words, said in (("", "needs words"), ("a red <class> with letters", "shorten it")):
        shifter.words.value = words
        assert "vdx-error" in shifter.message.value
        assert said in shifter.message.value
        assert (shifter.shots[TOKEN].value, shifter.said.value) == (shots, verdict)
        assert not shifter.find.disabled
    shifter.words.value = "a green <class> d"
    assert "vdx-error" not in shifter.message.value
    assert shifter.shots[TOKEN].value != shots
    assert not shifter.shots[TRUTH].value
    assert "nobody can draw this shift" in shifter.heads[TRUTH].value
    assert "nobody has chosen it" in shifter.passed.value
    assert left_out(shifter, TOKEN) == []
    shifter.words.value = ""
    shifter.shift.value = "in the snow"  # its prompt is too long for the stand-in
    assert "reads 12" in shifter.message.value
    shifter.shift.value = OWN_WORDS
    assert "Say in words" in shifter.message.value
    assert "vdx-error" not in shifter.message.value


def test_base_asks_for_the_class_alone(shifter):
    shifter.shift.value = "base"
    session = shifter.session
    assert session.shift == Shift.named("base")
    assert shifter.limit.disabled
    assert "nothing is shifted" in shifter.passed.value
    assert "shift</i>" not in shifter.shots[TOKEN].value
    assert not shifter.lanes.value
    assert session.keeps(session.rows[TOKEN]).all()
    assert session.lines()[1] == ""
    shifter.shift.value = OWN_WORDS  # the words are there still
    assert not shifter.limit.disabled


def test_stop_keeps_what_is_painted(session):
    shifter = Shifter(session, QUESTION)
    show = shifter._show

    def watch():
        show()
        if len(session.rows.get(TOKEN, ())) == 4:
            assert shifter.find.disabled
            assert not shifter.stop.disabled
            assert (shifter.bar.value, shifter.bar.layout.visibility) == (8, "visible")
            shifter.stop.click()

    shifter._show = watch
    shifter.seed.value = 9
    assert "Stopped with 4 of 5 pictures" in shifter.message.value
    assert shifter.shots[TOKEN].value.count("<img") == 4
    assert "Of the token&#x27;s 4 pictures" in shifter.said.value
    assert shifter.stop.disabled
    assert not shifter.find.disabled


def test_painting_in_a_kernel_leaves_it_listening(shifter, monkeypatch):
    monkeypatch.setattr(Shifter, "frame", 0.0)

    async def kernel():
        shifter.kind.value = "f"
        assert shifter.session.asked.kind == "dog"  # it has only begun
        for _ in range(3):
            await asyncio.sleep(0)
        assert "Painting … " in shifter.message.value
        shifter.stop.click()
        await shifter._task

    asyncio.run(kernel())
    assert "Stopped with" in shifter.message.value
    assert shifter.session.asked.kind == "f"


def test_models_are_chosen_and_html_is_text(shifter, mine):
    shots = shifter.shots[TOKEN].value
    shifter.own.value = f"{mine}:more"
    assert shifter.model.value == f"{mine}:more"
    assert shifter.kind.options == ("dog",)
    assert shifter.shots[TOKEN].value != shots
    shown = "".join(each.value for each in shifter.shots.values())
    assert "<i>cow" not in shown
    assert "&lt;i&gt;cow&lt;/i&gt;" in shown
    for bad, said in (("nothing.py:load", "nothing.py"), (f"{mine}:strangers", "labels of")):
        shifter.own.value = bad
        assert "vdx-error" in shifter.message.value
        assert said in shifter.message.value
        assert shifter.model.value == f"{mine}:more"
    shifter.model.value = OWN
    assert "press Enter" in shifter.message.value
    shifter.own.value = f"{mine}:f_alone"
    assert "knows no dog" in shifter.message.value
    assert not shifter.shots[TOKEN].value
    assert not shifter.said.value
    shifter.find.click()
    assert shifter.shots[TOKEN].value.count("<img") == 5


def test_two_explorers_in_a_page_share_no_sheet(session, interface, mine):
    names = set()
    for _ in range(2):
        shifter = Shifter(session, QUESTION)
        (name,) = re.findall(r"\.(vdx-shift-\d+) \.vdx-limit", shifter.sheet.value)
        assert name in shifter.box._dom_classes
        names.add(name)
    assert len(names) == 2


def test_a_page_that_is_only_read_shows_pictures(shifter):
    still = base64.b64decode(shifter._repr_mimebundle_()["image/png"])
    with Image.open(io.BytesIO(still)) as shown:
        assert shown.width > 400
    figure = shift_figures.pictures(shifter.session, 3)
    titles = [axis.get_title() for axis in figure.axes]
    assert len(titles) == 9
    row = shifter.session.rows[TRUTH]
    assert titles[6].split("\n")[1] == f"c 0.00  s {row.of_shift[0]:.2f}"
    shifter.limit.value = 0.45
    titles = [axis.get_title() for axis in shift_figures.pictures(shifter.session, 3).axes]
    assert titles[7].split("\n")[1] == f"c 0.00  ✕s {row.of_shift[1]:.2f}"
    lines = shift_figures.yields(shifter.session).axes[0].lines
    assert lines[-1].get_xdata()[0] == 0.45


def test_a_first_question_that_cannot_be_asked_is_refused(session):
    for change, said in (({"kind": "cat"}, "No class 'cat'"), ({"shift": ""}, "needs words")):
        with pytest.raises(InputError, match=said):
            Shifter(session, replace(QUESTION, **change))


def test_large_pictures_are_sent_small():
    row = Row("x", torch.rand(1, 3, 512, 256), torch.tensor([[0.2, 0.8]]), *np.full((2, 1), 0.5))
    html = shift_parts.shots(row, 1, ["dog"], [0])
    sent = base64.b64decode(html.split("base64,")[1].split('"')[0])
    with Image.open(io.BytesIO(sent)) as shown:
        assert shown.size == (64, 128)
