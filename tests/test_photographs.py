"""Folders of photographs, one a class."""

import pytest
import torch
from PIL import Image

from visiondx.core.errors import InputError
from visiondx.models.photographs import Photographs, class_photographs


def test_a_folder_a_class(tmp_path) -> None:
    for name, colours in (("dog", ["red", "lime", "blue"]), ("a cat", ["white"])):
        (tmp_path / name).mkdir()
        for number, colour in enumerate(colours):
            Image.new("RGB", (20, 12), colour).save(tmp_path / name / f"{number}.png")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "notes.txt").write_text("of no class")
    found = class_photographs(tmp_path, 8, most=2)
    assert list(found) == ["a cat", "dog"]
    assert found["dog"].names == ("0.png", "1.png")
    assert found["dog"].images.shape == (2, 3, 8, 8)
    torch.testing.assert_close(found["dog"].images[:, :, 4, 4], torch.eye(3)[:2])
    assert len(class_photographs(tmp_path, 8)["dog"]) == 3
    assert Photographs.read(tmp_path / "dog", 8, 1).names == ("0.png",)


def test_folders_that_hold_no_classes(tmp_path) -> None:
    with pytest.raises(InputError, match="No folder of images is named"):
        class_photographs("", 8)
    for folder in (tmp_path, tmp_path / "gone"):
        with pytest.raises(InputError, match="holds no folder"):
            class_photographs(folder, 8)
    (tmp_path / "dog").mkdir()
    with pytest.raises(InputError, match="No image in"):
        class_photographs(tmp_path, 8)
