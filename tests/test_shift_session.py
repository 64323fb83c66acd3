"""The state behind the explorer of shifts: pictures, the filter, thresholds, what is told."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import visiondx as vx
from shifter_standins import QUESTION, RED, classifiers_in, interface_in, reds, start
from visiondx.core.errors import InputError
from visiondx.dataset_interfaces.clip_filter import ClipFilter
from visiondx.dataset_interfaces.inversion import initial_tokens
from visiondx.dataset_interfaces.manifest import read_manifest
from visiondx.dataset_interfaces.models import open_model
from visiondx.widgets.shift_rows import NAME, TOKEN, TRUTH, Progress, Row, ShiftQuestion
from visiondx.widgets.shift_session import KEPT, YIELD, ShiftSession
from visiondx_worlds.marking.dataset_interfaces.own import calibrated
from visiondx_worlds.marking.dataset_interfaces.truth import true_images
from visiondx_worlds.widgets.shift_session import by_judges, classifiers, draw, open_shifts
from visiondx_worlds.worlds.scenes import SHIFTS, scenes


@pytest.fixture(scope="module")
def interface(tmp_path_factory):
    return interface_in(tmp_path_factory.mktemp("painter"))


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    return classifiers_in(tmp_path_factory.mktemp("mine"))


@pytest.fixture
def session(interface, mine):
    return start(interface, mine)


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
    asked, kept = session.asked, session.rows
    assert RED not in session.compare("dog", [RED], count=1).get(KEPT, {})
    assert (session.asked, session.rows) == (asked, kept)


def test_a_session_apart_changes_nothing_in_the_first(session):
    rows = session.answer(QUESTION)
    apart = session.apart()
    apart.choose(0.4)
    apart.answer(replace(QUESTION, kind="f", seed=4))
    assert (session.asked, session.t_shift, session.why) == (QUESTION, 0.25, "a judge said so")
    assert session.rows is rows
    assert (apart.t_shift, apart.why) == (0.4, "chosen by eye")


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


# ---------------------------------------------------------------- embedded models


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A session on a folder of somebody's own interface, and that folder."""
    home = tmp_path_factory.mktemp("saved")
    painter, encoder = vx.Painter.load("embedded"), vx.Encoder.load()
    images = true_images("base", 3, 0, ["dog", "plate"])
    clip = ClipFilter.fit(images, encoder).with_shift(vx.Shift.of("at night"), 0.1)
    tokens = initial_tokens(painter, list(images))
    own = vx.DatasetInterface(painter, encoder, {name: name for name in images}, clip, tokens)
    own.save(home)
    return open_shifts("scenes-resnet-w16-d2", str(home)), home


def test_a_saved_interface_is_opened_by_its_folder(opened):
    session, home = opened
    assert session.kinds == ("dog", "plate")
    session.answer(ShiftQuestion("plate", "at night", count=1))
    assert list(session.rows) == [NAME, TOKEN]  # whose data set it is, nobody knows
    assert (session.t_shift, session.why) == (0.1, "the interface's own")
    names = {}
    opening = "\n".join(line for line in session.lines()[0].splitlines() if "generate" not in line)
    exec(opening.rpartition("\n")[0], names)  # all but the filtering
    assert names["interface"].clip == session.interface.clip
    assert names["interface"].words == {"dog": "dog", "plate": "plate"}
    with pytest.raises(InputError, match="none of the 2 labels of young"):
        open_shifts("young", str(home))
    with pytest.raises(InputError, match="No dataset interface in"):
        open_shifts("young", "")


def test_the_renderer_draws_what_table_1_names():
    assert torch.equal(
        draw("mug", vx.Shift.of("in the snow"), 2, 5),
        true_images("in the snow", 2, 5, ["mug"])["mug"],
    )
    assert draw("mug", vx.Shift.of("wearing a hat"), 2, 5) is None
    names = classifiers()
    assert {"scenes-resnet-w16-d2", "contexts-first"} <= set(names)
    assert "young" not in names


class Night:
    """Judges that see the night in every picture."""

    binary = scenes.binary

    def column(self, name):
        return 0

    def answers(self, images):
        factor, value = SHIFTS["night"]
        shown = torch.full((2, len(images)), int(value))
        binary = torch.zeros(2, len(images), len(self.binary), dtype=torch.bool)
        return {"class": torch.zeros_like(shown), factor: shown, "binary": binary}


def ended(steps):
    """What a generator yields, and what it returns."""
    returned = []

    def whole():
        returned.append((yield from steps))

    return list(whole()), returned[0]


def test_judges_choose_t_shift_part_by_part_and_keep_the_pictures(opened, tmp_path, monkeypatch):
    interface = opened[0].interface
    choose = by_judges(Night(), 10, 7, tmp_path)
    night = vx.Shift.of("at night")
    monkeypatch.setattr("visiondx_worlds.widgets.shift_session._AT_ONCE", 8)
    seen, chosen = ended(choose(interface, night))
    assert [(at.done, at.total) for at in seen] == [(0, 20), (8, 20), (16, 20)]
    found, _ = calibrated(interface, Night(), [night], 10, 7, tmp_path)
    assert chosen[0] == found.clip.shift["at night"]
    assert chosen[1].startswith(
        "calibrated: of 20 pictures from there up, the judges see the shift"
    )
    painted = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    assert len(painted) == 20
    assert ended(choose(interface, night))[1] == chosen
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")} == painted
    assert ended(choose(interface, vx.Shift.of("wearing a hat"))) == ([], None)
