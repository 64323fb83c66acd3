"""The explorer of sentences without a browser: its session, and its widgets in a kernel."""

import pytest
import torch

from visiondx.core.errors import InputError
from visiondx.llm2loss.fit import FitSettings
from visiondx.models.encoder import Encoder
from visiondx_worlds.marking.llm2loss.study import prepare_study
from visiondx_worlds.marking.llm2loss.truth import Sentence, true_losses
from visiondx_worlds.widgets import question_parts as parts
from visiondx_worlds.widgets.ask import Asker
from visiondx_worlds.widgets.questions import QuestionSession

HAT, NONE = "a face with a hat", "a face with no hat"
PAIRS = [(HAT, NONE), ("a smiling face", "a face with a serious mouth")]


@pytest.fixture(scope="module")
def session():
    study = prepare_study("faces", 90, 50, 3, Encoder.load())
    return QuestionSession(study, 3, study.fit("ranker", FitSettings(epochs=3)))


@pytest.fixture
def asker(session):
    session.use("recogniser-0")
    return Asker(session, PAIRS, images=4)


def test_nearest_images_fit_and_hardest_are_the_hardest_of_the_near(session):
    question = session.ask(HAT, NONE)
    assert question.sentences == (HAT, NONE)
    assert question.nearest.shape == question.hardest.shape == (2, 3)
    hat = session.study.examples["train"].labels[:, session.study.source.world.binary.index("hat")]
    assert hat[question.nearest[0]].all()
    assert not hat[question.nearest[1]].any()
    near = max(3, int(0.05 * 90))
    losses = session.loss(question.hardest)
    assert (losses[:, :-1] >= losses[:, 1:]).all()
    assert near == 4  # so three of the four nearest, less the easiest
    assert len(set(question.nearest[0].tolist()) & set(question.hardest[0].tolist())) >= 2


def test_the_answer_is_the_present_models(session):
    answers = []
    for name, model in session.models.items():
        session.use(name)
        found = session.ask(HAT, NONE).comparison
        torch.testing.assert_close(found.members, model.compare(HAT, NONE).members)
        answers.append(found.difference.item())
    assert len(set(answers)) == 3
    with pytest.raises(InputError, match="No black box 'me': choose one of recogniser-0"):
        session.use("me")


def test_truth_is_the_loss_on_new_images(session):
    session.use("recogniser-1")
    found = session.truth(HAT, NONE, images=5, seed=2)
    target = {"recogniser-1": session.study.targets["recogniser-1"]}
    sentences = [Sentence(HAT, {"hat": True}), Sentence(NONE, {"hat": False})]
    losses = true_losses(session.study.source, target, sentences, 5, 2)[0]
    assert found.losses[0].value == pytest.approx(losses[0].mean().item(), abs=1e-5)
    gap = (losses[0] - losses[1]).mean().item()
    assert found.difference.value == pytest.approx(gap, abs=1e-5)
    assert found.pictures.shape == (2, 3, 3, 64, 64)
    with pytest.raises(InputError, match="does not know all its words"):
        session.truth(HAT, "a face with red shoes")


def test_the_widgets_ask_and_keep_the_last_answer(asker):
    said = asker.said.value
    assert asker.example.value == PAIRS[0]
    assert "vdx-true" not in asker.true.value
    asker.draw.click()
    assert "vdx-true" in asker.true.value
    asker.second.value = "a <b>bald</b> head"
    assert asker.said.value != said
    assert asker.example.value is None
    assert asker.true.value == ""  # it was about other sentences
    assert "a &lt;b&gt;bald&lt;/b&gt; head" in asker.sides[1].value
    kept = asker.said.value
    asker.first.value = " "
    assert "vdx-error" in asker.message.value
    assert asker.said.value == kept
    asker.example.value = PAIRS[1]
    assert (asker.first.value, asker.second.value) == PAIRS[1]
    assert "vdx-error" not in asker.message.value
    before = asker.said.value
    asker.black_box.value = "recogniser-2"
    assert asker.said.value != before


def test_the_bar_stands_on_the_side_of_the_worse_sentence(session):
    comparison = session.ask(HAT, NONE).comparison
    text = parts.difference(comparison)
    medians = float(comparison.members[:, 0].quantile(0.5))
    at = float(text.split('vdx-median" style="left:')[1].split("%")[0])
    assert (at < 50) == (medians > 0)  # the first sentence is on the left
    worse = text.split('vdx-worse">')[1].split("<")[0]
    assert (worse == "first") == (float(comparison.probability[0]) >= 0.5)
