"""Images, masks and classes that a user gives to a task, as tensors of the model's shape."""

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8
from PIL.Image import Image
from torch import Tensor

from image.decoding import MODES
from image.model import ImageDiffusionModel
from image.sampling import check_shape
from textdiff.config import UserError, check

Given = Image | np.ndarray | Tensor


def pixels_of(
    model: ImageDiffusionModel, image: Given, name: str = "the image"
) -> UInt8[Tensor, "c h w"]:
    """The bytes of an image.

    Args:
        image: A picture of Pillow, an array of shape (h, w) or (h, w, c), or a tensor of shape
            (c, h, w). Values are bytes.
        name: Name of the image in messages.

    Raises:
        UserError: If it has another mode, another shape or other values than the model's images.
    """
    mode, kinds = MODES[model.config.channels], "a picture (PIL.Image.open), an array or a tensor"
    check(isinstance(image, Given), name, kinds, image)
    if isinstance(image, Image) and image.mode != mode:
        way_out = f"convert it with .convert({mode!r})"
        raise UserError(f"{name} has the mode {image.mode}, the model's have {mode}: {way_out}")
    pixels = image if isinstance(image, Tensor) else torch.from_numpy(np.array(image))
    check(pixels.dtype == torch.uint8, name, "bytes (uint8, 0 to 255)", pixels.dtype)
    if pixels.ndim == 2:
        pixels = pixels.unsqueeze(0)
    elif pixels.ndim == 3 and not isinstance(image, Tensor):
        pixels = pixels.permute(2, 0, 1)
    check_shape(model, pixels, name)
    return pixels.contiguous()


def unknown_of(model: ImageDiffusionModel, mask: Given) -> Bool[Tensor, "h w"]:
    """Where a mask is white: bytes above 127, or true.

    Args:
        mask: As in `pixels_of`, with one channel. It may also be black and white (mode 1, bool).

    Raises:
        UserError: If it has other values, or another height or width than the model's images.
    """
    if isinstance(mask, Image):
        check(mask.mode in ("1", "L"), "the mode of --mask", "1 or L", mask.mode)
    values = mask if isinstance(mask, Tensor) else torch.from_numpy(np.array(mask))
    valid = values.dtype in (torch.bool, torch.uint8)
    check(valid, "--mask", "bytes (uint8, 0 to 255) or bool", values.dtype)
    size = model.config.shape[1:]
    rule = "as large as the model's images, {}x{} (height, width)".format(*size)
    check(values.squeeze().shape == size, "--mask", rule, (*values.shape,))
    white = values if values.dtype == torch.bool else values > 127
    return white.view(size)


def classes_of(
    model: ImageDiffusionModel, name: str | int | None, n: int
) -> Int[Tensor, " n"] | None:
    """The class with this name or number, n times. None for None.

    Raises:
        UserError: If the model does not have it.
    """
    classes = model.config.classes
    if name is None:
        return None
    name = str(name)
    if not classes:
        raise UserError(f"--class {name}: this model was trained without classes")
    if name in classes:
        return torch.full((n,), classes.index(name))
    is_number = name.isascii() and name.isdecimal() and not any(map(str.isdecimal, classes))
    if not (is_number and int(name) < len(classes)):
        raise UserError(f"--class must be one of {', '.join(classes)}, got {name}")
    return torch.full((n,), int(name))
