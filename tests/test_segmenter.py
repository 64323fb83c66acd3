"""The segmenter's type, truth, loss and marks by hand; its training killed and resumed; and the
shipped one on fresh renders.
"""

import math

import numpy as np
import pytest
import torch
from torch import nn

from visiondx.core.errors import InputError
from visiondx.models.segmenter import Segmenter, Segments
from visiondx_worlds.models import zoo
from visiondx_worlds.models.segmenter import (
    SegmenterNet,
    WordMasks,
    save_segmenter,
    start_words,
)
from visiondx_worlds.quality.segmenter import MaskMarks, calibrated, mark_renders
from visiondx_worlds.training.segmenter import (
    SegmenterConfig,
    ask,
    segmenter_loss,
    soft_dice,
    train_segmenter,
    warp,
)
from visiondx_worlds.worlds import animals, faces, scenes
from visiondx_worlds.worlds.things import MEANING, THINGS, WORDS, Truth, truth

NAMES = list(THINGS)


# ---------------------------------------------------------------- the type


class Halves(nn.Module):
    """Says that every word is the picture's left half, as surely as its red is bright."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, images, words):
        self.calls.append((len(images), list(words)))
        height, width = images.shape[-2:]
        maps = torch.zeros(len(images), len(words), height, width)
        maps[..., : width // 2] = 0.75
        return maps, images[:, 0].mean((1, 2))[:, None].expand(-1, len(words))


def test_masks_shares_and_presence_follow_the_thresholds():
    maps = torch.tensor([[[[0.2, 0.5], [0.6, 0.9]], [[0.9, 0.9], [0.9, 0.9]]]])
    found = Segments(maps, torch.tensor([[0.5, 0.4]]), threshold=0.6, least=0.5)
    assert found.there.tolist() == [[True, False]]
    assert found.masks[0, 0].tolist() == [[False, False], [True, True]]
    assert not found.masks[0, 1].any()  # however sure of its pixels
    assert found.shares.tolist() == [[0.5, 0.0]]


def test_words_are_asked_bare_and_pictures_in_batches():
    module = Halves()
    segmenter = Segmenter(module, ["dog", "dinner plate"], least=0.5)
    images = torch.zeros(5, 3, 4, 6)
    images[3:, 0] = 1
    found = segmenter(images, ["A  Dog", "the dinner plate"], batch=2)
    assert module.calls == [(n, ["dog", "dinner plate"]) for n in (2, 2, 1)]
    assert found.shares.tolist() == [[0.0, 0.0]] * 3 + [[0.5, 0.5]] * 2
    assert not segmenter.training


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["dog", "cart"],
            r"never seen the word 'cart': choose one that it has, such as cat, ",
        ),
        (["zebra"], r"never seen the word 'zebra'"),
        ([], r"must be a list such as \[\"dog\"\], got \[\]"),
        (["dog", "a dog "], r"Words are named twice, 'dog'"),
    ],
)
def test_words_that_it_has_never_seen_are_refused_before_any_work(words, message):
    module = Halves()
    segmenter = Segmenter(module, WORDS)
    with pytest.raises(InputError, match=message):
        segmenter(torch.rand(2, 3, 8, 8), words)
    assert module.calls == []


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(3, 8, 8), r"shape \(3, 8, 8\) were given"),
        (torch.rand(0, 3, 8, 8), r"shape \(0, 3, 8, 8\)"),
        (torch.rand(2, 3, 8, 8) * 255, r"values from .* to .* were given"),
        (torch.full((2, 3, 8, 8), math.nan), r"values from nan"),
        ("dog.png", r"of shape str"),
    ],
)
def test_what_is_no_picture_is_refused(images, message):
    with pytest.raises(InputError, match=message):
        Segmenter(Halves(), WORDS)(images, ["dog"])


# ---------------------------------------------------------------- the truth


def rows_of(n=48, **given):
    """Scenes in daylight, photographed, under a clear sky."""
    rows = scenes.sample(n, 5)
    return rows.replace(weather=0.0, light=0.0, style=0.0, **given)


def test_words_mean_one_thing_each():
    assert len(set(WORDS)) == len(WORDS) == len(MEANING)
    assert (MEANING["mug"], MEANING["cup"], MEANING["sea"]) == ("mug", "mug", "water")
    for classes in scenes.grammar.words["classes"].values():  # all that the captions say
        assert set(classes) <= set(WORDS)


@pytest.mark.parametrize(
    ("name", "on", "off"),
    [
        ("ball", {"clutter": 1.0}, {"clutter": 0.0}),
        ("person", {"beside": 1.0}, {"beside": 0.0}),
        ("flower", {"beside": 2.0}, {"beside": 0.0}),
        ("box", {"occluder": 1.0}, {"occluder": 0.0}),
    ],
)
def test_a_mask_is_where_the_picture_changes(name, on, off):
    """Pixels outside it stay as they were, those inside hardly ever do."""
    rows = rows_of(**off)
    changed = (scenes.render(rows.replace(**on)) - scenes.render(rows)).abs().amax(1)
    mask = truth(scenes, rows.replace(**on)).masks[:, NAMES.index(name)]
    assert changed[mask < 1e-3].max() < 0.01
    assert (changed[mask > 0.95] > 0.01).float().mean() > 0.95
    assert truth(scenes, rows).masks[:, NAMES.index(name)].max() == 0


def test_scenes_know_their_class_and_its_kinds():
    rows = rows_of()
    found, object_ = truth(scenes, rows), scenes.masks(rows)["object"]
    kinds = rows["class"].long()
    torch.testing.assert_close(found.masks[range(48), kinds], object_)
    others = found.masks[:, :12].clone()
    others[range(48), kinds] = 0
    assert others.max() == 0
    vehicle = torch.tensor([scenes.classes[k] in ("car", "boat") for k in kinds])
    kind = found.masks[:, NAMES.index("vehicle")]
    torch.testing.assert_close(kind, object_ * vehicle[:, None, None])


def test_things_of_a_scene_share_its_pixels():
    rows = scenes.sample(96, 6)
    found = truth(scenes, rows)
    apart = [*scenes.classes, "harness", "food", "tank", "steam", "person", "flower", "box", "ball"]
    apart += ["sky", "wall", "floor", "grass", "sand", "forest", "water", "road", "rocks", "snow"]
    total = found.masks[:, [NAMES.index(name) for name in apart]].sum(1)
    assert total.max() < 1 + 1e-4
    plain = rows["background"] == 0
    hoop = rows["style"] == scenes.categories["style"].index("embroidery")
    torch.testing.assert_close(total[plain & ~hoop], torch.ones(96, 64, 64)[plain & ~hoop])
    assert total[hoop][:, 0, 0].max() < 0.1  # bare linen


def test_regions_are_what_their_names_say():
    """Snow is white, grass is green, the sea is blue: mean colours under the masks."""
    rows = rows_of(96, colour=0.0)
    images, found = scenes.render(rows), truth(scenes, rows)

    def colour(name):
        mask = found.masks[:, NAMES.index(name)][:, None]
        return ((images * mask).sum((0, 2, 3)) / mask.sum()).tolist()

    red, green, blue = colour("grass")
    assert green > red > blue
    assert min(colour("snow")) > 0.75
    red, green, blue = colour("water")
    assert blue > green > red
    red, green, blue = colour("sand")
    assert red > green > blue
    assert max(colour("road")) < 0.6 < min(colour("sky"))


def test_what_a_world_does_not_tell_is_unknown_not_absent():
    rows = rows_of(beside=0.0)
    known = truth(scenes, rows).known[:, NAMES.index("ears")]
    assert torch.equal(known, rows["class"] >= 6)  # the first six classes are animals
    found = truth(scenes, rows_of(beside=1.0))
    assert not found.known[:, NAMES.index("face")].any()
    assert not found.absent[:, NAMES.index("face")].any()
    assert found.absent[:, NAMES.index("hat")].all()


def test_faces_and_animals_know_wholes_and_parts():
    rows = faces.sample(32, 4)
    found, parts = truth(faces, rows), faces.masks(rows)
    whole, male = sum(parts.values()), rows["male"] > 0.5
    torch.testing.assert_close(found.masks[male][:, NAMES.index("man")], whole[male])
    assert found.masks[male][:, NAMES.index("woman")].max() == 0
    torch.testing.assert_close(found.masks[:, NAMES.index("hat")], parts["hat"])
    painted = found.present[:, NAMES.index("lipstick")]
    assert not painted[rows["lipstick"] < 0.5].any()

    rows = animals.sample(32, 4)
    found, parts = truth(animals, rows), animals.masks(rows)
    cat = rows["cat"] > 0.5
    assert torch.equal(found.present[:, NAMES.index("cat")], cat)
    assert torch.equal(found.absent[:, NAMES.index("dog")], cat)
    total = sum(parts.values()).clamp(0, 1)
    torch.testing.assert_close(found.masks[~cat][:, NAMES.index("dog")], total[~cat])
    # the ball behind, seen where the animal does not hide it
    ball = found.masks[:, NAMES.index("ball")]
    assert (ball + total).max() < 1 + 1e-4
    moved = animals.render(rows.replace(clutter_size=0.0))
    changed = (animals.render(rows) - moved).abs().amax(1)
    assert changed[ball < 1e-3].max() < 0.01


# ---------------------------------------------------------------- the loss


def test_soft_dice_by_hand():
    mask = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    found = torch.tensor([[0.5, 1.0], [0.5, 0.0]])
    # 2 (0.5 + 1) + 1 = 4 over 0.25 + 1 + 0.25 + 2 + 1 = 4.5
    assert soft_dice(found, mask).item() == pytest.approx(1 - 4 / 4.5)
    assert soft_dice(mask, mask).item() == pytest.approx(0)


def test_the_loss_counts_dice_where_present_and_presence_where_sure():
    logits = torch.zeros(1, 3, 2, 2)
    masks = torch.zeros(1, 3, 2, 2)
    masks[0, 0, 0] = 1
    present = torch.tensor([[True, False, False]])
    absent = torch.tensor([[False, True, False]])
    there = torch.tensor([[math.log(3.0), -math.log(3.0), 50.0]])  # sure of both; the last unknown
    terms = segmenter_loss(logits, there, masks, present, absent, presence=0.5)
    assert terms["pixels"].item() == pytest.approx(math.log(2))
    assert terms["dice"].item() == pytest.approx(1 - (2 * 1 + 1) / (4 * 0.25 + 2 + 1))
    assert terms["presence"].item() == pytest.approx(0.5 * math.log(4 / 3))


def test_pictures_are_asked_what_they_show_and_never_what_nobody_knows():
    masks = torch.zeros(40, len(THINGS), 4, 4)
    masks[:, [2, 7, 11]] = 1
    known = torch.ones(40, len(THINGS), dtype=torch.bool)
    known[:, 30:] = False
    source = torch.Generator().manual_seed(0)
    asked = ask(Truth(masks, known), 8, source)
    assert all({2, 7, 11} < set(row) and len(set(row)) == 8 for row in asked.tolist())
    assert asked.max() < 30
    assert len({frozenset(row) for row in asked.tolist()}) > 30  # other absent things each time


def test_pictures_and_masks_are_bent_alike():
    images = torch.rand(6, 1, 32, 32).round().expand(-1, 3, -1, -1)
    source = torch.Generator().manual_seed(1)
    bent, masks = warp(images, images[:, :2], source, 1.0)
    torch.testing.assert_close(bent[:, :2], masks)
    assert (bent - images).abs().amax((1, 2, 3)).min() > 0.05
    still, _ = warp(images, images, source, 0.0)
    torch.testing.assert_close(still, images, atol=1e-4, rtol=0)


# ---------------------------------------------------------------- the network and its training


class Letters:
    """Stands for an encoder: a text's embedding is a fixed unit vector of its own."""

    def embed_texts(self, texts):
        rows = [torch.Generator().manual_seed(sum(map(ord, text))) for text in texts]
        vectors = torch.stack([torch.randn(16, generator=g) for g in rows])
        return nn.functional.normalize(vectors, dim=1)


