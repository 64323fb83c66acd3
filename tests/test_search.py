"""The one descent loop, on objectives whose every step is known."""

import copy
import math

import pytest
import torch
from torch import Tensor
from tqdm.auto import tqdm

from visiondx.core.errors import InputError
from visiondx.search.descent import Descent, descend, trajectory
from visiondx.search.objective import Objective, Term


class Linear(Objective):
    """c · v of each row, in two terms: 0.2 of one, 0.8 of the other; it reads v's first entry."""

    growth, stop = 1.0, None

    def __init__(self, a: Tensor, b: Tensor):
        self.a, self.b, self.seen = a, b, []

    @property
    def terms(self):
        a = Term("a", lambda s: (self.a * s["v"]).flatten(1).sum(1), growth=self.growth)
        return [0.2 * a, 0.8 * Term("b", lambda s: (self.b * s["v"]).flatten(1).sum(1))]

    def observe(self, variable):
        self.seen.append(len(variable))
        return {"v": variable}

    def read(self, state):
        return state["v"].flatten(1)[:, 0]

    def index(self, rows):
        some = copy.copy(self)
        some.a, some.b = self.a[rows], self.b[rows]
        return some

    def done(self, reading):
        return None if self.stop is None else reading > self.stop


def column(*values) -> Tensor:
    return torch.tensor(values)[:, None]


def test_equation_10_by_hand():
    w, gradient = torch.tensor([0.5, 0.5, -0.9, 0.0]), torch.tensor([1.0, -4.0, 2.0, 0.0])
    moments = torch.zeros(2, 4)
    moved = Descent(eta=0.2, epsilon=1.0).move(w, gradient, moments, 0)
    assert torch.allclose(moved, torch.tensor([0.3, 1.0, -1.0, 0.0]))  # clamped twice
    moved = Descent(eta=0.2).move(w, gradient, moments, 0)
    assert torch.allclose(moved, torch.tensor([0.3, 1.3, -1.3, 0.0]))  # no bound
    moved = Descent(eta=0.2, update="sign", epsilon=1.0).move(w, gradient, moments, 0)
    assert torch.allclose(moved, torch.tensor([0.3, 0.7, -1.0, 0.0]))


def test_eta_falls_along_half_a_cosine():
    descent = Descent(steps=4, eta=0.2, anneal=True)
    expected = [0.2, 0.1 * (1 + math.sqrt(0.5)), 0.1, 0.1 * (1 - math.sqrt(0.5)), 0.0]
    assert [descent.eta_at(step) for step in range(5)] == pytest.approx(expected)
    moved = descent.move(torch.ones(1), torch.ones(1), torch.zeros(2, 1), 2)
    assert moved.item() == pytest.approx(0.9)
    assert Descent(eta=0.2).eta_at(9) == 0.2


def test_a_descent_goes_on_from_a_kept_step_as_if_it_had_not_stopped():
    v, descent = torch.tensor([0.5, -2.0])[:, None], Descent(steps=6, update="adam", anneal=True)
    moments = torch.zeros(2, 2, 1)
    objective = Linear(column(1.0, 2.0), column(3.0, -1.0))
    steps = descend(objective, v, descent, moments=moments)
    whole = [(at.variable, moments.clone()) for at in steps]
    assert len(whole) == 7
    variable, kept = whole[4]
    rest = list(descend(objective, variable, descent, first=4, moments=kept))
    assert [at.number for at in rest] == [4, 5, 6]
    for at, (expected, _) in zip(rest, whole[4:], strict=True):
        assert torch.equal(at.variable, expected)


def test_terms_are_weighed_and_one_of_them_grows():
    objective = Linear(column(1.0, -2.0), column(1.0, 0.5))
    objective.growth = 3.0
    v, read = trajectory(objective, torch.zeros(2, 1), Descent(steps=3, eta=1.0))
    # slopes 0.2·3^t a + 0.8 b: 1, 1.4, 2.6 and 0, -0.8, -3.2
    assert torch.allclose(v[:, :, 0].T, torch.tensor([[0, -1, -2.4, -5.0], [0, 0, 0.8, 4.0]]))
    assert torch.equal(read, v[:, :, 0])


