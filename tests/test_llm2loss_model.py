"""An ensemble asked in sentences finds a planted cause; what it answers, keeps and refuses."""

import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr
from scipy.stats import t as student

from llm2loss_standins import ColourEncoder, coloured, redness
from visiondx.core.errors import InputError
from visiondx.core.stats import Estimate
from visiondx.llm2loss import heads
from visiondx.llm2loss.answers import Answers, Comparisons, interval
from visiondx.llm2loss.audit import Audit
from visiondx.llm2loss.fit import FitSettings
from visiondx.llm2loss.modality import project
from visiondx.llm2loss.model import LossModel
from visiondx_worlds.models.tiny_encoder import new_encoder
from visiondx_worlds.models.tokenizer import Tokenizer

NEUTRAL = ("a thing", "a picture")
SETTINGS = FitSettings(members=7, batch=64, epochs=60, learning_rate=0.02, hidden=8)
KNOWS, GUESSES = Estimate(0.5, 0.4, 0.6, 100), Estimate(0.1, -0.1, 0.3, 100)


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
    torch.testing.assert_close(h.mean(1), torch.zeros(7), rtol=0, atol=1e-4)


def test_the_classifier_knows_what_it_saw(models):
    model, data = models["classifier"], redness(100, seed=9)
    random = torch.randn(100, 4)
    assert model.familiarity(data.embeddings).median() > model.familiarity(random).median()
    torch.testing.assert_close(model.familiarity(random), model.predict(random))


@pytest.mark.parametrize("aggregation", ["mean", "median"])
def test_answers_are_the_members_aggregated(models, aggregation):
    model = LossModel(**{**vars(models["ranker"]), "aggregation": aggregation})
    found = model.ask(["red", "blue", "a green thing"])
    assert found.members.shape == (7, 3)
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
    assert found.confident.all()
    assert found.verdict == [f"worse on the {which}" for which in ("first", "first", "second")]
    assert (found.probability[:2] > 0.99).all()
    assert found.probability[2] < 0.01
    back = models[kind].compare("blue", "red")
    torch.testing.assert_close(back.difference, -found.difference[:1])
    torch.testing.assert_close(back.probability, 1 - found.probability[:1])


def test_a_familiar_thing_is_never_worse(models):
    model = models["classifier"]
    a, b = model.ask(["red", "blue"]).value
    assert bool(model.compare("red", "blue").worse) == bool(a < b)


def test_probability_and_interval_by_hand():
    members = torch.tensor([[1.0, 2.0, 0.0, -1.0], [3.0, 2.0, 0.0, 1.0], [2.0, 2.0, 0.0, 0.0]])
    found = Comparisons(*[("x",) * 4, ("y",) * 4], members, "ranker", "mean", 0, KNOWS)
    first = student.cdf(2 / (1 * (4 / 3) ** 0.5), 2)
    expected = torch.tensor([first, 1.0, 0.5, 0.5], dtype=torch.float32)
    torch.testing.assert_close(found.probability, expected)
    low, high = found.interval
    reach = 4.302653 * (4 / 3) ** 0.5
    torch.testing.assert_close(low[:2], torch.tensor([2 - reach, 2.0]))
    torch.testing.assert_close(high[2:], torch.tensor([0.0, reach]))
    assert found.confident.tolist() == [False, True, False, False]
    # of a normal distribution, a further member lies above what 20 % are said to do in 20 %,
    # and in the interval in 95 %
    members, further = torch.randn(5, 20_000), torch.randn(20_000)
    said = Comparisons((), (), members - further, "ranker", "mean", 0, KNOWS)
    for share in (0.05, 0.2, 0.5, 0.9):
        assert float((said.probability < share).float().mean()) == pytest.approx(share, abs=0.01)
    low, high = interval(members, "mean")
    inside = (low < further) & (further < high)
    assert float(inside.float().mean()) == pytest.approx(0.95, abs=0.01)


def test_a_verdict_needs_words_that_differ_and_a_model_that_knows():
    members = torch.tensor([[1.0, 0.0, 1.0], [1.1, 0.0, -1.0], [0.9, 0.0, 0.5]])
    words = ("a hat", "a hat", "a cat"), ("no hat", " a  hat", "a dog")
    knows = Comparisons(*words, members, "ranker", "mean", 0, KNOWS)
    assert knows.verdict == ["worse on the first", "the same sentence", "cannot tell"]
    assert knows.warning == ""
    guesses = Comparisons(*words, members, "ranker", "mean", 0, GUESSES)
    nothing = "nothing can be said"
    assert guesses.verdict == [nothing, "the same sentence", nothing]
    assert not guesses.confident.any()
    audit = Audit(("x",), members[:, :1], torch.zeros(3, 1), 1, "mean", 0, GUESSES)
    answers = Answers(("x",), members[:, :1], "ranker", "mean", 0, GUESSES)
    assert audit.verdict == [nothing]
    for found in (guesses, audit, answers):
        assert "chance: nothing can be said (held-out Spearman 0.10 [-0.10, 0.30]" in found.warning
        assert "knows no more than chance" in found.plot("x").axes[0].get_title()
    assert "held-out Spearman 0.50 [0.40, 0.60]" in knows.plot().axes[0].get_title()


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
    verdicts = frame.set_index("attribute")["verdict"]
    assert verdicts[["red", "blue"]].tolist() == ["worse with it", "better with it"]
    assert (frame["members"] == 7).all()
    present = torch.tensor([[1.0, 1.0], [2.0, 2.0], [9.0, 3.0]])
    by_hand = Audit(("x", "y"), present, torch.zeros(3, 2), -1, "median", 0, KNOWS).to_frame()
    assert by_hand.loc[0, ["rmm", "signed", "low"]].tolist() == [2, -2, 0]  # 0 is in its interval
    reach = 4.302653 * (4 / 3) ** 0.5
    torch.testing.assert_close(by_hand["high"][1], 2 + reach)


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
    assert model.skill.low > 0.8
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
        assert frame["best"].sum() == 7
        assert again.skill == model.skill
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
    assert model.score(data.embeddings).shape == (7, 100)


def test_the_median_resists_one_member_gone_wrong():
    members = torch.tensor([[1.0], [1.1], [0.9], [1.0], [50.0]])
    found = Answers(("x",), members, "ranker", "median", 0, KNOWS)
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
    assert model.weights.shape == (7, sum(heads.sizes("linear", 4, 8)))
