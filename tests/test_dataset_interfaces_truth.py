"""The data set under a shift as the renderer draws it, the pool to retrieve from, the judges."""

import numpy as np
import pytest
import torch
from PIL import Image

from dataset_interfaces_standins import ColourWords
from visiondx.core.errors import InputError
from visiondx.dataset_interfaces.shifted_images import ShiftedImages
from visiondx.dataset_interfaces.shifts import SHIFTS, Shift
from visiondx_worlds.marking.dataset_interfaces.pool import (
    ABSENT_PAIRS,
    RARE_PAIRS,
    RenderPool,
    paired,
)
from visiondx_worlds.marking.dataset_interfaces.selection import select
from visiondx_worlds.marking.dataset_interfaces.truth import (
    own_rows,
    own_states,
    true_images,
    true_rows,
    world_shift,
    write_truth,
)
from visiondx_worlds.worlds.scenes import CLASSES, STATES, scenes
from visiondx_worlds.worlds.scenes import SHIFTS as WORLD


def test_own_rows_follow_the_data_sets_distribution_class_by_class():
    rows = own_rows(1000, 7)
    kinds = rows["class"].long().view(12, 1000)
    assert (kinds == torch.arange(12)[:, None]).all()
    state = rows["state"].view(12, 1000)
    for name, share in {"plate": 0.95, "fish": 0.75, "dog": 0.15, "bird": 0.25}.items():
        assert state[CLASSES.index(name)].mean() == pytest.approx(share, abs=0.04), name
    places = rows["background"].long().view(12, 1000)
    values = scenes.categories["background"]
    for name, place, share in (("boat", "water", 0.95), ("plate", "plain", 0.85)):
        there = places[CLASSES.index(name)] == values.index(place)
        assert there.double().mean() == pytest.approx(share, abs=0.04)
    # as many as are asked for, of the classes that are asked for, in their order
    some = own_rows(3, 7, ["plate", "dog"])
    assert some["class"].tolist() == [6.0] * 3 + [0.0] * 3
    assert torch.equal(own_rows(3, 7, ["plate"]).values, some.values[:3])
    with pytest.raises(InputError, match="There is no class 'tench': choose from dog"):
        own_rows(1, 0, ["tench"])
    with pytest.raises(InputError, match="Name one class"):
        own_rows(1, 0, [])


def test_own_states_are_the_common_ones():
    own = {"dog": False, "bird": False, "fish": True, "plate": True, "umbrella": True, "boat": True}
    assert own_states() == own
    assert own_states(0.5) == {**own, "mug": True}
    assert own_states(0.9) == {"plate": True}


@pytest.mark.parametrize("shift", SHIFTS, ids=lambda shift: shift.folder)
def test_a_shift_changes_the_same_scenes_in_one_thing(shift):
    before, after = own_rows(20, 3), true_rows(shift, 20, 3)
    name = world_shift(shift)
    changed = {c for c in scenes.names if not torch.equal(before[c], after[c])}
    if name == "base":
        assert not changed
        return
    factor, value = WORLD[name]
    assert changed <= {factor, "style"}
    assert (after[factor] == value).all()
    assert scenes.labels(after)[:, scenes.binary.index(name)].all()  # it can be seen


def test_images_of_the_truth_are_those_rows_drawn():
    images = true_images("in the snow", 2, 3, ["mug", "car"])
    assert list(images) == ["mug", "car"]
    rows = scenes.shift(own_rows(2, 3, ["mug", "car"]), "snow")
    assert torch.equal(torch.cat(list(images.values())), scenes.render(rows))
    with pytest.raises(InputError, match="cannot draw"):
        true_images(Shift.of("wearing a hat"), 1, 0)


def test_the_truth_is_written_as_an_interface_writes(tmp_path, monkeypatch):
    write_truth(tmp_path, ["base", "in the snow"], 2, 3, ["mug", "car"])
    there = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png"))
    assert there == [
        f"{shift}/{kind}/000{k}.png"
        for shift in ("base", "in_the_snow")
        for kind in ("car", "mug")
        for k in range(2)
    ]
    stored = np.array(Image.open(tmp_path / "in_the_snow/car/0001.png"))
    wanted = true_images("in the snow", 2, 3, ["mug", "car"])["car"][1].permute(1, 2, 0)
    assert np.abs(stored / 255 - wanted.numpy()).max() < 1 / 255
    images = ShiftedImages.read(tmp_path)  # what measures painted images measures these
    assert images.shifts == ("base", "in_the_snow")
    assert images.kept.all()
    assert images.counts().tolist() == [[2, 2]] * 2
    # killed half-way: what lacks is drawn again
    (tmp_path / "base/mug/0000.png").unlink()
    drawn = []
    monkeypatch.setattr(scenes, "render", lambda rows: drawn.append(rows) or torch.ones(2, 3, 8, 8))
    write_truth(tmp_path, ["base", "in the snow"], 2, 3, ["mug", "car"])
    assert [rows["class"].tolist() for rows in drawn] == [[CLASSES.index("mug")] * 2]
    assert (tmp_path / "base/mug/0000.png").is_file()
    with pytest.raises(InputError, match="holds images of another"):
        write_truth(tmp_path, ["base"], 2, 4, ["mug", "car"])
    with pytest.raises(InputError, match="No shift 'hail' in Table 1"):
        write_truth(tmp_path, ["base", "hail"], 1, 0)