@pytest.mark.parametrize("update", ["gradient", "sign"])
def test_a_row_that_stands_still_moves_once_a_term_has_grown(update):
    """At first the terms of row 0 balance, row 1 is pressed against its bound, and row 2 is so
    under the term that grows, for good."""
    objective = Linear(column(5.0, 5.0, 5.0), column(-1.25, -3.75, 0.0))
    objective.growth = 2.0
    start = column(0.5, 2.0, -2.0)
    descent = Descent(steps=4, eta=1.0, epsilon=2.0, update=update)
    v, _ = trajectory(objective, start, descent)
    # slopes 0, 1, 3, 7 of row 0 and -2, -1, 1, 5 of row 1
    by_hand = {
        "gradient": [[0.5, 0.5, -0.5, -2.0, -2.0], [2.0, 2.0, 2.0, 1.0, -2.0]],
        "sign": [[0.5, 0.5, -0.5, -1.5, -2.0], [2.0, 2.0, 2.0, 1.0, 0.0]],
    }
    assert torch.allclose(v[:, :2, 0].T, torch.tensor(by_hand[update]))
    assert (v[:, 2] == -2).all()
    objective.growth, objective.seen = 1.0, []
    still, _ = trajectory(objective, start, descent)
    assert torch.equal(still, start.expand(5, -1, -1))
    assert objective.seen == [3]  # nothing can move any more: all leave


def test_rows_leave_when_done_and_repeat_their_last_step():
    objective = Linear(column(-5.0, -1.0, -2.2), column(0.0, 0.0, 0.0))  # 1, 0.2, 0.44 a step
    objective.stop = 0.85
    with tqdm(total=3 * 6) as bar:
        v, _ = trajectory(objective, torch.zeros(3, 1), Descent(steps=5, eta=1.0), bar=bar)
        assert bar.n == 3 * 6
    expected = [[0, 1, 1, 1, 1, 1], [0, 0.2, 0.4, 0.6, 0.8, 1.0], [0] + [0.44] + 4 * [0.88]]
    assert torch.allclose(v[:, :, 0].T, torch.tensor(expected))
    assert objective.seen == [3, 3, 2, 1, 1, 1]  # the copies share the list


def test_steps_can_be_watched_and_broken_off():
    objective = Linear(column(-5.0, -1.0), column(0.0, 0.0))
    for at in descend(objective, torch.zeros(2, 1), Descent(steps=50, eta=1.0)):
        if at.number == 2:
            break
    assert torch.allclose(at.variable, column(2.0, 0.4))
    assert objective.seen == [2, 2, 2]


class Prompts(Objective):
    """A stand-in for tokens (B, N, d) that a painter reads along with noise, fresh at each step:
    each row's own mean is wanted, and another pull is zero on average."""

    noisy = True

    def __init__(self, wanted: Tensor, source: torch.Generator):
        self.wanted, self.source = wanted, source

    @property
    def terms(self):
        return [
            Term("match", lambda s: (s["painted"] - self.wanted).square().mean((1, 2))),
            0.1 * Term("noise", lambda s: (s["painted"] * s["noise"]).mean((1, 2))),
        ]

    def observe(self, variable):
        noise = torch.randn(variable.shape, generator=self.source)
        return {"painted": variable + 0.1 * noise, "noise": noise}

    def read(self, state):
        return (state["painted"] - self.wanted).square().mean((1, 2))

    def index(self, rows):
        return Prompts(self.wanted[rows], self.source)


