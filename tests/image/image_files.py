"""Image files and idx files for tests."""

import struct
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from image.config import DataConfig
from image.sources import Images, open_images


def picture(mode: str = "L", size: tuple[int, int] = (8, 8), value: object = 100) -> Image.Image:
    """A picture of one colour."""
    return Image.new(mode, size, value)


def idx_bytes(array: np.ndarray) -> bytes:
    """The content of an idx file of bytes."""
    header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def opened(path: Path | str, **options: object) -> tuple[Images, Images]:
    """Training and validation images of a path, half of them each."""
    return open_images(DataConfig(train=str(path), **{"valid_share": 0.5} | options))


def first_pixels(path: Path, **options: object) -> torch.Tensor:
    """The first training image of a path."""
    train, _ = opened(path, **options)
    return train.pixels[0]
