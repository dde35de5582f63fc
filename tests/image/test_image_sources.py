import gzip
import logging
import struct
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from image import sources
from image.config import Data
from image.data import batched, in_turn
from image.dots import dots, judge
from image.sources import Images, decoded, images_of, open_images
from textdiff.config import InputError, Train


def opened(path, **options) -> tuple[Images, Images]:
    return open_images(Data(train=str(path), **{"valid_share": 0.5} | options))


def pixels_of(path, **options) -> torch.Tensor:
    """Of the one image in a folder, twice: so that one can be held out."""
    train, _ = opened(path, **options)
    return train.pixels[0]


def picture(mode: str = "L", size: tuple[int, int] = (8, 8), value: object = 100) -> Image.Image:
    return Image.new(mode, size, value)


@pytest.fixture
def folder(tmp_path):
    """`folder(name=image, ...)`: a folder of images; `__` in a name stands for a slash."""

    def new(**images: Image.Image):
        for name, image in images.items():
            path = tmp_path / "images" / (name.replace("__", "/") + ".png")
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
        return tmp_path / "images"

    return new


def idx(array: np.ndarray) -> bytes:
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()


@pytest.fixture
def mnist(tmp_path):
    """Ten images, of number i all i, with labels."""
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(np.arange(10)[:, None, None] * np.ones((1, 5, 7)))))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.arange(10) % 3)))
    return tmp_path / "train-images-idx3-ubyte.gz"


# --- sources


def test_digits_are_digits():
    train, valid = open_images(Data())
    assert (len(train), len(valid)) == (1617, 180)
    assert train.pixels.shape[1:] == (1, 8, 8)
    assert set(train.labels.tolist()) == set(range(10))
    assert train.pixels.max() == 255


def test_training_and_validation_images_are_different_ones_and_all_there_are(mnist):
    train, valid = opened(mnist, valid_share=0.3)
    assert sorted(train.pixels[:, 0, 0, 0].tolist() + valid.pixels[:, 0, 0, 0].tolist()) == list(range(10))
    assert len(valid) == 3


def test_idx_files_keep_images_and_labels_together(mnist):
    train, _ = opened(mnist)
    assert train.pixels.shape[1:] == (1, 5, 7)
    assert torch.equal(train.labels, train.pixels[:, 0, 0, 0] % 3)
    assert train.classes == ("0", "1", "2")


def test_labels_can_be_left_out(mnist):
    train, _ = opened(mnist, labels=False)
    assert train.labels is None
    assert not train.classes


@pytest.mark.parametrize("zipped", [False, True])
def test_the_folders_of_a_folder_or_zip_are_classes(folder, tmp_path, zipped):
    path = folder(cat__a=picture(value=1), cat__b=picture(value=1), dog__a=picture(value=2), dog__b=picture(value=2))
    if zipped:
        with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
            for file in path.rglob("*.png"):
                archive.write(file, file.relative_to(path))
        path = tmp_path / "images.zip"
    train, valid = opened(path)
    assert train.classes == ("cat", "dog")
    for images in (train, valid):
        assert torch.equal(images.labels + 1, images.pixels[:, 0, 0, 0])


def test_images_of_one_folder_have_no_classes(folder):
    assert opened(folder(a=picture(), b=picture()))[0].labels is None


def test_images_too_large_to_be_used_as_they_are_are_resized_or_refused(folder):
    path = folder(a=picture(size=(2000, 600)), b=picture(size=(2000, 600)))
    with pytest.raises(InputError, match="none of its 2 images"):
        opened(path)
    assert opened(path, size=8)[0].pixels.shape == (1, 1, 8, 8)


def test_no_more_of_a_packed_idx_file_is_read_than_its_header_says(tmp_path, monkeypatch):
    path, read = tmp_path / "images-idx3-ubyte.gz", list[int]()
    path.write_bytes(gzip.compress(b"\0" * 10**7))
    monkeypatch.setattr(gzip.GzipFile, "read", lambda self, size=-1, original=gzip.GzipFile.read: read.append(size) or original(self, size))
    with pytest.raises(InputError, match="nor a whole idx file"):
        opened(path)
    assert 0 <= max(read) < 100
    path.write_bytes(gzip.compress(struct.pack(">4B3I", 0, 0, 8, 3, 2**31, 2**10, 2**10)))
    with pytest.raises(InputError, match="says that it holds"):
        opened(path)