def test_tokens_under_noise_with_adamw_and_no_bound():
    """Every step is that of torch.optim.AdamW, which sees the same noise."""
    wanted = torch.linspace(-20, 20, 3)[:, None, None].expand(3, 2, 4)
    start = torch.zeros(3, 2, 4)
    descent = Descent(steps=300, eta=0.1, update="adam", decay=0.01)
    source = torch.Generator().manual_seed(0)
    v, distance = trajectory(Prompts(wanted, source), start, descent)
    assert v.shape == (301, 3, 2, 4)

    tokens, source = start.clone().requires_grad_(), torch.Generator().manual_seed(0)
    adamw = torch.optim.AdamW([tokens], lr=0.1, weight_decay=0.01)
    objective = Prompts(wanted, source)
    for step in range(300):
        state = objective.observe(tokens)
        loss = sum(term.weight * term.loss(state) for term in objective.terms).sum()
        adamw.zero_grad()
        loss.backward()
        adamw.step()
        assert torch.allclose(v[step + 1], tokens, atol=1e-4), step
    assert (distance[-1] < 0.05 * distance[0].clamp(min=1)).all()
    again, _ = trajectory(Prompts(wanted, torch.Generator().manual_seed(0)), start, descent)
    assert torch.equal(again, v)


def test_a_noisy_row_that_stood_still_may_move_later():
    class Rarely(Linear):
        noisy = True

        def observe(self, variable):
            self.seen.append(len(variable))
            return {"v": variable * (len(self.seen) == 3)}

    objective = Rarely(column(5.0), column(0.0))
    v, _ = trajectory(objective, torch.zeros(1, 1), Descent(steps=4, eta=1.0))
    assert v[:, 0, 0].tolist() == [0, 0, 0, -1, -1]


class Breaks(Linear):
    def __init__(self, where: str):
        super().__init__(column(-5.0, -1.0, -5.0), column(0.0, 0.0, 0.0))
        self.where = where

    @property
    def terms(self):
        def b(state):
            v = state["v"][:, 0]
            late, out = v > 0.5, 0 * v
            if self.where == "b loss":
                return out.masked_fill(late, math.nan)
            if self.where == "gradient":
                out[late] = (v[late] - v[late].detach()).sqrt()  # zero, with an infinite slope
            return out

        return [super().terms[0], Term("b", b)]

    def observe(self, variable):
        late = (variable > 0.5) & (self.where == "picture")
        return {"v": variable, "picture": variable.masked_fill(late, math.inf)}


@pytest.mark.parametrize("name", ["picture", "b loss", "gradient"])
def test_what_is_not_finite_is_named_with_step_and_row(name):
    objective = Breaks(name)
    start = column(0.0, 0.0, -1.0)
    with pytest.raises(FloatingPointError, match=f"The {name} is NaN or .* step 1 for number 0"):
        trajectory(objective, start, Descent(steps=9, eta=1.0), "number {}".format)
    # its own number, although the others have left: one is done, one has no slope
    objective = Breaks(name)
    objective.stop, objective.a = -0.5, column(-5.0, 0.0, -7.0)
    start = column(-0.4, -0.6, -0.65)
    with pytest.raises(FloatingPointError, match=f"The {name} is NaN or .* step 1 for number 2"):
        trajectory(objective, start, Descent(steps=9, eta=1.0), "number {}".format)


def test_terms_are_checked():
    class Wrong(Linear):
        def __init__(self, terms):
            super().__init__(column(1.0), column(1.0))
            self.given = terms

        @property
        def terms(self):
            return self.given

    one = Term("one", lambda s: s["v"][:, 0])
    for terms, words in (
        ([], "one or more terms"),
        ([one, one], "different names"),
        ([one, Term("two", lambda s: s["v"].sum())], r"'two' must give one value for each of 2"),
    ):
        with pytest.raises(InputError, match=words):
            trajectory(Wrong(terms), torch.zeros(2, 1), Descent())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"steps": 0}, "steps"),
        ({"eta": 0.0}, "eta"),
        ({"eta": math.nan}, "eta"),
        ({"epsilon": 0.0}, "epsilon"),
        ({"decay": -1.0}, "decay"),
        ({"update": "newton"}, "update must be one of gradient, sign, adam"),
    ],
)
def test_settings_are_checked(settings, words):
    with pytest.raises(InputError, match=words):
        Descent(**settings)
