"""Images are read as a viewer shows them, and what no viewer could show is refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from llm2loss_standins import ColourEncoder
from visiondx.core.errors import InputError
from visiondx.llm2loss.cache import embed
from visiondx.models.image_files import files
from visiondx.models.pixels import pixels
from visiondx.models.preprocess import Preprocess

HIDDEN = (255, 0, 0, 0)  # a red that is not seen
GREY = [[0, 0x4000], [0x8000, 0xFFFF]]
WHITE, RED = (1.0, 1.0, 1.0), (1.0, 0.0, 0.0)


def palette(colour):
    image = Image.new("P", (2, 2), 0)
    image.putpalette([*colour, *[0] * 765])
    return image


def stored(image, path, **options):
    image.save(path, **options)
    with Image.open(path) as found:
        return pixels(found)


@pytest.mark.parametrize(
    ("image", "name", "options", "colour"),
    [
        (Image.new("RGBA", (2, 2), HIDDEN), "x.png", {}, WHITE),
        (Image.new("RGBA", (2, 2), (255, 0, 0, 255)), "x.png", {}, RED),
        (Image.new("RGBA", (2, 2), (255, 0, 0, 51)), "x.png", {}, (1.0, 0.8, 0.8)),
        (Image.new("RGBA", (2, 2), HIDDEN), "x.webp", {"lossless": True, "exact": True}, WHITE),
        (Image.new("LA", (2, 2), (0, 0)), "x.png", {}, WHITE),
        (palette((0, 0, 255)), "x.png", {"transparency": 0}, WHITE),
        (palette((0, 0, 255)), "x.gif", {"transparency": 0}, WHITE),
        (palette((0, 0, 255)), "x.png", {}, (0.0, 0.0, 1.0)),
        (Image.new("RGB", (2, 2), "blue"), "x.png", {"transparency": (0, 0, 255)}, WHITE),
        (Image.new("L", (2, 2), 7), "x.png", {"transparency": 7}, WHITE),
        (Image.fromarray(np.full((2, 2), 999, np.uint16)), "x.png", {"transparency": 999}, WHITE),
        (Image.new("1", (2, 2), 1), "x.png", {}, WHITE),
        (Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "x.jpg", {"quality": 100}, RED),
        (Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "x.tif", {}, RED),
        (Image.new("YCbCr", (8, 8), (255, 128, 128)), "x.jpg", {}, WHITE),
    ],
)
def test_colours(tmp_path, image, name, options, colour):
    found = stored(image, tmp_path / name, **options)
    expected = torch.tensor(colour).view(3, 1, 1).expand_as(found)
    torch.testing.assert_close(found, expected, atol=1.5 / 255, rtol=0)


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
def test_sixteen_bits(tmp_path, name):
    found = stored(Image.fromarray(np.array(GREY, np.uint16)), tmp_path / name)
    expected = torch.tensor([[0.0, 0.25], [0.5, 1.0]]).expand(3, 2, 2)
    torch.testing.assert_close(found, expected, atol=0.6 / 255, rtol=0)


def test_sixteen_bits_of_a_pgm(tmp_path):
    (tmp_path / "x.pgm").write_bytes(b"P5 2 2 65535\n" + np.array(GREY, ">u2").tobytes())
    with Image.open(tmp_path / "x.pgm") as image:
        found = pixels(image)
    torch.testing.assert_close(found[0], torch.tensor([[0, 0.25], [0.5, 1]]), atol=2e-3, rtol=0)


def test_floating_point(tmp_path):
    values = np.array([[0, 0.25], [0.5, 1]], np.float32)
    found = stored(Image.fromarray(values), tmp_path / "x.tif")
    torch.testing.assert_close(found[1], torch.from_numpy(values), atol=0.6 / 255, rtol=0)
    for other, said in ((255 * values, "from 0 to 255"), (2 * values - 1, "from -1 to 1")):
        with pytest.raises(InputError, match=f"floating-point image goes {said}: save it in"):
            stored(Image.fromarray(other), tmp_path / "x.tif")
    with pytest.raises(InputError, match="goes from nan"):
        stored(Image.fromarray(values * np.nan), tmp_path / "x.tif")
    with pytest.raises(InputError, match="32-bit whole numbers has no known white: save it"):
        stored(Image.fromarray(np.array(GREY, np.int32)), tmp_path / "x.tif")


def test_every_orientation_of_a_camera(tmp_path):
    """Each file shows the same picture; EXIF 2.3 says how it is stored."""
    upright = np.zeros((8, 16, 3), np.uint8)
    upright[:4, :8], upright[:4, 8:], upright[4:, :8] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    turned = np.rot90(upright, -1)
    stored_as = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),  # shown when turned clockwise
        7: turned[:, ::-1][::-1, ::-1],
        8: turned,
    }
    for orientation, array in stored_as.items():
        image = Image.fromarray(np.ascontiguousarray(array))
        exif = image.getexif()
        exif[0x0112] = orientation
        for name in ("x.png", "x.tif"):  # Pillow turns a TIFF by itself when it is loaded
            found = stored(image, tmp_path / name, exif=exif)
            assert torch.equal(found, torch.from_numpy(upright).permute(2, 0, 1) / 255), orientation
    image = Image.fromarray(upright)
    assert stored(image, tmp_path / "x.jpg", exif=b"Exif\0\0no such thing").shape == (3, 8, 16)


def test_a_picture_of_a_data_set_is_read_alike():
    sixteen = Image.fromarray(np.full((9, 9), 0x8000, np.uint16))
    found = embed([sixteen, Image.new("RGBA", (9, 9), HIDDEN)], ColourEncoder()).embeddings
    grey = torch.tensor([128 / 255, 1.0]).view(2, 1, 1, 1).expand(2, 3, 8, 8)
    expected = ColourEncoder().embed_images(grey)
    torch.testing.assert_close(found, expected)


def test_files_come_in_the_encoder_s_own_geometry(tmp_path):
    """A squashed image keeps its edges; embeddings of another geometry are not taken for it."""
    array = np.zeros((8, 24, 3), np.uint8)
    array[:, :8] = 255
    Image.fromarray(array).save(tmp_path / "x.png")
    encoder = ColourEncoder()
    cut = embed(tmp_path, encoder, tmp_path / "kept").embeddings
    encoder.preprocess = Preprocess((8, 8), "squash")
    squashed = embed(tmp_path, encoder, tmp_path / "kept").embeddings
    assert encoder.seen == 2
    assert cut[0, 0] < 0
    expected = encoder.embed_images(torch.full((1, 3, 8, 8), 1 / 3))
    torch.testing.assert_close(squashed, expected, atol=0.02, rtol=0)


@pytest.fixture
def folder(tmp_path):
    """An image, a folder with an image's name that has one in it, and what is none."""
    home = tmp_path / "pictures"
    (home / "zoo.png").mkdir(parents=True)
    Image.new("RGB", (9, 9), "red").save(home / "a.png")
    Image.new("RGB", (9, 9), "blue").save(home / "zoo.png" / "b.png")
    (home / "LICENSE").write_text("no picture")
    return home


