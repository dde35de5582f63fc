"""Broken image files: counted and named if there are others, refused in one line if not."""

import io
import pickle
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from PIL import Image

from image.config import DataConfig
from image.sources import open_images
from robustness.harness import Result, run_child


def broken_images(folder: Path) -> Iterator[Result]:
    """Opens folders with one broken image and with two good ones or none."""
    buffer = io.BytesIO()
    Image.new("L", (8, 8), 100).save(buffer, "PNG")
    good = buffer.getvalue()
    cases = _broken_files(good)
    held = 0
    for name, content in cases.items():
        for others in (2, 0):
            home = folder / f"{name}-{others}"
            home.mkdir()
            (home / f"{name}.png").write_bytes(content)
            for number in range(others):
                (home / f"good-{number}.png").write_bytes(good)
            code, output = run_child(partial(_read, home, others))
            warning = f"1 of {others + 1} images cannot be read: {name}.png"
            held += code == (0 if others else 2) and warning in output
    claim = "images: broken ones counted and named, or an error of one line"
    yield Result(claim, held, 2 * len(cases))


def _broken_files(good: bytes) -> dict[str, bytes]:
    return {
        "empty": b"",
        "text": b"no image",
        "half": good[: len(good) // 2],
        "head": good[:20],
        "flipped": good[:40] + bytes([good[40] ^ 255]) + good[41:],
        "gif-name": b"GIF89a",
        "jpeg-head": b"\xff\xd8\xff\xe0" + b"\0" * 20,
        "bmp-head": b"BM" + b"\0" * 30,
        "zeros": b"\0" * 1000,
        "pickle": pickle.dumps({"a": 1}),
    }


def _read(home: Path, expected: int) -> None:
    train, valid = open_images(DataConfig(train=str(home), valid_share=0.5))
    assert len(train) + len(valid) == expected
