"""Tensors of bytes as pictures: grids, files and films."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

Pixels = UInt8[Tensor, "n c h w"]


def picture(pixels: UInt8[Tensor, "c h w"], least: int = 0) -> Image.Image:
    """One image; enlarged by a whole number, without smoothing, to a height of at least `least`."""
    array = pixels[0].numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).numpy()
    image = Image.fromarray(array)
    times = -(-least // image.height) if least else 1
    return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)


def grid(pixels: Pixels, columns: int | None = None, least: int = 56) -> Image.Image:
    """All images side by side, about as many rows as columns, each at least `least` pixels high."""
    n, channels, height, width = pixels.shape
    columns = columns or max(1, round(n**0.5))
    gap = max(1, height // 16)
    rows = -(-n // columns)
    sheet = torch.full((channels, rows * (height + gap) + gap, columns * (width + gap) + gap), 128, dtype=torch.uint8)
    for i, image in enumerate(pixels):
        top, left = gap + (i // columns) * (height + gap), gap + (i % columns) * (width + gap)
        sheet[:, top : top + height, left : left + width] = image
    return picture(sheet, rows * max(least, height))


def film(frames: Sequence[Pixels], path: Path, milliseconds: int = 60) -> None:
    """A GIF of grids, which rests on the last one."""
    first, *others = [grid(pixels).convert("P", palette=Image.Palette.ADAPTIVE) for pixels in frames]
    first.save(path, save_all=True, append_images=others, duration=[milliseconds] * len(others) + [1500], loop=0)
