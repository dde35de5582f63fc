"""Single images: decoding, resizing, and stacking into one tensor of bytes."""

import warnings
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from textdiff.config import UserError

MAX_PIXELS = 2**27  # larger images are taken for decompression bombs
MAX_UNRESIZED = 2**20  # pixels of an image that is used as it is: no network here trains on more

Size = tuple[int, int]  # height, width
MODES: dict[int | None, str] = {1: "L", 3: "RGB"}  # number of channels -> Pillow's mode


class Shape(NamedTuple):
    """Shape that images are converted to.

    Args:
        size: Height and width, or None to leave them.
        channels: Number of channels, or None for the mode that most images have.
    """

    size: Size | None
    channels: int | None


def decode(content: bytes) -> Image.Image:
    """Decodes an image file to 8 bits per channel, grey (L) or RGB.

    The image is turned as its EXIF orientation says. Transparent pixels are put on white.

    Raises:
        ValueError: If the content is not an image or cannot be used. Pillow raises further errors
            for damaged files.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image: Image.Image = Image.open(BytesIO(content))
        except UnidentifiedImageError as error:
            raise ValueError("is not an image") from error
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width}x{image.height} pixels are more than {MAX_PIXELS:,}")
        image.load()
        image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("has floating-point pixels, whose range is unknown")
    if image.mode.startswith("I"):
        return _from_integers(image)
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        mode, image = "L" if image.mode in ("L", "LA", "La") else "RGB", image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert(mode)
    return image if image.mode == "L" else image.convert("L" if image.mode == "1" else "RGB")


def _from_integers(image: Image.Image) -> Image.Image:
    """A grey image of 16- or 32-bit integers, scaled to 8 bits."""
    values = np.asarray(image, dtype=np.float64)
    top = 65535 if image.mode.startswith("I;16") or values.max() > 255 else 255
    return Image.fromarray((values.clip(0, top) * (255 / top)).round().astype(np.uint8), "L")


def fit_image(image: Image.Image, size: Size, mode: str) -> UInt8[np.ndarray, "h w *c"]:
    """Crops the largest middle part of the right proportions and resizes it to `size`."""
    height, width = size
    image = image.convert(mode)
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    return np.asarray(image)


def shrink(image: Image.Image, shape: Shape) -> Image.Image:
    """Resizes an image right after decoding, so that only one is in memory at full size.

    Raises:
        ValueError: If the image is not to be resized and has too many pixels.
    """
    if shape.size:
        return ImageOps.fit(image, shape.size[::-1], Image.Resampling.LANCZOS)
    if image.width * image.height > MAX_UNRESIZED:
        size = f"{image.height}x{image.width}"
        raise ValueError(f"{size} pixels are too many to be used as they are: give data.size")
    return image


def stack(images: list[Image.Image], shape: Shape, key: str) -> UInt8[Tensor, "n c h w"]:
    """Converts images to one shape and stacks them.

    Raises:
        UserError: If the images have several sizes and `shape` has none.
    """
    most = Counter(image.mode for image in images).most_common(1)[0][0]
    mode = MODES.get(shape.channels, most)
    arrays = [fit_image(image, shape.size or (image.height, image.width), mode) for image in images]
    sizes = Counter(array.shape[:2] for array in arrays)
    if len(sizes) > 1:
        found = ", ".join(f"{height}x{width}" for (height, width), _ in sizes.most_common(3))
        found += ", ..." * (len(sizes) > 3)
        way_out = "give data.size, to which all are resized"
        raise UserError(f"{key} has images of {len(sizes)} sizes ({found}): {way_out}")
    pixels = torch.from_numpy(np.stack(arrays))
    return pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2).contiguous()


def to_pillow(pixels: UInt8[Tensor, "n c h w"]) -> Iterator[Image.Image]:
    """The images as Pillow's images."""
    for image in pixels.numpy():
        yield Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
