"""The explorer of edits: a search that is watched and stopped, undo, seeds, unknown words."""

import asyncio

import pytest
import torch

from visiondx.core.errors import InputError
from visiondx.models.target import Target
from visiondx.widgets import explorer, kept
from visiondx.zoom.multi import multi_search, multi_steps
from widget_standins import SETTINGS, start
from zoom_standins import NEUTRAL, GridClassifier, prompt


def test_undo_takes_back_moves_words_faces_targets_and_searches():
    session = start()
    seen = [session.set([1.0, 0.0, 0.0])]
    for weight in (0.5, 1.0, 1.5):  # one drag
        session.move(1, weight)
    seen.append(session.move(2, -1.0))
    seen.append(session.new_face())
    session.apply([prompt(5)], NEUTRAL)
    seen.append(session.use_target(Target(GridClassifier({5: 50.0})), None, "another"))
    list(session.search())
    assert session.undo().p == pytest.approx(seen[3].p)
    assert session.result is None
    session.undo()
    assert session.target_name == ""
    found = session.undo()
    assert session.attributes == (prompt(0), prompt(3), prompt(11))
    assert torch.equal(found.image, seen[2].image)
    found = session.undo()
    assert (session.seed, session.w.tolist()) == (4, [1.0, 1.5, -1.0])
    assert torch.equal(found.image, seen[1].image)
    session.undo()
    assert session.w.tolist() == [1.0, 1.5, 0.0]
    assert torch.equal(session.undo().image, seen[0].image)
    session.undo()
    with pytest.raises(InputError, match="nothing to undo"):
        session.undo()


def test_a_watched_search_is_the_search_and_may_end_early():
    session = start()
    given = (session.generator, session.target, None, session.directions, session.styles, SETTINGS)
    whole = multi_search(*given)
    paths = list(multi_steps(*given))
    assert len(paths) == SETTINGS.steps + 1
    assert torch.equal(paths[-1].trajectory_w, whole.trajectory_w)
    assert torch.equal(paths[-1].w, whole.w)
    assert torch.equal(paths[2].trajectory_p, whole.trajectory_p[:, :3])
    with pytest.raises(InputError, match="not of 2 from 1"):
        next(multi_steps(*given[:4], session.styles.expand(2, -1), SETTINGS))
    session.generator.synthesized = 0
    steps = session.search()
    next(steps), next(steps)
    steps.close()
    assert session.generator.synthesized < 8  # of those that were not asked for, none was made
    assert session.arrive().p == pytest.approx(float(session.result.p[0]))
    assert all(p.requires_grad for p in session.target.parameters())


def test_stop_ends_the_search_and_undo_takes_it_back(tmp_path):
    session = start()
    widget = explorer.Explorer(session, tmp_path)
    shown, show = [], widget._show

    def watched(view):
        shown.append(widget.stop.disabled)
        if len(shown) == 3:
            widget.stop.click()
        show(view)

    widget._show = watched
    widget.find.click()
    assert not any(shown)  # Stop can be pressed during the search
    assert widget.stop.disabled
    assert not widget.find.disabled
    assert session.result.trajectory_w.shape[1] < SETTINGS.steps + 1
    assert " of 3 steps; " in widget.message.value
    assert torch.equal(session.w, session.result.w[0])
    widget.back.click()
    assert not session.w.any()
    assert [s.value for s in widget.sliders] == [0.0, 0.0, 0.0]


def test_a_search_in_a_kernel_leaves_it_listening(tmp_path, monkeypatch):
    monkeypatch.setattr(explorer.Explorer, "frame", 0.0)
    widget = explorer.Explorer(start(), tmp_path)

    async def kernel():
        widget.find.click()
        assert widget.session.result is None  # it has only begun
        for _ in range(4):
            await asyncio.sleep(0)
        widget.stop.click()
        await widget._task

    asyncio.run(kernel())
    assert 1 < widget.session.result.trajectory_w.shape[1] < SETTINGS.steps + 1
    assert "steps; " in widget.message.value


def test_the_seed_box_follows_and_chooses_the_face(tmp_path):
    widget = explorer.Explorer(start(), tmp_path)
    assert widget.seed.value == 4
    widget.face.click()
    assert widget.seed.value == 5
    widget.seed.value = 11
    assert widget.session.seed == 11
    assert widget.before.value == kept.png(start(seed=11).original.image)
    widget.back.click()
    assert widget.seed.value == widget.session.seed == 5


def test_words_that_the_encoder_cannot_know_are_named(tmp_path):
    session = start()
    session.encoder.unknown_words = lambda texts: [
        ["qwxzk"] if text == prompt(5) else [] for text in texts
    ]
    widget = explorer.Explorer(session, tmp_path)
    widget.words.value = f"{prompt(0)}\n{prompt(5)}"
    widget.apply.click()
    assert "The encoder does not know “qwxzk”" in widget.message.value
    widget.words.value = prompt(0)
    widget.apply.click()
    assert "does not know" not in widget.message.value
