"""The loop that all trainings share, and the generator's three phases on a tiny world."""

import dataclasses
import json
import math
from typing import ClassVar

import pytest
import torch
from torch import nn

from visiondx.core.errors import InputError
from visiondx.core.loop import Trainer, cosine, flat, update_average
from visiondx.core.seeds import step_seed
from visiondx_worlds.training.generator import GeneratorConfig, Phases, r1_penalty, train_generator
from visiondx_worlds.training.regression import presence, regression_terms
from visiondx_worlds.worlds import faces
from visiondx_worlds.worlds.base import Attributes, World


class Disc(World):
    """A world of one soft disc: position and colour from the latent."""

    binary = ("red",)
    columns: ClassVar = dict.fromkeys(("x", "y", "red", "green", "blue"))

    def set(self, attributes: Attributes, name: str, present: bool) -> Attributes:
        return attributes.replace(**{name: 2.0 if present else -2.0})

    def labels(self, attributes: Attributes) -> torch.Tensor:
        return attributes["red"][:, None] > 0

    def from_normal(self, u: torch.Tensor) -> Attributes:
        return Attributes(u, ("x", "y", "red", "green", "blue"))

    def render(self, attributes: Attributes, size: int) -> torch.Tensor:
        u = attributes.values
        axis = torch.linspace(-1, 1, size)
        dx = axis[None, None, :] - 0.3 * u[:, 0, None, None]
        dy = axis[None, :, None] - 0.3 * u[:, 1, None, None]
        inside = torch.sigmoid(8 * (0.5 - (dx**2 + dy**2).sqrt()))[:, None]
        return inside * torch.sigmoid(2 * u[:, 2:5])[:, :, None, None]


TINY = GeneratorConfig(
    z_dim=6,
    w_dim=16,
    channels={4: 12, 8: 12, 16: 8},
    mapping_layers=2,
    mapping_width=16,
    discriminator_channels={8: 8, 4: 8},
    batch=8,
    regression_images=8 * 8,
    overlap_images=8 * 8,
    adversarial_images=8 * 8,
    warmup_images=16,
    mapping_steps=3,
    mapping_batch=16,
    r1_every=4,
    noise=True,
    bf16=False,
)


