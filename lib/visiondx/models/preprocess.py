"""How images come to an encoder's size: resized, cropped and padded as open_clip does it.

One geometry for both kinds of image: PIL images on the way in from files, 8 bits deep, and float
tensors that carry gradients. The two agree to within the rounding to 8 bits, but for bicubic
overshoot beyond black or white: Pillow clips it between rows and columns, too.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from visiondx.core.errors import InputError

MODES = ("shortest", "longest", "squash")
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@dataclass(frozen=True)
class Preprocess:
    """The geometry of open_clip's ``image_transform`` (evaluation); normalising is the encoder's.

    Args:
        size: (height, width) that the encoder takes.
        mode: "shortest" edge to size, then a centre crop; "longest" edge to size, then padded all
            round; or "squash", both edges to size.
        interpolation: "bicubic" or "bilinear", antialiased.
        fill: of the padding, 0-255 for red, green and blue.

    Raises:
        InputError: an unknown mode or interpolation.
    """

    size: tuple[int, int]
    mode: str = "shortest"
    interpolation: str = "bicubic"
    fill: tuple[int, int, int] = (0, 0, 0)

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InputError(f"No resize mode {self.mode!r}: choose from {', '.join(MODES)}.")
        if self.interpolation not in FILTERS:
            raise InputError(
                f"No interpolation {self.interpolation!r}: choose from {', '.join(FILTERS)}."
            )

    @classmethod
    def of(cls, config: dict) -> "Preprocess":
        """From open_clip's ``PreprocessCfg`` as a dictionary, all of whose keys are there."""
        size, fill = config["size"], config["fill_color"]
        height, width = (size, size) if isinstance(size, int) else size
        # open_clip resizes to what is not square by its default, whatever the config says
        odd = config["resize_mode"] == "shortest" and height != width
        random = config["interpolation"] == "random"  # in training; bicubic otherwise
        return cls(
            (height, width),
            config["resize_mode"],
            "bicubic" if odd or random else config["interpolation"],
            (fill,) * 3 if isinstance(fill, int) else tuple(fill),
        )

    def tensor(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, 3, *size), differentiable.

        Bicubic overshoot is clamped, as in 8-bit preprocessing.
        """
        resized = self._resized(*images.shape[2:])
        if resized != tuple(images.shape[2:]):
            images = F.interpolate(images, resized, mode=self.interpolation, antialias=True)
            if self.interpolation == "bicubic":
                images = images.clamp(0, 1)
        if resized == self.size:
            return images
        top, left = (_offset(*edges) for edges in zip(resized, self.size, strict=True))
        images = images[:, :, max(0, -top) :, max(0, -left) :][:, :, : self.size[0], : self.size[1]]
        if tuple(images.shape[2:]) == self.size:
            return images
        fill = torch.tensor(self.fill, device=images.device, dtype=images.dtype) / 255
        canvas = fill.view(1, 3, 1, 1).repeat(len(images), 1, *self.size)
        top, left = max(0, top), max(0, left)
        canvas[:, :, top : top + images.shape[2], left : left + images.shape[3]] = images
        return canvas

    def picture(self, image: Image.Image) -> Image.Image:
        """An RGB image -> one of ``size``."""
        height, width = self._resized(image.height, image.width)
        image = image.resize((width, height), FILTERS[self.interpolation])
        if (height, width) == self.size:
            return image
        canvas = Image.new("RGB", self.size[::-1], self.fill)
        canvas.paste(image, (_offset(width, self.size[1]), _offset(height, self.size[0])))
        return canvas

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) before cropping or padding, rounded as open_clip and torchvision do."""
        tall, wide = self.size
        if self.mode == "squash":
            return self.size
        if self.mode == "shortest" and tall == wide:
            short = min(height, width)
            return int(tall * height / short), int(tall * width / short)
        ratios = (height / tall, width / wide)
        ratio = max(ratios) if self.mode == "longest" else min(ratios)
        return max(1, round(height / ratio)), max(1, round(width / ratio))


def _offset(edge: int, size: int) -> int:
    """Where an edge begins in a size: above 0 where it is padded, below where it is cropped."""
    return (size - edge) // 2 if edge < size else -round((edge - size) / 2)