def test_images_are_fitted_to_a_shape_that_is_not_square(folder):
    assert images_of(str(folder(a=picture(size=(9, 30)), b=picture(size=(20, 20)))), "--data", (1, 6, 4)).pixels.shape == (2, 1, 6, 4)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (picture("L", value=77), [77]),
        (picture("1", value=1), [255]),
        (picture("RGB", value=(1, 2, 3)), [1, 2, 3]),
        (picture("RGB", value=(1, 2, 3)).quantize(2), [1, 2, 3]),
        (picture("RGBA", value=(10, 20, 30, 0)), [255, 255, 255]),
        (picture("RGBA", value=(10, 20, 30, 255)), [10, 20, 30]),
        (picture("LA", value=(10, 0)), [255]),
        (picture("I;16", value=65535), [255]),
        (picture("I;16", value=257 * 100), [100]),
    ],
    ids=["grey", "bilevel", "rgb", "palette", "transparent", "opaque", "grey and alpha", "16 bits white", "16 bits"],
)
def test_every_kind_of_image_is_seen_as_people_see_it(folder, image, expected):
    assert pixels_of(folder(a=image, b=image))[:, 4, 4].tolist() == expected


def test_a_photograph_is_turned_as_its_exif_says(tmp_path):
    image, exif = picture(size=(4, 8), value=0), Image.Exif()
    image.putpixel((0, 0), 255)
    exif[0x0112] = 6  # to be turned by 90 degrees to the right
    image.save(tmp_path / "a.png", exif=exif)
    turned = decoded((tmp_path / "a.png").read_bytes())
    assert turned.size == (8, 4)
    assert turned.getpixel((7, 0)) == 255


def test_the_middle_is_cut_out(folder):
    wide = picture(size=(24, 8), value=0)
    wide.paste(200, (8, 0, 16, 8))
    assert torch.equal(pixels_of(folder(a=wide, b=wide), size=8), torch.full((1, 8, 8), 200, dtype=torch.uint8))


def test_built_in_images_can_be_resized_and_coloured():
    train, _ = open_images(Data(train="digits", size=16, channels=3))
    assert train.pixels.shape[1:] == (3, 16, 16)


def test_greys_among_colours_become_what_most_are(folder):
    train, valid = opened(
        folder(a=picture("RGB", value=(1, 2, 3)), b=picture(), c=picture("RGB", value=(1, 2, 3)), d=picture("RGB", value=(1, 2, 3)))
    )
    assert train.pixels.shape[1:] == valid.pixels.shape[1:] == (3, 8, 8)


# --- what cannot be used


def test_what_cannot_be_read_is_counted_and_named(folder, caplog):
    path = folder(a=picture(), b=picture())
    (path / "broken.png").write_bytes((path / "a.png").read_bytes()[:40])
    (path / "empty.jpg").write_bytes(b"")
    with caplog.at_level(logging.WARNING, "textdiff"):
        train, valid = opened(path)
    assert len(train) + len(valid) == 2
    assert f"data.train {path}: 2 of 4 images cannot be read: broken.png" in caplog.text
    assert "empty.jpg (is no image)" in caplog.text


def test_a_decompression_bomb_is_not_decoded(folder, caplog, monkeypatch):
    monkeypatch.setattr(sources, "PIXELS", 100)
    path = folder(a=picture(), b=picture(), bomb=picture(size=(20, 20)))
    with caplog.at_level(logging.WARNING, "textdiff"):
        opened(path)
    assert "bomb.png (20x20 pixels" in caplog.text


