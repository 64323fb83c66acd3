"""The explorer of sentences without a browser: its session, and its widgets in a kernel."""

import base64
import io

import pytest
import torch
from PIL import Image

from visiondx.core.errors import InputError
from visiondx.llm2loss.fit import FitSettings
from visiondx.models.encoder import Encoder
from visiondx.widgets import question_parts as parts
from visiondx.widgets.ask import Asker
from visiondx.widgets.questions import QuestionSession
from visiondx_worlds.marking.llm2loss.study import prepare_study
from visiondx_worlds.marking.llm2loss.truth import Sentence, true_losses
from visiondx_worlds.widgets.questions import open_questions

HAT, NONE = "a face with a hat", "a face with no hat"
PAIRS = [(HAT, NONE), ("a smiling face", "a face with a serious mouth")]


@pytest.fixture(scope="module")
def session(study):
    return open_questions(study, 3, study.fit("ranker", FitSettings(epochs=40)))


@pytest.fixture(scope="module")
def study():
    return prepare_study("faces", 300, 50, 3, Encoder.load())


@pytest.fixture
def asker(session):
    session.use("recogniser-0")
    return Asker(session, PAIRS, images=4)


def test_nearest_images_fit_and_hardest_are_the_hardest_of_the_near(session, study):
    question = session.ask(HAT, NONE)
    assert question.sentences == (HAT, NONE)
    assert question.nearest.shape == question.hardest.shape == (2, 3)
    hat = study.examples["train"].labels[:, study.source.world.binary.index("hat")]
    assert hat[question.nearest[0]].all()
    assert not hat[question.nearest[1]].any()
    near = int(0.05 * 300)
    losses = session.loss(question.hardest)
    assert (losses[:, :-1] >= losses[:, 1:]).all()
    words = study.encoder.embed_texts([HAT, NONE]).detach()
    words = words - study.encoder.embed_texts(study.neutral).detach().mean(0)
    images = study.embeddings["train"] - study.embeddings["train"].mean(0)
    images = images / images.norm(dim=1, keepdim=True)
    rank = (words @ images.T).argsort(1, descending=True).argsort(1)
    assert (rank.gather(1, question.hardest) < near).all()
    assert (rank.gather(1, question.nearest) == torch.arange(3)).all()


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


def test_truth_is_the_loss_on_new_images(session, study):
    session.use("recogniser-1")
    found = session.truth(HAT, NONE, images=5, seed=2)
    target = {"recogniser-1": study.targets["recogniser-1"]}
    sentences = [Sentence(HAT, {"hat": True}), Sentence(NONE, {"hat": False})]
    losses = true_losses(study.source, target, sentences, 5, 2)[0]
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
    assert asker.example.label == "your own words"
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


def test_the_menu_names_the_model(asker):
    assert asker.black_box.value == "recogniser-0"


def test_the_bar_stands_on_the_side_of_the_worse_sentence(session):
    session.use("recogniser-0")
    comparison = session.ask(HAT, NONE).comparison
    text = parts.difference(comparison)
    medians = float(comparison.members[:, 0].quantile(0.5))
    at = float(text.split('vdx-median" style="left:')[1].split("%")[0])
    assert (at > 50) == (medians > 0)  # the first sentence is on the right, as in the figure
    assert text.index("worse on the second") < text.index("worse on the first →")
    assert comparison.verdict == ["worse on the first"]
    assert text.split('vdx-worse">')[1].split("<")[0] == "first"
    assert "[0." in text.split("held-out Spearman")[1]


def test_equal_sentences_and_nonsense_are_said_to_be_so(asker):
    asker.second.value = f" {HAT.upper()} "
    assert "The two sentences are the same." in asker.said.value
    assert "vdx-worse" not in asker.said.value
    asker.second.value = "a <qwxzk> vlorptk"
    assert "does not know “qwxzk”, “vlorptk”" in asker.said.value
    for claim in ("vdx-worse", "vdx-sure", "vdx-p"):
        assert claim not in asker.said.value


def test_a_page_that_is_only_read_shows_a_picture(asker):
    asker.draw.click()
    with Image.open(io.BytesIO(base64.b64decode(asker._repr_mimebundle_()["image/png"]))) as still:
        wide, high = still.size
        shades = set(still.convert("L").tobytes())
    assert wide > 300
    assert high > 400
    assert len(shades) > 50


def test_black_boxes_of_ones_own_are_asked_without_a_truth(session, study):
    losses = study.losses["train"][:1]
    given = (study.embeddings["train"], study.examples["train"].pictures, ["a face"])
    own = QuestionSession({"mine": session.models["recogniser-0"]}, {"mine": losses[0]}, *given)
    asker = Asker(own, PAIRS)
    assert asker.draw.layout.display == "none"
    assert asker.black_box.value == "mine"
    with pytest.raises(InputError, match="Nothing new can be drawn here"):
        own.truth(HAT, NONE)
    with pytest.raises(InputError, match="Every black box needs a loss for each of 300 images"):
        QuestionSession(own.models, {"mine": losses[0][1:]}, *given)
