"""The explorer of shifts without a browser: its session, and its widgets in a kernel."""

import asyncio
import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import visiondx as vx
from dataset_interfaces_standins import ColourWords
from painter_standins import lcm_painter
from visiondx.core.errors import InputError
from visiondx.dataset_interfaces.clip_filter import ClipFilter
from visiondx.dataset_interfaces.interface import DatasetInterface
from visiondx.dataset_interfaces.manifest import read_manifest
from visiondx.dataset_interfaces.models import open_model
from visiondx.dataset_interfaces.shifts import Shift
from visiondx.dataset_interfaces.tokens import ClassTokens, fingerprint
from visiondx.widgets import shift_figures, shift_parts
from visiondx.widgets.shift_rows import NAME, TOKEN, TRUTH, Progress, Row, ShiftQuestion
from visiondx.widgets.shift_session import KEPT, YIELD, ShiftSession
from visiondx.widgets.shifter import OWN, OWN_WORDS, Shifter

RED = "a red <class> d"  # the stand-in painter reads a letter a token, CLIP the colour alone
QUESTION = ShiftQuestion("dog", RED, count=5, seed=3)
MINE = """
import torch
from torch import nn
from visiondx.models.target import Target

class Light(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.classes = classes

    def forward(self, images):
        light = 40 * (images.mean((1, 2, 3)) - 0.5)
        return torch.stack([-light, light, *[light - 99] * (self.classes - 2)], 1)

def load():
    return Target(Light(2).eval(), "multiclass", ["f", "dog"])

def more():
    return Target(Light(3).eval(), "multiclass", ["dog", "<i>cow</i>", "hen"])

def f_alone():
    return Target(Light(3).eval(), "multiclass", ["f", "cow", "hen"])

def strangers():
    return Target(Light(2).eval(), "multiclass", ["cow", "hen"])

def unnamed():
    return Light(3)
"""


@pytest.fixture(scope="module")
def painter(tmp_path_factory):
    return lcm_painter(tmp_path_factory.mktemp("painter"))


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    file = tmp_path_factory.mktemp("mine") / "mine.py"
    file.write_text(MINE)
    return file


@pytest.fixture(scope="module")
def interface(painter):
    vectors = 9 * torch.randn(2, 1, 16, generator=torch.Generator().manual_seed(0))
    own = ("f", "dog")
    tokens = ClassTokens(own, ("<f>", "<dog>"), vectors, own, fingerprint(painter))
    clip = ClipFilter({"f": 0.0, "dog": 0.0}, {"f": 0.5, "dog": 0.6}, "first")
    return DatasetInterface(painter, ColourWords(), {"f": "f", "dog": "dog"}, clip, tokens)


def reds(kind, shift, count, seed):
    """Drawn: ever less red; nothing but RED can be."""
    if shift.name != RED:
        return None
    colours = ColourWords.images("red", torch.linspace(1, 0, count).tolist())
    return colours[:, :, :1, :1].expand(-1, -1, 16, 16)


def by_three(interface, shift):
    """A judge who looks at three pictures."""
    if shift.name != RED:
        return None
    for k in range(3):
        yield Progress("Judging", k, 3)
    return 0.25, "a judge said so"


@pytest.fixture
def session(interface, mine):
    model = open_model(f"{mine}:load")
    return ShiftSession(interface, model, truth=reds, calibrate=by_three, part=2)


@pytest.fixture
def shifter(session):
    return Shifter(session, QUESTION)


def test_the_pictures_are_those_that_the_interface_writes(session, interface, tmp_path):
    rows = session.answer(QUESTION)
    assert list(rows) == [NAME, TOKEN, TRUTH]
    for name, made in ((NAME, interface.by_name()), (TOKEN, interface)):
        row, home = rows[name], tmp_path / name
        made.generate(RED, ["dog"], n=5, seed=3, folder=home)
        made.with_threshold(RED, session.t_shift).filter(home)
        kept = read_manifest(home)
        assert row.prompt == kept["prompt"][0]
        for k, file in enumerate(kept["file"]):
            stored = torch.from_numpy(np.array(Image.open(home / file))).permute(2, 0, 1) / 255
            assert (row.images[k] - stored).abs().max() < 1.5 / 255
        assert np.allclose(row.of_class, kept["class_score"], atol=2e-3)
        assert np.allclose(row.of_shift, kept["shift_score"], atol=2e-3)
        clear = np.abs(row.of_shift - session.t_shift) > 2e-3
        assert (session.keeps(row) == kept["kept"])[clear].all()
        p = session.model.target(row.images)
        assert torch.allclose(row.p, p, atol=1e-6)
    assert rows[NAME].prompt == "a red dog d"
    assert rows[TOKEN].prompt == "a red <dog> d"
    assert not torch.equal(rows[NAME].images, rows[TOKEN].images)
    drawn = reds("dog", session.shift, 5, 3)
    assert (rows[TRUTH].images - drawn).abs().max() < 0.51 / 255


