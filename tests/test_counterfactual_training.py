"""Counterfactual training, where a target hangs on a spurious cell and every answer is known."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from standins import ToyWorld
from visiondx.core.errors import InputError
from visiondx.models.target import Target
from visiondx.zoom.counterfactual_training.bank import Bank, Round, to_bytes
from visiondx.zoom.counterfactual_training.recipes import RECIPES, SURE, hardest
from visiondx.zoom.counterfactual_training.train import (
    PAPER,
    CounterfactualConfig,
    Renders,
    train_counterfactually,
)
from visiondx.zoom.multi import SearchSettings
from visiondx_worlds.training.targets import TargetConfig, regular_renders, target_attributes
from zoom_standins import CELLS, GridClassifier, GridGenerator, GridWorld, along

SEARCH = SearchSettings(
    steps=6, eta=3.0, epsilon=12.0, alpha=1.0, beta=0.0, starts=(0.0,), update="sign"
)
SHORT = CounterfactualConfig(
    rounds=4, images=64, search=SEARCH, steps=30, drawn=32, renders=32, lr=10.0, augmentation=0.0,
    constancy=0.01, share=0.6,
)  # fmt: skip
QUICK = replace(SHORT, rounds=2, images=6, steps=3, drawn=3, renders=4)


class TwoKinds(GridGenerator):
    """Cell 0 is bright or dark, with a gap between them, as a world's attributes are."""

    def sample_styles(self, n, seed, truncation=1.0):
        styles = super().sample_styles(n, seed, truncation)
        styles[:, 0] = 0.8 * styles[:, 1].sign() + 0.1 * styles[:, 0]
        return styles


def biased() -> Target:
    """Hangs on cell 0, which is its label, and on cell 3."""
    target = Target(GridClassifier({0: 400.0, 3: 100.0}))
    target.config = {"label": "bright"}
    return target


def renders(n: int, seed: int) -> Renders:
    """Cell 0 is the label and cell 3 mostly goes with it: training on these keeps the bias."""
    source = torch.Generator().manual_seed(seed)
    grid = 0.1 * torch.rand(n, CELLS, generator=source) - 0.05
    grid[:, 0] += 0.02 * grid[:, 0].sign()
    grid += 0.5
    aligned = torch.rand(n, generator=source) < 0.9
    same = grid[:, 0] - 0.5 + (grid[:, 3] - 0.5) / 10
    grid[aligned, 3] = 0.5 + same[aligned]
    return Renders(to_bytes(GridWorld().render(grid)), grid[:, 0] > 0.5)


KNOWN, HELD = renders(400, 1), renders(200, 2)


def train(folder, config=QUICK, target=None, directions=None, **more):
    generator = TwoKinds()
    directions = along(generator, 3) if directions is None else directions
    return train_counterfactually(
        target or biased(), generator, directions, KNOWN, HELD, config, folder, **more
    )


@pytest.fixture(scope="module")
def robust(tmp_path_factory):
    return train(tmp_path_factory.mktemp("robust"), SHORT)


def test_a_target_that_hangs_on_a_spurious_cell_becomes_resistant(robust):
    frame = robust.to_frame().set_index("round")
    assert frame.index.tolist() == [0, 1, 2, 3, 4]
    assert frame["flip_resistance"][0] < 0.4
    assert frame["flip_resistance"][4] > 0.95
    assert frame["accuracy"][4] >= frame["accuracy"][0] - 0.005
    weight = robust.target.module.weight
    assert abs(weight[3] / weight[0]) < 0.05  # it was a quarter
    assert not robust.target.training
    assert not weight.requires_grad


def test_renders_alone_would_not_have_done_it():
    """The same batches without the bank: the bias stays, as cell 3 goes with the label there."""
    target = biased().requires_grad_(True)
    adam = torch.optim.Adam(target.module.parameters(), lr=10.0)
    labels = KNOWN.labels.float()
    for _ in range(120):
        logit = target.logit(KNOWN.images / 255)
        loss = nn.functional.binary_cross_entropy_with_logits(logit, labels)
        adam.zero_grad()
        loss.backward()
        adam.step()
    weight = target.module.weight
    assert weight[3] / weight[0] > 0.1


