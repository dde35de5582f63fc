import math
from dataclasses import fields

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModel

from image.config import Model
from image.model import ImageDiffusionConfig, quantized, scaled
from textdiff.diffusion.gaussian import diffuse

INDEX = torch.arange(6)
every_objective = pytest.mark.parametrize("objective", ["eps", "x0", "v"])


def test_bytes_survive_the_way_in_and_out():
    every_byte = torch.arange(256).byte().view(1, 1, 16, 16)
    assert torch.equal(quantized(scaled(every_byte)), every_byte)
    assert (scaled(every_byte).min(), scaled(every_byte).max()) == (-1, 1)


@every_objective
def test_a_prediction_is_a_pair_that_makes_up_the_noisy_image(new_image_model, pixels, objective):
    model = new_image_model(objective=objective)
    logsnr = torch.linspace(-4, 4, 6)
    x_t = diffuse(scaled(pixels), logsnr, torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0)))
    x0, eps = model.predict(x_t, logsnr)
    assert_close(diffuse(x0, logsnr, eps), x_t, atol=1e-4, rtol=1e-4)


@every_objective
def test_the_loss_is_named_finite_and_a_function_of_the_images_numbers(new_image_model, pixels, objective):
    model = new_image_model(objective=objective)
    ((name, loss),) = model(pixels, INDEX).items()
    assert name == objective
    assert loss.isfinite()
    assert torch.equal(model(pixels, INDEX)[name], loss)
    assert not torch.equal(model(pixels, INDEX + 1)[name], loss)


def test_an_images_loss_does_not_depend_on_its_companions(new_image_model, pixels):
    model = new_image_model()
    alone = sum(model(pixels[i : i + 1], INDEX[i : i + 1])["eps"] for i in range(6)) / 6
    assert_close(alone, model(pixels, INDEX)["eps"], atol=1e-5, rtol=1e-5)


def test_a_model_that_predicts_nothing_has_the_loss_of_the_noise(new_image_model, pixels):
    """E eps^2 = 1 a pixel: what the zero-initialized network starts at."""
    model = new_image_model()
    torch.nn.init.zeros_(model.unet.last.weight)
    torch.nn.init.zeros_(model.unet.last.bias)
    index = torch.arange(600)
    loss = model(pixels.repeat(100, 1, 1, 1), index)["eps"].item()
    assert loss == pytest.approx(1, abs=5 * math.sqrt(2 / (600 * 64)))


def test_labels_are_withheld_in_training_alone_and_in_their_share(new_image_model, pixels, monkeypatch):
    model, seen = new_image_model(classes=["a", "b"], label_dropout=0.3), []
    monkeypatch.setattr(model.unet, "forward", lambda x_t, logsnr, label, index: seen.append(label) or torch.zeros_like(x_t))
    many, label = pixels[:1].expand(2000, -1, -1, -1), torch.ones(2000, dtype=torch.long)
    model.eval()(many, torch.arange(2000), label)
    model.train()(many, torch.arange(2000), label)
    in_evaluation, in_training = seen
    assert torch.equal(in_evaluation, label)
    assert set(in_training.tolist()) == {1, 2}
    assert (in_training == 2).float().mean().item() == pytest.approx(0.3, abs=0.05)


def test_guidance_of_one_is_the_class_and_of_zero_is_no_class(new_image_model, pixels):
    model, label = new_image_model(classes=["a", "b"]), torch.ones(6, dtype=torch.long)
    x_t, logsnr = scaled(pixels), torch.zeros(6)
    asked, none = model.denoiser(label)(x_t, logsnr).x0, model.denoiser(None)(x_t, logsnr).x0
    assert not torch.allclose(asked, none)
    assert_close(model.denoiser(label, guidance=0.0)(x_t, logsnr).x0, none, atol=1e-5, rtol=1e-5)


def test_estimates_stay_within_what_pixels_can_be(new_image_model, pixels):
    assert new_image_model().denoiser()(3 * scaled(pixels), torch.full((6,), -6.0)).x0.abs().max() <= 1


def test_a_model_that_was_saved_gives_the_same_outputs(new_image_model, pixels, tmp_path):
    model = new_image_model(classes=["a", "b"])
    model.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path)
    assert again.config.classes == ["a", "b"]
    assert torch.equal(again.eval()(pixels, INDEX)["eps"], model(pixels, INDEX)["eps"])


def test_the_networks_defaults_are_those_of_the_options():
    saved = ImageDiffusionConfig()
    for field in fields(Model):
        default = getattr(Model(), field.name)
        assert getattr(saved, field.name) == default, field.name
