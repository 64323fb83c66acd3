"""The explorer of explanations without a browser: its session, and its widgets in a kernel."""

import asyncio
import base64
import io
import shlex
from dataclasses import replace

import pytest
import torch
from PIL import Image

from painter_standins import lcm_painter
from test_diffexplainer_result import Half, Light
from visiondx.core.errors import InputError
from visiondx.diffexplainer.explain import Settings
from visiondx.diffexplainer.result import explain
from visiondx.models.segmenter import Segmenter
from visiondx.models.target import Target
from visiondx.run import notebooks, presets
from visiondx.search.descent import Descent
from visiondx.widgets import want_parts as parts
from visiondx.widgets.wants import WantSession, Wish
from visiondx.widgets.watch import OWN, Watcher
from visiondx_worlds.widgets.wants import classifiers, open_wants

SETTINGS = Settings(noises=1, held=2, batch=8, descent=Descent(5, 0.3, "adam"))
WISH = Wish("dog", template="a {t}", starts=2, steps=4, seed=3)
MINE = """
from torch import nn

def four():
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4)).eval()

def broken():
    return nn.Sequential(nn.Flatten(), nn.Linear(3, 4)).eval()
"""


@pytest.fixture(scope="module")
def painter(tmp_path_factory):
    return lcm_painter(tmp_path_factory.mktemp("painter"))


def start(painter, **given) -> WantSession:
    target = Target(Light().eval(), "multiclass", ["b", "dog"])
    plain = {"settings": SETTINGS, "pictures": 4, "every": 2}
    return WantSession(target, painter, Segmenter(Half(), ["dog"]), **{**plain, **given})


@pytest.fixture
def session(painter) -> WantSession:
    return start(painter)


@pytest.fixture
def watcher(session) -> Watcher:
    return Watcher(session, WISH, shown=3)


def test_a_watched_search_is_the_search(session):
    session.ask(WISH)
    watched = list(session.steps())
    found = session.answer()
    assert [at.step for at in watched] == [0, 1, 2, 3, 4]
    assert [at.step for at in watched if at.images is not None] == [0, 2, 4]
    settings = replace(SETTINGS, template="a {t}", starts=2, descent=Descent(4, 0.3, "adam"))
    whole = explain(
        session.target, "dog", session.painter, session.segmenter,
        settings=settings, pictures=4, seed=3,
    )  # fmt: skip
    assert torch.equal(found.found.soft, whole.found.soft)
    assert torch.equal(found.images, whole.images)
    assert found.said == whole.said
    assert torch.equal(watched[-1].path, whole.found.path[:, 0])
    assert watched[2].path[3:].isnan().all()
    assert not watched[2].path[:3].isnan().any()
    # the pictures that are watched are those of the answer, as they come to be
    kept = int(found.found.best[0])
    torch.testing.assert_close(watched[-1].images[kept], found.images[0, :2], atol=1e-5, rtol=0)
    p = session.target(watched[0].images[1])[:, 1]
    assert list(watched[0].captions[1]) == [f"{value:.2f}" for value in p.tolist()]
    film = session.film(9)
    assert film.shape == (3, 3, 16, 16)
    torch.testing.assert_close(film[-1], found.images[0, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(film[0], watched[0].images[kept, 0], atol=1e-5, rtol=0)
    assert not torch.allclose(film[0], film[-1], atol=1e-3)


def test_words_are_painted_of_the_answers_noise(session):
    images, captions = session.paint(" a dog ", WISH, 3)
    seeds = session._question(WISH).seeds
    assert torch.equal(images, session.painter.generate(["a dog"], seeds[:3])[0])
    assert captions == [f"{p:.2f}" for p in session.target(images)[:, 1].tolist()]
    alone = Wish(layer="read", channel=0, seed=3)
    light = images.mean((1, 2, 3))
    found = [float(text) for text in session.paint("a dog", alone, 3)[1]]
    assert found == pytest.approx((10 - 20 * light).tolist(), abs=0.006)
    with pytest.raises(InputError, match="is empty"):
        session.paint(" ", WISH, 3)


def test_a_wish_is_a_class_a_channel_or_their_sum():
    assert str(Wish("dog").aim) == "dog"
    assert str(Wish(layer="fc.input", channel=8).aim) == "fc.input:8"
    assert str(Wish("dog", "fc.input", 8).aim) == "dog + fc.input:8"
    assert Wish("dog", word="puppy").words == {"dog": "puppy"}
    with pytest.raises(InputError, match="Nothing is asked"):
        _ = Wish().aim


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"template": "a dog"}, "0 times"),
        ({"kind": "", "layer": "read", "channel": 7}, "channels 0 to 1"),
        ({"kind": "cat"}, "no class 'cat'"),
        ({"starts": 9}, "9 starts with 1 pictures each"),
        ({"tokens": 40}, "reads 12"),
    ],
)
def test_what_cannot_be_asked_leaves_the_session_as_it_was(session, change, said):
    session.ask(WISH)
    run = session.run
    with pytest.raises(InputError, match=said):
        session.ask(replace(WISH, **change))
    assert (session.wish, session.run) == (WISH, run)


