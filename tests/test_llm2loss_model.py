"""An ensemble asked in sentences finds a planted cause; what it answers, keeps and refuses."""

import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr
from scipy.stats import t as student

from llm2loss_standins import ColourEncoder, coloured, redness
from visiondx.core.errors import InputError
from visiondx.llm2loss import heads
from visiondx.llm2loss.answers import Answers, Comparisons
from visiondx.llm2loss.audit import Audit
from visiondx.llm2loss.fit import FitSettings
from visiondx.llm2loss.modality import project
from visiondx.llm2loss.model import LossModel
from visiondx_worlds.models.tiny_encoder import new_encoder
from visiondx_worlds.models.tokenizer import Tokenizer

NEUTRAL = ("a thing", "a picture")
SETTINGS = FitSettings(batch=64, epochs=60, learning_rate=0.02, hidden=8)


@pytest.fixture(scope="module")
def models():
    """kind -> an ensemble that learned that red is bad and blue is good."""
    encoder, data = ColourEncoder(), redness(400)
    return {
        kind: LossModel.fit(data, encoder, kind=kind, settings=SETTINGS, neutral=NEUTRAL)
        for kind in ("ranker", "regressor", "classifier")
    }


@pytest.mark.parametrize("kind", ["ranker", "regressor"])
def test_images_are_ranked_by_their_loss(models, kind):
    fresh = redness(200, seed=9)
    h = models[kind].predict(fresh.embeddings)
    assert spearmanr(h, fresh.losses).statistic > 0.9
    worst = models[kind].familiarity(fresh.embeddings)
    torch.testing.assert_close(worst, -h)


def test_the_regressor_predicts_the_loss_itself(models):
    fresh = redness(200, seed=9)
    error = models["regressor"].predict(fresh.embeddings) - fresh.losses
    assert error.square().mean() < 0.25 * fresh.losses.var()


def test_the_ranker_is_level_on_average(models):
    h = models["ranker"].score(redness(400).embeddings)
    torch.testing.assert_close(h.mean(1), torch.zeros(5), rtol=0, atol=1e-4)


def test_the_classifier_knows_what_it_saw(models):
    model, data = models["classifier"], redness(100, seed=9)
    random = torch.randn(100, 4)
    assert model.familiarity(data.embeddings).median() > model.familiarity(random).median()
    torch.testing.assert_close(model.familiarity(random), model.predict(random))


@pytest.mark.parametrize("aggregation", ["mean", "median"])
def test_answers_are_the_members_aggregated(models, aggregation):
    model = LossModel(**{**vars(models["ranker"]), "aggregation": aggregation})
    found = model.ask(["red", "blue", "a green thing"])
    assert found.members.shape == (5, 3)
    by_hand = getattr(found.members.double(), aggregation)(0)
    by_hand = by_hand if aggregation == "mean" else by_hand.values
    torch.testing.assert_close(found.value.double(), by_hand, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.spread, found.members.std(0))
    assert found.value[0] > found.value[2] > found.value[1]
    frame = found.to_frame()
    assert frame["prompt"].tolist() == ["red", "blue", "a green thing"]
    assert (frame["q1"] <= frame["median"]).all()
    assert (frame["median"] <= frame["q3"]).all()


@pytest.mark.parametrize("kind", ["ranker", "regressor"])
def test_the_planted_cause_is_found_in_words(models, kind):
    found = models[kind].compare(["red", "red", "blue"], ["blue", "green", "green"])
    assert found.worse.tolist() == [True, True, False]
    assert found.agree.all()
    assert (found.probability[:2] > 0.99).all()
    assert found.probability[2] < 0.01
    back = models[kind].compare("blue", "red")
    torch.testing.assert_close(back.difference, -found.difference[:1])
    torch.testing.assert_close(back.probability, 1 - found.probability[:1])


def test_a_familiar_thing_is_never_worse(models):
    model = models["classifier"]
    a, b = model.ask(["red", "blue"]).value
    assert bool(model.compare("red", "blue").worse) == bool(a < b)


