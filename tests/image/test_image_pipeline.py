"""Laws of the Python interface of images: `ImageDiffusion` and its stream of steps."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import image
from image import ImageDiffusion, sampling
from image.decoding import to_pillow
from textdiff.config import SamplingConfig, UserError
from textdiff.sampling import collect

QUICK = {"steps": 3, "precision": "no"}


@pytest.fixture
def pipe(new_image_model):
    return ImageDiffusion(new_image_model(classes=["a", "b"]))


@pytest.fixture
def picture(pixels):
    return next(to_pillow(pixels))


@pytest.fixture
def mask():
    """White on its right half."""
    found = Image.new("1", (8, 8))
    found.paste(1, (4, 0, 8, 8))
    return found


@pytest.fixture
def calls(picture, mask):
    """`calls(pipe, ...)[task]()`: each task on the same images."""

    def tasks(pipe, **options):
        return {
            "sample": lambda: pipe.sample(3, **options),
            "edit": lambda: pipe.edit(picture, n=3, **options),
            "inpaint": lambda: pipe.inpaint(picture, mask, n=3, **options),
            "interpolate": lambda: pipe.interpolate(picture, picture, n=3, **options),
        }

    return tasks


every_task = pytest.mark.parametrize("task", ["sample", "edit", "inpaint", "interpolate"])


@every_task
def test_images_are_pictures_of_the_pixels(pipe, calls, task):
    found = calls(pipe, **QUICK)[task]()
    assert found.rows == [0, 1, 2]
    assert [(each.mode, each.size) for each in found.images] == [("L", (8, 8))] * 3
    assert np.array_equal(np.stack(found.images), found.pixels[:, 0].numpy())


@every_task
def test_same_seed_gives_the_same_images(pipe, calls, task):
    options = QUICK | {"seed": 5, "label": "b", "guidance_scale": 2.0}
    found = calls(pipe, **options)[task]().pixels
    assert torch.equal(calls(pipe, **options, batch_size=2)[task]().pixels, found)
    assert not torch.equal(calls(pipe, **options | {"seed": 6})[task]().pixels, found)


@every_task
def test_stream_ends_with_the_result(pipe, calls, task):
    """It has one output for each step."""
    result = calls(pipe, **QUICK)[task]()
    *_, last = steps = list(calls(pipe.stream, **QUICK)[task]())
    assert [each.step for each in steps] == list(range(1, last.steps + 1))
    assert torch.equal(last.pixels, result.pixels)


def test_samples_are_those_of_requests(pipe):
    request = sampling.sample_request(pipe.model, 4, seed=2)
    config = SamplingConfig(3, "dpm_solver", seed=2)
    expected = torch.stack([*collect(sampling.generate(pipe.model, request, config))])
    assert torch.equal(pipe.sample(4, steps=3, seed=2).pixels, expected)


def test_orders_and_labels_reach_the_sampler(pipe):
    images = [
        pipe.sample(2, **QUICK, **options).pixels
        for options in ({}, {"label": "b"}, {"label": "a"}, {"order": "raster", "window": 16})
    ]
    assert len(torch.stack(images).unique(dim=0)) == 4
    assert torch.equal(pipe.sample(2, **QUICK, label=1).pixels, images[1])


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_arrays_and_tensors_are_alike(new_image_model, channels):
    pipe = ImageDiffusion(new_image_model(channels=channels, height=6, image_width=10))
    pixels = torch.arange(60 * channels, dtype=torch.uint8).view(1, channels, 6, 10)
    (picture,) = to_pillow(pixels)
    hole = torch.zeros(6, 10, dtype=torch.bool)
    hole[2:4] = True
    masks = hole, hole.numpy(), Image.fromarray(hole.numpy()), hole.byte().unsqueeze(0) * 255
    forms = pixels[0], np.array(picture), picture, pixels[0]
    found = [pipe.inpaint(*pair, **QUICK).pixels for pair in zip(forms, masks, strict=True)]
    assert all(torch.equal(each, found[0]) for each in found)
    assert torch.equal(found[0][0][:, ~hole], pixels[0][:, ~hole])


def test_likelihood_is_the_same_in_any_batch(pipe, pixels):
    together = pipe.log_likelihood([*pixels[:3]], draws=2, label="a")
    assert len(together.nats) == 3
    assert pipe.log_likelihood(pixels[:3], draws=2, label="a") == together
    first = pipe.log_likelihood(pixels[0], draws=2, label="a")
    assert first.nats[0] == pytest.approx(together.nats[0], rel=1e-5)
    bits = together.nats[0] / (64 * np.log(2))
    assert together.bits_per_dimension[0] == pytest.approx(bits)
    assert pipe.log_likelihood(pixels[0], draws=2).nats != first.nats


def test_saved_models_are_loaded(pipe, tmp_path):
    pipe.model.save_pretrained(tmp_path)
    loaded = ImageDiffusion.from_pretrained(str(tmp_path))
    assert torch.equal(loaded.sample(2, **QUICK).pixels, pipe.sample(2, **QUICK).pixels)


WHITE = torch.full((8, 8), 255, dtype=torch.uint8)
GREY = Image.new("L", (8, 8))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda pipe: pipe.edit(Image.new("RGB", (8, 8))), "has the mode RGB, .* convert it with"),
        (lambda pipe: pipe.edit(Image.new("L", (9, 7))), r"the image is 1x7x9 .* resize it"),
        (lambda pipe: pipe.edit(np.zeros((8, 8))), "bytes .* got torch.float64"),
        (lambda pipe: pipe.edit(np.zeros((8, 8, 3), np.uint8)), "the image is 3x8x8"),
        (lambda pipe: pipe.interpolate(GREY, WHITE[:4]), "the second image is 1x4x8"),
        (lambda pipe: pipe.interpolate(GREY, GREY, n=1), "n of interpolate must be at least 2"),
        (lambda pipe: pipe.inpaint(GREY, WHITE[:4]), "mask must be as large as"),
        (lambda pipe: pipe.inpaint(GREY, WHITE.float()), "mask must be bytes"),
        (lambda pipe: pipe.inpaint(GREY, Image.new("RGB", (8, 8))), "mode of mask must be 1 or"),
        (lambda pipe: pipe.inpaint(GREY, GREY), "mask is black everywhere"),
        (lambda pipe: pipe.edit(GREY, strength=2.0), "strength must be between 0"),
        (lambda pipe: pipe.edit(GREY, guidance_scale=2.0), "edit with guidance_scale needs"),
        (lambda pipe: pipe.sample(label="c"), "label must be one of a, b, got c"),
        (lambda pipe: pipe.sample(0), "n must be between 1"),
        (lambda pipe: pipe.sample(guidance_scale=-1.0), "guidance_scale must be 0 or more"),
        (lambda pipe: pipe.log_likelihood([]), "images must be at least one image"),
    ],
)
def test_bad_input_is_refused_in_one_line(pipe, call, message):
    with pytest.raises(UserError, match=message) as error:
        call(pipe)
    assert "\n" not in str(error.value)


def test_guidance_needs_a_model_with_classes(new_image_model):
    with pytest.raises(UserError, match="trained without classes"):
        ImageDiffusion(new_image_model()).sample(guidance_scale=2.0)


def test_unknown_arguments_name_the_nearest(pipe):
    with pytest.raises(TypeError, match="unexpected argument guidance: did you mean guidance_sc"):
        pipe.sample(guidance=3.0)
    with pytest.raises(TypeError, match="unexpected argument draw: did you mean draws"):
        pipe.log_likelihood([], draw=3)
    with pytest.raises(TypeError, match="unexpected argument revison: did you mean revision"):
        ImageDiffusion.from_pretrained("nowhere", revison="main")


def test_importing_image_imports_no_torch():
    code = "import sys, image; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.strip() == b"False"


def test_unknown_attributes_of_the_package_raise():
    with pytest.raises(AttributeError, match="no attribute 'ImageDifusion'"):
        image.ImageDifusion  # noqa: B018


def test_missing_pillow_names_the_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'textdiff\[image\]'"):
        image.ImageDiffusion  # noqa: B018
