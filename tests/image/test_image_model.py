"""Laws of the image model: its predictions, its loss, its denoiser and its saved form."""

import math
from dataclasses import fields

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModel

from image.config import ModelConfig
from image.model import ImageDiffusionConfig, quantized, scaled
from textdiff.diffusion.gaussian import diffuse

INDEX = torch.arange(6)
every_objective = pytest.mark.parametrize("objective", ["eps", "x0", "v"])


def test_bytes_survive_scaling_and_quantization():
    every_byte = torch.arange(256).byte().view(1, 1, 16, 16)
    assert torch.equal(quantized(scaled(every_byte)), every_byte)
    assert (scaled(every_byte).min(), scaled(every_byte).max()) == (-1, 1)


@every_objective
def test_prediction_composes_to_the_noisy_image(new_image_model, pixels, objective):
    model = new_image_model(objective=objective)
    logsnr = torch.linspace(-4, 4, 6)
    noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
    x_t = diffuse(scaled(pixels), noise, logsnr)
    x0, eps = model.predict(x_t, logsnr)
    assert_close(diffuse(x0, eps, logsnr), x_t, atol=1e-4, rtol=1e-4)


@every_objective
def test_loss_is_a_function_of_the_index(new_image_model, pixels, objective):
    """It is finite and has the name of the objective."""
    model = new_image_model(objective=objective)
    ((name, loss),) = model(pixels, INDEX).items()
    assert name == objective
    assert loss.isfinite()
    assert torch.equal(model(pixels, INDEX)[name], loss)
    assert not torch.equal(model(pixels, INDEX + 1)[name], loss)


def test_loss_is_the_mean_over_images(new_image_model, pixels):
    """The loss of an image does not depend on the others in its batch."""
    model = new_image_model()
    mean = sum(model(pixels[i : i + 1], INDEX[i : i + 1])["eps"] for i in range(6)) / 6
    assert_close(mean, model(pixels, INDEX)["eps"], atol=1e-5, rtol=1e-5)


def test_zero_prediction_has_loss_one(new_image_model, pixels):
    """E eps^2 = 1 per pixel: the loss at initialization."""
    model = new_image_model()
    torch.nn.init.zeros_(model.unet.last.weight)
    torch.nn.init.zeros_(model.unet.last.bias)
    index = torch.arange(600)
    loss = model(pixels.repeat(100, 1, 1, 1), index)["eps"].item()
    assert loss == pytest.approx(1, abs=5 * math.sqrt(2 / (600 * 64)))


def test_labels_are_dropped_only_in_training(new_image_model, pixels, monkeypatch):
    """The share of dropped labels is `class_drop_prob`."""
    model, labels = new_image_model(classes=["a", "b"], class_drop_prob=0.3), []

    def forward(x_t, logsnr, label, index):
        labels.append(label)
        return torch.zeros_like(x_t)

    monkeypatch.setattr(model.unet, "forward", forward)
    many, label = pixels[:1].expand(2000, -1, -1, -1), torch.ones(2000, dtype=torch.long)
    model.eval()(many, torch.arange(2000), label)
    model.train()(many, torch.arange(2000), label)
    in_evaluation, in_training = labels
    assert torch.equal(in_evaluation, label)
    assert set(in_training.tolist()) == {1, 2}
    assert (in_training == 2).float().mean().item() == pytest.approx(0.3, abs=0.05)


def test_guidance_scale_interpolates_class_and_no_class(new_image_model, pixels):
    """Scale 1 is the class and scale 0 no class."""
    model, label = new_image_model(classes=["a", "b"]), torch.ones(6, dtype=torch.long)
    x_t, logsnr = scaled(pixels), torch.zeros(6)
    given, none = model.denoiser(label)(x_t, logsnr).x0, model.denoiser(None)(x_t, logsnr).x0
    assert not torch.allclose(given, none)
    unguided = model.denoiser(label, guidance_scale=0.0)(x_t, logsnr).x0
    assert_close(unguided, none, atol=1e-5, rtol=1e-5)


def test_estimates_are_clamped_to_pixel_range(new_image_model, pixels):
    denoise, logsnr = new_image_model().denoiser(), torch.full((6,), -6.0)
    assert denoise(3 * scaled(pixels), logsnr).x0.abs().max() <= 1


def test_saved_model_gives_the_same_outputs(new_image_model, pixels, tmp_path):
    model = new_image_model(classes=["a", "b"])
    model.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path)
    assert again.config.classes == ["a", "b"]
    assert torch.equal(again.eval()(pixels, INDEX)["eps"], model(pixels, INDEX)["eps"])


def test_saved_defaults_equal_the_option_defaults():
    saved = ImageDiffusionConfig()
    for field in fields(ModelConfig):
        default = getattr(ModelConfig(), field.name)
        assert getattr(saved, field.name) == default, field.name