def test_the_probability_by_hand():
    members = torch.tensor([[1.0, 2.0, 0.0, -1.0], [3.0, 2.0, 0.0, 1.0], [2.0, 2.0, 0.0, 0.0]])
    found = Comparisons(*[("x",) * 4] * 2, members, "ranker", "mean", 0)
    first = student.cdf(2 / (1 * (4 / 3) ** 0.5), 2)
    expected = torch.tensor([first, 1.0, 0.5, 0.5], dtype=torch.float32)
    torch.testing.assert_close(found.probability, expected)
    assert found.agree.tolist() == [True, True, False, False]
    # of a normal distribution, a further member lies above what 20 % are said to do in 20 %
    members, further = torch.randn(5, 20_000), torch.randn(20_000)
    said = Comparisons((), (), members - further, "ranker", "mean", 0).probability
    for share in (0.05, 0.2, 0.5, 0.9):
        assert float((said < share).float().mean()) == pytest.approx(share, abs=0.01)
    alone = Comparisons(("x",), ("y",), torch.tensor([[0.3]]), "ranker", "mean", 0)
    assert alone.probability.tolist() == [1]
    assert alone.spread.tolist() == [0]


def test_the_audit_is_the_rmm_table(models):
    model = models["ranker"]
    found = model.audit(["red", "green", "blue"], "not {}")
    present, absent = model.ask(["red", "green", "blue"]), model.ask(
        ["not red", "not green", "not blue"]
    )  # fmt: skip
    torch.testing.assert_close(found.rmm, (present.value - absent.value).abs())
    frame = found.to_frame()
    assert frame["attribute"].tolist() == ["red", "blue", "green"]  # as planted: 2, -1, 0
    assert (frame["low"] <= frame["rmm"]).all()
    assert (frame["rmm"] <= frame["high"]).all()
    assert frame.set_index("attribute").loc["blue", "signed"] < 0
    assert (frame["members"] == 5).all()
    by_hand = Audit(("x",), torch.tensor([[1.0], [2.0], [9.0]]), torch.zeros(3, 1), -1, "median", 0)
    assert by_hand.to_frame().loc[0, ["rmm", "signed"]].tolist() == [2, -2]


def test_centring_lets_words_mean_what_images_do():
    """Without it, texts lie where no image is; here the answers still move the right way."""
    data, encoder = redness(400), ColourEncoder()
    plain = LossModel.fit(data, encoder, settings=SETTINGS)
    assert plain.image_mean is None
    centred = LossModel.fit(data, encoder, settings=SETTINGS, neutral=NEUTRAL)
    torch.testing.assert_close(centred.text_mean, encoder.embed_texts(list(NEUTRAL)).mean(0))
    neutral = centred.ask(["a thing"]).value.abs()
    assert neutral < plain.ask(["a thing"]).value.abs() + 1


def test_projected_words_lie_where_heads_have_learned(tmp_path):
    """Of the encoder, every image has a last entry above 0 and every text one below."""
    data, encoder = redness(400), ColourEncoder()
    model = LossModel.fit(data, encoder, settings=SETTINGS, projected=True)
    assert bool((model.compare(["red", "blue"], ["blue", "green"]).members[:, 0] > 0).all())
    texts = encoder.embed_texts(["red"])
    by_hand = model.score(project(texts, model.memory), "image")
    torch.testing.assert_close(model.score(texts, "text"), by_hand)
    assert project(texts, model.memory)[0, -1] > 0  # among the images
    assert len(model.memory) == 400
    model.save(tmp_path)
    again = LossModel.load(tmp_path, encoder)
    torch.testing.assert_close(again.ask(["red"]).members, model.ask(["red"]).members)
    with pytest.raises(InputError, match="either centred or projected"):
        LossModel.fit(data, encoder, neutral=NEUTRAL, projected=True)


