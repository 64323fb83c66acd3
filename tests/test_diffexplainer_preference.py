"""Which explanation shows the feature: what features want, and preferences worked out by hand."""

import pytest
import torch
from torch import Tensor, nn

from visiondx.core.errors import InputError
from visiondx.models.segmenter import Segmenter
from visiondx.models.target import Target
from visiondx_worlds.marking.diffexplainer.preference import (
    SHOWS,
    confidences,
    contents,
    coverage,
    exchanged,
    of_right,
    prefer,
    recognised,
)
from visiondx_worlds.marking.diffexplainer.truth import FeatureTruth, Interventions
from visiondx_worlds.marking.diffexplainer.wanted import (
    CONCEPTS,
    Wanted,
    carried,
    middling,
    most_activating,
    own_activations,
    wanted,
)
from visiondx_worlds.worlds.scenes import CLASSES

DOG, CAT, GRASS, SNOW = (CONCEPTS.index(name) for name in ("dog", "cat", "grass", "snow"))


# ---------------------------------------------------------------- what a feature wants


class Planted(nn.Module):
    """Feature 0: green all over; 1: how bright the lower half is; 2: always 1; 3: dark."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, len(CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        red, green, blue = images.unbind(1)
        everywhere = (green - (red + blue) / 2).mean((1, 2))
        below = images[:, :, 32:].mean((1, 2, 3))
        return self.fc(torch.stack([everywhere, below, torch.ones_like(below), -below], 1))


@pytest.fixture(scope="module")
def measured() -> Wanted:
    drawn = Interventions(8, seed=3)
    plain = dict.fromkeys(("light", "weather", "style", "beside", "occluder"), 0.0)
    drawn.rows = drawn.rows.replace(**plain, wall_value=0.5)
    target = Target(Planted().eval(), "multiclass", CLASSES)
    return wanted(target, torch.tensor([1, 0, 2]), drawn)


def test_a_feature_wants_what_raises_it_most(measured: Wanted) -> None:
    assert measured.rises.shape == (3, len(CONCEPTS), 8)
    bright, green, always = measured.concept.tolist()
    assert CONCEPTS[bright] == "snow"
    assert CONCEPTS[green] in ("grass", "forest")
    assert measured.clear.tolist() == [True, True, False]  # what nothing raises wants nothing
    assert measured.rises[2].abs().max() == 0
    assert always == 0
    table = measured.only(torch.tensor([True, False, False])).to_frame()
    assert table.index.tolist() == [1]
    assert table["concept"].tolist() == ["snow"]
    assert table["rise"].item() == pytest.approx(float(measured.rises[0, SNOW].mean()), rel=1e-6)


def test_certainty_is_the_share_of_resampled_scenes() -> None:
    rises = torch.zeros(3, len(CONCEPTS), 2)
    rises[0, DOG] = torch.tensor([3.0, -1.0])  # mean 1 of both, or of the first alone, or -1
    rises[0, CAT] = torch.tensor([0.5, 0.5])
    rises[1, CAT] = 2.0  # always
    rises[2] = -1.0  # nothing raises it
    found = Wanted(torch.arange(3), rises)
    assert found.concept.tolist()[:2] == [DOG, CAT]
    first, second, third = found.certainty.tolist()
    assert first == pytest.approx(3 / 4, abs=0.05)  # unless the second scene is drawn twice
    assert (second, third) == (1.0, 0.0)


@pytest.mark.parametrize("features", [[], [4], [-1]])
def test_features_that_are_not_there_are_refused(features: list[int]) -> None:
    target = Target(Planted().eval(), "multiclass", CLASSES)
    with pytest.raises(InputError, match="from 0 to 3"):
        wanted(target, torch.tensor(features, dtype=torch.long), Interventions(2))


def test_the_class_that_a_feature_carries_most() -> None:
    features = torch.tensor([[7, 3], [3, 5], [1, 7]])
    carries = torch.tensor([[2.0, 0.5], [0.9, 0.8], [4.0, 1.0]])
    truth = FeatureTruth(
        CLASSES[:3], (None,) * 3, features, carries, torch.zeros(0), torch.zeros(0), 0
    )
    assert carried(truth, torch.tensor([3, 7, 5, 1])).tolist() == [1, 0, 1, 2]
    with pytest.raises(InputError, match=r"Feature 4 carries no class: .*\[1, 3, 5, 7\]"):
        carried(truth, torch.tensor([3, 4]))


def test_every_feature_is_asked_of_its_own_pictures() -> None:
    target = Target(Planted().eval(), "multiclass", CLASSES)
    images = torch.zeros(2, 2, 3, 64, 64)
    images[0, 1, 1] = 0.5  # green
    images[1, 0, :, 32:] = 0.25
    own = own_activations(target, images, torch.tensor([0, 3]))
    assert own.flatten().tolist() == pytest.approx([0.0, 0.5, -0.25, 0.0])


def test_renders_by_activation() -> None:
    activations = torch.tensor([[0.0, 5], [10, 5], [2, 1], [3, 9], [1, 4]])
    assert most_activating(activations, 2).tolist() == [[1, 3], [3, 0]]  # of two 5s the first
    assert middling(activations, 1).tolist() == [[2], [0]]  # the first of two 5s
    # of the first, among 0, 10 and 3: the median is 3; of the second, among 5, 1 and 4: 4
    among = torch.tensor([[1, 1, 0, 1, 0], [1, 0, 1, 0, 1]]).bool()
    assert middling(activations, 2, among).tolist() == [[3, 0], [4, 0]]
    with pytest.raises(InputError, match="4 renders are asked for of 3"):
        middling(activations, 4, among)
    with pytest.raises(InputError, match="6 renders are asked for of 5"):
        most_activating(activations, 6)


# ---------------------------------------------------------------- what judges see


class Told:
    """Two judges that say of a picture what stands in its first pixels: p of dog, p of grass.

    The second judge halves the first's p of dog. What is left goes to the cat, and to plain.
    """

    def group_probabilities(self, images: Tensor, name: str) -> Tensor:
        dog, grass = images[:, 0, 0, 0], images[:, 0, 0, 1]
        p = torch.zeros(2, len(images), 12 if name == "class" else 8)
        if name == "class":
            p[0, :, 0], p[0, :, 1] = dog, 1 - dog
            p[1, :, 0], p[1, :, 1] = dog / 2, 1 - dog / 2
        else:
            p[:, :, 1], p[:, :, 0] = grass, 1 - grass
        return p

    def answers(self, images: Tensor) -> dict[str, Tensor]:
        return {g: self.group_probabilities(images, g).argmax(-1) for g in ("class", "background")}


def told(*rows: list[tuple[float, float]]) -> Tensor:
    images = torch.zeros(len(rows), len(rows[0]), 3, 4, 4)
    images[:, :, 0, 0, :2] = torch.tensor(rows)
    return images


def test_judges_are_as_sure_as_the_less_sure_of_them() -> None:
    seen = confidences(Told(), told([(0.8, 0.6), (0.4, 0.0)], [(0.0, 1.0), (0.0, 0.5)]))
    assert seen.shape == (2, len(CONCEPTS))
    # the dog: (.4 + .2) / 2; the cat: (.2 + .6) / 2; the neutral background is no concept
    assert seen[0, [DOG, CAT, GRASS]].tolist() == pytest.approx([0.3, 0.4, 0.3])
    assert seen[1, [DOG, CAT, GRASS]].tolist() == pytest.approx([0.0, 1.0, 0.75])
    assert seen.sum().item() == pytest.approx(0.3 + 0.4 + 0.3 + 1.0 + 0.75)
    assert of_right(seen, torch.tensor([DOG, GRASS])).tolist() == pytest.approx([0.3, 0.75])
    assert recognised(seen, torch.tensor([CAT, GRASS])).tolist() == [True, False]
    with pytest.raises(InputError, match="Sets of pictures"):
        confidences(Told(), torch.zeros(2, 3, 4, 4))


def test_what_pictures_show_of_a_class() -> None:
    # both see the dog from a p of 1 on alone, for the second halves it, and the first at a half
    sure, both = (1.0, 0.0), (1.0, 1.0)
    images = told([sure, both, both, (0.0, 1.0)], [(0.0, 0.0), (0.8, 0.0), both, both])
    found = contents(Told(), images, ["dog", "cat"])
    assert tuple(found.columns) == SHOWS
    assert found.index.tolist() == ["dog", "cat"]
    # of the dog at 1 the second judge says dog, for dog and cat are alike and the first counts
    assert found.loc["dog"].tolist() == [0.25, 0.5, 0.25, 0.0]
    # .8: one says dog, the other cat, so that neither is seen by both
    assert found.loc["cat"].tolist() == [0.25, 0.0, 0.5, 0.25]
    with pytest.raises(InputError, match="No judge knows the class 'fox'"):
        contents(Told(), images, ["dog", "fox"])
    with pytest.raises(InputError, match="1 classes for 2 rows"):
        contents(Told(), images, ["dog"])


class Halves(nn.Module):
    """The dog covers the left half of every picture, grass all of bright ones, nothing else any."""

    def forward(self, images: Tensor, words: list[str]) -> tuple[Tensor, Tensor]:
        maps = torch.zeros(len(images), len(words), *images.shape[-2:])
        if "dog" in words:
            maps[:, list(words).index("dog"), :, : images.shape[-1] // 2] = 1
        if "grass" in words:
            maps[:, list(words).index("grass")] = (images.amax((1, 2, 3)) > 0.5)[:, None, None] * 1
        return maps, maps.amax((2, 3))


def test_how_much_a_concepts_word_covers() -> None:
    images = torch.zeros(2, 2, 3, 8, 8)
    images[1, 0] = 1
    found = coverage(Segmenter(Halves(), None), images)
    assert found[:, [DOG, GRASS, SNOW]].tolist() == [[0.5, 0.0, 0.0], [0.5, 0.5, 0.0]]
    with pytest.raises(InputError, match="snow"):
        coverage(Segmenter(Halves(), [c for c in CONCEPTS if c != "snow"]), images)


# ---------------------------------------------------------------- which is preferred


def test_a_preference_by_hand() -> None:
    ours = torch.tensor([0.9, 0.5, 0.2, 0.4])
    other = torch.tensor([0.1, 0.4, 0.3, 0.4])
    found = prefer(ours, other)
    assert (found.share.value, found.share.n, found.ties) == (pytest.approx(2 / 3), 3, 1)
    assert found.p == pytest.approx(1.0)  # 2 or 1 of 3: every outcome but 0 and 3 is as likely
    # ranks .8: 3, then .1 and -.1: the same two; the negative one has 1 or 2 of 6
    assert found.wilcoxon > 0.25
    assert found.difference.value == pytest.approx(0.2, abs=1e-6)
    assert prefer(ours, other, least=0.5).ties == 3
    assert prefer(ours, ours + 0.04).share.n == 0  # hardly surer
    back = prefer(other, ours)
    assert back.share.value == pytest.approx(1 / 3)
    assert (back.p, back.wilcoxon) == (pytest.approx(found.p), pytest.approx(found.wilcoxon))


def test_p_values_by_hand() -> None:
    eight = prefer(torch.arange(1.0, 9), torch.zeros(8))
    assert eight.p == pytest.approx(2 / 2**8)
    assert eight.wilcoxon == pytest.approx(2 / 2**8)  # the likeliest signs of all 8 ranks, twice
    # 9 of 10: 2 (1 + 10) / 1024
    values = torch.arange(1.0, 11)
    values[0] = -1
    assert prefer(values, torch.zeros(10)).p == pytest.approx(22 / 1024)
    # of 1,024 patterns of signs two have a negative rank sum of at most 1, and two their mirror
    assert prefer(values, torch.zeros(10)).wilcoxon == pytest.approx(4 / 1024)


def test_exactly_one_is_recognised() -> None:
    ours = torch.tensor([True, True, True, False, False, True])
    other = torch.tensor([False, False, True, False, True, False])
    found = prefer(ours, other)
    assert (found.share.value, found.share.n, found.ties) == (0.75, 4, 2)
    assert found.p == pytest.approx(2 * (1 + 4) / 2**4)
    none = prefer(ours, ours)
    assert (none.share.n, none.ties, none.p) == (0, 6, 1.0)
    assert none.wilcoxon == 1.0


def test_features_of_one_concept_are_one_witness() -> None:
    ours, other = torch.tensor([0.9, 0.8, 0.7, 0.1]), torch.tensor([0.1, 0.1, 0.1, 0.6])
    assert prefer(ours, other).share.n == 4
    found = prefer(ours, other, torch.tensor([5, 5, 5, 2]))
    assert (found.share.value, found.share.n) == (0.5, 2)
    assert found.difference.value == pytest.approx((0.7 - 0.5) / 2)


@pytest.mark.parametrize("other", [torch.zeros(3), torch.zeros(2, 2)])
def test_other_features_are_not_compared(other: Tensor) -> None:
    with pytest.raises(InputError, match="Compare the same features"):
        prefer(torch.zeros(2), other)
    with pytest.raises(InputError, match="one at least"):
        prefer(torch.zeros(0), torch.zeros(0))
    with pytest.raises(InputError, match="least is 0"):
        prefer(torch.zeros(2), torch.zeros(2), least=0)


def test_exchanged_explanations_are_recognised_by_chance() -> None:
    seen = torch.eye(4)  # the pictures of feature i show concept i
    concept = torch.tensor([0, 1, 2, 2])
    found = exchanged(seen, concept)
    # of 12 pairs of two, only those of the third with the fourth: its pictures show 3, so one
    assert found.share.value == pytest.approx(1 / 12)
    # three of four are right in 2 of 24 orders: 3 stands anywhere, and the others are in place
    assert found.p == pytest.approx(2 / 24, abs=0.03)
    # whatever all pictures show is recognised as often as it is wanted, exchanged or not
    same = exchanged(torch.tensor([[0.0, 0.0, 1.0, 0.0]]).expand(4, -1), concept)
    assert same.share.value == pytest.approx(0.5)
    assert (same.share.low, same.share.high, same.p) == (0.5, 0.5, 1.0)
    with pytest.raises(InputError, match="two features or more"):
        exchanged(seen[:1], concept[:1])