class Told:
    """Judges that say what they are told."""

    binary = scenes.binary

    def __init__(self, said):
        self.said = said

    def answers(self, images):
        return self.said

    def column(self, name):
        return self.binary.index(name)


def test_selection_counts_what_both_judges_see():
    kinds = ["plate", "plate", "plate", "dog", "dog", "chair"]
    plate, dog, chair = (CLASSES.index(name) for name in ("plate", "dog", "chair"))
    first, second = [plate, plate, plate, dog, dog, chair], [plate, plate, dog, dog, chair, chair]
    snow = int(WORLD["snow"][1])
    ground = [snow, snow, snow, snow, snow, 0], [snow, 0, snow, snow, snow, 0]
    binary = torch.zeros(2, 6, len(scenes.binary), dtype=torch.bool)
    food, harness = (scenes.binary.index(STATES[name]) for name in ("plate", "dog"))
    binary[:, 0, food] = True  # both see food
    binary[0, 1, food] = True  # one does
    binary[:, 2, food] = True
    binary[1, 4, harness] = True  # one sees a harness
    said = {
        "class": torch.tensor([first, second]),
        "background": torch.tensor(ground),
        "binary": binary,
    }
    images = torch.zeros(6, 3, 64, 64)
    found = select(Told(said), images, kinds, "in the snow")
    assert found.values["class"].tolist() == [True, True, False, True, False, True]
    assert found.values["shift"].tolist() == [True, False, True, True, True, False]
    assert found.asked.tolist() == [True] * 5 + [False]  # a chair has no state
    assert found.values["state"].tolist() == [True, False, True, True, False, False]
    assert found.right.tolist() == [True, False, False, True, False, False]
    assert found.both.tolist() == [True, False, False, True, False, False]
    shares = found.frequency()
    assert shares["class"].value == pytest.approx(4 / 6)
    assert (shares["state"].value, shares["state"].n) == (pytest.approx(3 / 5), 5)
    base = select(Told(said), images, kinds, "base")
    assert base.values["shift"].all()
    assert base.right.tolist() == [True, False, False, True, False, True]
    with pytest.raises(InputError, match="6 images were given and 1 classes"):
        select(Told(said), images, ["dog"], "base")


def test_the_pool_lacks_some_classes_under_each_shift():
    pool = RenderPool.draw(4000, 1)
    assert len(pool) == len(pool.names) == 4000
    again = RenderPool.draw(4000, 1)
    assert torch.equal(pool.rows.values, again.rows.values)
    assert not paired(pool.rows, ABSENT_PAIRS).any()
    for pairs in (ABSENT_PAIRS, RARE_PAIRS):
        assert len(pairs) == 2 * len(WORLD)
        assert {sum(shift == own for _, own in pairs) for shift in WORLD} == {2}
    broad = scenes.sample(4000, 1, distribution="scenes-broad")
    rare, usual = (paired(rows, RARE_PAIRS).double().mean() for rows in (pool.rows, broad))
    assert 0 < rare < 0.15 * usual
    # every class is there, and plates are mostly empty, as they are elsewhere
    kinds = np.array(pool.names)
    assert all((kinds == kind).sum() > 100 for kind in CLASSES)
    state = pool.rows["state"].numpy()
    assert state[kinds == "plate"].mean() == pytest.approx(0.1, abs=0.06)
    with pytest.raises(InputError, match="n is 0"):
        RenderPool.draw(0, 1)


def test_pairs_are_found_where_they_show():
    rows = own_rows(1, 0, ["dog", "cat"])
    rows = scenes.shift(scenes.shift(rows, "base"), "snow")
    assert paired(rows, frozenset({("dog", "snow")})).tolist() == [True, False]
    assert paired(rows, frozenset({("cat", "rain")})).tolist() == [False, False]


def test_the_pool_is_embedded_as_it_is_drawn(tmp_path):
    pool, encoder = RenderPool.draw(40, 2), ColourWords()
    found = pool.embed(encoder, tmp_path)
    wanted = encoder.embed_images(pool.images(torch.arange(40)))
    assert torch.allclose(found.embeddings, wanted, atol=1e-6)
    assert found.names == pool.names
    seen = encoder.seen
    pool.embed(encoder, tmp_path)
    assert encoder.seen == seen
    RenderPool.draw(40, 3).embed(encoder, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
