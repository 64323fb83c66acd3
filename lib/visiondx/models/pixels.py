"""One image as numbers in [0, 1]: what a viewer would show of it."""

import math

import numpy as np
import torch
from PIL import ExifTags, Image
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.models.preprocess import Preprocess

METHOD = 2  # of reading images, for ``files.result_key``
ROUNDING = 1e-3  # by which values may leave [0, 1]
TURNS = {  # that undo an EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def pixels(image: object, preprocess: Preprocess | None = None) -> Tensor:
    """An image (3, H, W) in [0, 1].

    Args:
        image: a PIL image; or a tensor (3, H, W), uint8 or floating-point in [0, 1], left as it is.
        preprocess: brings a PIL image to its size; None: it keeps its own.

    Raises:
        InputError: something else, or values beyond [0, 1].
    """
    if isinstance(image, Image.Image):
        image = rgb(image)
        if preprocess is not None:
            image = preprocess.picture(image)
        image = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    if not isinstance(image, Tensor) or image.ndim != 3 or len(image) != 3:
        shape = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise InputError(f"An image must be a PIL image or a tensor (3, H, W), got {shape}.")
    check_range(image)
    return image / 255 if image.dtype == torch.uint8 else image.float()


def pictures(images: Tensor) -> list[Image.Image]:
    """Images (N, 3, H, W) in [0, 1] in 8-bit RGB, rounded as files of them are."""
    found = (images.detach().float().cpu() * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(each) for each in found]


def rgb(image: Image.Image) -> Image.Image:
    """A PIL image as a viewer shows it, in 8-bit RGB: upright, and over white where transparent.

    16 bits are scaled to 8; Pillow's own conversion clips them.

    Raises:
        InputError: whole numbers of 32 bits, whose white is not known, or floating-point values
            that are not in [0, 1].
    """
    image.load()  # which turns a TIFF already
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # damaged metadata of a good image
        turn = None
    if image.mode[0] in "IF":
        image = _eight_bits(image)
    if turn is not None:
        image = image.transpose(turn)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits, or floating-point in [0, 1], as 8 bits."""
    values = np.asarray(image)
    if image.mode == "F":
        if not (values.min() >= 0 and values.max() <= 1):  # nor NaN
            raise InputError(
                f"A floating-point image goes from {values.min():g} to {values.max():g}: save it "
                "in [0, 1], or with 8 bits."
            )
        return Image.fromarray((255 * values).round().astype(np.uint8))
    if image.mode == "I" and image.format not in ("PNG", "PPM"):  # those read 16 bits as 32
        raise InputError(
            "An image of 32-bit whole numbers has no known white: save it with 8 or 16 bits."
        )
    if "transparency" in image.info:  # the one grey that is
        values = np.where(values == image.info["transparency"], 65535, values)
    return Image.fromarray((values / 257).round().astype(np.uint8))


def check_range(images: Tensor) -> None:
    """Raises InputError unless the values are bytes, or lie in [0, 1] to within rounding."""
    if images.dtype == torch.uint8 or not images.numel():
        return
    low, high = (float(value) for value in images.detach().float().aminmax())
    if low >= -ROUNDING and high <= 1 + ROUNDING:
        return
    if math.isnan(low) or math.isnan(high):
        raise InputError("Images hold NaN: values must lie in [0, 1]; repair or leave them out.")
    if low >= 0 and high > 2:
        fix = "divide them by 255, or give uint8"
    elif low >= -1 - ROUNDING and high <= 1 + ROUNDING:
        fix = "give (x + 1) / 2"
    else:
        fix = "undo their normalisation, x * std + mean"
    raise InputError(f"Images must lie in [0, 1], these go from {low:.3g} to {high:.3g}: {fix}.")