def test_the_bank_holds_what_each_round_found_and_its_mirror(robust):
    regular, generator = biased(), TwoKinds()
    for part in robust.rounds:
        styles = generator.sample_styles(64, 10_000 + part.number)
        assert part.views.shape == (64, 5, 3, 16, 16)
        assert torch.equal(part.views[:, 0], to_bytes(generator.synthesize(styles).detach()))
        # by the target as it then was: another one after round 0
        own = regular(part.views[:, 0] / 255)
        if part.number == 0:
            assert torch.allclose(part.p_original, own, atol=0.05)
        else:
            assert not torch.equal(part.p_original, own)
        seen = part.views[:, :, 0, 1, 13].int()  # cell 3, the only one that is edited
        moved, clipped = seen - seen[:, :1], ((seen == 0) | (seen == 255)).any(1)
        assert clipped.sum() < 20
        for one, mirrored in ((1, 2), (3, 4)):
            assert (moved[:, one] + moved[:, mirrored])[~clipped].abs().max() <= 1  # rounding
        corner = 255 * 12 * 0.05 * float(generator.style_std[3])
        assert (moved[:, 3].abs() - corner)[~clipped].abs().max() <= 1
        others = torch.cat(
            [part.views[..., :4, :12].flatten(3), part.views[..., 4:, :].flatten(3)], 3
        )
        assert torch.equal(others, others[:, :1].expand_as(others))
        logits = regular.logit(part.views.flatten(0, 1) / 255).unflatten(0, (64, 5)).mean(1)
        read = part.views[:, :, 0, 1, [1, 13]]  # the two cells that the target looks at
        inside = ((read > 0) & (read < 255)).flatten(1).all(1)
        assert inside.sum() > 40
        assert (part.regular - logits)[inside].abs().max() < 1  # bytes: (400 + 100) / 510
    first, last = robust.rounds[0], robust.rounds[-1]
    flipped = (regular(first.views[:, 1] / 255) >= 0.5) != (first.p_original >= 0.5)
    assert flipped.double().mean() > 0.6
    assert torch.equal(last.right, HELD.right(robust.target))


def test_the_two_views_apart_and_their_label_by_hand():
    target = Target(GridClassifier({0: 10.0}))
    grid = torch.full((3, 4, CELLS), 0.5)
    logits = torch.tensor([[0.2, 0.9, -0.4, 0.1], [0.3, 0.1, 0.2, 0.0], [-2.0, 1.0, -1.0, -3.0]])
    grid[..., 0] += logits / 10
    views = GridWorld().render(grid.flatten(0, 1)).unflatten(0, (3, 4))
    # sure, the other way; unsure, so the target's own mean; sure
    regular = torch.tensor([-SURE - 0.1, -SURE + 0.1, 5.0])
    picked, label = hardest(target, views, regular)
    assert torch.equal(
        picked, torch.stack([views[[0, 1, 2], [1, 0, 1]], views[[0, 1, 2], [2, 3, 3]]], 1)
    )
    assert label.tolist() == [[0, 0], [1, 1], [1, 1]]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    config = replace(PAPER, rounds=30, images=48, search=SEARCH, steps=6, drawn=32, lr=5.0)
    return train(tmp_path_factory.mktemp("plain"), config)


def test_the_papers_recipe_makes_flips_rarer_and_keeps_the_answers(plain):
    """By Eq. 12 alone: what flips the target is learned to be what the regular one said of it."""
    frame = plain.to_frame().set_index("round")
    assert frame["flip_resistance"][0] < 0.4
    assert frame["flip_resistance"][30] > 0.9
    assert frame["accuracy"][30] >= frame["accuracy"][0] - 0.01
    weight = plain.target.module.weight
    assert abs(weight[3] / weight[0]) < 0.1  # it was a quarter


def test_the_papers_rounds_hold_original_counterfactual_and_the_regular_answer(plain):
    regular, generator = biased(), TwoKinds()
    for part in plain.rounds[::10]:
        styles = generator.sample_styles(48, 10_000 + part.number)
        assert part.views.shape == (48, 2, 3, 16, 16)
        images = generator.synthesize(styles).detach()
        assert torch.equal(part.views[:, 0], to_bytes(images))
        assert torch.allclose(part.regular, regular.logit(images).detach())  # of x, not of x̂
    first = plain.rounds[0]
    assert torch.allclose(regular(first.views[:, 1] / 255), first.p, atol=0.2)  # bytes


