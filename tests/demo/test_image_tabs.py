"""Laws of the tabs of an image model."""

import re

import gradio as gr
import pytest
import torch
from gradio.data_classes import ImageData
from gradio_client import Client, handle_file
from PIL import Image

from image import ImageDiffusion, demo
from textdiff.config import UserError
from textdiff.demo import curve


def test_pictures_are_the_images(image_model):
    """The browser gets the pixels themselves, in the page."""
    import base64
    import io

    pipe, options = ImageDiffusion(image_model), {"steps": 3, "sampler": "ddim", "seed": 0}
    *_, last = demo.step_frames(pipe.stream.sample(2, **options))
    found = re.findall(r"base64,([^']*)'", last.content)
    pictures = [Image.open(io.BytesIO(base64.b64decode(each))).convert("L") for each in found]
    for picture, pixels in zip(pictures, pipe.sample(2, **options).pixels, strict=True):
        assert demo.fitted(image_model, picture).equal(pixels)


def test_brushed_pixels_are_those_under_the_paint(image_model):
    layer = Image.new("RGBA", (80, 80))
    layer.paste((255, 0, 0, 255), (0, 0, 40, 20))
    unknown = demo.brushed(image_model, {"layers": [layer]})
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[:2, :4] = True
    assert unknown.equal(expected)


def test_missing_picture_is_one_line(image_model):
    with pytest.raises(UserError, match="there is no picture"):
        demo.fitted(image_model, None)


def test_first_frame_of_noise_is_the_picture(image_model):
    picture = Image.linear_gradient("L").resize((8, 8))
    frames = [*demo.noise_frames(image_model, picture, curve.OWN, 0)]
    assert len({frame.content for frame in frames}) == curve.POINTS == len(frames)
    assert "signal 1.00" in frames[0].label
    assert "noise 1.00" in frames[-1].label


def test_picture_of_another_shape_is_named(address, photo):
    client = Client(address, verbose=False)
    found = client.predict(handle_file(str(photo)), api_name="/edit")
    client.close()
    assert found["note"] == (
        "The picture is 64x48, the model's images are 8x8: its middle was used."
    )
    assert len(found["frames"]) == found["steps"]


def test_file_that_is_no_picture_is_one_line(tmp_path):
    (tmp_path / "a.png").write_text("no picture", encoding="utf-8")
    picture = demo._only_pictures(gr.Image(type="pil"))
    with pytest.raises(gr.Error, match="the file is not a picture"):
        picture.preprocess(ImageData(path=str(tmp_path / "a.png")))
