"""The explorer without a browser: its session, what it keeps, and the widgets as a kernel has them.

How it looks and answers in JupyterLab: test_explorer_browser.py.
"""

import base64
import io
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_msssim import ssim
from torch import nn

from visiondx.core.errors import InputError
from visiondx.models.target import Target
from visiondx.widgets import explorer, kept, parts
from visiondx.widgets.session import View
from visiondx.zoom.multi import multi_search
from visiondx_worlds.ground import WORLDS, Ground, Words
from visiondx_worlds.widgets import embedded
from widget_standins import SETTINGS, start
from zoom_standins import NEUTRAL, GridClassifier, GridEncoder, GridGenerator, cells, prompt


def test_moving_changes_the_image_by_equation_3():
    session = start()
    std, s = session.generator.style_std, session.styles[0]
    view = session.set([1.5, -2.0, 0.0])
    expected = 0.05 * s
    expected[0] += 0.05 * 1.5 * std[0]
    expected[3] -= 0.05 * 2.0 * std[3]
    expected[15] = 0  # this channel does nothing
    assert torch.allclose(cells(view.image[None])[0], expected, atol=1e-6)
    logit = 30 * float(expected[0]) - 8 * float(expected[3])
    assert view.p == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-5)
    assert view.p_original == session.original.p != view.p
    likeness = ssim(view.image[None], session.original.image[None], data_range=1.0)
    assert view.ssim == pytest.approx(float(likeness), abs=1e-5)

    moved = session.move(1, 0.0)
    expected[3] += 0.05 * 2.0 * std[3]
    assert torch.allclose(cells(moved.image[None])[0], expected, atol=1e-6)
    assert session.w.tolist() == [1.5, 0.0, 0.0]
    assert torch.equal(session.reset().image, session.original.image)
    assert session.reset().ssim == pytest.approx(1)


def test_a_move_takes_one_image_and_no_words():
    session = start()
    before = session.encoder.calls
    session.generator.synthesized = session.judges.images = 0
    for weight in (0.5, 1.0, -1.0):
        session.move(0, weight)
    assert session.generator.synthesized == session.judges.images == 3
    assert session.encoder.calls == before


def test_a_seed_is_a_face_and_the_weights_stay():
    session, other = start(seed=7), start(seed=8)
    session.set([1.0, 0.0, 2.0])
    view = session.new_face()
    assert session.seed == 8
    assert torch.equal(session.original.image, other.original.image)
    assert session.original.p == other.original.p
    assert torch.equal(view.image, other.set([1.0, 0.0, 2.0]).image)
    assert torch.equal(session.new_face(7).image, start(seed=7).set([1.0, 0.0, 2.0]).image)


def test_prompts_that_stay_keep_their_weights():
    session = start()
    session.set([1.0, -2.0, 3.0])
    session.apply([prompt(11), prompt(5), prompt(0)], NEUTRAL)
    assert session.w.tolist() == [3.0, 0.0, 1.0]
    session.apply([prompt(0)], NEUTRAL, "gradient")
    assert (session.estimator, session.w.tolist()) == ("gradient", [1.0])
    assert session.directions.delta_s[0].argmax() == 0
    assert session.directions.n_channels == (1,)


@pytest.mark.parametrize(
    ("prompts", "neutral", "message"),
    [
        ([], NEUTRAL, "must be a list of prompts"),
        ([prompt(0), " "], NEUTRAL, "needs words"),
        ([prompt(0)], "", "needs words"),
        ([prompt(0), prompt(0)], NEUTRAL, "named twice"),
        ([prompt(0), NEUTRAL], NEUTRAL, "both the neutral prompt and an attribute"),
    ],
)
def test_unusable_words_leave_the_session_as_it_was(prompts, neutral, message):
    session = start()
    before = session.set([1.0, 2.0, 3.0])
    with pytest.raises(InputError, match=message):
        session.apply(prompts, neutral)
    assert session.attributes == (prompt(0), prompt(3), prompt(11))
    assert torch.equal(session.view().image, before.image)


