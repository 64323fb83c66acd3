"""What a diagnosis stands on: an embedded world, or files and a list of words."""

import pytest
from torch import nn

from visiondx.core.errors import InputError
from visiondx.core.words import check_prompts, lists
from visiondx.models.target import Target
from visiondx_worlds import ground
from visiondx_worlds.ground import Ground, Words
from visiondx_worlds.worlds import faces


@pytest.fixture(scope="module")
def embedded() -> Ground:
    return Ground.open()


def real(words: str = "human_faces") -> Ground:
    """Without a world; who draws and reads does not matter here."""
    return Ground(None, None, Words.read(words))


def test_a_world_brings_its_words_judges_and_targets(embedded):
    assert embedded.neutral == faces.grammar.neutral
    assert embedded.prompts(["bangs", "a face with a scar"]) == [
        faces.prompt("bangs"),
        "a face with a scar",
    ]
    assert embedded.judges.column("bangs") == faces.binary.index("bangs")
    young = embedded.target("young")
    assert embedded.label(young) == "young"
    assert embedded.held(young) == (faces.prompt("young"), faces.prompt("young", present=False))
    with pytest.raises(InputError, match="trained on 'cat'"):
        embedded.held(embedded.target("cat"))


@pytest.mark.parametrize("name", lists())
def test_lists_of_words_can_be_asked_about(name):
    words = Words.read(name)
    check_prompts(list(words.present.values()), words.neutral)
    assert set(words.absent) <= set(words.present)
    assert not set(words.absent.values()) & set(words.present.values())


def test_the_fifteen_of_the_supervised_comparison_have_phrases():
    """CelebA's names in footnote 2 of ZOOM; "no beard" is asked about as a beard."""
    fifteen = "bald bangs black_hair blond_hair brown_hair bushy_eyebrows eyeglasses male".split()
    fifteen += "open_mouth moustache beard pale_skin young smiling lipstick".split()
    assert set(fifteen) <= set(real().names)


def test_without_a_world_nobody_judges_and_labels_are_found_by_their_words():
    here = real()
    assert here.judges is None
    assert here.prompt("bangs") == "a face with bangs"
    with pytest.raises(InputError, match="Unknown attribute 'fringe': write a whole phrase"):
        here.prompt("fringe")
    asked = Target(nn.Flatten(), labels=("old", "Young "))
    assert here.label(asked) == "young"
    assert here.held(asked) == ("a young face", "an old face")
    blond = Target(nn.Flatten(), labels=("other hair", "blond hair"))
    assert here.label(blond) == "blond_hair"
    assert here.held(blond) is None  # no phrase says its absence
    assert here.label(Target(nn.Flatten())) is None


def test_the_embedded_classifiers_are_asked_where_their_world_draws(embedded):
    assert embedded.chosen(["young", "male"]) == ["young", "male"]
    assert embedded.chosen(["young", "male"], "mine.py:load") == ["mine.py:load"]
    assert real().chosen(["young"], "mine.py:load") == ["mine.py:load"]
    with pytest.raises(InputError, match="name your own as target="):
        real().chosen(["young"])


OWN_CODE = """
import torch
from torch import nn
from visiondx.models.target import Target

class Bright(nn.Module):
    def forward(self, images):
        return 9 * images.mean((1, 2, 3)) - 4

def {name}():
    return Target(Bright().eval(), labels=("other", "{label}"))
"""


def own(folder, name, label) -> str:
    (folder / f"{name}.py").write_text(OWN_CODE.format(name=name, label=label))
    return f"{folder / name}.py:{name}"


def test_targets_jury_and_caveats_of_a_world(embedded, tmp_path):
    models = embedded.targets(["young", "cat"])
    assert list(models) == ["young", "cat"]
    assert embedded.caveats({"young": models["young"]}) == []
    assert embedded.jury([models["young"]], 40).judges is embedded.judges
    blue = embedded.targets(["young"], own(tmp_path, "blue", "blue"))
    assert list(blue) == [ground.OWN]
    assert embedded.jury(blue.values(), 40) is None
    assert [line[:14] for line in embedded.caveats(blue)] == ["No judge reads", "No words are k"]
    known = embedded.targets([], own(tmp_path, "known", "young"))["own"]
    assert embedded.jury([known], 40) is not None
    assert embedded.held(known) == embedded.held(models["young"])
    points = embedded.target("face-keypoints", "keypoints")
    assert embedded.label(points) is None
    assert embedded.caveats({"points": points}) == []
    (tmp_path / "dead.py").write_text(OWN_CODE.format(name="dead", label="x").replace("9 *", "0 *"))
    with pytest.raises(InputError, match="gradient"):
        embedded.targets([], f"{tmp_path / 'dead.py'}:dead")


def test_phrases_for_reading_are_held_out_or_of_the_list(embedded):
    (bangs, blank), (_, other) = embedded.phrases(["bangs", "hat"], 3)
    assert bangs == [faces.prompt("bangs", True, seed, heldout=True) for seed in range(3)]
    assert blank == other == [faces.neutral(seed, heldout=True) for seed in range(3)]
    ((_, denied),) = embedded.phrases(["bangs"], 2, negated=True)
    assert denied == [faces.prompt("bangs", False, seed, heldout=True) for seed in range(2)]
    here = real()
    asked = ["bangs", "a face with a scar"]
    assert here.phrases(asked) == [(["a face with bangs"], ["a face"]), ([asked[1]], ["a face"])]
    assert here.phrases(["bangs"], negated=True)[0][1] == ["a face with a bare forehead"]
    with pytest.raises(InputError, match="absence of blond_hair, a face with a scar"):
        here.phrases(["bangs", "blond_hair", "a face with a scar"], negated=True)


def test_a_target_of_another_task_is_refused(embedded):
    with pytest.raises(InputError, match="face-keypoints is a keypoints target, asked is binary"):
        embedded.targets(["face-keypoints"])
    points = embedded.targets(["face-keypoints", "face-parts"], tasks=("keypoints", "segmentation"))
    assert [target.task for target in points.values()] == ["keypoints", "segmentation"]
    with pytest.raises(InputError, match="young is a binary target"):
        embedded.targets(["young"], tasks=("keypoints", "segmentation"))


def test_caveats_without_a_world():
    here = real()
    young, blond, blue = (
        Target(nn.Flatten(), labels=("no", x)) for x in ("young", "blond hair", "blue")
    )
    assert here.jury([young]) is None
    assert here.caveats({"own": young}) == [ground.NO_TRUTH]
    assert "the absence of 'blond_hair', so nothing is held" in here.caveats({"own": blond})[1]
    assert "what own tells, so nothing is held" in here.caveats({"own": blue})[1]


def test_a_list_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="No list of words '': choose from cats_and_dogs, human"):
        Words.read("")
    with pytest.raises(InputError, match="No list of words 'faces'"):
        Words.read("faces")  # the grammar of a world