def test_saved_models_come_back(models, tmp_path):
    for kind, model in models.items():
        model.save(tmp_path / kind)
        again = LossModel.load(tmp_path / kind, ColourEncoder())
        torch.testing.assert_close(again.weights, model.weights, rtol=0, atol=0)
        assert again.settings == model.settings
        torch.testing.assert_close(again.ask(["red"]).members, model.ask(["red"]).members)
        frame = pd.read_csv(tmp_path / kind / "training.csv")
        assert frame["best"].sum() == 5
    with pytest.raises(InputError, match="another encoder"):
        LossModel.load(tmp_path / "ranker", ColourEncoder("second"))
    with pytest.raises(InputError, match="no encoder to read sentences with"):
        LossModel.load(tmp_path / "ranker").ask(["red"])
    with pytest.raises(InputError, match="No LossModel in"):
        LossModel.load(tmp_path)


def test_results_are_shown_and_saved(models, tmp_path):
    model = models["ranker"]
    results = {
        "answers": model.ask(["red", "a $5 thing"]),
        "comparisons": model.compare("red", "blue"),
        "audit": model.audit(["red"]),
    }
    for name, result in results.items():
        figure = result.plot("title")
        figure.canvas.draw()  # a prompt with dollars is no mathematics
        result.save(tmp_path)
        assert len(pd.read_csv(tmp_path / f"{name}.csv")) == len(result.to_frame())
    assert model.plot().axes


def test_an_ensemble_needs_no_encoder_to_score_images():
    data = redness(100)
    model = LossModel.fit(data, settings=SETTINGS)
    assert model.encoder_fingerprint == data.encoder
    assert model.score(data.embeddings).shape == (5, 100)


def test_the_median_resists_one_member_gone_wrong():
    members = torch.tensor([[1.0], [1.1], [0.9], [1.0], [50.0]])
    found = Answers(("x",), members, "ranker", "median", 0)
    assert found.value.tolist() == [1.0]


def test_bad_input(models):
    model, data = models["ranker"], redness(60)
    for given, said in (
        ({"kind": "tree"}, "No kind 'tree': choose from ranker, regressor, classifier"),
        ({"aggregation": "max"}, "No aggregation 'max'"),
        ({"encoder": ColourEncoder("second")}, "another encoder"),
        ({"neutral": NEUTRAL}, "no encoder to read sentences"),
    ):
        with pytest.raises(InputError, match=said):
            LossModel.fit(data, **given)
    with pytest.raises(InputError, match="No modality 'sound'"):
        model.score(data.embeddings, "sound")
    with pytest.raises(InputError, match=r"other embeddings than \(60, 3\)"):
        model.score(data.embeddings[:, :3])
    with pytest.raises(InputError, match="got 2 and 1"):
        model.compare(["red", "blue"], "green")
    with pytest.raises(InputError, match=r"needs \{\}"):
        model.audit(["red"], "without")
    with pytest.raises(InputError, match="longer than the context"):
        model.ask(["a red thing that is described at length"])


def test_the_embedded_encoder_refuses_long_text():
    tokenizer = Tokenizer.train(["a red thing"], vocab_size=300)
    encoder = new_encoder(tokenizer)
    embeddings = encoder.embed_images(coloured(60).repeat(1, 1, 8, 8))
    data = redness(60)
    data = type(data)(embeddings.detach(), data.losses, encoder.fingerprint)
    model = LossModel.fit(data, encoder, settings=FitSettings(epochs=1))
    with pytest.raises(InputError, match="tokens and the encoder reads 48"):
        model.ask(["a red thing " * 40])
    with pytest.raises(InputError, match="non-empty list of texts"):
        model.ask([])
    with pytest.raises(InputError, match="non-empty list of texts"):
        model.ask("red")


def test_every_row_of_weights_is_a_head(models):
    model = models["ranker"]
    assert model.weights.shape == (5, sum(heads.sizes("linear", 4, 8)))
