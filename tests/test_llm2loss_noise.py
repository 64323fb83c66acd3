"""Losses that are noise: intervals hold 0, and the model says that it knows nothing."""

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr

from visiondx.core.errors import InputError
from visiondx.core.stats import Estimate
from visiondx.llm2loss.data import LossData
from visiondx.llm2loss.fit import FitSettings
from visiondx.llm2loss.model import LossModel
from visiondx.llm2loss.resampling import distinct, doubt, draw, skill

DIM, WORDS = 24, 8
SPREAD = torch.logspace(0, -1.5, DIM)  # images vary more along some directions than along others


class Words:
    """Eight words, each a direction; "not" turns it round."""

    fingerprint = "words"

    def __init__(self, seed):
        drawn = torch.randn(WORDS, DIM, generator=torch.Generator().manual_seed(seed))
        self.rows = F.normalize(drawn * SPREAD, dim=1)

    def embed_texts(self, texts):
        row = {str(k): self.rows[k] for k in range(WORDS)}
        row |= {f"Not {name}": -found for name, found in row.items()}
        return torch.stack([row[text] for text in texts])


def noisy(seed, words, planted=0.0, count=300):
    drawn = torch.Generator().manual_seed(100 + seed)
    x = F.normalize(torch.randn(count, DIM, generator=drawn) * SPREAD, dim=1)
    losses = torch.randn(count, generator=drawn)
    return LossData(x, losses + planted * x @ words.rows[0], words.fingerprint)


def audits(kind, planted, seeds):
    """Which words' intervals lie off 0 (seeds, 8), and the skills."""
    settings = FitSettings(learning_rate=0.02, batch=64)
    off, skills = [], []
    for seed in range(seeds):
        words = Words(seed)
        data = noisy(seed, words, planted)
        model = LossModel.fit(data, words, kind=kind, settings=settings, seed=seed)
        audit = model.audit([str(k) for k in range(WORDS)])
        off.append([found.low > 0 for found in map(audit.estimates.get, audit.attributes)])
        skills.append(model.skill)
    return torch.tensor(off).float(), skills


@pytest.mark.filterwarnings("ignore:this loss model knows no more than chance")
@pytest.mark.parametrize(("kind", "seeds"), [("regressor", 10), ("ranker", 4)])
def test_noise_is_no_finding_and_a_planted_word_is_one(kind, seeds):
    off, skills = audits(kind, 0.0, seeds)
    assert off.mean() <= 0.1
    assert sum(found.low > 0 for found in skills) <= 1
    off, skills = audits(kind, 2.0, 4)
    assert off[:, 0].all()
    assert all(found.low > 0 for found in skills)


def test_a_model_of_noise_warns():
    words = Words(1)
    with pytest.warns(UserWarning, match="knows no more than chance"):
        model = LossModel.fit(noisy(1, words), words)
    assert model.compare("1", "2").verdict == ["nothing can be said"]


def test_members_draw_their_own_examples():
    drawn = draw(200, True, [3, 4], 0)
    assert drawn.learn.shape == (2, 200)
    for learn, stop, test in zip(drawn.learn, drawn.stop, drawn.test, strict=True):
        sets = [set(part.tolist()) for part in (learn, stop, test.nonzero()[:, 0])]
        assert len(sets[0]) + len(sets[1]) + len(sets[2]) == 200  # none is in two
        assert len(set.union(*sets)) == 200
        assert len(sets[1]) == 30
        assert len(sets[0]) == pytest.approx(126, abs=15)  # 1 - 1/e of them
    assert not torch.equal(drawn.learn[0], drawn.learn[1])
    alone = draw(200, True, [4], 0)
    assert torch.equal(alone.learn[0], drawn.learn[1])
    shared = draw(200, False, [3, 4], 0)
    assert shared.learn.shape == (2, 140)
    assert torch.equal(shared.learn[0].sort().values, shared.learn[1].sort().values)
    assert shared.test.sum(1).tolist() == [30, 30]
    assert not shared.test[0][shared.learn[0]].any()


def test_one_image_many_times_is_one_example():
    x = F.normalize(torch.randn(60, 5), dim=1)
    twice = torch.cat((x, x * 3 + 1e-9, x[:7]))
    losses = torch.cat((torch.zeros(60), torch.full((60,), 3.0), torch.full((7,), 6.0)))
    embeddings, means = distinct(twice, losses)
    torch.testing.assert_close(embeddings, x, rtol=0, atol=0)
    torch.testing.assert_close(means, torch.cat((torch.full((7,), 3.0), torch.full((53,), 1.5))))
    given = torch.arange(60.0)
    assert distinct(x, given)[1] is given
    with pytest.raises(InputError, match="The 100 examples have 3 distinct embeddings"):
        LossModel.fit(LossData(x[torch.arange(100) % 3], torch.randn(100)))
    model = LossModel.fit(
        LossData(x.repeat(5, 1), (10 * x[:, 0]).repeat(5)), settings=FitSettings(members=2)
    )
    assert model.n == 60
    assert model.skill.n <= 60


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        (torch.arange(100) < 9, "All but 9 of 100 losses are 0"),
        (1 + 2e-7 * (torch.arange(100) % 5), "no further apart than rounding"),
    ],
)
def test_nearly_constant_losses_are_refused(losses, said):
    data = LossData(torch.randn(100, 5), losses.float())
    with pytest.raises(InputError, match=said):
        LossModel.fit(data)
    LossModel.fit(data, kind="classifier", settings=FitSettings(members=2, epochs=1))


def test_skill_by_hand():
    h = torch.tensor([[1.0, 2.0, 9.0, 4.0, 5.0, 0.0], [1.0, 7.0, 3.0, 8.0, 5.0, 0.0]])
    test = torch.tensor([[1, 1, 0, 1, 1, 0], [1, 0, 1, 0, 1, 0]]).bool()
    y = torch.tensor([0.3, 0.1, 0.2, 0.5, 0.6, 9.0])
    found = skill(h, y, test)  # of 1, 2, 3, 4, 5; no member was tested on the last
    assert found.n == 5
    assert found.value == pytest.approx(spearmanr([1, 2, 3, 4, 5], y[:5]).statistic)
    z = torch.atanh(torch.tensor(found.value))
    reach = 1.959964 * (2 * (1 + found.value**2 / 2) / 2) ** 0.5
    assert found.low == pytest.approx(float(torch.tanh(z - reach)), abs=1e-5)
    assert found.high == pytest.approx(float(torch.tanh(z + reach)), abs=1e-5)
    assert skill(torch.zeros(2, 6), y, test) == Estimate(0.0, -1.0, 1.0, 5)
    assert doubt(Estimate(0.3, 0.1, 0.5, 9)) == ""
    assert "0.30 [0.00, 0.50], n=9" in doubt(Estimate(0.3, 0.0, 0.5, 9))
