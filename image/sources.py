"""Images from files, folders, archives, the hub or built in, as one tensor of bytes.

Images of several sizes are resized and cropped, or refused. A warning counts and names the images
that cannot be read. This module contains neither batches nor models.
"""

import logging
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from PIL import Image
from torch import Tensor

from image.config import DataConfig
from image.decoding import Shape, Size, decode, shrink, stack, to_pillow
from image.dots import dots
from image.idx import labels_path, read_idx
from textdiff.config import UserError
from textdiff.hub import looks_local

log = logging.getLogger("textdiff")

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
MAX_ENTRY_BYTES = 2**28  # larger files in an archive are taken for decompression bombs


@dataclass(frozen=True)
class Images:
    """Images of one size.

    Args:
        pixels: The images.
        labels: Class number of each image. If None, the images have no classes.
        classes: Names of the classes.
    """

    pixels: UInt8[Tensor, "n c h w"]
    labels: Int[Tensor, " n"] | None = None
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, rows: Any) -> "Images":
        labels = None if self.labels is None else self.labels[rows]
        return replace(self, pixels=self.pixels[rows], labels=labels)


def open_images(data: DataConfig) -> tuple[Images, Images]:
    """Reads the training and the validation images.

    Raises:
        UserError: If they cannot be used.
    """
    train = _read(data.train, data, "data.train")
    if data.valid is None:
        return _split(train, data.valid_share)
    channels, height, width = train.pixels.shape[1:]
    valid = _read(data.valid, replace(data, channels=3 if channels == 3 else 1), "data.valid")
    if valid.pixels.shape[1:] != train.pixels.shape[1:]:
        found = "x".join(map(str, valid.pixels.shape[2:]))
        sizes = f"images of {found} pixels, data.train of {height}x{width}"
        raise UserError(f"data.valid has {sizes}: give data.size")
    if valid.classes != train.classes:
        found, expected = (", ".join(each.classes) or "(none)" for each in (valid, train))
        raise UserError(f"data.valid has the classes {found}, data.train {expected}")
    return train, valid


def read_images(name: str, key: str, shape: tuple[int, int, int]) -> Images:
    """Reads images and fits them to a shape.

    Args:
        name: Images, given as in `DataConfig.train`.
        key: Name of the option, for error messages.
        shape: Channels, height and width.

    Raises:
        UserError: If the images cannot be used.
    """
    channels, height, width = shape
    return _read(name, DataConfig(channels=3 if channels == 3 else 1), key, (height, width))


def _split(images: Images, valid_share: float) -> tuple[Images, Images]:
    """Training and validation images, the same at every call."""
    n = round(len(images) * valid_share)
    if not 0 < n < len(images):
        few = f"data.train has {len(images)} images, too few to hold out data.valid_share"
        raise UserError(f"{few} = {valid_share:g} of them: give data.valid")
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(images)))
    return images[order[n:]], images[order[:n]]


def _read(name: str, data: DataConfig, key: str, size: Size | None = None) -> Images:
    """The images at `size`, by default data.size; if both are None, at their own size."""
    square = (data.size, data.size) if data.size else None
    path, shape = Path(name), Shape(size or square, data.channels)
    if name in BUILT_IN:
        images = BUILT_IN[name]()
    elif path.is_dir() or (path.suffix == ".zip" and path.is_file()):
        images = _read_files(path, shape, key)
    elif path.exists():
        images = _read_idx_images(path, key)
    elif not looks_local(name) and "/" in name:
        images = _load_hub(name, shape, key)
    else:
        kinds = "an idx file, a folder or .zip of images, or a hub name user/name"
        raise UserError(f"{key} {name} does not exist: give {', '.join(BUILT_IN)}, {kinds}")
    channels, *found = images.pixels.shape[1:]
    if (channels, *found) != (shape.channels or channels, *(shape.size or found)):
        pixels = stack([*to_pillow(images.pixels)], shape, key)
        images = replace(images, pixels=pixels)
    return images if data.labels else Images(images.pixels)


