"""The sweep's recipes and networks, short trainings that learn, and attacks worked out by hand."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from visiondx.core.errors import InputError
from visiondx.models.target import Target
from visiondx_worlds.models.embedded_targets import embedded
from visiondx_worlds.models.scene_classifier import FAMILIES, build_scene_classifier
from visiondx_worlds.training.adversarial import pgd, survives
from visiondx_worlds.training.scene_classifiers import (
    POOL,
    RECIPES,
    ROBUST,
    SWEEP,
    TWINS,
    SceneClassifierConfig,
    SceneImages,
    accuracy_iqr,
    answers,
    save_scene_classifier,
    train_scene_classifier,
)
from visiondx_worlds.worlds import scenes

SHORT = SceneClassifierConfig("resnet", 16, 1, images=120, steps=80, batch=16, lr=5e-3, warmup=4)


def blocks(count: int, seed: int) -> SceneImages:
    """Class k is a square in one of six colours, small or large, on noise."""
    source = torch.Generator().manual_seed(seed)
    classes = torch.arange(count) % 12
    pixels = torch.randint(90, 170, (count, 3, 64, 64), generator=source).byte()
    for row, k in enumerate(classes.tolist()):
        side = slice(24, 40) if k < 6 else slice(10, 54)
        colour = torch.tensor([int(bit) * 255 for bit in f"{k % 6 + 1:03b}"]).byte()
        pixels[row, :, side, side] = colour[:, None, None]
    return SceneImages(pixels, classes)


@pytest.fixture(scope="module")
def pool() -> SceneImages:
    return blocks(120, 0)


@pytest.fixture(scope="module")
def trained(pool, tmp_path_factory) -> Target:
    """Interrupted after its first step, and resumed."""
    folder = tmp_path_factory.mktemp("classifier")
    assert train_scene_classifier(pool, SHORT, folder, time_limit=0) is None
    with pytest.raises(InputError, match="another run_seed, seed"):
        train_scene_classifier(pool, replace(SHORT, seed=1), folder)
    return train_scene_classifier(pool, SHORT, folder)


# ---------------------------------------------------------------- networks and recipes


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_answers_with_a_logit_a_class(family) -> None:
    net = build_scene_classifier(family, 16, 2, 5)
    assert net.training
    images = torch.rand(2, 3, 64, 64, requires_grad=True)
    assert net(images).shape == (2, 5)
    net.eval()(images)[0, 0].backward()
    assert images.grad[0].any()
    assert not images.grad[1].any()  # in eval mode no image sees another
    shallow = build_scene_classifier(family, 16, 1, 5)
    narrow = build_scene_classifier(family, 8, 2, 5)
    size, less, least = (sum(p.numel() for p in n.parameters()) for n in (net, shallow, narrow))
    assert size > max(less, least)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("mlp", 16, 1, 12), "'mlp'.*resnet, convnext, vit"),
        (("vit", 20, 1, 12), "multiple of 8.*20"),
        (("resnet", 16, 0, 12), "depth of 1 or more"),
        (("resnet", 16, 1, 1), "2 or more classes"),
    ],
)
def test_impossible_networks_are_refused(arguments, words) -> None:
    with pytest.raises(InputError, match=words):
        build_scene_classifier(*arguments)


def test_the_sweep_differs_in_everything_and_stays_small() -> None:
    assert len(SWEEP) >= 16
    assert len({recipe.name for recipe in RECIPES}) == len(RECIPES) == len(SWEEP) + 3
    assert {recipe.family for recipe in SWEEP} == set(FAMILIES)
    for field in ("width", "depth", "augmentation", "images"):
        assert len({getattr(recipe, field) for recipe in SWEEP}) >= 3, field
    assert max(recipe.images for recipe in RECIPES) == POOL
    total = 0
    for recipe in RECIPES:
        net = build_scene_classifier(recipe.family, recipe.width, recipe.depth, 12)
        count = sum(tensor.numel() for tensor in net.state_dict().values())
        assert count <= 360_000, recipe.name
        total += 2 * count  # bytes as fp16
    assert total < 11e6


def test_robust_and_twins_differ_from_their_likes_in_nothing_else() -> None:
    assert ROBUST.epsilon == pytest.approx(4 / 255)
    assert ROBUST.steps == 2 * SWEEP[1].steps  # attacked images take longer to learn
    assert replace(ROBUST, epsilon=0.0, steps=SWEEP[1].steps) == SWEEP[1]
    assert {replace(twin, seed=0) in SWEEP and twin.seed for twin in TWINS} == {1}


def test_names_tell_the_recipe() -> None:
    assert SceneClassifierConfig("vit", 64, 2).name == "scenes-vit-w64-d2"
    config = SceneClassifierConfig("vit", 64, 2, images=90, augmentation=0.0, epsilon=0.1, seed=3)
    assert config.name == "scenes-vit-w64-d2-n90-plain-robust-twin"


# ---------------------------------------------------------------- images


def test_the_pool_holds_renders_of_the_distribution_as_bytes() -> None:
    drawn = SceneImages.draw(40, 7)
    attributes = scenes.sample(40, 7, distribution="scenes-train")
    assert torch.equal(drawn.classes, scenes.groups(attributes)["class"])
    assert drawn.pixels.dtype == torch.uint8
    assert (drawn.pictures() - scenes.render(attributes)).abs().max() <= 0.5 / 255 + 1e-6
    assert len(drawn) == 40
    assert torch.equal(drawn.pictures(torch.tensor([3])), drawn.pictures(slice(3, 4)))
    balanced = SceneImages.draw(40, 7, "scenes-balanced")
    assert not torch.equal(balanced.pixels, drawn.pixels)


# ---------------------------------------------------------------- training


def test_a_short_training_learns_its_classes(trained) -> None:
    fresh = blocks(60, 1)
    right = (answers(trained, fresh, batch=25) == fresh.classes).float().mean()
    assert right > 0.8  # chance is 1 in 12
    assert not any(part.training for part in trained.modules())
    trained.check(fresh.pictures(slice(2)))


def test_an_interrupted_training_equals_a_whole_one(pool, tmp_path) -> None:
    config = replace(SHORT, family="vit", width=16, steps=3, epsilon=0.02)
    assert train_scene_classifier(pool, config, tmp_path / "a", time_limit=0) is None
    resumed = train_scene_classifier(pool, config, tmp_path / "a")
    whole = train_scene_classifier(pool, config, tmp_path / "b")
    for one, other in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(one, other)
    other = train_scene_classifier(pool, replace(config, epsilon=0.0), tmp_path / "c")
    assert not torch.equal(next(other.parameters()), next(whole.parameters()))
    # attacks are made in eval mode: batch norm counts the three steps alone
    assert whole.module.patch_embed.proj[1].num_batches_tracked == 3


def test_a_smaller_training_set_is_the_pools_first_rows(pool, tmp_path) -> None:
    config = replace(SHORT, images=20, steps=4, augmentation=0.0)
    classes = pool.classes.clone()
    classes[20:] = 99  # cross-entropy would refuse it
    train_scene_classifier(SceneImages(pool.pixels, classes), config, tmp_path / "a")
    with pytest.raises(IndexError):
        train_scene_classifier(
            SceneImages(pool.pixels, classes), replace(config, images=120), tmp_path / "b"
        )
    with pytest.raises(InputError, match="learns from 121 images, the pool has 120"):
        train_scene_classifier(pool, replace(config, images=121), tmp_path / "c")


def test_a_kept_classifier_comes_back_with_its_recipe(trained, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("VISIONDX_DATA", str(tmp_path))
    save_scene_classifier(SHORT, trained, notebook="train/09", quality={"accuracy": 0.9})
    assert embedded() == [SHORT.name] == ["scenes-resnet-w16-d1-n120"]
    loaded = Target.load(SHORT.name)
    images = blocks(6, 2).pictures()
    torch.testing.assert_close(loaded(images), trained(images), atol=0.01, rtol=0)
    assert loaded.labels == scenes.classes
    recipe = asdict(SHORT)
    recipe.pop("seed")  # stands in the manifest
    assert recipe.items() <= loaded.config.items()
    loaded.check(images)


# ---------------------------------------------------------------- attacks


WEIGHT = torch.linspace(-1, 1, 3 * 4 * 4).view(3, 4, 4)


def linear(images: torch.Tensor) -> torch.Tensor:
    """Logits (0, w x - 0.1): class 1 where w x is above 0.1."""
    score = (images * WEIGHT).sum((1, 2, 3)) - 0.1
    return torch.stack([torch.zeros_like(score), score], 1)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_pgd_finds_the_worst_corner_of_a_linear_model(steps) -> None:
    images = torch.rand(5, 3, 4, 4)
    images[0] = 0.001  # where the ball leaves [0, 1]
    classes = torch.tensor([1, 1, 0, 0, 1])
    source = torch.Generator().manual_seed(0)
    moved = pgd(linear, images, classes, 0.03, steps, source)
    away = torch.where(classes == 1, -1.0, 1.0).view(-1, 1, 1, 1)
    corner = (images + 0.03 * away * WEIGHT.sign()).clamp(0, 1)
    torch.testing.assert_close(moved, corner)
    assert not moved.requires_grad
    assert torch.equal(pgd(linear, images, classes, 0.0, steps, source), images)


class Linear(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return linear(images)


def test_an_image_survives_if_its_margin_is_larger_than_the_attack() -> None:
    target = Target(Linear().eval(), task="multiclass", labels=("low", "high"))
    lean = torch.tensor([0.02, 0.3, 0.3, -0.3]).view(-1, 1, 1, 1) * WEIGHT / WEIGHT.norm() ** 2
    images = 0.5 + lean  # w x is 0.02, 0.3, 0.3, -0.3, for WEIGHT sums to 0
    classes = torch.tensor([0, 1, 0, 0])
    reach = float(WEIGHT.abs().sum())  # an epsilon moves w x by this much
    right = [
        survives(target, images, classes, d / reach, batch=3).tolist() for d in (0.0, 0.15, 0.25)
    ]
    assert right[0] == [True, True, False, True]
    assert right[1] == [False, True, False, True]
    assert right[2] == [False, False, False, True]


def test_accuracy_iqr_by_hand() -> None:
    right = np.array([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]])
    # accuracies 1, 0.75, 0.5, 0.25, 0
    assert accuracy_iqr(right) == pytest.approx(0.5)
