"""Laws of the likelihood bounds of images."""

import math

import pytest
import torch
from torch.testing import assert_close

from image.likelihood import bits_per_dimension, negative_elbo, ode_negative_elbo
from image.model import ImageDiffusionConfig, ImageDiffusionModel
from textdiff.diffusion.gaussian import from_x0


class UniformPixels(ImageDiffusionModel):
    """The exact model of images whose pixels are independent uniform bytes, in closed form."""

    def predict(self, x_t, logsnr, label=None, index=None):
        shades = torch.linspace(-1, 1, 256)
        alpha, sigma = (each.sigmoid().sqrt().view(-1, 1, 1, 1, 1) for each in (logsnr, -logsnr))
        log_weight = -((x_t.unsqueeze(-1) - alpha * shades) ** 2) / (2 * sigma**2)
        return from_x0(x_t, log_weight.softmax(-1) @ shades, logsnr)


@pytest.fixture(scope="module")
def exact() -> UniformPixels:
    config = ImageDiffusionConfig(width=8, channel_multipliers=[1], attention_levels=[])
    return UniformPixels(config)


def random_pixels(n: int, seed: int) -> torch.Tensor:
    return torch.randint(256, (n, 1, 8, 8), generator=torch.Generator().manual_seed(seed)).byte()


def test_elbo_of_exact_denoiser_is_nearly_tight(exact):
    """It lies just above the true 8 bits per dimension."""
    pixels = random_pixels(32, seed=0)
    nats = negative_elbo(exact, pixels, None, torch.arange(32), draws=32)
    bits, error = bits_per_dimension(nats, pixels)
    assert -4 * error < bits - 8 < 0.2 + 4 * error


def test_ode_bound_of_exact_denoiser_is_nearly_tight(exact):
    pixels = random_pixels(16, seed=1)
    nats = ode_negative_elbo(exact, pixels, None, torch.arange(16), steps=256)
    bits, error = bits_per_dimension(nats, pixels)
    assert -4 * error < bits - 8 < 0.2 + 4 * error


def test_elbo_is_independent_of_the_batch(new_image_model, pixels):
    model, key = new_image_model(), torch.arange(6)
    whole = negative_elbo(model, pixels, None, key, draws=4)
    parts = zip(pixels.split(1), key.split(1), strict=True)
    single = torch.cat([negative_elbo(model, x, None, k, draws=4) for x, k in parts])
    assert_close(single, whole, atol=1e-2, rtol=1e-4)


def test_bits_are_nats_over_ln_2(pixels):
    """They are per dimension; the error is that of the mean."""
    nats = torch.tensor([64 * math.log(2), 192 * math.log(2)])
    bits, error = bits_per_dimension(nats, pixels[:2])
    assert bits == pytest.approx(2)
    assert error == pytest.approx(1)
