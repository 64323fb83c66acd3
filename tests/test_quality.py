"""The quality figures' measurements, each worked out by hand for a small case."""

import math

import numpy as np
import pytest
import torch
from torchvision.utils import save_image

from standins import NAMES, ToyWorld
from visiondx.core.errors import InputError
from visiondx.core.stats import Estimate
from visiondx_worlds.quality.embedded import (
    BY_EYE_IMAGES,
    agreement,
    auroc,
    balanced,
    by_eye_images,
    class_found,
    frechet,
    frechet_distance,
    images_per_second,
    pixel_probe,
    read_by_eye,
    share_ratio,
    world_found,
    worst,
    worst_seed,
    zero_shot,
)


def test_frechet_of_gaussians_by_hand():
    one, zero = np.eye(1), np.zeros(1)
    # in one dimension it is (μ - ν)² + (σ - τ)²
    assert frechet(zero, 4 * one, zero + 3, 25 * one) == pytest.approx(9 + 9)
    # the covariances commute: the sum over axes; rotating both changes nothing
    a, b = np.diag([1.0, 9.0]), np.diag([4.0, 1.0])
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    assert frechet(np.zeros(2), a, np.array([1.0, 2.0]), b) == pytest.approx(5 + 1 + 4)
    turned = frechet(np.zeros(2), turn @ a @ turn.T, turn @ [1.0, 2.0], turn @ b @ turn.T)
    assert turned == pytest.approx(10)


def test_frechet_where_the_covariances_do_not_commute():
    a = np.array([[2.0, 1.0], [1.0, 1.0]])
    b = np.array([[1.0, 0.0], [0.0, 5.0]])
    # for 2 x 2, the trace of the root is sqrt(tr(ab) + 2 sqrt(det(a) det(b)))
    root = math.sqrt(2 + 5 + 2 * math.sqrt(1 * 5))
    expected = 3 + 6 - 2 * root
    assert frechet(np.zeros(2), a, np.zeros(2), b) == pytest.approx(expected)


def test_frechet_distance_of_features():
    a = torch.tensor([[0.0, 0.0], [2.0, 0.0]])  # mean (1, 0), variance (2, 0)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(a, a + 3) == pytest.approx(18)
    with pytest.raises(InputError, match=r"\(1, 2\)"):
        frechet_distance(a, a[:1])


def test_share_ratio_leaves_abstentions_out():
    labels = torch.tensor([[1, 0], [1, 0], [0, 1], [1, 1]], dtype=torch.bool)
    abstain = torch.tensor([[0, 0], [0, 0], [0, 0], [1, 0]], dtype=torch.bool)
    one, two = share_ratio(labels, abstain, torch.tensor([0.5, 0.25]))
    assert (one.value, one.n) == (pytest.approx(2 / 3 / 0.5), 3)
    assert (two.value, two.n) == (pytest.approx(0.5 / 0.25), 4)
    with pytest.raises(InputError, match="more images"):
        share_ratio(labels, abstain, torch.tensor([0.5, 0.0]))
    with pytest.raises(InputError, match="more images"):
        share_ratio(labels, abstain | torch.tensor([True, False]), torch.tensor([0.5, 0.5]))


def test_auroc_by_hand_with_ties_and_several_scores():
    truth = np.array([1, 0, 1, 0])
    scores = np.array([0.9, 0.1, 0.4, 0.4])  # pairs won: 1, 1, 1 and a tie
    assert auroc(np.stack([truth, scores], 1)) == pytest.approx(3.5 / 4)
    assert auroc(np.stack([truth, scores, -scores], 1)) == pytest.approx(0.5)
    assert math.isnan(auroc(np.ones((3, 2))))


