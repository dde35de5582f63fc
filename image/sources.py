"""Images from wherever they come, as one tensor of bytes. Knows files, neither batches nor the model.

Sizes are made equal by resizing the shorter side and cutting out the middle, or are refused; what cannot be read is counted and named.
"""

import gzip
import logging
import math
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from image.config import Data
from image.dots import dots
from textdiff.config import InputError
from textdiff.pretrained import looks_local

log = logging.getLogger("textdiff")

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
PIXELS, BYTES = 2**27, 2**28  # of one image, and of its file in an archive: more is taken for a decompression bomb
UNRESIZED = 2**20  # pixels of an image that is used as it is: no network here is trained on more
IDX_BYTES = 2**31

Size = tuple[int, int]  # height, width


class Fit(NamedTuple):
    """What images are made to be; nothing: as they are, or as most of them are."""

    size: Size | None
    channels: int | None


MODES: dict[int | None, str] = {1: "L", 3: "RGB"}  # channels -> Pillow's name


@dataclass(frozen=True)
class Images:
    """Images of one size; `labels` number `classes`, or there are none."""

    pixels: UInt8[Tensor, "n c h w"]
    labels: Int[Tensor, " n"] | None = None
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, rows: Any) -> "Images":
        return replace(self, pixels=self.pixels[rows], labels=None if self.labels is None else self.labels[rows])


def open_images(data: Data) -> tuple[Images, Images]:
    """Training and validation images. Raises InputError for what cannot be used."""
    train = _read(data.train, data, "data.train")
    if data.valid is None:
        n = round(len(train) * data.valid_share)
        if not 0 < n < len(train):
            raise InputError(f"data.train has {len(train)} images, too few to hold out data.valid_share = {data.valid_share:g}: give data.valid")
        order = torch.from_numpy(np.random.default_rng(0).permutation(len(train)))
        return train[order[n:]], train[order[:n]]
    _, height, width = train.pixels.shape[1:]
    valid = _read(data.valid, replace(data, channels=3 if len(train.pixels[0]) == 3 else 1), "data.valid")
    if valid.pixels.shape[1:] != train.pixels.shape[1:]:
        found = "x".join(map(str, valid.pixels.shape[2:]))
        raise InputError(f"data.valid has images of {found} pixels, data.train of {height}x{width}: give data.size")
    if valid.classes != train.classes:
        raise InputError(f"data.valid has the classes {', '.join(valid.classes) or '(none)'}, data.train {', '.join(train.classes) or '(none)'}")
    return train, valid


def images_of(name: str, key: str, shape: tuple[int, int, int]) -> Images:
    """Images fitted to a shape. Raises InputError for what cannot be used."""
    channels, height, width = shape
    return _read(name, Data(channels=3 if channels == 3 else 1), key, (height, width))


def _read(name: str, data: Data, key: str, size: Size | None = None) -> Images:
    """At a (height, width), else at data.size, else as they are."""
    path, fit = Path(name), Fit(size or ((data.size, data.size) if data.size else None), data.channels)
    if name in BUILT_IN:
        images = BUILT_IN[name]()
    elif path.is_dir() or (path.suffix == ".zip" and path.is_file()):
        images = _files(path, fit, key)
    elif path.exists():
        images = _idx(path, key)
    elif not looks_local(name) and "/" in name:
        images = _hub(name, fit, key)
    else:
        raise InputError(f"{key} {name} does not exist: give {', '.join(BUILT_IN)}, an idx file, a folder or .zip of images, or a hub name user/name")
    channels, *found = images.pixels.shape[1:]
    if (channels, *found) != (fit.channels or channels, *(fit.size or found)):
        images = replace(images, pixels=_stacked(_of_one_kind(list(_pictures(images.pixels)), fit), key))
    return images if data.labels else Images(images.pixels)


# --- sources