def test_a_word_is_read_alone_as_among_others():
    torch.manual_seed(0)
    net = SegmenterNet(5, width=8, dim=6, embedding=16).eval()
    images = torch.rand(2, 3, 64, 64)
    logits, there = net(images, torch.tensor([4, 1, 2]))
    alone, sure = net(images, torch.tensor([[1], [2]]))
    torch.testing.assert_close(alone[:, 0], torch.stack([logits[0, 1], logits[1, 2]]))
    torch.testing.assert_close(sure[:, 0], torch.stack([there[0, 1], there[1, 2]]))
    assert (logits[:, 0] - logits[:, 1]).abs().max() > 1e-3


def test_words_start_centred_at_their_embeddings():
    net = SegmenterNet(3, width=8, dim=6, embedding=2)
    start_words(net, torch.tensor([[1.0, 2.0], [3.0, 2.0], [2.0, 2.0]]))
    torch.testing.assert_close(net.words.mean(0), torch.zeros(2))
    assert net.words.std().item() == pytest.approx(1)
    assert net.words[:, 1].abs().max() < 1e-6  # what all have in common


def test_pictures_of_another_size_come_back_in_it():
    torch.manual_seed(0)
    net = SegmenterNet(2, width=8, dim=6, embedding=16)
    segmenter = Segmenter(WordMasks(net, ["dog", "cat"]), ["dog", "cat"])
    small = torch.rand(2, 3, 64, 64)
    large = nn.functional.interpolate(small, (128, 128), mode="nearest")
    there, back = segmenter(small, ["cat"]), segmenter(large, ["cat"])
    assert back.probabilities.shape == (2, 1, 128, 128)
    torch.testing.assert_close(back.scores, there.scores, atol=1e-2, rtol=0)
    swapped = segmenter(small, ["cat", "dog"]).probabilities.flip(1)
    torch.testing.assert_close(segmenter(small, ["dog", "cat"]).probabilities, swapped)