def test_the_papers_labels_are_f_of_x_of_the_latest_round(plain, tmp_path):
    bank = Bank(tmp_path, {})
    for number in (0, 1):
        bank.upto(number, lambda number: plain.rounds[number])
    latest = plain.rounds[1]
    draw = RECIPES["paper"].draw
    views, label = draw(bank, 48, torch.Generator().manual_seed(0), biased())
    assert views.shape == (48, 1, 3, 16, 16)
    assert label.shape == (48, 1)
    # each once, x̂ and what the regular target said of its x
    distance = torch.cdist(views.flatten(1) * 255, latest.views[:, 1].flatten(1).float())
    row = distance.argmin(1)
    assert distance.amin(1).max() < 0.1
    assert len(row.unique()) > 44  # a few may look alike
    same = (label[:, 0] - latest.regular[row].sigmoid()).abs() < 1e-6
    assert same.double().mean() > 0.9
    assert len(draw(bank, 5, torch.Generator().manual_seed(0), biased())[0]) == 5


def test_equation_12_by_hand(tmp_path):
    """One step of one round: the loss of its batch, under probabilities that are not 0 or 1."""
    target = Target(GridClassifier({0: 40.0, 3: 10.0}))
    config = replace(PAPER, rounds=1, images=8, search=SEARCH, steps=1, drawn=8, renders=4, lr=1e-9)
    part = train(tmp_path, config, target).rounds[0]
    logit, f = target.logit(part.views[:, 1] / 255).detach().double(), part.regular.sigmoid()
    assert ((f > 0.05) & (f < 0.95)).any()
    # -log f(x̂) = log(1 + exp(-logit)), -log(1 - f(x̂)) = log(1 + exp(logit))
    expected = (f * (1 + (-logit).exp()).log() + (1 - f) * (1 + logit.exp()).log()).mean() / 2
    entry = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])
    assert entry["counterfactuals"] == pytest.approx(float(expected), rel=1e-2)  # bfloat16
    assert entry.keys() >= {"renders", "counterfactuals"}
    assert "constancy" not in entry


def test_the_bank_grows_and_all_of_it_is_drawn(robust, tmp_path):
    bank = Bank(tmp_path, {})
    bank.upto(0, lambda number: robust.rounds[number])
    bank.upto(1, lambda number: robust.rounds[number])
    views, regular = bank.draw(2000, torch.Generator().manual_seed(0))
    known = torch.cat([part.views for part in robust.rounds[:2]]).flatten(1)
    distance = torch.cdist(views.flatten(1).float(), known.float())
    assert (distance.amin(1) == 0).all()
    row = distance.argmin(1)
    assert len(row.unique()) > 0.98 * 2 * 64  # a few may look alike
    assert torch.equal(regular, torch.cat([part.regular for part in robust.rounds[:2]])[row])


def test_the_regular_target_stays_as_it_was(tmp_path):
    target = biased()
    target.requires_grad_(False)
    train(tmp_path, target=target)
    assert target.module.weight[[0, 3]].tolist() == [400.0, 100.0]
    assert not target.module.weight.requires_grad


def equal(one, other) -> bool:
    """The same weights and the same rounds, bit for bit."""
    pairs = zip(one.target.parameters(), other.target.parameters(), strict=True)
    same = all(torch.equal(a, b) for a, b in pairs)
    for a, b in zip(one.rounds, other.rounds, strict=True):
        tensors = [name for name in vars(a) if name != "number"]
        same &= all(torch.equal(getattr(a, name), getattr(b, name)) for name in tensors)
    return same


def test_an_interrupted_training_is_as_an_uninterrupted_one(tmp_path):
    whole = train(tmp_path / "whole")
    pauses = 0
    while (resumed := train(tmp_path / "parts", time_limit=0)) is None:
        pauses += 1  # a step, then a checkpoint
    assert pauses == 5
    assert equal(whole, resumed)
    # killed after the files of both rounds, but before any checkpoint
    (tmp_path / "parts" / "checkpoint.safetensors").unlink()
    assert equal(whole, train(tmp_path / "parts"))
    assert not equal(whole, train(tmp_path / "other", seed=1))


def test_what_was_made_otherwise_is_not_used(tmp_path):
    first = train(tmp_path)
    with pytest.raises(InputError, match="another lr"):
        train(tmp_path, replace(QUICK, lr=1.0))
    with pytest.raises(InputError, match="another directions"):
        train(tmp_path, directions=along(GridGenerator(), 3, 4))
    weaker = biased()
    weaker.module.weight.data[3] = 50.0
    with pytest.raises(InputError, match="another target"):
        train(tmp_path, target=weaker)
    (tmp_path / "checkpoint.safetensors").unlink()  # the rounds' files alone are not believed
    again = train(tmp_path, replace(QUICK, lr=1.0))
    assert not equal(first, again)
    assert torch.equal(first.rounds[0].views, again.rounds[0].views)