def test_nothing_is_told_before_it_is_asked(session):
    for early in (session.answer, session.film, session.lines, lambda: next(session.steps())):
        with pytest.raises(InputError, match=r"^Nothing is (asked|found)"):
            early()


def test_the_lines_make_the_same(painter):
    told = {}

    def named(values):
        told.update(values)
        return "", "a command"

    session = start(painter, name="mine.py:load", lines=named)
    wish = replace(WISH, word="dog thing", layer="read", channel=0)
    session.ask(wish)
    list(session.steps())
    found = session.answer()
    python, command = session.lines()
    names = {"target": session.target, "painter": painter, "segmenter": session.segmenter}
    exec(python, names)
    assert torch.equal(names["found"].images, found.images)
    assert names["found"].said == found.said
    assert command == "a command"
    assert told == {
        "target": "mine.py:load", "what": ["dog + read:0"], "words": {"dog": "dog thing"},
        "template": "a {t}", "tokens": 1, "starts": 2, "steps": 4, "seed": 3, "eta": 0.3,
        "pictures": 4, "delta": 0.05,
    }  # fmt: skip


def test_the_widgets_search_and_tell(watcher):
    assert watcher.words.value == "a photo of a dog"
    assert watcher.painted.value.count("<img") == 3  # the labels fit the painter's twelve tokens
    assert not watcher.said.value
    seen, show = [], watcher._show

    def watch(at):
        show(at)
        seen.append((at.step, watcher.bar.value, watcher.bar.layout.visibility))
        assert watcher.find.disabled
        assert not watcher.stop.disabled
        points = watcher.losses.value.split('points="')[1].split('"')[0]
        assert len(points.split()) == at.step + 1

    watcher._show = watch
    watcher.find.click()
    assert seen == [(step, step, "visible") for step in range(5)]
    assert watcher.bar.layout.visibility == "hidden"
    assert "4 steps were made" in watcher.message.value
    found = watcher.session.found
    assert f">{found.verdict(0)}</span>" in watcher.said.value
    assert "r = 0.50 [0.50, 0.50] over 4 pictures; δ = 0.05" in watcher.said.value
    assert all(word in watcher.said.value for word in found.near[0][0])
    assert "vx.explain(" in watcher.said.value
    assert watcher.wanted.value.count("<img") == 6  # pictures and masks
    assert watcher.wanted.value.count(">50%<") == 3
    for value in found.p[0, :3].tolist():
        assert f">{value:.2f}<" in watcher.wanted.value


def test_stop_keeps_what_is_found(watcher):
    show = watcher._show

    def watch(at):
        show(at)
        if at.step == 2:
            watcher.stop.click()

    watcher._show = watch
    watcher.find.click()
    assert "Stopped at step 2 of 4" in watcher.message.value
    assert watcher.session.found.found.path[3:].isnan().all()
    assert watcher.said.value
    assert watcher.stop.disabled
    assert not watcher.find.disabled
    assert all(p.requires_grad for p in watcher.session.target.parameters())


def test_a_search_in_a_kernel_leaves_it_listening(watcher, monkeypatch):
    monkeypatch.setattr(Watcher, "frame", 0.0)

    async def kernel():
        watcher.find.click()
        assert watcher.session.run is None  # it has only begun
        for _ in range(3):
            await asyncio.sleep(0)
        assert "Step " in watcher.message.value
        watcher.stop.click()
        await watcher._task

    asyncio.run(kernel())
    assert "Stopped at step" in watcher.message.value
    assert watcher.session.found is not None


def test_errors_are_one_sentence_and_the_last_answer_stays(watcher, tmp_path):
    watcher.find.click()
    said, wanted = watcher.said.value, watcher.wanted.value
    watcher.template.value = "a thing"
    watcher.find.click()
    assert "vdx-error" in watcher.message.value
    assert "0 times" in watcher.message.value
    assert (watcher.said.value, watcher.wanted.value) == (said, wanted)
    watcher.template.value = "{t}"
    watcher.kind.value = ""
    watcher.find.click()
    assert "Nothing is asked" in watcher.message.value
    (tmp_path / "mine.py").write_text(MINE)
    for own, error in (("nothing.py:load", "nothing.py"), (f"{tmp_path}/mine.py:broken", "failed")):
        watcher.own.value = own
        assert "vdx-error" in watcher.message.value
        assert error in watcher.message.value
    assert watcher.model.value == "given"
    assert watcher.said.value == said


