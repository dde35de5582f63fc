"""Laws of decoding: every image mode becomes the colours that people see."""

import pytest
import torch
from image_files import first_pixels, picture
from PIL import Image

from image.decoding import decode

MODES = {
    "grey": (picture("L", value=77), [77]),
    "bilevel": (picture("1", value=1), [255]),
    "rgb": (picture("RGB", value=(1, 2, 3)), [1, 2, 3]),
    "palette": (picture("RGB", value=(1, 2, 3)).quantize(2), [1, 2, 3]),
    "transparent": (picture("RGBA", value=(10, 20, 30, 0)), [255, 255, 255]),
    "opaque": (picture("RGBA", value=(10, 20, 30, 255)), [10, 20, 30]),
    "grey and alpha": (picture("LA", value=(10, 0)), [255]),
    "16 bits white": (picture("I;16", value=65535), [255]),
    "16 bits": (picture("I;16", value=257 * 100), [100]),
}


@pytest.mark.parametrize(("image", "expected"), MODES.values(), ids=MODES)
def test_every_mode_is_decoded_to_visible_colours(folder, image, expected):
    assert first_pixels(folder(a=image, b=image))[:, 4, 4].tolist() == expected


def test_exif_orientation_is_applied(tmp_path):
    image, exif = picture(size=(4, 8), value=0), Image.Exif()
    image.putpixel((0, 0), 255)
    exif[0x0112] = 6  # to be turned by 90 degrees to the right
    image.save(tmp_path / "a.png", exif=exif)
    turned = decode((tmp_path / "a.png").read_bytes())
    assert turned.size == (8, 4)
    assert turned.getpixel((7, 0)) == 255


def test_resizing_keeps_the_middle_square(folder):
    wide = picture(size=(24, 8), value=0)
    wide.paste(200, (8, 0, 16, 8))
    expected = torch.full((1, 8, 8), 200, dtype=torch.uint8)
    assert torch.equal(first_pixels(folder(a=wide, b=wide), size=8), expected)
