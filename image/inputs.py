"""Requests for images from the options of the command line."""

from pathlib import Path

import torch
from jaxtyping import Int, UInt8
from jsonargparse import Namespace
from PIL.Image import Image
from torch import Tensor

from image import sampling
from image.decoding import MODES, decode, fit_image
from image.model import ImageDiffusion
from textdiff.config import UserError, check


def read_request(model: ImageDiffusion, options: Namespace) -> sampling.Request:
    """The request that the options describe.

    Raises:
        UserError: If an image cannot be read or the model does not have the class.
    """
    n, seed, scale = options.n, options.seed, options.guidance_scale
    label = _label(model, options.label, n)
    if options.inpaint:
        image, mask = _read_image(options.inpaint), _read_image(options.mask)
        rule = "as large as the image, {}x{}".format(*image.size)
        check(image.size == mask.size, "--mask", rule, "{}x{}".format(*mask.size))
        unknown = _fit(model, mask, channels=1)[0] > 127
        pixels = _fit(model, image)
        return sampling.inpaint_request(model, pixels, unknown, n, seed, label, scale)
    if options.edit:
        pixels = _fit(model, _read_image(options.edit))
        return sampling.edit_request(model, pixels, n, seed, options.strength, label, scale)
    if options.interpolate:
        first, second = (_fit(model, _read_image(path)) for path in options.interpolate)
        return sampling.interpolate_request(
            model, first, second, n, seed, options.strength, label, scale
        )
    return sampling.sample_request(model, n, seed, label, scale)


def _label(model: ImageDiffusion, name: str | None, n: int) -> Int[Tensor, " n"] | None:
    """The class with this name or number, n times."""
    classes = model.config.classes
    if name is None:
        return None
    if not classes:
        raise UserError(f"--class {name}: this model was trained without classes")
    if name in classes:
        return torch.full((n,), classes.index(name))
    is_number = name.isascii() and name.isdecimal() and not any(map(str.isdecimal, classes))
    if not (is_number and int(name) < len(classes)):
        raise UserError(f"--class must be one of {', '.join(classes)}, got {name}")
    return torch.full((n,), int(name))


def _read_image(path: str) -> Image:
    try:
        return decode(Path(path).read_bytes())
    except OSError as error:
        reason = error.strerror or "is not an image that can be read"
        raise UserError(f"{path}: {reason}") from error
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise UserError(f"{path}: {error}") from error


def _fit(
    model: ImageDiffusion, image: Image, channels: int | None = None
) -> UInt8[Tensor, "c h w"]:
    """The image in the shape of the model's images."""
    expected, height, width = model.config.shape
    array = fit_image(image, (height, width), MODES[channels or expected])
    pixels = torch.from_numpy(array.copy())
    return pixels.unsqueeze(0) if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()
