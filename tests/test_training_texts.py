import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from standins import ToyWorld
from visiondx.core.errors import InputError
from visiondx.models.encoder import Encoder
from visiondx_worlds.models.tiny_encoder import new_encoder
from visiondx_worlds.training import texts
from visiondx_worlds.training.encoder import train_tokenizer
from visiondx_worlds.training.pool import Pool
from visiondx_worlds.training.texts import (
    TextsConfig,
    attribute_effects,
    direction_loss,
    embed_pool,
    train_texts,
)


class Elsewhere(ToyWorld):
    """The toy world in negative, with words of its own."""

    def render(self, attributes, size=64):
        return 1 - super().render(attributes, size)

    def caption(self, attributes, seed, wrong=False):
        return ["elsewhere, " + text for text in super().caption(attributes, seed, wrong)]

    def neutral(self, seed=None, heldout=False):
        return "elsewhere, " + super().neutral(seed)

    def prompt(self, name, present=True, seed=None, heldout=False):
        return "elsewhere, " + super().prompt(name, present, seed)


WORLDS = (ToyWorld(), Elsewhere())
CONFIG = TextsConfig(
    steps=80, batch=12, wrong=4, lr=2e-3, warmup=5, pool=120, phrasings=8, average=0.9
)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    # Random features tell a picture from its negative well enough for texts to learn from.
    made = new_encoder(train_tokenizer(WORLDS, count=50))
    next(made.clip.visual.parameters()).data[0] = -0.0
    return made


@pytest.fixture(scope="module")
def training(encoder, tmp_path_factory):
    """The encoder's weights before it, the encoder that it gave, and whether it came to its end."""
    before = copy.deepcopy(encoder.clip.state_dict())
    return before, *train_texts(encoder, WORLDS, CONFIG, tmp_path_factory.mktemp("texts"))


@torch.no_grad()
def right_world(encoder: Encoder) -> float:
    """Of images of both worlds, the share that captions of its own world fit better on average."""
    captions = [world.caption(world.sample(50, 8), 8) for world in WORLDS]
    names = torch.stack([encoder.embed_texts(texts).mean(0) for texts in captions])
    right = []
    for index, world in enumerate(WORLDS):
        images = encoder.embed_images(world.render(world.sample(100, 9)))
        right.append(((images @ names.T).argmax(1) == index).float().mean())
    return sum(right).item() / 2


def test_texts_learn_which_world_is_theirs_and_images_stay(encoder, training) -> None:
    before, taught, finished = training
    assert finished
    assert right_world(taught) > 0.9 > 0.7 > right_world(encoder)
    after = taught.clip.state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed
    assert not [key for key in changed if key.startswith("visual.")]
    assert taught.image_fingerprint == encoder.image_fingerprint  # bit for bit, signed zeros too
    for key, value in encoder.clip.state_dict().items():
        assert torch.equal(value, before[key])  # of the one that was given
    assert not any(p.requires_grad for p in taught.clip.parameters())


def test_words_learn_the_direction_of_what_they_name(encoder, training, tmp_path) -> None:
    @torch.no_grad()
    def alignment(reader: Encoder, world: ToyWorld) -> float:
        scenes = world.sample(300, 7)
        effects = attribute_effects(
            encoder.embed_images(world.render(scenes)), world.labels(scenes)
        )
        prompts = [world.prompt(name, there) for there in (True, False) for name in world.binary]
        return 1 - direction_loss(reader.embed_texts([*prompts, world.neutral()]), effects).item()

    taught = training[1]
    plain, _ = train_texts(encoder, WORLDS, replace(CONFIG, direction_weight=0.0), tmp_path)
    for world in WORLDS:
        assert alignment(taught, world) > 0.3 > 0.1 > alignment(plain, world)


def test_effects_are_what_each_label_adds_others_held() -> None:
    """Labels that go together: a mean difference would mix what each of them adds."""
    source = torch.Generator().manual_seed(0)
    first = torch.rand(400, generator=source) < 0.5
    second = torch.where(torch.rand(400, generator=source) < 0.9, first, ~first)
    labels = torch.stack((first, second, torch.ones(400) > 0), 1)  # the last one never changes
    added = torch.tensor([[3.0, 0.0, 4.0, 0.0], [0.0, -2.0, 0.0, 0.0]])
    images = labels[:, :2].float() @ added + torch.tensor([0.0, 0.0, 0.0, 5.0])
    found = attribute_effects(images, labels)
    expected = torch.tensor([[0.6, 0.0, 0.8, 0.0], [0.0, -1.0, 0.0, 0.0]])
    torch.testing.assert_close(found[:2], expected, atol=1e-4, rtol=0)
    assert found[2].norm() < 1e-3
    # three classes, one of them at a time: each against their mean, whatever all images share
    kinds = torch.eye(3)[torch.arange(300) % 3]
    images = kinds @ torch.eye(3, 4) + torch.tensor([5.0, 5.0, 5.0, 0.0])
    expected = torch.eye(3, 4)
    expected[:, :3] -= 1 / 3
    found = attribute_effects(images, kinds.bool())
    torch.testing.assert_close(found, F.normalize(expected, dim=1), atol=1e-4, rtol=0)


def test_direction_loss_by_hand() -> None:
    """One attribute along x: present - neutral lies at 45 degrees to it, present - absent on it."""
    prompts = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, -1.0]])  # present, absent, neutral
    effects = torch.tensor([[1.0, 0.0]])
    expected = 1 - (0.5**0.5 + 1) / 2
    assert direction_loss(prompts, effects).item() == pytest.approx(expected)
    assert direction_loss(prompts, -effects).item() == pytest.approx(2 - expected)


def test_texts_are_those_with_fillers(encoder, tmp_path, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(texts, "with_fillers", lambda world: seen.append(world) or world)
    train_texts(encoder, WORLDS, replace(CONFIG, steps=1), tmp_path)
    assert seen == list(WORLDS)


def test_an_interrupted_training_equals_an_uninterrupted_one(encoder, tmp_path) -> None:
    config = replace(CONFIG, steps=6)
    whole, _ = train_texts(encoder, WORLDS, config, tmp_path / "whole", seed=3)
    part, finished = train_texts(
        encoder, WORLDS, config, tmp_path / "parts", seed=3, time_limit=0.0
    )
    assert not finished
    while not finished:
        part, finished = train_texts(
            encoder, WORLDS, config, tmp_path / "parts", seed=3, time_limit=0.0
        )
    for key, value in whole.clip.state_dict().items():
        assert torch.equal(value, part.clip.state_dict()[key]), key


def test_embed_pool_embeds_each_render(encoder) -> None:
    pool = Pool(WORLDS[0], 30, seed=1)
    rows = torch.arange(len(pool))
    with torch.no_grad():
        expected = encoder.embed_images(pool.render(rows))
    torch.testing.assert_close(embed_pool(encoder, pool, 0.0, 1), expected, atol=1e-5, rtol=0)
    assert not torch.allclose(embed_pool(encoder, pool, 1.0, 1), expected, atol=1e-2)


def test_other_encoders_and_settings_are_refused(encoder, tmp_path) -> None:
    class Foreign(nn.Module):
        tokenize = staticmethod(str.split)

    with pytest.raises(InputError, match=r"Encoder\.load"):
        train_texts(Foreign(), WORLDS, CONFIG, tmp_path)
    train_texts(encoder, WORLDS, replace(CONFIG, steps=1), tmp_path)
    with pytest.raises(InputError, match="lr"):
        train_texts(encoder, WORLDS, replace(CONFIG, steps=1, lr=1.0), tmp_path)