def test_folders_that_are_called_as_images_are(folder):
    assert [path.name for path in files(folder)] == ["a.png", "b.png"]
    found = embed(folder, ColourEncoder())
    assert len(found) == 2
    with pytest.raises(InputError, match=r"1 of 2 images .*zoo.png \(Is a directory\)"):
        embed([folder / "a.png", folder / "zoo.png"], ColourEncoder())


def test_links_to_nothing(folder):
    (folder / "lost.png").symlink_to(folder / "gone.png")
    encoder = ColourEncoder()
    with pytest.raises(InputError, match=r"1 of 3 images cannot be read: \S*lost.png \(No such"):
        embed(folder, encoder)
    found = embed(folder, encoder, skip_unreadable=True)
    assert len(found) == 2
    assert found.unreadable[0][1] == "No such file or directory"
    given = embed([folder / "a.png", folder / "lost.png"], encoder, skip_unreadable=True)
    assert given.rows.tolist() == [0]


def test_files_without_a_suffix(folder):
    Image.new("RGB", (9, 9), "green").save(folder / "000000", format="png")
    Image.new("RGB", (9, 9), "green").save(folder / "000001", format="jpeg")
    assert [path.name for path in files(folder)] == ["000000", "000001", "a.png", "b.png"]
    (folder / "a.png").unlink()
    (folder / "zoo.png" / "b.png").unlink()
    assert len(embed(folder, ColourEncoder())) == 2
    for path in files(folder):
        path.unlink()
    with pytest.raises(InputError, match=r"No image in .* or have no suffix and be images"):
        files(folder)


def test_what_is_mended_is_embedded_again(folder, tmp_path):
    """A file that could not be read has its own name in the cache."""
    encoder, kept = ColourEncoder(), tmp_path / "kept"
    (folder / "c.png").symlink_to(folder / "gone.png")
    embed(folder, encoder, kept, skip_unreadable=True)
    Image.new("RGB", (9, 9), "white").save(folder / "gone.png")
    assert len(embed(folder, encoder, kept)) == 4
