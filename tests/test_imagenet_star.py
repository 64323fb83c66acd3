"""The masks of ImageNet* are read as data, and only where they are of these images."""

import os
import pickle

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from test_pickles import Calls, named
from visiondx.core.errors import InputError
from visiondx.dataset_interfaces.imagenet_star import read_masks
from visiondx.dataset_interfaces.shifted_images import ShiftedImages


def write(path, object_):
    np.save(path, object_, allow_pickle=True)
    return path


def write_pickle(path, content: bytes):
    """A file as ``numpy.save`` begins it, and a pickle of anything."""
    with path.open("wb") as stream:
        header = {"descr": "|O", "fortran_order": False, "shape": ()}
        np.lib.format.write_array_header_1_0(stream, header)
        stream.write(content)
    return path


def images(folder, counts):
    """counts: {shift: {class: n}}; the files are never opened."""
    for shift, classes in counts.items():
        for name, n in classes.items():
            home = folder / shift / name
            home.mkdir(parents=True)
            for k in range(n):
                (home / f"{k}.png").write_bytes(b"")
    return folder


COUNTS = {"base": {"b": 2, "a": 3}, "in_the_snow": {"a": 1, "b": 2}}


@pytest.fixture
def folder(tmp_path):
    return images(tmp_path / "star", COUNTS)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", ["uint8", "bool", "int64", ">i4"])
def test_masks_are_what_was_saved(tmp_path, protocol, dtype):
    masks = {"base": np.array([1, 0, 1], dtype), "in_the_snow": np.array([0, 1], dtype)}
    path = write_pickle(
        tmp_path / "masks.npy", pickle.dumps(np.array(masks, dtype=object), protocol)
    )
    found = read_masks(path)
    assert {name: mask.tolist() for name, mask in found.items()} == {
        "base": [True, False, True],
        "in_the_snow": [False, True],
    }


def test_what_numpy_itself_writes(tmp_path):
    masks = {"base": np.tile(np.array([1, 0, 0], np.uint8), 400)}
    found = read_masks(write(tmp_path / "masks.npy", masks))
    np.testing.assert_array_equal(found["base"], masks["base"] == 1)


def test_code_in_it_is_not_run(tmp_path):
    marker = tmp_path / "was_run"
    evil = Calls(os.system, f"touch {marker}")
    path = tmp_path / "masks.npy"
    for held in ({"base": evil}, {"base": np.array([evil], dtype=object)}, evil, {evil: 1}):
        write(path, np.array(held, dtype=object))
        with pytest.raises(InputError, match=r"asks for (posix|nt)\.system, which no array needs"):
            read_masks(path)
    for module, name in (("builtins", "eval"), ("numpy", "load"), ("numpy", "dtype.__class__")):
        write_pickle(path, named(module, name))
        with pytest.raises(
            InputError, match=rf"asks for {module}\.{name}, .*nothing of it was run"
        ):
            read_masks(path)
    # what the reader of generators takes, and arrays have no need of
    for module, name in (("collections", "OrderedDict"), ("torch", "float32"), ("torch", "Size")):
        write_pickle(path, named(module, name))
        with pytest.raises(InputError, match=f"asks for {module}.{name}, which no array needs"):
            read_masks(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("held", "named"),
    [
        ([1, 2], "holds a list, not a dictionary"),
        ({}, "not a dictionary of masks"),
        ({3: np.ones(2, np.uint8)}, "mask of 3, which is no shift's name"),
        ({"base": [1, 0]}, "'base' is no row of numbers"),
        ({"base": np.ones((2, 2), np.uint8)}, "'base' is no row of numbers"),
        ({"base": np.array([1.0, 0.5])}, "'base' is no row of numbers"),
        ({"base": np.array(["a"])}, "'base' is no row of numbers"),
        ({"base": np.array([None])}, "'base' is no row of numbers"),
        ({"base": np.array([0, 2])}, "values from 0 to 2: 0 and 1 alone"),
    ],
)
def test_what_are_no_masks_is_refused(tmp_path, held, named):
    whole = np.empty((), dtype=object)
    whole[()] = held
    with pytest.raises(InputError, match=named):
        read_masks(write(tmp_path / "masks.npy", whole))


def test_other_and_damaged_files_are_refused(tmp_path):
    path = tmp_path / "masks.npy"
    with pytest.raises(InputError, match="cannot be read"):
        read_masks(path)
    write(path, np.ones(3, np.uint8))
    with pytest.raises(
        InputError, match=r"an array of shape \(3,\) and type uint8, not one object"
    ):
        read_masks(path)
    path.write_bytes(b"no file of numpy")
    with pytest.raises(InputError, match="is no pickle, or a damaged one"):
        read_masks(path)
    write(path, {"base": np.ones(300, np.uint8)})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"is cut short|damaged"):
        read_masks(path)


# ---------------------------------------------------------------- beside the images