def test_nan_is_told_and_the_widgets_can_be_used_again(watcher, monkeypatch):
    forward = Light.forward

    def fails(self, images):
        later = images.requires_grad and watcher.bar.value >= 1
        return forward(self, images) * (torch.nan if later else 1)

    monkeypatch.setattr(Light, "forward", fails)
    watcher.find.click()
    assert "NaN" in watcher.message.value
    assert "vdx-error" in watcher.message.value
    assert watcher.bar.layout.visibility == "hidden"
    assert not watcher.find.disabled


def test_ones_own_file_fills_the_menus(watcher, tmp_path):
    watcher.find.click()
    (tmp_path / "mine.py").write_text(MINE)
    own = f"{tmp_path}/mine.py:four"
    watcher.own.value = own
    assert watcher.model.value == own
    assert [value for _, value in watcher.kind.options] == ["", *(f"class {k}" for k in range(4))]
    assert watcher.layer.options[1][0] == "0, 3 channels × 1 × 1"
    assert watcher.said.value == watcher.wanted.value == ""
    assert watcher.channel.disabled
    watcher.layer.value = "2"
    assert not watcher.channel.disabled
    assert watcher.channel.max == 3
    watcher.channel.value = 3
    watcher.kind.value = ""
    watcher.find.click()
    assert watcher.session.found.names == ("2:3",)  # though its label is too long to be painted
    assert ">unknown</span>" in watcher.said.value
    assert "no object was looked for" in watcher.said.value
    watcher.model.value = OWN
    assert "press Enter" in watcher.message.value
    assert watcher.model.value == own


def test_a_class_brings_its_word_and_html_is_text(watcher):
    before = watcher.painted.value
    watcher.kind.value = "b"
    assert watcher.words.value == "a photo of a b"
    assert watcher.painted.value != before
    assert "probability of b" in watcher.painted.value
    assert "&lt;b&gt;" in parts.pictures("<b>", torch.zeros(1, 3, 16, 16), [""])


def test_a_first_wish_may_name_a_class_by_its_number(session):
    assert Watcher(session, replace(WISH, kind="0"), shown=2).kind.value == "b"
    with pytest.raises(InputError, match=r"no class 'dgo'.*'dog'"):
        Watcher(session, replace(WISH, kind="dgo"))
    with pytest.raises(InputError, match=r"no layer 'raed'.*'read'"):
        Watcher(session, replace(WISH, layer="raed"))


def test_a_page_that_is_only_read_shows_pictures(watcher):
    sizes = []
    for _ in range(2):
        still = base64.b64decode(watcher._repr_mimebundle_()["image/png"])
        with Image.open(io.BytesIO(still)) as shown:
            sizes.append(shown.size)
        watcher.find.click()
    assert sizes[1][1] > 1.4 * sizes[0][1]


def test_embedded_models_are_opened_by_name():
    names = classifiers()
    assert {"contexts-first", "young", "cat"} <= set(names)
    assert "face-parts" not in names
    quick = replace(SETTINGS, held=1)
    session = open_wants("contexts-first", settings=quick, pictures=2, watched=1)
    watcher = Watcher(session, Wish("bird", "fc.input", 3, starts=1, steps=1), names, shown=2)
    watcher.find.click()
    python, command = session.lines()
    assert "vx.Painter.load('embedded')" in python
    words = shlex.split(command.replace("\\\n", " "))
    assert words[:2] == ["visiondx", "explain"]
    given = dict(zip(words[2::2], words[3::2], strict=True))
    assert given["--target"] == given["--name"] == "contexts-first"
    assert (given["--class"], given["--steps"], given["--pictures"]) == (
        "bird + fc.input:3", "1", "2",
    )  # fmt: skip
    watcher.model.value = "young"
    assert session.target.labels == ("not young", "young")
    with pytest.raises(InputError, match="keypoints target has no classes"):
        session.use("face-keypoints")
    assert session.name == "young"


def test_the_command_searches_as_the_explorer_does():
    """Its notebook begins as this one does, also with what the command has no option for."""
    found = []
    for name in ("explore/what_does_it_want", "explain"):
        path = notebooks.ROOT / "notebooks" / f"{name}.ipynb"
        every = notebooks.parameters(path) | presets.settings(path, "embedded")
        found.append([every[each] for each in ("noises", "held", "eta", "starts", "steps")])
    assert found[0] == found[1]