def test_weights_are_checked():
    session = start()
    with pytest.raises(InputError, match=r"3 prompts need as many weights within ±4, got \[0.0\]"):
        session.set([0.0])
    with pytest.raises(InputError, match="within ±4"):
        session.move(0, 4.1)
    with pytest.raises(InputError, match="within ±4"):
        session.move(0, math.nan)
    assert not session.w.any()


@torch.no_grad()
def test_another_target_says_something_else_of_the_same_picture():
    session = start()
    before = session.set([1.0, 0.0, 0.0])
    other = Target(GridClassifier({3: 50.0}))
    view = session.use_target(other, (prompt(3), NEUTRAL), "another")
    assert torch.equal(view.image, before.image)
    assert view.p == pytest.approx(float(other(view.image[None])))
    assert session.original.p == pytest.approx(float(other(session.original.image[None])))
    assert session.target_name == "another"
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3)).eval()
    with pytest.raises(InputError, match="needs a binary target"):
        session.use_target(Target(module, "multiclass", ["a", "b", "c"]))
    assert session.target is other


def test_sweep_is_each_prompt_alone():
    session = start()
    session.set([1.0, 1.0, 1.0])
    images, p = session.sweep([-2.0, 0.0, 2.0])
    assert images.shape == (3, 3, 3, 16, 16)
    for n in range(3):
        session.reset()
        for v, weight in enumerate((-2.0, 0.0, 2.0)):
            view = session.move(n, weight)
            assert torch.allclose(images[n, v], view.image, atol=1e-6)
            assert float(p[n, v]) == pytest.approx(view.p, abs=1e-6)


def test_search_leaves_the_weights_at_the_most_counterfactual_step():
    session = start(consistency=(prompt(1), NEUTRAL))
    session.set([4.0, 4.0, 4.0])  # the search starts from the original all the same
    views = list(session.search())
    alone = multi_search(
        session.generator, session.target, session.encoder, session.directions, session.styles,
        SETTINGS, (prompt(1), NEUTRAL),
    )  # fmt: skip
    step = int(alone.step[0])
    assert step >= 2
    assert len(views) == SETTINGS.steps + 2  # the start, the steps, and back to the best of them
    assert torch.equal(session.w, alone.w[0])
    assert torch.equal(session.result.trajectory_w, alone.trajectory_w)
    assert [v.p for v in views[:-1]] == pytest.approx(alone.trajectory_p[0].tolist())
    farthest = max(alone.trajectory_p[0].tolist(), key=lambda p: abs(p - session.original.p))
    assert views[-1].p == pytest.approx(farthest)
    assert views[-1].flipped == bool(alone.flipped[0])
    assert torch.equal(views[0].image, session.original.image)


def test_a_saved_picture_can_be_made_again(tmp_path):
    session = start(name="some-target")
    view = session.set([1.25, -2.0, 0.0])
    path = kept.save(session, tmp_path / "new")
    assert path.name == "picture_001.png"
    recipe = json.loads(path.with_suffix(".json").read_text("utf-8"))
    assert recipe["prompts"] == {prompt(0): 1.25, prompt(3): -2.0, prompt(11): 0.0}
    assert (recipe["neutral"], recipe["seed"], recipe["target"]) == (NEUTRAL, 4, "some-target")
    assert recipe["p"] == view.p
    assert kept.save(session, tmp_path / "new").name == "picture_002.png"
    assert len(list((tmp_path / "new").iterdir())) == 4  # no temporary file is left

    other = start(channels=(5,), seed=9)
    again = kept.restore(other, path.with_suffix(".json"))
    assert torch.equal(again.image, view.image)
    with Image.open(path) as saved:
        assert saved.size == (320, 320)
        assert np.array_equal(np.asarray(saved), np.asarray(kept.picture(again.image)))


def test_a_picture_of_another_model_is_refused(tmp_path):
    session = start()
    path = kept.save(session, tmp_path).with_suffix(".json")
    with pytest.raises(InputError, match="No file at"):
        kept.restore(session, tmp_path / "none.json")
    session.generator.fingerprint = "another"
    with pytest.raises(InputError, match="with another generator"):
        kept.restore(session, path)