def digits() -> Images:
    """1,797 handwritten digits, 8x8, of 17 shades (scikit-learn; Alpaydin & Kaynak, 1998)."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        missing = "the digits come with scikit-learn: pip install 'textdiff[image]'"
        raise UserError(missing) from error
    found = load_digits()
    pixels = torch.from_numpy(found.images / 16 * 255).round().byte().unsqueeze(1)
    return Images(pixels, torch.from_numpy(found.target).long(), tuple("0123456789"))


def _read_idx_images(path: Path, key: str) -> Images:
    array = read_idx(path, key)
    if array.ndim != 3:
        rule = f"an idx file of images has 3 dimensions, this one has {array.ndim}"
        raise UserError(f"{key} {path} does not hold images: {rule}")
    pixels, beside = torch.from_numpy(array).unsqueeze(1), labels_path(path)
    if beside is None:
        return Images(pixels)
    labels = read_idx(beside, key).astype(np.int64)
    if labels.shape != array.shape[:1]:
        raise UserError(f"{beside} has {labels.size} labels for the {len(array)} images of {path}")
    classes = tuple(map(str, range(int(labels.max()) + 1)))
    return Images(pixels, torch.from_numpy(labels), classes)


def _read_files(path: Path, shape: Shape, key: str) -> Images:
    """All images of a folder or .zip, by name. If there are sub-folders, they are the classes."""
    names, read = _open_files(path, key)
    if not names:
        raise UserError(f"{key} {path} holds no images ({' '.join(sorted(SUFFIXES))})")
    read_names, images = _readable(names, lambda name: decode(read(name)), shape, key, str(path))
    folders = [str(Path(name).parent) for name in read_names]
    found = sorted(set(folders))
    pixels = stack(images, shape, key)
    if len(found) < 2:
        return Images(pixels)
    if "." in found:
        way_out = "move them into one, or give --data.labels false"
        raise UserError(f"{key} {path} has images beside its folders, the classes: {way_out}")
    last = [Path(name).name for name in found]
    classes = last if len(set(last)) == len(last) else found
    labels = torch.tensor([found.index(folder) for folder in folders])
    return Images(pixels, labels, tuple(classes))


def _open_files(path: Path, key: str) -> tuple[list[str], Callable[[str], bytes]]:
    """Names of the image files in a folder or .zip, and a function that reads one of them."""
    if path.is_dir():
        files = (file for file in path.rglob("*") if file.is_file())
        found = [str(file.relative_to(path)) for file in files if file.suffix.lower() in SUFFIXES]
        return sorted(found), lambda name: (path / name).read_bytes()
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{key} {path} cannot be read: {error}") from error

    def read(name: str) -> bytes:
        if archive.getinfo(name).file_size > MAX_ENTRY_BYTES:
            raise ValueError(f"has more than {MAX_ENTRY_BYTES:,} bytes")
        return archive.read(name)

    entries = (name for name in archive.namelist() if "__MACOSX" not in name)
    return sorted(name for name in entries if Path(name).suffix.lower() in SUFFIXES), read


def _load_hub(name: str, shape: Shape, key: str) -> Images:
    """The training or test split of a data set on the hub, with its classes if it has any."""
    import datasets

    try:
        rows: Any = datasets.load_dataset(name, split="train" if key == "data.train" else "test")
    except Exception as error:  # datasets and the hub raise many kinds
        raise UserError(f"{key} {name} cannot be loaded: {_one_line(error, 200)}") from error
    kinds = {column: type(feature).__name__ for column, feature in rows.features.items()}
    columns = {kind: column for column, kind in reversed(kinds.items())}  # the first of each kind
    if "Image" not in columns:
        found = ", ".join(f"{column} ({kind})" for column, kind in kinds.items())
        raise UserError(f"{key} {name} has no column of images, only {found}")
    column, label = columns["Image"], columns.get("ClassLabel")
    raw = rows.cast_column(column, datasets.Image(decode=False))

    def read(row: int) -> Image.Image:
        cell = raw[row][column]
        return decode(cell["bytes"] or Path(cell["path"]).read_bytes())

    read_rows, images = _readable(range(len(raw)), read, shape, key, name)
    pixels = stack(images, shape, key)
    if label is None:
        return Images(pixels)
    labels = torch.tensor(rows[label])[read_rows]
    if labels.min() < 0:  # -1 stands for no label
        return Images(pixels)
    return Images(pixels, labels, tuple(rows.features[label].names))


def _readable(
    names: Iterable[Any], read: Callable[[Any], Image.Image], shape: Shape, key: str, source: str
) -> tuple[list[Any], list[Image.Image]]:
    """Names and images of those that can be read. A warning counts and names the others."""
    good, images, bad = [], list[Image.Image](), list[str]()
    for name in names:
        try:
            images.append(shrink(read(name), shape))
            good.append(name)
        except Exception as error:  # Pillow raises many kinds for damaged files
            bad.append(f"{name} ({_one_line(error, 80)})")
    if bad:
        count, total = len(bad), len(bad) + len(good)
        listed = ", ".join(bad[:3]) + ", ..." * (count > 3)
        log.warning("%s %s: %d of %d images cannot be read: %s", key, source, count, total, listed)
    if not good:
        raise UserError(f"{key} {source}: none of its {len(bad)} images can be read")
    return good, images


def _one_line(error: Exception, length: int) -> str:
    return " ".join(str(error).split())[:length]


BUILT_IN: dict[str, Callable[[], Images]] = {"digits": digits, "dots": lambda: Images(dots())}
