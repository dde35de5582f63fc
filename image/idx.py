"""Reading of idx files, the format of MNIST (http://yann.lecun.com/exdb/mnist), also gzipped."""

import gzip
import math
import zlib
from io import BufferedIOBase
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from textdiff.config import UserError

MAX_BYTES = 2**31  # of one array
MAGIC = b"\0\0\x08"  # two zeros and the code of unsigned bytes; the number of dimensions follows


def read_idx(path: Path, key: str) -> UInt8[np.ndarray, "*d"]:
    """Reads an array of bytes.

    Not more of the file is read than its header promises, for a small .gz may hold gigabytes.

    Args:
        key: Name of the option, for error messages.

    Raises:
        UserError: If the file cannot be read, is not an idx file of bytes, or is too large.
    """
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            shape = _read_shape(file)
            size = math.prod(shape) if shape else 0
            if size > MAX_BYTES:
                limit = f"more than {MAX_BYTES:,}"
                raise UserError(f"{key} {path}: its header promises {size:,} bytes, {limit}")
            content = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{key} {path} cannot be read: {error}") from error
    if not size or len(content) != size:
        kinds = "an image folder, a .zip nor a complete idx file of bytes"
        raise UserError(f"{key} {path} is neither {kinds}")
    return np.frombuffer(content, np.uint8).reshape(shape).copy()


def labels_path(images: Path) -> Path | None:
    """The file of labels beside a file of images, if there is one.

    It has the same name with labels-idx1 for images-idx3.
    """
    name = images.name.replace("images-idx3", "labels-idx1").replace("images.idx3", "labels.idx1")
    path = images.with_name(name)
    return path if path != images and path.exists() else None


def _read_shape(file: BufferedIOBase) -> list[int]:
    """The dimensions in the header; none if it is not that of an idx file of bytes."""
    head = file.read(4)
    ndim = head[3] if head[:3] == MAGIC and len(head) == 4 else 0
    sizes = file.read(4 * ndim).ljust(4 * ndim, b"\0")
    return np.frombuffer(sizes, ">u4").tolist()
