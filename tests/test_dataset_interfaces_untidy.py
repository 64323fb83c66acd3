"""The tutorial's folder holds what it says that it holds, and is read for what it shows."""

import pytest
import torch
from PIL import Image

from visiondx.core.errors import InputError
from visiondx.dataset_interfaces.folders import ClassFolder
from visiondx_worlds.marking.dataset_interfaces.untidy import write_untidy

# smooth, so that a JPEG keeps it; and no two quarters alike
RAMP = torch.linspace(0.2, 0.8, 16)
IMAGE = torch.stack([RAMP.expand(16, 16), RAMP[:, None].expand(16, 16), torch.full((16, 16), 0.3)])
CLASSES = {"mug": IMAGE.expand(9, -1, -1, -1), "plate": IMAGE.flip(2).expand(8, -1, -1, -1)}


def test_odd_files_show_the_same_images(tmp_path) -> None:
    odd = write_untidy(tmp_path, CLASSES)
    assert all((tmp_path / name).is_file() for name in odd)
    with pytest.warns(UserWarning, match=r"1 of 17 images in .*, such as mug/008.png"):
        data = ClassFolder.read(tmp_path, 16)
    assert data.classes == ("mug", "plate")
    assert list(data.left_out) == ["mug/008.png"]
    assert odd["mug/008.png"] == "broken off"
    assert torch.bincount(data.labels).tolist() == [8, 8]
    seen = dict(
        zip(
            [p.relative_to(tmp_path).as_posix() for p in data.paths],
            torch.cat(list(data.batches())),
        )
    )
    for name, wanted in (("mug", IMAGE), ("plate", IMAGE.flip(2))):
        for file in (
            "000.png",
            "001.JPG",
            "002.gif",
            "005.png",
            "from a friend/006.png",
            "007.png",
        ):
            found = seen[f"{name}/{file}"]
            assert (found - wanted).abs().max() < 0.1, file
        grey, clear = seen[f"{name}/003.png"], seen[f"{name}/004.png"]
        assert (grey[0] == grey[2]).all()
        assert (clear >= wanted - 0.01).all()  # over white
        assert (clear[:, -1] - wanted[:, -1]).mean() > 0.1


def test_files_are_what_they_are_said_to_be(tmp_path) -> None:
    write_untidy(tmp_path, CLASSES)
    kinds = {}
    for name in ("000.png", "001.JPG", "002.gif", "003.png", "004.png", "005.png"):
        with Image.open(tmp_path / "mug" / name) as image:
            kinds[name] = image.mode, image.size
            turned = image.getexif().get(0x0112)
        assert (turned == 6) == (name == "000.png")
    assert kinds == {
        "000.png": ("RGB", (16, 16)),
        "001.JPG": ("RGB", (64, 64)),
        "002.gif": ("P", (16, 16)),
        "003.png": ("L", (16, 16)),
        "004.png": ("RGBA", (16, 16)),
        "005.png": ("RGB", (32, 16)),
    }


def test_written_twice_it_is_the_same(tmp_path) -> None:
    write_untidy(tmp_path, CLASSES)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    write_untidy(tmp_path, CLASSES)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_too_few_images(tmp_path) -> None:
    with pytest.raises(InputError, match="Class 'mug' has 7 images: give 8"):
        write_untidy(tmp_path, {"mug": CLASSES["mug"][:7]})
    assert not list(tmp_path.iterdir())