class ReadsRed:
    """An encoder of two numbers: how red a picture is, and how red a prompt says it is."""

    mean = torch.zeros(1)

    def embed_images(self, images):
        middle = images[:, 0, 28:36, 28:36].mean((1, 2)) - images[:, 2, 28:36, 28:36].mean((1, 2))
        return torch.stack([middle, torch.zeros_like(middle)], 1)

    def embed_texts(self, texts):
        return torch.tensor([[float("red" in text.split()), 0.0] for text in texts])


def test_zero_shot_rows_are_truth_and_one_score_a_phrasing():
    rows, seeds = zero_shot(ReadsRed(), ToyWorld(), 12, [5, 6], phrasings=3)
    assert set(rows) == set(NAMES[:4])
    assert rows["red"].shape == (24, 4)
    assert seeds.tolist() == [5] * 12 + [6] * 12
    truth = torch.cat([ToyWorld().labels(ToyWorld().sample(12, seed)) for seed in (5, 6)])
    assert rows["red"][:, 0].tolist() == truth[:, 0].double().tolist()
    assert auroc(rows["red"]) > 0.9
    assert auroc(rows["ring"]) == 0.5  # its prompts say nothing of red: every score ties


def test_the_class_whose_sentence_scores_highest_is_found():
    # two images and two phrasings: (truth, score, score) of each class
    held = {
        "cat": np.array([[1, 0.5, 0.1], [0, 0.2, 0.2]]),
        "dog": np.array([[0, 0.4, 0.3], [1, 0.1, 0.9]]),
        "grass": np.array([[1, 9, 9], [1, 9, 9]]),
    }
    said, truth = class_found(held, ["cat", "dog"])
    assert said.tolist() == [[0, 1], [0, 1]]
    assert truth.tolist() == [0, 1]


def test_balanced_accuracy_weighs_the_classes_alike():
    right = np.array([1, 1, 1, 0])
    truth = np.array([1, 1, 0, 0])
    assert balanced(np.stack([right, truth], 1)) == pytest.approx(0.75)
    always_yes = np.stack([np.array([1] * 9 + [0]), np.array([1] * 9 + [0])], 1)
    assert balanced(always_yes) == pytest.approx(0.5)


def test_worst_case_and_worst_seed():
    cases = {"a": Estimate(0.9, 0.8, 1.0, 5), "b": Estimate(0.7, 0.6, 0.8, 5)}
    assert worst(cases) is cases["b"]
    assert worst(cases, best=True) is cases["a"]
    values, seeds = np.array([1.0, 1.0, 0.0, 1.0]), np.array([7, 7, 8, 8])
    assert worst_seed(values, seeds).value == 0.5
    assert worst_seed(values, seeds, best=True).value == 1.0
    assert worst_seed(values, seeds).n == 2


def test_pixel_probe_finds_the_colour_and_misses_the_stripes():
    right, truth = pixel_probe(ToyWorld(), train=240, test=160, seed=0)
    assert right.shape == truth.shape == (160, 4)
    found = dict(zip(NAMES, (balanced(np.stack(c, 1)) for c in zip(right.T, truth.T))))
    assert found["red"] > 0.95  # the mean colour says it
    assert found["stripe"] > 0.95  # a fixed pattern is linear too

    # what no pixel shows cannot be found
    class Hidden(ToyWorld):
        def labels(self, attributes):
            return super().labels(attributes)[torch.arange(len(attributes)).roll(7)]

    right, truth = pixel_probe(Hidden(), train=240, test=160, seed=0)
    assert all(0.35 < balanced(np.stack(c, 1)) < 0.65 for c in zip(right.T, truth.T))


def test_images_per_second_counts_every_image():
    rendered = []

    class Counted(ToyWorld):
        def render(self, attributes, size=64):
            rendered.append(len(attributes))
            return super().render(attributes, size)

    speeds = images_per_second(Counted(), batch=8, repeats=3)
    assert speeds.shape == (3,)
    assert (speeds > 0).all()
    assert rendered == [8] * 4  # the first is the warm-up