def told(of_class, of_shift, first):
    """A row of grey pictures with these similarities, and this probability of label 0."""
    p = torch.tensor([[value, 1 - value] for value in first])
    return Row(
        "x", torch.full((len(first), 3, 8, 8), 0.5), p, np.array(of_class), np.array(of_shift)
    )


def test_what_is_told_of_pictures_by_hand(session):
    session.ask(QUESTION)
    row = told([0.1, 0.1, -0.1, 0.1], [0.3, 0.2, 0.3, 0.25], [0.1, 0.2, 0.9, 0.7])
    session.rows = {TOKEN: row, TRUTH: told([0.1, -0.1], [0.3, 0.1], [0.2, 0.3])}
    session.choose(0.25)
    assert [list(part) for part in session.passes(row)] == [
        [True, True, False, True],
        [True, False, True, True],
    ]
    assert session.says(row) == ["dog", "dog", "f", "f"]
    found = session.measures(row)
    assert {name: (each.value, each.n) for name, each in found.items()} == {
        "yield": (0.5, 4), "right": (0.5, 4), "right_kept": (0.5, 2),
    }  # fmt: skip
    assert session.verdict() == (
        "Of the token's 4 pictures 2 pass, and 1 of these is taken for a dog: an estimated "
        "accuracy of 50% [9%, 91%]. The truth is 100% [34%, 100%], of 2 drawn ones."
    )
    frame = session.to_frame()
    assert frame["kept"].tolist() == [True, False, False, True, True, False]
    assert frame["p"].round(2).tolist() == [0.9, 0.8, 0.1, 0.3, 0.8, 0.7]
    # over t_shift: three of four pass t_class, and of these, those from there up
    lines = session.yields(5)
    assert lines[TOKEN]["t_shift"].tolist() == pytest.approx([0.1, 0.15, 0.2, 0.25, 0.3])
    assert lines[TOKEN]["yield"].tolist() == [0.75, 0.75, 0.75, 0.5, 0.25]
    assert lines[TRUTH]["yield"].tolist() == [0.5] * 5
    session.choose(0.9)
    assert session.verdict().startswith("None of the token's 4 pictures passes")
    del session.rows[TRUTH]
    assert session.verdict().endswith("Nobody can draw the truth of this shift.")


def test_a_style_has_its_own_thresholds_and_captions(session):
    session.ask(replace(QUESTION, shift="a red <class>", style=True))
    assert session.captions == ("a dog", "a red thing")
    assert session.t_class == 0.6
    session.ask(replace(QUESTION, shift="a red <class>"))
    assert session.captions == ("a photo of a dog", "a red thing")
    assert session.t_class == 0.0


def test_t_shift_is_calibrated_once_and_chosen_by_eye(session, monkeypatch):
    session.ask(QUESTION)
    seen = [(at.said, at.done, at.total) for at in session.steps()]
    assert seen == [
        *(("Painting", done, 10) for done in (0, 4, 8, 10)),
        *(("Judging", k, 3) for k in range(3)),
    ]
    assert (session.t_shift, session.why) == (0.25, "a judge said so")
    assert session.interface.clip.shift == {RED: 0.25}
    session.choose(0.3)
    assert (session.t_shift, session.why) == (0.3, "chosen by eye")
    session.ask(replace(QUESTION, seed=4))
    assert {at.said for at in session.steps()} == {"Painting"}
    assert session.t_shift == 0.3
    session.calibrate_again()
    assert (session.t_shift, session.why) == (0.25, "a judge said so")
    # other words, of which no judge knows: all of the token's pictures pass
    session.answer(replace(QUESTION, shift="a green <class> d"))
    row = session.rows[TOKEN]
    assert TRUTH not in session.rows
    assert session.t_shift == row.of_shift.min()
    assert session.passes(row)[1].all()
    assert session.why.startswith("nobody has chosen it")
    assert session.calibrated is None
    with pytest.raises(InputError, match="cosine"):
        session.choose(1.5)