def test_readings_say_what_changed():
    view = View(torch.zeros(3, 2, 2), 0.75, 0.25, 0.5, {"a_b": True, "c": False, "d": None})
    original = View(torch.zeros(3, 2, 2), 0.25, 0.25, 1.0, {"a_b": False, "c": True, "d": True})
    html = parts.readings(view, ("<no>", "<yes>"), original)
    assert "&lt;yes&gt;" in html
    assert "<yes>" not in html
    for piece in (">0.750<", "width:75.0%", "calc(25.0%", ">flipped<", ">0.500<"):
        assert piece in html
    assert '<span class="vdx-new">+ a b</span>' in html
    assert '<span class="vdx-gone">c</span>' in html
    assert '<span class="vdx-soft">d?</span>' in html
    unmoved = parts.readings(original, ("no", "yes"), original)
    assert not any(word in unmoved for word in (">flipped<", "vdx-new", "vdx-gone"))
    assert "judges" not in parts.readings(View(view.image, 0.5, 0.5, 1, {}), ("a", "b"), original)


# ---------------------------------------------------------------- the widget


def test_sliders_move_the_session_and_follow_it(tmp_path):
    session = start()
    widget = explorer.Explorer(session, tmp_path)
    assert [s.description for s in widget.sliders] == list(session.attributes)
    first = widget.after.value
    assert first == widget.before.value == kept.png(session.original.image)
    widget.drag(0, 1.5)
    assert session.w.tolist() == [1.5, 0.0, 0.0]
    assert widget.after.value == kept.png(session.view().image) != first
    assert f"{session.view().p:.3f}" in widget.readings.value
    widget.find.click()
    assert torch.equal(session.w, session.result.w[0])  # exact, though sliders show tenths
    assert [s.value for s in widget.sliders] == [round(w, 1) for w in session.w.tolist()]
    assert "of 6 steps; &lt;on&gt;: " in widget.message.value
    widget.zero.click()
    assert not session.w.any()
    assert widget.after.value == first
    widget.face.click()
    assert session.seed == 5
    assert widget.before.value != first
    widget.keep.click()
    assert (tmp_path / "picture_001.png").is_file()


def test_slider_ends_are_the_bound(tmp_path):
    widget = explorer.Explorer(start(), tmp_path)
    for weight in (-4.0, 4.0):
        widget.drag(2, weight)
        assert widget.session.w.tolist() == [0.0, 0.0, weight]
    assert len(widget.sliders[2].options) == 81


def test_applied_words_get_sliders(tmp_path):
    widget = explorer.Explorer(start(), tmp_path)
    widget.drag(0, 2.0)
    widget.words.value = f"\n {prompt(5)} \n\n{prompt(0)}\n"
    widget.apply.click()
    assert [s.description for s in widget.sliders] == [prompt(5), prompt(0)]
    assert [s.value for s in widget.sliders] == [0.0, 2.0]
    widget.estimator.value = "gradient"
    assert widget.session.estimator == "gradient"


@pytest.mark.parametrize(("words", "neutral"), [("", NEUTRAL), (prompt(0), " "), ("\n\n", "")])
def test_bad_words_end_as_one_red_sentence(tmp_path, words, neutral):
    widget = explorer.Explorer(start(), tmp_path)
    before, sliders = widget.after.value, widget.sliders
    widget.words.value, widget.neutral.value = words, neutral
    widget.apply.click()
    assert widget.message.value.startswith('<span class="vdx-error">')
    assert widget.sliders is sliders
    assert widget.after.value == before
    assert not widget.apply.disabled
    widget.face.click()
    assert "vdx-error" not in widget.message.value


def test_a_menu_that_failed_shows_what_is_still_so(tmp_path):
    widget = explorer.Explorer(start(), tmp_path)
    widget.words.value = ""
    widget.estimator.value = "gradient"
    assert "vdx-error" in widget.message.value
    assert widget.estimator.value == widget.session.estimator == "relevance"


def test_a_fault_of_the_program_is_not_hidden(tmp_path, monkeypatch, caplog):
    widget = explorer.Explorer(start(), tmp_path)
    monkeypatch.setattr(widget.session, "new_face", lambda seed: {}["missing"])
    widget.face.click()
    assert (
        "KeyError: 'missing'" in caplog.text
    )  # in a notebook, its traceback is below the explorer
    assert not widget.face.disabled


