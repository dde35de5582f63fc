"""Tensors of bytes as pictures: single images, grids and animations."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

Pixels = UInt8[Tensor, "n c h w"]


def to_image(pixels: UInt8[Tensor, "c h w"], least: int = 0) -> Image.Image:
    """One image as a picture.

    Args:
        least: Smallest height in pixels. Smaller images are enlarged by a whole number, without
            smoothing.
    """
    array = pixels[0].numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).numpy()
    image = Image.fromarray(array)
    times = -(-least // image.height) if least else 1
    return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)


def grid(pixels: Pixels, columns: int | None = None, least: int = 56) -> Image.Image:
    """All images in one picture, row by row.

    Args:
        columns: Number of columns. If None, about as many as rows.
        least: Smallest height of each image in pixels.
    """
    n, channels, height, width = pixels.shape
    columns = columns or max(1, round(n**0.5))
    rows, gap = -(-n // columns), max(1, height // 16)
    size = rows * (height + gap) + gap, columns * (width + gap) + gap
    sheet = torch.full((channels, *size), 128, dtype=torch.uint8)
    for i, image in enumerate(pixels):
        row, column = divmod(i, columns)
        top, left = gap + row * (height + gap), gap + column * (width + gap)
        sheet[:, top : top + height, left : left + width] = image
    return to_image(sheet, rows * max(least, height))


def animation(frames: Sequence[Pixels], path: Path, milliseconds: int = 60) -> None:
    """Writes a GIF with a grid per frame, which shows the last frame longer.

    Args:
        milliseconds: Time per frame.
    """
    palette = Image.Palette.ADAPTIVE
    first, *others = (grid(pixels).convert("P", palette=palette) for pixels in frames)
    durations = [milliseconds] * len(others) + [1500]
    first.save(path, save_all=True, append_images=others, duration=durations, loop=0)