def test_a_killed_training_resumes_with_the_same_result(tmp_path):
    config = SegmenterConfig(steps=5, batch=4, block=8, width=8, dim=8, asked=12, warmup=1)
    whole = train_segmenter(config, tmp_path / "whole", Letters(), seed=3)
    calls = 0
    cut = None
    while cut is None:
        cut = train_segmenter(config, tmp_path / "cut", Letters(), seed=3, time_limit=0.0)
        calls += 1
    assert calls == 5
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(cut.state_dict()[name], value, atol=0, rtol=0)
    assert not whole.training
    with pytest.raises(InputError, match="another"):
        train_segmenter(config, tmp_path / "cut", Letters(), seed=4)


# ---------------------------------------------------------------- the shipped one


@pytest.fixture(scope="module")
def shipped():
    return Segmenter.load("embedded")


def test_the_shipped_one_finds_a_planted_class_and_not_another(shipped):
    """Of each class, pictures in any surroundings: the mask fits, and another class has none."""
    classes = scenes.classes
    kinds = torch.arange(len(classes)).repeat_interleave(6)
    rows = scenes.sample(len(kinds), 77).replace(**{"class": kinds.float(), "style": 0.0})
    found = shipped(scenes.render(rows), classes)
    true = scenes.masks(rows)["object"] >= 0.5
    own = found.masks[range(len(kinds)), kinds]
    both, either = (own & true).sum((1, 2)), (own | true).sum((1, 2))
    assert ((both / either) > 0.7).float().mean() > 0.9
    others = found.shares.clone()
    others[range(len(kinds)), kinds] = 0
    assert others.mean() < 0.005
    assert (found.there.sum(1) == 1).float().mean() > 0.8