def test_an_archives_bomb_is_not_unpacked(folder, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(sources, "BYTES", 1000)
    path = folder(a=picture(), b=picture())
    with zipfile.ZipFile(tmp_path / "images.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in path.iterdir():
            archive.write(file, file.name)
        archive.writestr("bomb.png", bytes(10_000))
    with caplog.at_level(logging.WARNING, "textdiff"):
        train, valid = opened(tmp_path / "images.zip")
    assert len(train) + len(valid) == 2
    assert "bomb.png (has more than 1,000 bytes)" in caplog.text


def test_classes_of_one_name_keep_their_paths_and_loose_images_are_refused(folder):
    path = folder(x__cat__a=picture(value=1), x__cat__b=picture(value=1), y__cat__a=picture(value=2), y__cat__b=picture(value=2))
    assert opened(path)[0].classes == ("x/cat", "y/cat")
    picture().save(path / "loose.png")
    with pytest.raises(InputError, match=r"beside its folders.*--data\.labels false"):
        opened(path)


def test_mixed_sizes_are_refused_with_the_way_out(folder):
    with pytest.raises(InputError, match=r"2 sizes .*8x8.*data\.size"):
        opened(folder(a=picture(), b=picture(), c=picture(size=(9, 8))))


def test_a_folder_of_nothing_but_broken_images_is_refused(folder):
    path = folder(a=picture())
    (path / "a.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="none of its 1 images"):
        opened(path)


BROKEN_IDX = {
    "empty": b"",
    "no idx": b"no idx file",
    "too short": idx(np.ones((2, 3, 3)))[:-1],
    "no gzip": b"\x1f\x8bnonsense",
    "broken gzip": gzip.compress(bytes(99))[:10] + b"\xff" * 20,
    "of no size": b"\0\0\x08\x03\0\0\0\0" + 8 * b"\0",
}


@pytest.mark.parametrize("content", BROKEN_IDX.values(), ids=BROKEN_IDX)
def test_a_broken_idx_file_is_refused_by_name(tmp_path, content):
    (tmp_path / "images").write_bytes(content)
    with pytest.raises(InputError, match=r"data\.train .*images"):
        opened(tmp_path / "images")


@pytest.mark.parametrize(("name", "message"), [("nowhere", "does not exist"), ("no.zip", "does not exist"), ("./no/where", "does not exist")])
def test_what_is_not_there_is_named(name, message):
    with pytest.raises(InputError, match=message):
        opened(name)


def test_an_empty_folder_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match="holds no images"):
        opened(tmp_path)


def test_labels_that_are_too_few_are_refused(mnist):
    mnist.with_name("train-labels-idx1-ubyte.gz").write_bytes(idx(np.zeros(3)))
    with pytest.raises(InputError, match="3 labels for the 10 images"):
        opened(mnist)


def test_validation_images_of_another_size_or_other_classes_are_refused(mnist, folder):
    with pytest.raises(InputError, match=r"data\.size"):
        open_images(Data(train=str(mnist), valid=str(folder(a=picture(), b=picture()))))
    with pytest.raises(InputError, match="classes"):
        open_images(Data(train="digits", valid=str(folder(a=picture(), b=picture()))))


# --- batches


def test_an_epoch_holds_every_image_once(mnist):
    train, _ = opened(mnist, valid_share=0.2)
    steps = batched(train, False, Train(batch_size=4), 0, rank=0, world=1)
    seen = torch.cat([next(steps)[0].tensors["pixels"][:, 0, 0, 0] for _ in range(2)])
    assert sorted(seen.tolist()) == sorted(train.pixels[:, 0, 0, 0].tolist())


def test_half_of_the_images_are_mirrored_and_none_without_flip():
    train = Images(torch.tensor([[[[0, 255]]]], dtype=torch.uint8).repeat(1000, 1, 1, 1))
    flipped, plain = (next(batched(train, flip, Train(batch_size=1000), 0, rank=0, world=1))[0].tensors["pixels"] for flip in (True, False))
    assert (flipped[:, 0, 0, 0] == 255).float().mean().item() == pytest.approx(0.5, abs=0.08)
    assert not plain[:, 0, 0, 0].any()


def test_once_in_turn_all_shares_add_up_to_one(mnist):
    train, _ = opened(mnist)
    micros = [micro for rank in range(2) for micro in in_turn(train, 2, rank, world=2)]
    assert_close(sum(micro.share for micro in micros), 1.0)


# --- dots


def test_every_image_of_the_dots_has_one_and_they_are_uniform():
    verdict = judge(dots(4000))
    assert verdict.single == 1
    assert verdict.uniform_p > 0.01


def test_two_dots_and_none_are_not_one_and_a_corner_is_not_everywhere():
    pixels = dots(100)
    pixels[:20] = 0
    pixels[20:30, :, 0, :2] = 255
    pixels[20:30, :, 5, 5] = 255
    assert judge(pixels).single == pytest.approx(0.7)
    assert judge(dots(100).clamp(min=80)).single == 0  # on grey
    assert judge(dots(100).clamp(max=150)).single == 0  # grey
    corner = torch.zeros(500, 1, 16, 16, dtype=torch.uint8)
    corner[:, :, 0, 0] = 255
    assert judge(corner).uniform_p < 1e-6
