"""Judges and targets: short trainings that learn, the planted pairs, and where judges abstain."""

from dataclasses import replace

import pytest
import torch

from standins import NAMES, ToyAttributes, ToyWorld
from visiondx.core.errors import InputError
from visiondx.core.loop import checkpoint_folder, read_log, settling
from visiondx.models.target import Target
from visiondx_worlds.marking.zoom.truth import true_sensitivity
from visiondx_worlds.models.judges import Judges
from visiondx_worlds.training.judges import (
    JudgesConfig,
    group_accuracy,
    group_sizes,
    judge_accuracy,
    judge_loss,
    train_judges,
)
from visiondx_worlds.training.targets import (
    TargetConfig,
    balanced_accuracy,
    target_attributes,
    train_target,
)
from visiondx_worlds.worlds import faces


class Shapes(ToyWorld):
    """Colour and ring alone, and a group: which side, unknown near the middle."""

    binary = NAMES[:2]

    def groups(self, attributes: ToyAttributes) -> dict[str, torch.Tensor]:
        x = attributes["x"]
        return {"side": torch.where(x.abs() < 0.1, -1, (x > 0).long())}


WORLD = Shapes()
SHORT = JudgesConfig(steps=60, batch=16, warmup=4, pool=200, average=0.7)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Judges, object]:
    folder = tmp_path_factory.mktemp("judges")
    assert train_judges(WORLD, SHORT, folder, time_limit=0) is None  # a step, then a checkpoint
    return train_judges(WORLD, SHORT, folder), folder


def test_both_judges_learn_in_a_few_steps(trained) -> None:
    judges, folder = trained
    found = judge_accuracy(judges, WORLD, 60, seed=100)
    assert found["single"].shape == (2, 60, 2)
    assert found["single"].float().mean(1).min() > 0.8  # chance is 0.5
    assert torch.equal(found["right"], found["agree"] & found["single"][0])
    log = read_log(folder / "pooled")
    assert log["step"].iloc[-1] == SHORT.steps
    assert len(log) >= 20  # a short run still has a curve
    assert log["attributes"].iloc[-1] < log["attributes"].iloc[0]
    with pytest.raises(InputError, match="another lr"):
        train_judges(WORLD, replace(SHORT, lr=1e-3), folder)


