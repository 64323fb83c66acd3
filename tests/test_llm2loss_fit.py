"""Heads trained together: as each alone, from the best epoch, and again after an interruption."""

import pytest
import torch
from torch import nn

from llm2loss_standins import redness
from visiondx.core.errors import InputError
from visiondx.llm2loss import fit, heads
from visiondx.llm2loss.criteria import criteria
from visiondx.llm2loss.fit import PAPER, FitSettings, fit_heads
from visiondx.llm2loss.modality import placed
from visiondx.llm2loss.resampling import draw

SMALL = FitSettings(members=3, batch=64, epochs=12, patience=4, learning_rate=0.02, hidden=8)


def example(n=300, noise=0.3):
    data = redness(n, noise=noise)
    return placed(data.embeddings, None), data.losses


def settings(**changes):
    return FitSettings(**{**vars(SMALL), **changes})


def test_heads_equal_torchs_modules():
    x = torch.randn(5, 7)
    linear, mlp = nn.Linear(7, 1), nn.Sequential(nn.Linear(7, 4), nn.ReLU(), nn.Linear(4, 1))
    row = torch.cat((linear.weight.flatten(), linear.bias))
    torch.testing.assert_close(heads.scores(row[None], x, "linear", 4), linear(x).T)
    row = torch.cat((mlp[0].weight.T.flatten(), mlp[0].bias, mlp[2].weight.flatten(), mlp[2].bias))
    torch.testing.assert_close(heads.scores(row[None], x, "mlp", 4), mlp(x).T)


@pytest.mark.parametrize("head", heads.HEADS)
def test_each_member_may_see_its_own_images(head):
    weights = heads.initial(head, 7, 4, [1, 2, 3])
    x = torch.randn(3, 5, 7)
    alone = [heads.scores(weights[i : i + 1], x[i], head, 4) for i in range(3)]
    torch.testing.assert_close(heads.scores(weights, x, head, 4), torch.cat(alone))
    torch.testing.assert_close(heads.initial(head, 7, 4, [2])[0], weights[1], rtol=0, atol=0)
    assert weights.abs().max() <= 4**-0.5


@pytest.mark.parametrize("kind", ["regressor", "ranker", "classifier"])
@pytest.mark.parametrize("head", heads.HEADS)
def test_trained_together_as_in_turn(kind, head):
    x, y = example()
    y = (y > y.median()).float() if kind == "classifier" else y
    criterion, judge = criteria(kind, "all")
    given = (x.double(), y.double(), criterion, settings(head=head), 7)
    together = fit_heads(*given, judge=judge)
    in_turn = [fit_heads(*given, judge=judge, members=[m]) for m in range(3)]
    for m, alone in enumerate(in_turn):
        column = together.validation[: len(alone.validation), m]
        torch.testing.assert_close(column, alone.validation[:, 0])
        # a ranker's last bias has no gradient but rounding, which Adam makes steps of
        same = slice(None, -1 if kind == "ranker" else None)
        torch.testing.assert_close(together.weights[m, same], alone.weights[0, same])
        assert together.best[m] == alone.best[0]


def test_a_member_that_stopped_keeps_its_best_weights():
    x, y = example(150, noise=2.0)
    chosen = settings(head="mlp", members=4, epochs=60, learning_rate=0.05, patience=3)
    criterion, judge = criteria("ranker", "all")
    found = fit_heads(x, y, criterion, chosen, 0, judge=judge)
    trained = found.validation.isfinite().sum(0)
    assert len(set(trained.tolist())) > 1  # they stop one by one
    assert (trained == (found.best + 1 + chosen.patience)).all()
    losses = torch.where(found.validation.isfinite(), found.validation, torch.inf)
    assert found.best.tolist() == losses.argmin(0).tolist()
    # the kept weights give that loss: judge them on what each stopped by, drawn as training does
    stop = draw(len(x), True, [fit._seed(0, m, fit.BAGS) for m in range(4)], 0).stop
    h = heads.scores(found.weights, x[stop], "mlp", chosen.hidden)
    torch.testing.assert_close(judge(h, y[stop]), losses.amin(0))