def test_who_cannot_calibrate_says_why(interface, mine):
    def fails(interface, shift):
        yield Progress("Judging", 0, 1)
        return None, "none shows it"

    session = ShiftSession(interface, open_model(f"{mine}:load"), calibrate=fails)
    session.answer(QUESTION)
    assert session.why == "none shows it"
    assert session.t_shift == session.rows[TOKEN].of_shift.min()
    session.ask(replace(QUESTION, seed=4))
    assert {at.said for at in session.steps()} == {"Painting"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"shift": " "}, "needs words"),
        ({"shift": "wearing a very long hat"}, "reads 12; shorten it"),
        ({"shift": "<class> <class>"}, "must hold <class> once"),
        ({"kind": "cat"}, "No class 'cat'"),
        ({"count": 0}, "0 pictures"),
        ({"count": 101}, "101 pictures"),
        ({"seed": -1}, "seed"),
    ],
)
def test_what_cannot_be_asked_leaves_the_session_as_it_was(session, change, said):
    rows = session.answer(QUESTION)
    with pytest.raises(InputError, match=said):
        session.ask(replace(QUESTION, **change))
    assert (session.asked, session.shift.name) == (QUESTION, RED)
    assert session.rows is rows


def test_nothing_is_told_before_it_is_asked(session):
    for early in (lambda: next(session.steps()), lambda: session.column, session.lines):
        with pytest.raises(InputError, match="Nothing is asked"):
            early()
    session.ask(QUESTION)
    with pytest.raises(InputError, match="Nothing is painted"):
        session.verdict()
    with pytest.raises(InputError, match="no similarity"):
        session.yields()


def test_another_classifier_sees_the_same_pictures(session, mine, monkeypatch):
    before = session.answer(QUESTION)
    monkeypatch.setattr(session.interface.painter, "forward", lambda *_: pytest.fail("painted"))
    session.use(f"{mine}:more")
    assert session.kinds == ("dog",)
    assert session.rows[TOKEN].images is before[TOKEN].images
    assert session.rows[TOKEN].p.shape == (5, 3)
    assert torch.allclose(session.rows[TOKEN].p[:, 0], before[TOKEN].p[:, 0], atol=1e-6)
    for bad, said in (("strangers", "labels of"), ("unnamed", "bare module")):
        with pytest.raises(InputError, match=said):
            session.use(f"{mine}:{bad}")
    assert session.model.spec == f"{mine}:more"
    session.use(f"{mine}:f_alone")  # it knows no dog
    assert (session.kinds, session.asked, session.rows) == (("f",), None, {})


def test_shifts_are_compared(session):
    other = "a green <class> d"
    table = session.compare("dog", [RED, other], count=3, seed=3)
    assert {series: list(row) for series, row in table.items()} == {
        NAME: [RED, other], TOKEN: [RED, other], TRUTH: [RED], KEPT: [RED, other],
        YIELD: [RED, other],
    }  # fmt: skip
    rows = session.answer(replace(QUESTION, count=3))
    found = {name: session.measures(row) for name, row in rows.items()}
    assert {name: table[name][RED] for name in rows} == {
        name: share["right"] for name, share in found.items()
    }
    assert (table[KEPT][RED], table[YIELD][RED]) == (
        found[TOKEN]["right_kept"], found[TOKEN]["yield"],
    )  # fmt: skip
    session.choose(0.9)  # none is kept
    assert RED not in session.compare("dog", [RED], count=1).get(KEPT, {})


def test_an_interface_without_tokens_is_refused(interface, mine):
    with pytest.raises(InputError, match="no tokens"):
        ShiftSession(interface.by_name(), open_model(f"{mine}:load"))


def test_the_lines_make_the_same(session, interface, tmp_path, monkeypatch, mine):
    monkeypatch.chdir(tmp_path)
    session.opening = "from mine import interface"
    session.answer(QUESTION)
    python, command = session.lines()
    opening, *rest = python.splitlines()
    assert opening == "from mine import interface"
    assert command == f"visiondx benchmark --images runs/mine --models {mine}:load"
    python = "\n".join(line for line in rest if '"base"' not in line)  # too long for the stand-in
    exec(python, {"interface": interface, "vx": vx})
    found = read_manifest(tmp_path / "runs/mine")
    assert len(found) == 5
    row = session.rows[TOKEN]
    clear = np.abs(row.of_shift - session.t_shift) > 2e-3
    assert (session.keeps(row) == found["kept"])[clear].all()
    session.answer(replace(QUESTION, shift="a red <class>", style=True))
    assert "vx.Shift.of('a red <class>', style=True)" in session.lines()[0]


# ---------------------------------------------------------------- the widgets


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