def test_the_shipped_one_keeps_its_marks(shipped):
    marks = mark_renders(shipped, 24, 11)
    assert marks.iou().value > 0.75
    assert marks.false_area().value < 0.03
    assert np.nanmean(marks.recognised(shipped.least)) > 0.9


def test_the_shipped_one_knows_the_captions_words(shipped):
    assert shipped.known == WORDS
    shipped.check_words(["a puppy", "The coffee mug", "eyeglasses", "lawn"])
    with pytest.raises(InputError, match="never seen the word 'zebra'"):
        shipped.check_words(["zebra"])
    with pytest.raises(InputError, match="makes masks itself: leave out"):
        Segmenter.load("embedded", masks="facebook/sam2-hiera-tiny")


def test_what_is_kept_is_loaded_again(tmp_path, monkeypatch):
    """Words, thresholds and answers, up to the rounding to half precision."""
    monkeypatch.setattr(zoo, "_folder", lambda: tmp_path)
    torch.manual_seed(0)
    module = WordMasks(SegmenterNet(2, width=8, dim=6, embedding=16), ["dog", "cat"])
    kept = Segmenter(module, ["dog", "cat"], threshold=0.45, least=0.35)
    save_segmenter(kept, "mine", notebook="x.ipynb", seed=0, quality={})
    assert Segmenter.load("mine").known == ("dog", "cat")
    again, images = Segmenter.load("mine"), torch.rand(2, 3, 64, 64)
    assert (again.threshold, again.least) == (0.45, 0.35)
    one, two = kept(images, ["cat"]), again(images, ["cat"])
    torch.testing.assert_close(one.probabilities, two.probabilities, atol=5e-3, rtol=0)
    torch.testing.assert_close(one.scores, two.scores, atol=5e-3, rtol=0)


