"""Laws of idx files: images and labels stay together, and damaged files are refused."""

import gzip
import struct

import numpy as np
import pytest
import torch
from image_files import idx_bytes, opened

from textdiff.config import UserError

BROKEN = {
    "empty": b"",
    "no idx": b"no idx file",
    "too short": idx_bytes(np.ones((2, 3, 3)))[:-1],
    "no gzip": b"\x1f\x8bnonsense",
    "broken gzip": gzip.compress(bytes(99))[:10] + b"\xff" * 20,
    "of no size": b"\0\0\x08\x03\0\0\0\0" + 8 * b"\0",
}


def test_idx_files_keep_images_and_labels_together(mnist):
    train, _ = opened(mnist)
    assert train.pixels.shape[1:] == (1, 5, 7)
    assert torch.equal(train.labels, train.pixels[:, 0, 0, 0] % 3)
    assert train.classes == ("0", "1", "2")


def test_reading_stops_where_the_header_says(tmp_path, monkeypatch):
    path, sizes, read = tmp_path / "images-idx3-ubyte.gz", list[int](), gzip.GzipFile.read
    path.write_bytes(gzip.compress(b"\0" * 10**7))

    def recorded(self: gzip.GzipFile, size: int = -1) -> bytes:
        sizes.append(size)
        return read(self, size)

    monkeypatch.setattr(gzip.GzipFile, "read", recorded)
    with pytest.raises(UserError, match="nor a complete idx file"):
        opened(path)
    assert sizes
    assert 0 <= min(sizes) <= max(sizes) < 100
    path.write_bytes(gzip.compress(struct.pack(">4B3I", 0, 0, 8, 3, 2**31, 2**10, 2**10)))
    with pytest.raises(UserError, match="its header promises"):
        opened(path)


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_broken_idx_file_is_refused_by_name(tmp_path, content):
    (tmp_path / "images").write_bytes(content)
    with pytest.raises(UserError, match=r"data\.train .*images"):
        opened(tmp_path / "images")


def test_too_few_labels_are_refused(mnist):
    mnist.with_name("train-labels-idx1-ubyte.gz").write_bytes(idx_bytes(np.zeros(3)))
    with pytest.raises(UserError, match="3 labels for the 10 images"):
        opened(mnist)