def test_interrupted_and_resumed_equals_uninterrupted(tmp_path):
    whole = train_generator(Disc(), TINY, tmp_path / "a", seed=3, sample_every=10)
    calls = 0
    # a time limit of zero stops after every step: 24 separate runs, across both phase changes
    while (resumed := train_generator(
        Disc(), TINY, tmp_path / "b", seed=3, time_limit=0, sample_every=1000
    )) is None:  # fmt: skip
        calls += 1
    assert calls == 23
    assert whole.fingerprint == resumed.fingerprint
    other = train_generator(Disc(), TINY, tmp_path / "c", seed=4)
    assert other.fingerprint != whole.fingerprint
    assert (tmp_path / "a" / "samples.png").stat().st_size > 0
    log = [json.loads(line) for line in (tmp_path / "a" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == 24
    assert {"pixel", "square"} <= log[0].keys()
    assert {"fool", "real", "fake"} <= log[-1].keys()
    with pytest.raises(InputError, match="adversarial_lr"):
        train_generator(
            Disc(), dataclasses.replace(TINY, adversarial_lr=1e-4), tmp_path / "a", seed=3
        )


def test_regression_learns_to_draw_its_own_latent():
    torch.manual_seed(0)
    config = dataclasses.replace(TINY, batch=16, regression_images=16 * 400, noise=False)
    phases = Phases(Disc(), config, "cpu")
    trainer = Trainer("t", {}, {}, "unused", config)
    for i in range(400):
        values = phases.step(trainer, i)
    z = torch.randn(128, config.z_dim)
    target = phases.render(phases.attributes(z))
    error = (phases.generator(z) - target).abs().mean()
    blind = (target.mean(dim=0) - target).abs().mean()  # the best that ignores z
    assert error < 0.7 * blind
    assert set(values) == {"pixel", "coarse", "gradient", "square", "attribute"}


def test_weights_hand_over_from_regression_to_adversarial(tmp_path):
    config = dataclasses.replace(TINY, discriminator_lead=0.5)
    phases = Phases(Disc(), config, "cpu")
    assert config.phase_ends() == (8, 16, 24)
    assert phases.weights(7) == (1.0, 0.0)
    assert phases.weights(12) == (1.0, 0.0)  # half of the overlap is the discriminator's lead
    assert phases.weights(14) == (0.5, 0.5)
    assert phases.weights(16) == (0.0, 1.0)
    assert phases.g_lr(1) == config.regression_lr
    assert phases.g_lr(20) == config.adversarial_lr
    assert phases.g_lr(23) < config.adversarial_lr


def test_regression_terms_by_hand():
    target = torch.zeros(1, 3, 8, 8)
    seen = torch.zeros(1, 8, 8)
    seen[0, 3, 3] = 1.0
    terms = regression_terms(torch.full_like(target, 0.25), target, seen)
    # a flat error on a flat picture: no detail, no gradient, the same at every scale
    assert terms["pixel"].item() == pytest.approx(0.25)
    assert terms["coarse"].item() == pytest.approx(0.5)
    assert terms["gradient"].item() == 0
    assert terms["square"].item() == pytest.approx(0.0625)
    assert terms["attribute"].item() == pytest.approx(0.25 + 0.0625)
    target[:, :, :, 4:] = 1.0
    near = torch.zeros_like(target)
    near[:, :, :, 4] = 0.1
    far = torch.zeros_like(target)
    far[:, :, :, 0] = 0.1
    weighted = regression_terms(target + near, target, seen)["pixel"]
    assert weighted > 2 * regression_terms(target + far, target, seen)["pixel"]
    assert regression_terms(target + near, target, seen)["attribute"] == 0  # elsewhere


def test_presence_is_where_one_switched_attribute_changes_the_picture():
    attributes = faces.sample(32, seed=0)
    images = faces.render(attributes)
    torch.manual_seed(0)
    seen = presence(faces, attributes, images, faces.render)
    assert seen.shape == (32, 64, 64)
    assert torch.allclose(seen.sum(dim=(1, 2)), torch.ones(32), atol=1e-4)
    torch.manual_seed(0)
    chosen = torch.randint(len(faces.binary), (32,))
    for i in range(8):
        one = attributes[i : i + 1]
        name = faces.binary[chosen[i]]
        other = faces.switch(one, name, not faces.labels(one)[0, chosen[i]])
        same = (faces.render(other) - images[i : i + 1]).abs().amax(1)[0] < 1e-6
        assert seen[i][same].max() < 1e-4
        assert 0 < (~same).float().mean() < 0.9


def test_r1_of_a_linear_discriminator_is_its_squared_weight():
    weight = torch.randn(3, 4, 4)

    def linear(images: torch.Tensor) -> torch.Tensor:
        return (images * weight).sum(dim=(1, 2, 3))

    penalty = r1_penalty(linear, torch.randn(5, 3, 4, 4))
    assert penalty.item() == pytest.approx(weight.square().sum().item(), rel=1e-5)


def test_world_with_too_many_latents_is_refused(tmp_path):
    with pytest.raises(InputError, match="z_dim 4 is shorter than the world's latent_dim 5"):
        train_generator(Disc(), dataclasses.replace(TINY, z_dim=4), tmp_path)


def test_nan_names_step_and_term(tmp_path):
    net = nn.Linear(1, 1)
    adam = torch.optim.Adam(net.parameters())
    trainer = Trainer("t", {"net": net}, {"adam": adam}, tmp_path, {}, save_seconds=0)

    def step(i: int) -> dict[str, float]:
        good = net(torch.ones(1, 1)).square().mean()
        bad = good * (math.nan if i == 3 else 1.0)
        trainer.descend(adam, {"good": good, "bad": bad})
        return {"good": good.item()}

    with pytest.raises(FloatingPointError, match="'bad' became nan at step 3"):
        trainer.run(step, 10)
    # weights and the last checkpoint are those of before the NaN
    assert net.weight.isfinite().all()
    again = Trainer("t", {"net": net}, {"adam": adam}, tmp_path, {})
    assert again.step == 3


def test_optimizer_and_generator_state_survive(tmp_path):
    def build() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(9)
        net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
        return net, torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)

    def run(directory, totals) -> dict[str, torch.Tensor]:
        for total in totals:
            net, sgd = build()
            trainer = Trainer("t", {"net": net}, {"sgd": sgd}, directory, {}, seed=1)

            def step(i: int, net=net, sgd=sgd, trainer=trainer) -> dict[str, float]:
                loss = net(torch.randn(8, 3)).square().mean()
                trainer.descend(sgd, {"loss": loss})
                return {"loss": loss.item()}

            assert trainer.run(step, total)
        return net.state_dict()

    whole, parts = run(tmp_path / "a", [12]), run(tmp_path / "b", [5, 12])
    for key, value in whole.items():
        assert torch.equal(value, parts[key]), key


def test_schedules_and_average():
    assert [flat(i, warmup=4) for i in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert cosine(0, 100, warmup=10) == pytest.approx(0.1)
    assert cosine(10, 110, warmup=10) == pytest.approx(1.0)
    assert cosine(60, 110, warmup=10, final=0.2) == pytest.approx(0.6)
    assert cosine(500, 110, warmup=10, final=0.2) == pytest.approx(0.2)
    assert step_seed(1, 0) != step_seed(0, 1)
    average, model = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    average.weight.data.fill_(0.0)
    model.weight.data.fill_(1.0)
    update_average(average, model, 0.9, step=0)  # young: decay 1/10
    assert average.weight.item() == pytest.approx(0.9)
    update_average(average, model, 0.5, step=1000)
    assert average.weight.item() == pytest.approx(0.95)
