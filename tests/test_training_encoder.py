import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from standins import NAMES, ToyWorld
from visiondx.core.augment import augment
from visiondx.core.errors import InputError
from visiondx.core.memory import keep_memory
from visiondx_worlds.models.tiny_encoder import new_encoder
from visiondx_worlds.models.tokenizer import Tokenizer
from visiondx_worlds.training.encoder import (
    Cycle,
    EncoderConfig,
    PromptBank,
    attribute_loss,
    contrastive_loss,
    embed_tokens,
    learning_rate,
    train_encoder,
    train_tokenizer,
)
from visiondx_worlds.training.encoder_scores import evaluate_encoder
from visiondx_worlds.training.pool import Pool

WORLD = ToyWorld()
CONFIG = EncoderConfig(
    steps=60,
    batch=24,
    lr=2e-3,
    warmup=10,
    pool=400,
    phrasings=8,
    average=0.8,
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([WORLD], count=50)


@pytest.fixture(scope="module")
def pool() -> Pool:
    return Pool(WORLD, 100, seed=3)


def test_contrastive_loss_by_hand() -> None:
    images = torch.eye(2)
    texts = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    # logits [[2, 1.2], [0, 1.6]]: rows softplus(-.8), softplus(-1.6); columns (-2), (-.4)
    expected = sum(math.log1p(math.exp(-x)) for x in (0.8, 1.6, 2.0, 0.4)) / 4
    assert contrastive_loss(images, texts, torch.tensor(2.0)).item() == pytest.approx(expected)


def test_a_wrong_caption_draws_images_away_from_it() -> None:
    images, texts = torch.eye(2), torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    # logits [[2, 1.2, 0], [0, 1.6, 2]]: the third text is only among what the images choose from
    rows = (
        math.log(1 + math.exp(-0.8) + math.exp(-2)),
        math.log(1 + math.exp(-1.6) + math.exp(0.4)),
    )
    columns = (math.log1p(math.exp(-2)), math.log1p(math.exp(-0.4)))
    loss = contrastive_loss(images, texts, torch.tensor(2.0))
    assert loss.item() == pytest.approx((sum(rows) + sum(columns)) / 4)


def test_attribute_loss_by_hand() -> None:
    images = torch.tensor([[1.0, 0.0]])
    prompts = torch.tensor([[0.6, 0.8], [-0.6, 0.8], [0.0, 1.0]])  # present, absent, neutral
    tau, share = torch.tensor(5.0), torch.tensor([0.2])
    # the logit of "present" is 5 * .6 = 3 and of "absent" -3; a positive weighs .5 / .2
    right = attribute_loss(images, prompts, torch.tensor([[True]]), share, tau)
    assert right.item() == pytest.approx(2.5 * math.log1p(math.exp(-3)), rel=1e-5)
    wrong = attribute_loss(images, prompts, torch.tensor([[False]]), share, tau)
    assert wrong.item() == pytest.approx(0.625 * math.log1p(math.exp(3)), rel=1e-5)


def test_the_learning_rate_falls_and_rises_in_each_cycle() -> None:
    cycles = (Cycle(), Cycle(100, 0.5), Cycle(300, 0.2))
    config = EncoderConfig(steps=400, cycles=cycles, warmup=10)
    assert learning_rate(config, 9) == 1  # the warm-up's end
    assert learning_rate(config, 55) == pytest.approx(0.5)  # half of the first cosine
    assert learning_rate(config, 99) < 1e-3
    assert learning_rate(config, 100) == pytest.approx(0.5 / 10)
    assert learning_rate(config, 109) == pytest.approx(0.5)
    assert learning_rate(config, 299) < 1e-3
    assert learning_rate(config, 309) == pytest.approx(0.2)
    short = replace(config, steps=50)  # ends before the second cycle: one cosine
    assert learning_rate(short, 30) == pytest.approx(0.5)


def test_a_frozen_cycle_leaves_the_running_statistics_alone(tokenizer, tmp_path) -> None:
    config = replace(CONFIG, steps=4, cycles=(Cycle(), Cycle(2, frozen=True)), warmup=1)
    kept = {}

    def stop(steps: int) -> dict[str, torch.Tensor]:
        part = tmp_path / str(steps)
        now = replace(config, steps=steps)
        train_encoder([WORLD], now, part, tokenizer=tokenizer)
        stored = load_file(part / "checkpoint.safetensors")
        kept[steps] = {k: v for k, v in stored.items() if k.startswith("module.clip.")}
        return kept[steps]

    before, after = stop(2), stop(4)
    statistics = [k for k in before if "running_" in k]
    assert statistics
    for key in statistics:
        torch.testing.assert_close(after[key], before[key], rtol=0, atol=0)
    weight = next(k for k in before if k.endswith("stem.0.weight"))
    assert not torch.equal(after[weight], before[weight])


def test_leaving_out_padding_changes_nothing(tokenizer: Tokenizer) -> None:
    clip = new_encoder(tokenizer).clip
    ids = tokenizer(["red", "a shape with corners", "日本"])
    expected = F.normalize(clip.encode_text(ids), dim=1)
    torch.testing.assert_close(embed_tokens(clip, ids), expected, atol=1e-5, rtol=1e-4)


def test_pool_matches_its_attributes_and_sets_each_by_a_coin(pool: Pool) -> None:
    rows = torch.tensor([0, 77])
    torch.testing.assert_close(
        pool.render(rows), WORLD.render(pool.attributes[rows]), atol=0.5 / 255 + 1e-6, rtol=0
    )
    assert len(pool) == len(pool.attributes) == len(pool.labels) == 100
    assert torch.equal(pool.attributes.values, Pool(WORLD, 100, seed=3).attributes.values)

    class Rare(ToyWorld):
        def from_normal(self, u):
            attributes = super().from_normal(u)
            return self.switch(attributes, "ring", u[:, NAMES.index("ring")] > 3)

    share = Pool(Rare(), 400, seed=0).labels.float().mean(0)[NAMES.index("ring")]
    assert 0.03 < share < 0.1  # half of its eighth, where the world alone has .001


def test_prompt_bank_orders_present_absent_neutral(tokenizer: Tokenizer, pool: Pool) -> None:
    bank = PromptBank(pool, CONFIG.phrasings, tokenizer)
    texts = [tokenizer.decode(row) for row in bank.pick(torch.Generator().manual_seed(0))]
    assert texts[0] in ("a red shape", "a shape painted red")
    assert texts[3] in ("a shape on stripes", "a striped picture")
    assert texts[4] in ("a blue shape", "a shape that is not red")
    assert texts[-1] == "a shape"
    assert len(texts) == 9


def test_augmentation_changes_each_image_within_range_and_is_seeded() -> None:
    images = WORLD.render(WORLD.sample(1, 0)).expand(8, -1, -1, -1)
    once, again = (augment(images, torch.Generator().manual_seed(2)) for _ in range(2))
    assert torch.equal(once, again)
    assert once.min() >= 0
    assert once.max() <= 1
    different = (once - images).abs().mean((1, 2, 3))
    assert (different > 0.005).all()
    assert different.max() < 0.2
    assert different.unique().numel() == 8
    unchanged = augment(images, torch.Generator().manual_seed(2), amount=0.0)
    torch.testing.assert_close(unchanged, images, atol=1e-4, rtol=0)


class TwoAttributes(ToyWorld):
    """Colour and ring, which are learned in seconds."""

    binary = NAMES[:2]


def test_short_training_learns_two_attributes_and_resumes(tokenizer, tmp_path) -> None:
    world = TwoAttributes()
    _, finished, _ = train_encoder([world], CONFIG, tmp_path, tokenizer=tokenizer, time_limit=0)
    assert not finished  # one step, then the checkpoint
    encoder, finished, log = train_encoder([world], CONFIG, tmp_path, tokenizer=tokenizer)
    assert finished
    assert log[-1]["attributes"] < 0.7 * CONFIG.attribute_weight * math.log(2)
    # "something red" was never seen
    areas = evaluate_encoder(encoder, world, 200, seed=100, heldout=True)
    assert min(areas.values()) > 0.9
    other = replace(CONFIG, lr=1e-3)
    with pytest.raises(InputError, match="another lr"):
        train_encoder([world], other, tmp_path, tokenizer=tokenizer)


def test_constant_attribute_has_no_area(tokenizer: Tokenizer) -> None:
    class AllRed(ToyWorld):
        def sample(self, n, seed, given=None):
            return super().sample(n, seed, {"red": True})

    areas = evaluate_encoder(new_encoder(tokenizer), AllRed(), 40, 0)
    assert math.isnan(areas["red"])
    assert 0 <= areas["ring"] <= 1


def test_keeping_memory_never_fails() -> None:
    assert keep_memory() in (True, False)