def test_models_given_by_hand_leave_nothing_to_choose(tmp_path):
    widget = explorer.Explorer(start(name="mine"), tmp_path)
    assert widget.target.options == ("mine",)
    assert widget.generator.disabled
    assert widget.target.disabled
    widget.zero.click()
    assert widget.generator.disabled
    assert not widget.estimator.disabled


def test_menus_open_worlds_and_targets(tmp_path):
    opened, changed = [], []

    def open_session(world, **given):
        opened.append((world, given["seed"], given["settings"]))
        return start(channels=(5,), world=world, name="cat", seed=given["seed"])

    choices = explorer.Choices(
        ("faces", "animals"),
        {"faces": ["young", "male"], "animals": ["cat"]}.get,
        open_session,
        lambda session, name: changed.append((session.world, name)),
    )
    widget = explorer.Explorer(start(world="faces", name="young"), tmp_path, choices)
    assert widget.target.value == "young"
    assert widget.target.options == ("young", "male")
    widget.target.value = "male"
    assert changed == [("faces", "male")]
    widget.generator.value = "animals"
    assert opened == [("animals", 4, SETTINGS)]
    assert widget.session.world == "animals"
    assert widget.words.value == prompt(5)
    assert (len(widget.sliders), widget.target.value) == (1, "cat")
    assert "young" not in widget.target.options


def test_embedded_targets_of_a_world():
    assert {"cat", "cat-biased-whiskers"} <= set(embedded.targets_of("animals"))
    assert not set(embedded.targets_of("animals")) & set(embedded.targets_of("faces"))
    for world, names in embedded.ASKED.items():
        assert set(names) <= set(WORLDS[world].binary)


def test_sessions_on_worlds_and_on_ones_own_files(tmp_path):
    words = Words(NEUTRAL, {"bright": prompt(0), "dark": prompt(3)}, {"bright": NEUTRAL})
    own = Ground(GridGenerator(), GridEncoder(), words)
    (tmp_path / "mine.py").write_text(
        "from visiondx.models.target import Target\nfrom zoom_standins import GridClassifier\n"
        "def load():\n    return Target(GridClassifier({3: 5.0}), labels=('dim', 'bright'))\n"
    )
    spec, how = f"{tmp_path / 'mine.py'}:load", {"directions": "gradient", "channels": 1}
    session = embedded.open_session(own, spec, ["dark", prompt(9)], **how)
    assert (session.attributes, session.neutral) == ((prompt(3), prompt(9)), NEUTRAL)
    assert session.consistency == (prompt(0), NEUTRAL)
    assert (session.world, session.view().seen) == (None, {})
    widget = explorer.Explorer(session, tmp_path, embedded.choices(own))
    assert widget.generator.disabled
    assert widget.target.options == (spec,)
    with pytest.raises(InputError, match="name your own"):
        embedded.open_session(own, attributes=["dark"], **how)

    ground = Ground.open("animals")
    session = embedded.open_session(ground)
    assert session.world == "animals"
    assert session.attributes[0] == WORLDS["animals"].prompt("whiskers")
    assert set(session.view().seen) == set(WORLDS["animals"].binary)
    assert session.target_name in embedded.targets_of("animals")
    other = embedded.choices(ground).open("faces", seed=3)
    assert (other.world, other.seed) == ("faces", 3)
    assert other.encoder is ground.encoder
    assert other.target_name in embedded.targets_of("faces")


def test_a_page_that_is_only_read_shows_a_picture(tmp_path):
    widget = explorer.Explorer(start(), tmp_path)
    bundle = widget._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert bundle["text/plain"].startswith("The explorer:")
    widget.drag(0, 4.0)
    stills = [base64.b64decode(b["image/png"]) for b in (bundle, widget._repr_mimebundle_())]
    assert stills[0] != stills[1]  # it is of the present state
    with Image.open(io.BytesIO(stills[1])) as still:
        assert still.width > 600