def digits() -> Images:
    """1,797 handwritten digits, 8x8, of 17 shades (scikit-learn; Alpaydin & Kaynak, 1998)."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise InputError("the digits come with scikit-learn: pip install 'textdiff[image]'") from error
    found = load_digits()
    pixels = torch.from_numpy(found.images / 16 * 255).round().byte().unsqueeze(1)
    return Images(pixels, torch.from_numpy(found.target).long(), tuple(map(str, range(10))))


def _idx(path: Path, key: str) -> Images:
    """MNIST's format: http://yann.lecun.com/exdb/mnist; labels from the file of the same name with labels-idx1 for images-idx3."""
    pixels = _idx_array(path, key)
    if pixels.ndim != 3:
        raise InputError(f"{key} {path} holds no images: an idx file of images has 3 dimensions, this one {pixels.ndim}")
    beside = path.with_name(path.name.replace("images-idx3", "labels-idx1").replace("images.idx3", "labels.idx1"))
    if beside == path or not beside.exists():
        return Images(torch.from_numpy(pixels).unsqueeze(1))
    labels = _idx_array(beside, key).astype(np.int64)
    if labels.shape != pixels.shape[:1]:
        raise InputError(f"{beside} has {labels.size} labels for the {len(pixels)} images of {path}")
    return Images(torch.from_numpy(pixels).unsqueeze(1), torch.from_numpy(labels), tuple(map(str, range(int(labels.max()) + 1))))


def _idx_array(path: Path, key: str) -> np.ndarray:
    """No more of a file is read than its header says there is, for a small .gz may hold gigabytes."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            head = file.read(4)
            ndim = head[3] if head[:3] == b"\0\0\x08" and len(head) == 4 else 0
            shape = np.frombuffer(file.read(4 * ndim).ljust(4 * ndim, b"\0"), ">u4")
            size = math.prod(map(int, shape)) if ndim else 0
            if size > IDX_BYTES:
                raise InputError(f"{key} {path} says that it holds {size:,} bytes, more than {IDX_BYTES:,}")
            content = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{key} {path} cannot be read: {error}") from error
    if not size or len(content) != size:
        raise InputError(f"{key} {path} is neither an image folder, a .zip nor a whole idx file of bytes")
    return np.frombuffer(content, np.uint8).reshape(shape).copy()


def _files(path: Path, fit: Fit, key: str) -> Images:
    """All images of a folder or .zip, in the order of their names; the folder that holds one is its class, if there are several."""
    if path.is_dir():
        opened: Callable[[str], bytes] = lambda name: (path / name).read_bytes()  # noqa: E731
        names = sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file() and file.suffix.lower() in SUFFIXES)
    else:
        try:
            archive = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise InputError(f"{key} {path} cannot be read: {error}") from error
        opened = partial(_entry, archive)
        names = sorted(name for name in archive.namelist() if Path(name).suffix.lower() in SUFFIXES and "__MACOSX" not in name)
    if not names:
        raise InputError(f"{key} {path} holds no images ({' '.join(sorted(SUFFIXES))})")
    pictures = _readable(names, lambda name: _small(decoded(opened(name)), fit), key, str(path))
    folders = [str(Path(name).parent) for name, _ in pictures]
    found = sorted(set(folders))
    pixels = _stacked(_of_one_kind([picture for _, picture in pictures], fit), key)
    if len(found) < 2:
        return Images(pixels)
    if "." in found:
        raise InputError(f"{key} {path} has images beside its folders, which are classes: move them into one, or --data.labels false")
    last = [Path(name).name for name in found]
    return Images(pixels, torch.tensor([found.index(folder) for folder in folders]), tuple(last if len(set(last)) == len(last) else found))


def _hub(name: str, fit: Fit, key: str) -> Images:
    """A data set of the hub: its training split, its image column and, if it has one, its column of classes."""
    import datasets

    try:
        rows: Any = datasets.load_dataset(name, split="train" if key == "data.train" else "test")
    except Exception as error:  # datasets and the hub raise many kinds
        raise InputError(f"{key} {name} cannot be loaded: {' '.join(str(error).split())[:200]}") from error
    kinds = {column: type(feature).__name__ for column, feature in rows.features.items()}
    column = next((column for column, kind in kinds.items() if kind == "Image"), None)
    if column is None:
        raise InputError(f"{key} {name} has no column of images, only {', '.join(f'{column} ({kind})' for column, kind in kinds.items())}")
    label = next((column for column, kind in kinds.items() if kind == "ClassLabel"), None)
    raw = rows.cast_column(column, datasets.Image(decode=False))

    def read(row: str) -> Image.Image:
        cell = raw[int(row)][column]
        return _small(decoded(cell["bytes"] or Path(cell["path"]).read_bytes()), fit)

    pictures = _readable(map(str, range(len(raw))), read, key, name)
    pixels = _stacked(_of_one_kind([picture for _, picture in pictures], fit), key)
    if label is None:
        return Images(pixels)
    labels = torch.tensor(rows[label])[[int(row) for row, _ in pictures]]
    return Images(pixels, labels, tuple(rows.features[label].names)) if labels.min() >= 0 else Images(pixels)  # -1: not labelled


BUILT_IN: dict[str, Callable[[], Images]] = {"digits": digits, "dots": lambda: Images(dots())}


# --- one image


def decoded(content: bytes) -> Image.Image:
    """As people see it: turned as its EXIF says, on white where it is transparent, 8 bits a channel, grey (L) or RGB."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image: Image.Image = Image.open(BytesIO(content))
        except UnidentifiedImageError as error:
            raise ValueError("is no image") from error
        if image.width * image.height > PIXELS:
            raise ValueError(f"{image.width}x{image.height} pixels are more than {PIXELS:,}")
        image.load()
        image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("has floating-point pixels, of which nobody knows what is white")
    if image.mode.startswith("I"):
        values = np.asarray(image, dtype=np.float64)
        top = 65535 if image.mode.startswith("I;16") or values.max() > 255 else 255
        return Image.fromarray((values.clip(0, top) * (255 / top)).round().astype(np.uint8), "L")
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        grey, image = image.mode in ("L", "LA", "La"), image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("L" if grey else "RGB")
    return image if image.mode == "L" else image.convert("L" if image.mode == "1" else "RGB")