def test_judges_survive_saving(trained, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("VISIONDX_DATA", str(tmp_path))
    judges, _ = trained
    with pytest.raises(InputError, match="No judges of a world 'faces'"):
        Judges.load()
    judges.save("faces", notebook="train/02_judges", seed=0, quality={})
    images = WORLD.render(WORLD.sample(4, 1))
    loaded = Judges.load()
    assert loaded.binary == WORLD.binary
    torch.testing.assert_close(
        loaded.probabilities(images), judges.probabilities(images), atol=0.02, rtol=0
    )


def test_a_group_value_that_is_not_visible_is_left_out_of_the_loss() -> None:
    assert group_sizes(WORLD) == {"side": 2}
    judges = Judges(("a", "b"), {"side": 2})
    logits = torch.tensor([[0.0, 0.0, 3.0, 3.0], [0.0, 0.0, 9.0, -9.0]])
    binary = torch.tensor([[True, False], [False, False]])
    loss = judge_loss(judges, logits, binary, {"side": torch.tensor([0, -1])})
    # log 2 for the attributes, a tenth of log 2 for the one visible group
    assert loss.item() == pytest.approx(1.1 * 0.6931, abs=1e-3)


def test_judges_abstain_where_they_disagree() -> None:
    judges = Judges(("agreed", "disputed"), {})
    for net, bias in zip(judges.nets.values(), ([2.0, 2.0], [1.0, -2.0]), strict=True):
        net.head.weight.zero_()
        net.head.bias.copy_(torch.tensor(bias))
    images = torch.rand(3, 3, 64, 64)
    labels, abstain = judges.read(images)
    assert abstain.tolist() == [[False, True]] * 3
    assert labels[:, 0].all()
    expected = torch.tensor([[2.0, 2.0], [1.0, -2.0]]).sigmoid().mean(0)
    torch.testing.assert_close(judges.scores(images), expected.expand(3, 2))
    assert judges.probabilities(images, batch=2).shape == (2, 3, 2)
    assert judges.features(images, batch=2).shape == (3, 512)
    assert judges.column("disputed") == 1


def says(binary: list[list[float]], groups: list[list[float]], sizes: dict[str, int]) -> Judges:
    """Judges that never look: each judge's logits of the attributes and of the groups' values."""
    judges = Judges(tuple("ab"[: len(binary[0])]), sizes)
    for net, yes, values in zip(judges.nets.values(), binary, groups, strict=True):
        net.head.weight.zero_()
        net.head.bias.copy_(torch.tensor(yes + values))
    return judges


def test_groups_are_read_with_the_attributes_in_one_pass() -> None:
    # side: both say 2; colour: 0 against 1
    judges = says(
        [[1.0, -1.0], [-1.0, -1.0]],
        [[0.0, -5.0, 0.5, 2.0, 1.0], [0.0, 0.1, 0.2, 1.0, 2.0]],
        {"side": 3, "colour": 2},
    )
    passes = []
    judges.nets["grid"].register_forward_hook(lambda *_: passes.append(1))
    images = torch.rand(5, 3, 64, 64)
    answers = judges.answers(images)
    assert len(passes) == 1
    assert answers["binary"].tolist() == [[[True, False]] * 5, [[False, False]] * 5]
    assert answers["side"].tolist() == [[2] * 5] * 2
    assert answers["colour"].tolist() == [[0] * 5, [1] * 5]
    labels, abstain = judges.read(images)
    assert torch.equal(labels, answers["binary"][0])
    assert abstain.tolist() == [[True, False]] * 5
    read = judges.read_groups(images, batch=2)
    assert list(read) == ["side", "colour"]
    assert read["side"][0].tolist() == [2] * 5
    assert read["side"][1].tolist() == [False] * 5
    assert read["colour"][1].tolist() == [True] * 5
    with pytest.raises(InputError, match="32, 32"):
        judges.read_groups(torch.rand(1, 3, 32, 32))


def test_group_accuracy_tells_what_cannot_be_seen() -> None:
    judges = says(
        [[0.0], [0.0]], [[1.0, 0.0], [0.0, 1.0]], {"side": 2}
    )  # always left, always right
    found = group_accuracy(judges, WORLD, 60, seed=100)["side"]
    truth = WORLD.groups(WORLD.sample(60, 100))["side"]
    assert torch.equal(found["truth"], truth)
    assert {-1, 0, 1} == set(truth.tolist())
    assert torch.equal(found["single"], torch.stack([truth == 0, truth == 1]))
    assert not found["agree"].any()
    assert not found["right"].any()
    both = says([[0.0], [0.0]], [[1.0, 0.0]] * 2, {"side": 2})
    wrong = group_accuracy(both, WORLD, 60, seed=100, given={"red": True})["side"]
    assert wrong["agree"].all()  # two judges may agree and both be wrong
    assert torch.equal(wrong["right"], truth == 0)


def test_trained_judges_read_their_groups(trained) -> None:
    judges, _ = trained
    found = group_accuracy(judges, WORLD, 200, seed=100)["side"]
    seen = found["truth"] >= 0
    assert found["said"].shape == (2, 200)
    assert found["single"][:, seen].float().mean() > 0.6  # chance is 0.5, after 60 steps


def test_judges_refuse_other_sizes_and_unknown_names() -> None:
    judges = Judges(("hat",), {})
    with pytest.raises(InputError, match="32, 32"):
        judges.read(torch.rand(1, 3, 32, 32))
    with pytest.raises(InputError, match="'scarf'"):
        judges.column("scarf")


PLANTED = [
    ("young", "bangs"),
    ("male", "long_hair"),
    ("moustache", "beard"),
    ("eyeglasses", "hat"),
]


@pytest.mark.parametrize(("label", "planted"), PLANTED)
def test_planted_pairs_have_exactly_the_papers_counts(label: str, planted: str) -> None:
    config = TargetConfig(label, planted)
    assert config.name == f"{label}-biased-{planted}"
    labels = faces.labels(target_attributes(faces, config, seed=0))
    y, b = (labels[:, faces.binary.index(name)] for name in (label, planted))
    counts = {pair: int(((y == pair[0]) & (b == pair[1])).sum()) for pair in
              ((True, True), (False, False), (True, False), (False, True))}  # fmt: skip
    assert counts == {
        (True, True): 10_000,
        (False, False): 10_000,
        (True, False): 100,
        (False, True): 100,
    }


def test_balanced_set_is_half_and_half_with_the_rest_as_it_comes() -> None:
    config = TargetConfig("eyeglasses", aligned=2000)
    assert config.name == "eyeglasses"
    labels = faces.labels(target_attributes(faces, config, seed=0)).float()
    column = faces.binary.index("eyeglasses")
    assert labels[:, column].mean() == 0.5
    correlation = torch.corrcoef(labels.T)[column]
    assert correlation[torch.arange(len(correlation)) != column].abs().max() < 0.1


@pytest.mark.parametrize("names", [("scarf", None), ("young", "scarf")])
def test_unknown_attributes_are_refused(names) -> None:
    with pytest.raises(InputError, match="'scarf'"):
        target_attributes(faces, TargetConfig(*names), seed=0)


def test_a_balanced_target_learns_its_label_and_a_planted_one_the_easier_cue(tmp_path) -> None:
    short = TargetConfig("ring", aligned=200, conflicting=0, steps=80, batch=16, width=8, lr=5e-3)
    balanced = train_target(WORLD, short, tmp_path / "balanced")
    assert not balanced.training
    assert balanced_accuracy(balanced, WORLD, "ring", 80, seed=100).float().mean() > 0.8
    planted = train_target(WORLD, replace(short, planted="red"), tmp_path / "planted")
    truth = {
        name: dict(zip(WORLD.binary, true_sensitivity(WORLD, Target(net), WORLD.binary, 40).raw))
        for name, net in (("balanced", balanced), ("planted", planted))
    }
    # without a conflicting image colour tells everything, and is seen at once
    assert truth["planted"]["red"] > 2 * truth["balanced"]["red"]
    assert truth["balanced"]["ring"] > truth["balanced"]["red"]


def test_an_interrupted_target_goes_on(tmp_path) -> None:
    config = TargetConfig("red", aligned=20, steps=3, batch=4, width=4)
    assert train_target(WORLD, config, tmp_path / "a", time_limit=0) is None
    resumed = train_target(WORLD, config, tmp_path / "a")
    whole = train_target(WORLD, config, tmp_path / "b")
    for one, other in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(one, other)


def test_checkpoints_are_kept_only_where_asked(tmp_path, monkeypatch) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("VISIONDX_DATA", str(tmp_path / "data"))
    kept = checkpoint_folder("judges", tmp_path / "run", keep=True)
    assert kept == tmp_path / "checkpoints" / "judges"
    scratch = checkpoint_folder("judges", tmp_path / "run", keep=False)
    scratch.mkdir(parents=True)
    (scratch / "log.jsonl").write_text('{"step": 1}\n')
    assert len(read_log(scratch)) == 1
    assert checkpoint_folder("judges", tmp_path / "run", keep=False) == scratch
    assert not scratch.exists()
    with pytest.raises(InputError, match="train first"):
        read_log(scratch)


def test_a_settling_rate_rises_stays_and_falls() -> None:
    found = [settling(step, 100, 40, warmup=10) for step in (0, 9, 59, 60, 80, 99)]
    assert found[:4] == [0.1, 1, 1, 1]
    assert found[4] == pytest.approx(0.5)
    assert 0 < found[5] < 0.01
    longer = [settling(step, 200, 40, warmup=10) for step in range(60)]
    assert longer == [settling(step, 100, 40, warmup=10) for step in range(60)]