def test_agreement_with_labels_made_by_eye():
    labels = torch.tensor([[True, False], [True, True], [False, False]])
    abstain = torch.tensor([[False, False], [False, True], [False, False]])
    seen = torch.tensor([[1.0, 1.0], [1.0, 1.0], [float("nan"), 0.0]])
    expected = np.array([[1, 0], [1, np.nan], [np.nan, 1]])
    np.testing.assert_array_equal(agreement(labels, abstain, seen), expected)


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_labelled_images_are_cut_out_of_their_grid_row_by_row(tmp_path):
    tiles = (torch.arange(BY_EYE_IMAGES) / 255)[:, None, None, None].expand(-1, 3, 64, 64)
    save_image(tiles, tmp_path / "grid.png", nrow=13, padding=0)
    images = by_eye_images(tmp_path / "grid.png")
    assert images.shape == (BY_EYE_IMAGES, 3, 64, 64)
    assert torch.allclose(images, tiles, atol=0.5 / 255)
    with pytest.raises(InputError, match="No labelled images"):
        by_eye_images(tmp_path / "missing.png")


def test_labels_made_by_eye_are_read_in_the_order_that_is_asked(tmp_path):
    path = write(tmp_path / "labels.csv", "index,hat,beard\n3,1,0\n0,,1\n")
    seen = read_by_eye(("beard", "hat"), path)
    assert seen.index.tolist() == [3, 0]
    assert seen.labels[0].tolist() == [0, 1]
    assert seen.labels[1, 0] == 1
    assert seen.labels[1, 1].isnan()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No labels made by eye"),
        ("index,hat\n1,0\n", "no column beard"),
        ("index,hat,beard\n1,0,2\n", "other labels"),
        ("index,hat,beard\n1,0,yes\n", "other than numbers"),
        ("index,hat,beard\n1,0,1\n1,0,1\n", "occur once"),
        (f"index,hat,beard\n{BY_EYE_IMAGES},0,1\n", "occur once"),
    ],
)
def test_bad_label_files_are_refused(tmp_path, text, message):
    path = tmp_path / "labels.csv"
    if text is not None:
        write(path, text)
    with pytest.raises(InputError, match=message):
        read_by_eye(("hat", "beard"), path)


def test_world_found_by_the_nearest_neutral_sentences():
    class Flat(ToyWorld):
        def __init__(self, grey, names):
            self.grey, self.names_ = grey, names

        def render(self, attributes, size=4):
            return torch.full((len(attributes), 3, size, size), self.grey)

        def neutral(self, seed=None, heldout=False):
            return self.names_[(seed or 0) % len(self.names_)]

    words = {"dark": [1.0, 0.0], "black": [0.8, 0.6], "light": [0.0, 1.0]}

    class Encoder:
        mean = torch.zeros(1)  # where it computes

        def embed_texts(self, texts):
            return torch.tensor([words[text] for text in texts])

        def embed_images(self, images):
            grey = images.mean((1, 2, 3))
            return torch.nn.functional.normalize(torch.stack([1 - grey, grey], 1), dim=1)

    # the dark world's sentences point to (.95, .32) on average, 18 degrees from the light one's
    # other side: a grey of .6 is nearer to the light
    worlds = [Flat(0.1, ["dark", "black"]), Flat(0.9, ["light"]), Flat(0.6, ["light"])]
    said, truth = world_found(Encoder(), worlds[:2], 3, seed=0)
    assert said.tolist() == truth.tolist() == [0, 0, 0, 1, 1, 1]
    said, _ = world_found(Encoder(), [worlds[0], worlds[2]], 2, seed=0)
    assert said.tolist() == [0, 0, 1, 1]
    said, truth = world_found(Encoder(), [worlds[2], worlds[0]], 2, seed=0)
    assert said.tolist() == [0, 0, 1, 1]
    said, _ = world_found(Encoder(), [worlds[1], Flat(0.6, ["dark", "black"])], 2, seed=0)
    assert said.tolist() == [0, 0, 0, 0]  # too light for its own name