# ---------------------------------------------------------------- marks


def test_marks_by_hand():
    maps, true = torch.zeros(2, 59, 64, 64), torch.zeros(2, 59, 64, 64)
    dog, cat, car = (NAMES.index(name) for name in ("dog", "cat", "car"))
    true[0, dog, :8, :8] = 1  # 64 pixels, of which the left half is found, and 16 more
    maps[0, dog, :8, :4] = 1
    maps[0, dog, 20:24, 20:24] = 1
    true[1, dog, :8, :8] = 1
    maps[1, dog, :8, :8] = 1  # all of it
    true[1, cat, :8, :8] = 1  # not at all
    maps[0, car, :32] = 1  # absent, and half of one picture is called it
    known = torch.ones(2, 59, dtype=torch.bool)
    scores = torch.full((2, 59), 0.1)
    scores[:, [dog, car]] = torch.tensor([[0.9, 0.9], [0.2, 0.2]])
    found = Segments(maps, scores, threshold=0.5, least=0.0)
    marks = MaskMarks.of(found, Truth(true, known))
    ious = marks.ious()
    assert ious[dog] == pytest.approx((32 + 64) / (80 + 64))
    assert ious[cat] == 0
    assert np.isnan(ious[car])
    assert marks.iou().value == pytest.approx((96 / 144 + 0) / 2)
    areas = marks.false_areas()
    assert areas[car] == pytest.approx(0.25)
    assert np.isnan(areas[dog])  # there in both
    assert areas[cat] == 0
    assert marks.only(["car", "cat"]).false_area().value == pytest.approx(0.125)
    right = marks.recognised(0.5)
    assert np.isnan(right[dog])
    assert right[cat] == pytest.approx((0 + 1) / 2)
    assert MaskMarks.cat([marks, marks]).ious()[dog] == pytest.approx(96 / 144)


def test_the_unknown_counts_nowhere():
    maps = torch.ones(1, 59, 64, 64)
    known = torch.zeros(1, 59, dtype=torch.bool)
    found = Segments(maps, torch.ones(1, 59), threshold=0.5, least=0.5)
    marks = MaskMarks.of(found, Truth(torch.ones(1, 59, 64, 64), known))
    with pytest.raises(InputError, match="None of these renders shows a thing"):
        marks.iou()
    with pytest.raises(InputError, match="Every render shows all"):
        marks.false_area()


def test_calibration_takes_the_best_of_what_it_tries(monkeypatch):
    """Pixels of 0.4 are the thing and those of 0.33 are not; scores of 0.6 and of 0.55 likewise."""
    dog = NAMES.index("dog")
    maps = torch.zeros(2, 59, 64, 64)
    maps[0, dog, :8, :8], maps[0, dog, 8:16] = 0.4, 0.33
    true = torch.zeros(2, 59, 64, 64)
    true[0, dog, :8, :8] = 1
    scores = torch.full((2, 59), 0.1)
    scores[:, dog] = torch.tensor([0.6, 0.55])
    known = Truth(true, torch.ones(2, 59, dtype=torch.bool))

    class Fixed(nn.Module):
        def forward(self, images, words):
            return maps, scores

    monkeypatch.setattr(
        "visiondx_worlds.quality.segmenter._answers",
        lambda segmenter, *_: [(0, segmenter(torch.rand(2, 3, 64, 64), WORDS), known)],
    )
    best = calibrated(Segmenter(Fixed(), WORDS), images=2, seed=0)
    assert best.threshold == pytest.approx(0.35)
    assert best.least == pytest.approx(0.6)
    assert best.known == WORDS