def test_a_lost_round_is_not_replaced_by_another(tmp_path):
    for _ in range(4):
        train(tmp_path, time_limit=0)
    (tmp_path / "round-00.safetensors").unlink()
    with pytest.raises(InputError, match=r"round-00.* is missing"):
        train(tmp_path)


def test_batch_norm_keeps_the_statistics_of_the_regular_training(tmp_path):
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 4, 4, 4), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 1)
    )
    with torch.no_grad():
        module(KNOWN.images / 255)  # in train mode: its statistics are the renders'
    target = Target(module.eval())
    before = {k: v.clone() for k, v in module.state_dict().items()}
    after = train(tmp_path, replace(QUICK, lr=0.01), target).target.module.state_dict()
    kept = {name for name in before if torch.equal(before[name], after[name])}
    assert kept == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}


def test_frame_and_pictures(robust):
    frame = robust.to_frame()
    part = robust.rounds[2]
    assert frame["flip_resistance"][2] == part.withstood.double().mean().item()
    assert frame["flip_resistance_low"][2] <= frame["flip_resistance"][2]
    assert frame[["images", "renders"]].iloc[0].tolist() == [64, 200]
    assert len(robust.plot().axes) == 1
    titles = [axis.get_title() for axis in robust.plot_bank(3).axes]
    assert len(titles) == 5 * 6
    assert titles[:2] == [
        f"{robust.rounds[0].p_original[0]:.2f}",
        f"→ {robust.rounds[0].p[0]:.2f}",
    ]


def test_withstood_by_hand():
    part = Round(
        0, torch.zeros(3, 5, 3, 2, 2).byte(), torch.tensor([0.2, 0.7, 0.9]),
        torch.tensor([0.6, 0.5, 0.1]), torch.zeros(3), torch.ones(2).bool(),
    )  # fmt: skip
    assert part.withstood.tolist() == [False, True, False]


def test_regular_renders_are_the_targets_own_training_set():
    world, config = ToyWorld(), TargetConfig("ring", "red", aligned=30, conflicting=2)
    found = regular_renders(world, config, n=40, seed=3)
    assert len(found) == 40
    everything = to_bytes(world.render(target_attributes(world, config, 3))).flatten(1)
    distance = (found.images.flatten(1)[:, None].int() - everything[None].int()).abs().amax(2)
    assert (distance.amin(1) == 0).all()
    assert len(distance.argmin(1).unique()) == 40  # without replacement
    every = regular_renders(world, config, n=1000, seed=3)
    assert len(every) == 64
    assert every.labels.sum() == 32
    fresh = Renders.balanced(world, "ring", 10, seed=4)
    assert fresh.labels.tolist() == [True, False] * 5
    images = world.render(world.sample(10, 4, given={"ring": fresh.labels}))
    assert torch.equal(fresh.images, to_bytes(images))


class Constant(nn.Module):
    def forward(self, images):
        return images.mean((1, 2, 3)) - 0.5


class Detached(GridClassifier):
    def forward(self, images):
        return nn.functional.linear(images.flatten(1), self.weight.detach().repeat(48)[None])[:, 0]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (Target(nn.Flatten().eval(), "multiclass", "abc"), "multiclass"),
        (Target(Constant().eval()), "no parameters that a gradient reaches"),
        (Target(Detached({0: 5.0})), "no parameters that a gradient reaches"),
        (Target(GridClassifier({})), "no gradient"),
    ],
)  # fmt: skip
def test_targets_that_cannot_be_trained_are_refused(target, message, tmp_path):
    with pytest.raises(InputError, match=message):
        train(tmp_path, target=target)
    assert not list(tmp_path.iterdir())


def test_no_attributes_are_refused(tmp_path):
    none = replace(along(GridGenerator(), 3), attributes=(), delta_s=torch.zeros(0, CELLS))
    with pytest.raises(InputError, match="one or more attributes"):
        train(tmp_path, directions=none)


@pytest.mark.parametrize(
    "changed",
    [
        {"rounds": 0},
        {"images": 0},
        {"steps": 0},
        {"drawn": 0},
        {"renders": 0},
        {"share": 0.0},
        {"share": 1.0},
        {"constancy": -0.1},
        {"recipe": "cake"},
    ],
)
def test_impossible_settings_are_refused(changed):
    with pytest.raises(InputError, match=next(iter(changed))):
        CounterfactualConfig(**changed)


def test_the_papers_recipe_takes_nothing_of_ours():
    assert PAPER.drawn + PAPER.renders == 128
    with pytest.raises(InputError, match="has no constancy, average: set each to 0"):
        replace(PAPER, constancy=0.3, average=0.98)
