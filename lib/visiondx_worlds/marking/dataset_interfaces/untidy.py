"""A folder of images by class as people have them: of several kinds and sizes, and one broken."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.models.pixels import pictures

FEWEST = 8  # images of a class: one of each oddity, and some without


def write_untidy(folder: str | Path, images: Mapping[str, Tensor]) -> dict[str, str]:
    """Write ``<class>/<number>.png`` with what real folders hold.

    Of each class one image lies on its side, its EXIF says so, and one each is a JPEG, a GIF with a
    palette, grey, half transparent, wider than high, and in a folder of its own. Beside them stand
    hidden files and a text; the last image of the first class breaks off. The same files whenever
    it is called.

    Args:
        images: {class: (n, 3, S, S) in [0, 1]}.

    Returns:
        {path in the folder: what is odd about it}.

    Raises:
        InputError: fewer than eight images of a class.
    """
    folder, odd = Path(folder), {}
    for name, own in images.items():
        if len(own) < FEWEST:
            raise InputError(f"Class {name!r} has {len(own)} images: give {FEWEST} at least.")
    for name, own in images.items():
        home = folder / name
        (home / "from a friend").mkdir(parents=True, exist_ok=True)
        upright, size = pictures(own), own.shape[2]
        for k, image in enumerate(upright[7:], 7):
            image.save(home / f"{k:03}.png")
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6  # to be turned clockwise
        upright[0].transpose(Image.Transpose.ROTATE_90).save(home / "000.png", exif=exif)
        upright[1].resize((4 * size, 4 * size), Image.Resampling.BICUBIC).save(home / "001.JPG")
        upright[2].quantize(64).save(home / "002.gif")
        upright[3].convert("L").save(home / "003.png")
        clear = upright[4].convert("RGBA")
        clear.putalpha(
            Image.linear_gradient("L").resize((size, size)).point(lambda v: 255 - v // 2)
        )
        clear.save(home / "004.png")
        wide = np.pad(np.asarray(upright[5]), ((0, 0), (size // 2, size // 2), (0, 0)), "edge")
        Image.fromarray(wide).save(home / "005.png")
        upright[6].save(home / "from a friend" / "006.png")
        (home / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
        (home / "._000.png").write_bytes(b"\0\5\x16\7")
        said = {
            "000.png": "on its side, as its EXIF says",
            "001.JPG": f"a JPEG of {4 * size} x {4 * size}",
            "002.gif": "a palette",
            "003.png": "grey",
            "004.png": "half transparent",
            "005.png": "wider than high",
            "from a friend/006.png": "a folder in a folder",
            "._000.png": "hidden",
        }
        odd |= {f"{name}/{file}": what for file, what in said.items()}
    first = next(iter(images))
    last = folder / first / f"{len(images[first]) - 1:03}.png"
    last.write_bytes(last.read_bytes()[:60])
    odd[f"{first}/{last.name}"] = "broken off"
    (folder / "notes.txt").write_text("a text beside the classes\n", "utf-8")
    odd["notes.txt"] = "no image"
    return odd