def test_members_and_seeds_differ():
    x, y = example()
    criterion, _ = criteria("regressor", "all")
    first, second = (fit_heads(x, y, criterion, SMALL, seed) for seed in (0, 1))
    both = torch.cat((first.weights, second.weights))
    assert (torch.cdist(both, both) + torch.eye(6) > 1e-3).all()


def test_the_papers_members_differ_by_their_starts_alone():
    x, y = example()
    criterion, _ = criteria("regressor", "all")
    chosen = FitSettings(**{**vars(PAPER), "epochs": 2})
    found = fit_heads(x, y, criterion, chosen, 0)
    assert len(found.weights) == 5
    assert (found.test == found.test[0]).all()
    assert (torch.cdist(found.weights, found.weights) + torch.eye(5) > 1e-3).all()


def test_an_interrupted_training_resumes_with_the_same_result(tmp_path, monkeypatch):
    x, y = example()
    criterion, judge = criteria("ranker", "sampled")
    given = (x, y, criterion, SMALL, 0)
    whole = fit_heads(*given, judge=judge)
    keep, epochs = fit._keep, []

    def interrupted(state, *rest):
        epochs.append(int(state.epoch))
        if len(epochs) == 6:
            raise KeyboardInterrupt
        return keep(state, *rest)

    monkeypatch.setattr(fit, "SAVE_SECONDS", -1.0)
    monkeypatch.setattr(fit, "_keep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit_heads(*given, judge=judge, folder=tmp_path)
    again = fit_heads(*given, judge=judge, folder=tmp_path)
    assert epochs[5:7] == [5, 5]  # the lost epoch, and no more
    for name in ("weights", "validation", "best", "test"):
        torch.testing.assert_close(
            getattr(again, name), getattr(whole, name), rtol=0, atol=0, equal_nan=True
        )
    monkeypatch.setattr(fit, "_epoch", None)  # a finished training is read
    fit_heads(*given, judge=judge, folder=tmp_path)
    with pytest.raises(TypeError):  # other losses are another training
        fit_heads(x, y + 1, criterion, SMALL, 0, folder=tmp_path)
    monkeypatch.setattr(fit, "METHOD", 99)
    with pytest.raises(TypeError):  # and so is another method
        fit_heads(*given, judge=judge, folder=tmp_path)


def test_a_nan_names_epoch_and_member():
    x, y = example()
    criterion, _ = criteria("regressor", "all")

    def wrong(h, y):
        found = criterion(h, y)
        found[-1] = torch.nan
        return found

    with pytest.raises(FloatingPointError, match=r"member 2 became nan in epoch 0"):
        fit_heads(x, y, criterion, SMALL, 0, judge=wrong)


def test_sampled_pairs_by_hand():
    criterion, judge = criteria("ranker", "sampled")
    h, y = torch.tensor([[3.0, 0.0, 1.0, 2.0, 9.0]]), torch.tensor([[1.0, 0.0, 0.0, 1.0, 5.0]])
    p = torch.tensor([2.0, 2.0]).sigmoid()  # (3, 1): right; (0, 2): right; the fifth has no partner
    torch.testing.assert_close(criterion(h, y), -p.log().mean()[None])
    assert judge(h, y).item() != criterion(h, y).item()  # validated on all pairs


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"head": "tree"}, "'tree': choose from linear, mlp"),
        ({"pairs": "some"}, "'some': choose from all, sampled"),
        ({"members": 1}, "members and batch must be 2 or more"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"batch": 1}, "batch"),
        ({"epochs": 0}, "epochs must be positive"),
    ],
)
def test_bad_settings(changes, said):
    with pytest.raises(InputError, match=said):
        settings(**changes)