def test_a_mask_is_in_the_order_of_an_image_folder(folder):
    assert not ShiftedImages.read(folder).filtered
    masks = {"base": np.array([1, 0, 0, 0, 1]), "in_the_snow": np.array([0, 1, 0])}
    write(folder / "masks.npy", masks)
    found = ShiftedImages.read(folder)
    assert (found.shifts, found.classes) == (("base", "in_the_snow"), ("a", "b"))
    kept = [path for path, keep in zip(found.paths, found.kept) if keep]
    assert kept == ["base/a/0.png", "base/b/1.png", "in_the_snow/b/0.png"]  # classes by name
    assert found.filtered == "masks.npy"
    assert found.counts().tolist() == [[3, 2], [1, 2]]
    assert found.counts(found.kept).tolist() == [[1, 1], [0, 1]]


@pytest.mark.parametrize(
    ("masks", "named"),
    [
        ({"base": np.ones(4)}, "is no row of numbers"),
        ({"base": np.ones(4, int)}, "mask of 'base' is 4 long, and its folder has 5 images"),
        ({"base": np.ones(5, int)}, "no mask of the shift 'in_the_snow'"),
        (
            {"base": np.ones(5, int), "in_the_snowy": np.ones(3, int)},
            "no mask of the shift 'in_the_snow', but of 'in_the_snowy'",
        ),
        (
            {"base": np.ones(5, int), "in_the_snow": np.ones(3, int), "moon": np.ones(3, int)},
            "1 unknown shifts, such as 'moon'",
        ),
    ],
)
def test_masks_of_other_images_are_refused(folder, tmp_path, masks, named):
    path = write(tmp_path / "other.npy", masks)
    with pytest.raises(InputError, match=named):
        ShiftedImages.read(folder, masks=path)


def test_shifts_that_are_named_need_no_folder_for_the_others(folder):
    masks = {"base": np.ones(5, int), "in_the_snow": np.ones(3, int), "moon": np.ones(3, int)}
    write(folder / "masks.npy", masks)
    assert len(ShiftedImages.read(folder, ["in_the_snow"])) == 8


def test_the_manifests_of_generated_images_say_what_is_kept(folder):
    def manifest(shift, rows):
        kept = pd.array(list(rows.values()), dtype="boolean")
        table = pd.DataFrame({"file": list(rows), "kept": kept, "prompt": "a photo"})
        table.to_parquet(folder / shift / "manifest.parquet")

    base = {"b/1.png": True, "b/0.png": False, "a/0.png": True, "a/1.png": True, "a/2.png": False}
    snow = {"a/0.png": False, "b/0.png": True, "b/1.png": True}
    manifest("base", dict.fromkeys(base))
    manifest("in_the_snow", dict.fromkeys(snow))
    assert ShiftedImages.read(folder).filtered == ""  # no filter has decided yet
    manifest("base", base)
    with pytest.raises(InputError, match="no filter has decided on 'in_the_snow'"):
        ShiftedImages.read(folder)
    manifest("in_the_snow", snow)
    found = ShiftedImages.read(folder)
    assert found.kept.tolist() == [True, True, False, False, True, False, True, True]
    (folder / "in_the_snow" / "b" / "2.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"says nothing of 1 of 4 images, such as b/2.png"):
        ShiftedImages.read(folder)
    write(folder / "masks.npy", {"base": np.ones(5, int), "in_the_snow": np.ones(4, int)})
    with pytest.raises(InputError, match=r"has both masks.npy and a manifest"):
        ShiftedImages.read(folder)
    assert ShiftedImages.read(folder, masks=folder / "masks.npy").kept.all()


def test_what_real_folders_hold_besides(folder):
    (folder / ".cache").mkdir()
    (folder / "__MACOSX" / "a").mkdir(parents=True)
    (folder / "base" / "a" / ".hidden.png").write_bytes(b"")
    (folder / "base" / "a" / "notes.txt").write_text("no image")
    (folder / "base" / "made.json").write_text("{}")
    assert len(ShiftedImages.read(folder)) == 8


def test_folders_that_are_none_are_refused(folder, tmp_path):
    with pytest.raises(InputError, match="No folder of images at"):
        ShiftedImages.read(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"has no folder 'base' .* but a, b"):
        ShiftedImages.read(folder / "base")
    with pytest.raises(InputError, match="no shift 'in_the_snw': there are in_the_snow"):
        ShiftedImages.read(folder, ["in_the_snw"])
    Image.new("RGB", (4, 4)).save(folder / "base" / "loose.png")
    with pytest.raises(InputError, match=r"loose.png lies in no class's folder"):
        ShiftedImages.read(folder)
    (folder / "base" / "loose.png").unlink()
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match=r"No image in .*empty"):
        ShiftedImages.read(folder)
    images(tmp_path / "one", {"base": {"a": 2}, "snow": {"a": 2}})
    with pytest.raises(InputError, match="are of one class, 'a'"):
        ShiftedImages.read(tmp_path / "one")
    images(tmp_path / "bare", {"base": {"a": 2, "b": 1}})
    with pytest.raises(InputError, match="images without a shift alone"):
        ShiftedImages.read(tmp_path / "bare")