def fitted(image: Image.Image, size: Size, mode: str) -> np.ndarray:
    """The largest middle part of the wanted proportions, at the wanted size."""
    height, width = size
    image = image.convert(mode)
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    return np.asarray(image)


def _readable(names: Iterable[str], read: Callable[[str], Image.Image], key: str, source: str) -> list[tuple[str, Image.Image]]:
    """Those that can be read; the others are counted, and the first few named."""
    good, bad = [], list[str]()
    for name in names:
        try:
            good.append((name, read(name)))
        except Exception as error:  # Pillow raises many kinds for what is broken
            bad.append(f"{name} ({' '.join(str(error).split())[:80]})")
    if bad:
        log.warning(
            "%s %s: %d of %d images cannot be read: %s%s", key, source, len(bad), len(bad) + len(good), ", ".join(bad[:3]), ", ..." * (len(bad) > 3)
        )
    if not good:
        raise InputError(f"{key} {source}: none of its {len(bad)} images can be read")
    return good


def _entry(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > BYTES:
        raise ValueError(f"has more than {BYTES:,} bytes")
    return archive.read(name)


def _small(image: Image.Image, fit: Fit) -> Image.Image:
    """Resized at once, so that no more than one picture is there in its full size."""
    if fit.size is None and image.width * image.height > UNRESIZED:
        raise ValueError(f"{image.height}x{image.width} pixels are too many to be used as they are: give data.size")
    return ImageOps.fit(image, fit.size[::-1], Image.Resampling.LANCZOS) if fit.size else image


def _of_one_kind(pictures: list[Image.Image], fit: Fit) -> list[np.ndarray]:
    most = Counter(picture.mode for picture in pictures).most_common(1)[0][0]
    mode = MODES.get(fit.channels, most)
    return [fitted(picture, fit.size or (picture.height, picture.width), mode) for picture in pictures]


def _pictures(pixels: Tensor) -> Iterator[Image.Image]:
    for image in pixels.numpy():
        yield Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))


def _stacked(arrays: list[np.ndarray], key: str) -> Tensor:
    sizes = Counter(array.shape[:2] for array in arrays)
    if len(sizes) > 1:
        found = ", ".join(f"{height}x{width}" for (height, width), _ in sizes.most_common(3))
        raise InputError(f"{key} has images of {len(sizes)} sizes ({found}{', ...' * (len(sizes) > 3)}): give data.size, to which all are resized")
    stack = torch.from_numpy(np.stack(arrays))
    return stack.unsqueeze(1) if stack.ndim == 3 else stack.permute(0, 3, 1, 2).contiguous()
