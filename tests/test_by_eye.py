"""Labels and outlines made by eye: read, refused, and held against judges and segmenter."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from visiondx.core.errors import InputError
from visiondx_worlds.quality.by_eye import (
    GROUPS,
    agreement,
    outline_ious,
    outline_mask,
    read_painted,
)

ROWS = ["0,dog,grass,clear,night,own,nothing,photo", "1,,snow,rain,daylight,red,person,photo"]
OUTLINES = ["0,dog,8,8 16,8 16,24 8,24", "1,snow,0,40 64,40 64,64 0,64"]


def folder_of(path, rows=ROWS, outlines=OUTLINES, columns=("index", *GROUPS)):
    grid = np.zeros((64, 13 * 64, 3), np.uint8)
    grid[:, 64:128] = 255
    Image.fromarray(grid).save(path / "painted_by_eye.png")
    (path / "painted_by_eye.csv").write_text("\n".join([",".join(columns), *rows]))
    quoted = [
        f'{index},{word},"{rest}"' for index, word, rest in (o.split(",", 2) for o in outlines)
    ]
    (path / "painted_outlines.csv").write_text("\n".join(["index,word,outline", *quoted]))
    return path


def test_what_a_person_wrote_is_read(tmp_path):
    seen = read_painted(folder_of(tmp_path))
    assert seen.images.shape == (2, 3, 64, 64)
    assert seen.images.amax((1, 2, 3)).tolist() == [0, 1]
    assert seen.images.amin((1, 2, 3)).tolist() == [0, 1]
    assert {group: labels.tolist() for group, labels in seen.labels.items()} == {
        "class": [0, -1],
        "background": [1, 7],
        "weather": [0, 1],
        "light": [3, 0],
        "colour": [0, 3],
        "beside": [0, 1],
        "style": [0, 0],
    }
    assert seen.words == ("dog", "snow")
    assert seen.masks.sum((1, 2)).tolist() == [8 * 16, 24 * 64]
    assert seen.masks[0, 8:24, 8:16].all()


def test_an_outline_takes_pixels_that_lie_in_it_by_half():
    mask = outline_mask([(0, 0), (4, 0), (0, 4)])  # below the diagonal x + y = 4
    assert mask[:5, :5].int().tolist() == [
        [1, 1, 1, 1, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ]
    assert not mask[5:].any()


def test_agreement_leaves_out_what_nobody_can_tell(tmp_path):
    seen = read_painted(folder_of(tmp_path))
    no, yes = torch.tensor([False, False]), torch.tensor([False, True])
    said = {
        "class": (torch.tensor([0, 0]), no),
        "background": (torch.tensor([2, 7]), no),
        "light": (torch.tensor([3, 0]), yes),
        "state": (torch.tensor([0, 0]), no),  # nobody was asked about it
    }
    found = agreement(SimpleNamespace(read_groups=lambda images: said), seen)
    assert list(found) == ["class", "background", "light"]
    np.testing.assert_array_equal(found["class"], [1, np.nan])
    np.testing.assert_array_equal(found["background"], [0, 1])
    np.testing.assert_array_equal(found["light"], [1, np.nan])


def test_outlines_are_held_against_masks_of_their_own_words(tmp_path):
    seen = read_painted(folder_of(tmp_path))

    def segmenter(images, words):
        assert words == ["dog", "snow"]
        masks = torch.zeros(len(images), 2, 64, 64, dtype=torch.bool)
        masks[0, 0, 8:16, 8:16] = True  # half of the dog
        masks[0, 1] = True
        masks[1, 1, 32:] = True  # a third more than the snow
        return SimpleNamespace(masks=masks)

    assert outline_ious(segmenter, seen) == pytest.approx([0.5, 0.75])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": ["0,cow,grass,clear,night,own,nothing,photo"]}, "'cow' is no class"),
        ({"rows": [ROWS[1]]}, "in turn"),
        ({"rows": []}, "no row"),
        ({"columns": ("index", *GROUPS[:-1], "look")}, "no column style"),
        ({"outlines": ["7,dog,1,1 2,2 3,1"]}, "none of the 2 pictures"),
        ({"outlines": ["0,dog,1 2,2 3,3"]}, "is no outline"),
        ({"outlines": ["0,dog,1,1 1,1 1,1"]}, "holds no pixel"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        read_painted(folder_of(tmp_path, **change))


def test_missing_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"painted_by_eye\.csv"):
        read_painted(tmp_path)
    folder_of(tmp_path)
    (tmp_path / "painted_by_eye.png").unlink()
    with pytest.raises(InputError, match=r"painted_by_eye\.png"):
        read_painted(tmp_path)
