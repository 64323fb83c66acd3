"""Folders of images by class, with what real ones hold."""

import pytest
import torch
from PIL import ExifTags, Image

from visiondx.core.errors import InputError
from visiondx.dataset_interfaces.folders import ClassFolder, by_class

RED, GREEN, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)


def save(path, mode="RGB", colour=RED, size=(12, 8), **how) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **how)


@pytest.fixture
def folder(tmp_path):
    """Two classes, mug and plate."""
    home = tmp_path / "data"
    turned = Image.new("RGB", (16, 8), RED)
    turned.paste(GREEN, (8, 0, 16, 8))  # the right half; upright it is the lower one
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    (home / "mug").mkdir(parents=True)
    turned.save(home / "mug" / "a.png", exif=exif)
    save(home / "mug" / "b.jpg", "L", 64)
    save(home / "plate" / "inner" / "c.png", "RGBA", (0, 0, 0, 0))
    save(home / "plate" / "d.png", "P", 0)
    save(home / "plate" / "e.webp")
    # none of these is an image of a class
    save(home / "loose.png")
    save(home / "mug" / ".thumbnail.png")
    save(home / ".cache" / "x.png")
    save(home / "__MACOSX" / "._mug.png")
    (home / "plate" / "notes.txt").write_text("mine")
    return home


def test_real_images_come_as_a_viewer_shows_them(folder) -> None:
    data = ClassFolder.read(folder, 8)
    assert data.classes == ("mug", "plate")
    assert [p.name for p in data.paths] == ["a.png", "b.jpg", "d.png", "e.webp", "c.png"]
    assert data.labels.tolist() == [0, 0, 1, 1, 1]
    assert data.left_out == {}
    parts = list(data.batches(2))
    assert [len(part) for part in parts] == [2, 2, 1]
    images = torch.cat(parts)
    assert images.shape == (5, 3, 8, 8)
    # turned by its EXIF: red above and green below, not side by side
    assert (images[0, 0, 0] == 1).all()
    assert (images[0, 1, -1] == 1).all()
    assert images[0, 0, -1].max() < 0.01
    torch.testing.assert_close(images[1], torch.full((3, 8, 8), 64 / 255), atol=0.01, rtol=0)
    assert (images[4] == 1).all()  # transparent: over white


def test_the_centre_is_taken(tmp_path) -> None:
    wide = Image.new("RGB", (24, 8), RED)
    wide.paste(GREEN, (8, 0, 16, 8))
    for name in ("a", "b"):
        (tmp_path / "mug").mkdir(exist_ok=True)
        wide.save(tmp_path / "mug" / f"{name}.png")
    images = torch.cat(list(ClassFolder.read(tmp_path, 8).batches()))
    assert (images[:, 1] == 1).all()
    assert images[:, 0].max() == 0


def test_a_broken_file_is_left_out_and_counted(folder) -> None:
    (folder / "plate" / "d2.png").write_bytes(b"\x89PNG but no more")
    (folder / "plate" / "a link.png").symlink_to(folder / "nowhere.png")
    with pytest.warns(UserWarning, match=r"2 of 7 images in .* left out, such as plate/a link.png"):
        data = ClassFolder.read(folder, 8)
    assert sorted(data.left_out) == ["plate/a link.png", "plate/d2.png"]
    assert len(data.paths) == len(torch.cat(list(data.batches()))) == 5
    (folder / "plate" / "d.png").write_bytes(b"")  # broken since
    with pytest.raises(InputError, match=r"d\.png could be read and now cannot"):
        list(data.batches())


def test_what_was_read_has_a_hash(folder) -> None:
    first = ClassFolder.read(folder, 8).content
    assert ClassFolder.read(folder, 8).content == first
    assert ClassFolder.read(folder, 16).content != first
    save(folder / "mug" / "b.jpg", "L", 65)
    assert ClassFolder.read(folder, 8).content != first


def test_some_images_of_a_class(folder) -> None:
    for number in range(7):
        save(folder / "mug" / f"z{number}.png")
    data = ClassFolder.read(folder, 8, at_most=3)
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert [p.name for p in data.paths[:3]] == ["a.png", "z1.png", "z4.png"]  # rows 0, 3, 6 of 9
    with pytest.raises(InputError, match="at_most is 1"):
        ClassFolder.read(folder, 8, at_most=1)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda home: (home / "fork").mkdir(), "No image in .*fork"),
        (lambda home: save(home / "fork" / ".x.png"), "No image in .*fork"),
        (lambda home: save(home / "fork" / "x.png"), "Class 'fork' has one image"),
        (
            lambda home: [(home / "mug" / n).write_bytes(b"no") for n in ("a.png", "b.jpg")],
            r"Class 'mug' has no image to learn from \(mug/a.png cannot be read: it is no image",
        ),
    ],
)
def test_a_class_without_images_is_refused_by_name(folder, spoil, said) -> None:
    spoil(folder)
    with pytest.raises(InputError, match=said):
        ClassFolder.read(folder, 8)


def test_folders_that_are_none(folder, tmp_path) -> None:
    with pytest.raises(InputError, match="No folder of images at"):
        ClassFolder.read(tmp_path / "nowhere", 8)
    with pytest.raises(InputError, match="holds no folder"):
        ClassFolder.read(folder / "mug", 8)


def test_tensors_by_class() -> None:
    data = by_class({"mug": torch.zeros(2, 3, 8, 8), "plate": torch.ones(3, 3, 8, 8)})
    assert (data.classes, data.size) == (("mug", "plate"), 8)
    assert data.labels.tolist() == [0, 0, 1, 1, 1]
    assert [part.mean().item() for part in data.batches(2)] == [0, 1, 1]
    assert by_class(data) is data
    other = by_class({"mug": torch.zeros(2, 3, 8, 8), "plate": torch.zeros(3, 3, 8, 8)})
    assert other.content != data.content


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ({}, "There is no class"),
        ({"mug": torch.zeros(1, 3, 8, 8)}, "'mug' has one image"),
        ({"mug": torch.zeros(2, 3, 8, 6)}, r"'mug' are \(2, 3, 8, 6\)"),
        ({"mug": torch.full((2, 3, 8, 8), 200.0)}, r"must lie in \[0, 1\]"),
        ({"a": torch.zeros(2, 3, 8, 8), "b": torch.zeros(2, 3, 4, 4)}, r"of \[4, 8\] pixels"),
        ({"Mug": torch.zeros(2, 3, 8, 8), "mug": torch.zeros(2, 3, 8, 8)}, "named twice"),
    ],
)
def test_tensors_that_are_no_images_by_class(images, said) -> None:
    with pytest.raises(InputError, match=said):
        by_class(images)
