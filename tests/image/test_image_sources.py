"""Laws of the sources of images: which images, labels and classes are read, and what is refused."""

import logging
import zipfile

import pytest
import torch
from image_files import opened, picture

from image import decoding, sources
from image.config import DataConfig
from image.sources import Images, open_images, read_images
from textdiff.config import UserError


def test_digits_are_complete():
    train, valid = open_images(DataConfig())
    assert (len(train), len(valid)) == (1617, 180)
    assert train.pixels.shape[1:] == (1, 8, 8)
    assert set(train.labels.tolist()) == set(range(10))
    assert train.pixels.max() == 255


def test_images_are_either_training_or_validation_images(mnist):
    train, valid = opened(mnist, valid_share=0.3)
    values = [images.pixels[:, 0, 0, 0].tolist() for images in (train, valid)]
    assert sorted(values[0] + values[1]) == list(range(10))
    assert len(valid) == 3


def test_chosen_images_keep_their_labels():
    images = Images(torch.arange(4).byte().view(4, 1, 1, 1), torch.arange(4), tuple("abcd"))
    chosen = images[torch.tensor([2, 0])]
    assert chosen.labels.tolist() == chosen.pixels.flatten().tolist() == [2, 0]


def test_labels_can_be_left_out(mnist):
    train, _ = opened(mnist, labels=False)
    assert train.labels is None
    assert not train.classes


@pytest.mark.parametrize("zipped", [False, True])
def test_folders_are_classes_also_in_zip(folder, tmp_path, zipped):
    cat, dog = picture(value=1), picture(value=2)
    path = folder(cat__a=cat, cat__b=cat, dog__a=dog, dog__b=dog)
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


def test_classes_of_one_name_keep_their_paths(folder):
    """Images beside the folders, which have no class, are refused."""
    one, two = picture(value=1), picture(value=2)
    path = folder(x__cat__a=one, x__cat__b=one, y__cat__a=two, y__cat__b=two)
    assert opened(path)[0].classes == ("x/cat", "y/cat")
    picture().save(path / "loose.png")
    with pytest.raises(UserError, match=r"beside its folders.*--data\.labels false"):
        opened(path)


def test_large_images_are_resized_or_refused(folder):
    path = folder(a=picture(size=(2000, 600)), b=picture(size=(2000, 600)))
    with pytest.raises(UserError, match="none of its 2 images"):
        opened(path)
    assert opened(path, size=8)[0].pixels.shape == (1, 1, 8, 8)


def test_images_fit_a_shape_that_is_not_square(folder):
    path = str(folder(a=picture(size=(9, 30)), b=picture(size=(20, 20))))
    assert read_images(path, "--data", (1, 6, 4)).pixels.shape == (2, 1, 6, 4)


def test_built_in_images_can_be_resized_and_coloured():
    train, _ = open_images(DataConfig(train="digits", size=16, channels=3))
    assert train.pixels.shape[1:] == (3, 16, 16)


def test_grey_images_among_colour_images_become_colour(folder):
    colour = picture("RGB", value=(1, 2, 3))
    train, valid = opened(folder(a=colour, b=picture(), c=colour, d=colour))
    assert train.pixels.shape[1:] == valid.pixels.shape[1:] == (3, 8, 8)


def test_unreadable_images_are_counted_and_named(folder, caplog):
    path = folder(a=picture(), b=picture())
    (path / "broken.png").write_bytes((path / "a.png").read_bytes()[:40])
    (path / "empty.jpg").write_bytes(b"")
    with caplog.at_level(logging.WARNING, "textdiff"):
        train, valid = opened(path)
    assert len(train) + len(valid) == 2
    assert f"data.train {path}: 2 of 4 images cannot be read: broken.png" in caplog.text
    assert "empty.jpg (is not an image)" in caplog.text


def test_decompression_bomb_is_not_decoded(folder, caplog, monkeypatch):
    monkeypatch.setattr(decoding, "MAX_PIXELS", 100)
    path = folder(a=picture(), b=picture(), bomb=picture(size=(20, 20)))
    with caplog.at_level(logging.WARNING, "textdiff"):
        opened(path)
    assert "bomb.png (20x20 pixels" in caplog.text


def test_bomb_in_archive_is_not_unpacked(folder, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(sources, "MAX_ENTRY_BYTES", 1000)
    path = folder(a=picture(), b=picture())
    with zipfile.ZipFile(tmp_path / "images.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in path.iterdir():
            archive.write(file, file.name)
        archive.writestr("bomb.png", bytes(10_000))
    with caplog.at_level(logging.WARNING, "textdiff"):
        train, valid = opened(tmp_path / "images.zip")
    assert len(train) + len(valid) == 2
    assert "bomb.png (has more than 1,000 bytes)" in caplog.text


def test_mixed_sizes_are_refused_with_way_out(folder):
    with pytest.raises(UserError, match=r"2 sizes .*8x8.*data\.size"):
        opened(folder(a=picture(), b=picture(), c=picture(size=(9, 8))))


def test_folder_of_broken_images_is_refused(folder):
    path = folder(a=picture())
    (path / "a.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="none of its 1 images"):
        opened(path)


@pytest.mark.parametrize("name", ["nowhere", "no.zip", "./no/where"])
def test_missing_source_is_named(name):
    with pytest.raises(UserError, match=f"data.train {name} does not exist"):
        opened(name)


def test_empty_folder_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match=rf"{tmp_path.name} holds no images"):
        opened(tmp_path)


def test_unlike_validation_images_are_refused(mnist, folder):
    """They have another size or other classes than the training images."""
    path = str(folder(a=picture(), b=picture()))
    with pytest.raises(UserError, match=r"data\.size"):
        open_images(DataConfig(train=str(mnist), valid=path))
    with pytest.raises(UserError, match="classes"):
        open_images(DataConfig(train="digits", valid=path))
