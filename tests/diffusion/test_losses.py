"""Losses: definitions, the least loss, and independence of the shape of the data."""

import pytest
import torch
from chains import LINEAR
from tensors import close, double, draws, seeded

from textdiff.diffusion.gaussian import (
    PREDICTIONS,
    Prediction,
    alpha_sigma,
    diffuse,
    from_x0,
    posterior,
    to_v,
)
from textdiff.diffusion.gaussian_mixture import GaussianMixture, gaussian
from textdiff.diffusion.losses import LOSSES, eps_loss, mean_loss, v_loss, x0_loss

LOGSNRS = double(-9.0, -3.0, 0.0, 1.0, 3.0, 9.0)
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def tanh_denoiser(x_t, logsnr):
    return PREDICTIONS["v"](x_t, (0.3 * x_t).tanh(), logsnr)


# definitions


@pytest.mark.parametrize("name", LOSSES)
def test_loss_is_an_elementwise_squared_error(name):
    x0, eps = draws(2, 6, 3, 2)
    prediction = tanh_denoiser(diffuse(x0, eps, LOGSNRS), LOGSNRS)
    predicted = to_v(prediction, LOGSNRS) if name == "v" else getattr(prediction, name)
    target = {"eps": eps, "x0": x0, "v": to_v(Prediction(x0, eps), LOGSNRS)}[name]
    close(LOSSES[name](tanh_denoiser, x0, eps, LOGSNRS), (predicted - target) ** 2)


@every_loss
def test_loss_of_the_true_x0_is_zero(loss):
    x0, eps = draws(2, 6, 3)
    actual = loss(lambda x_t, logsnr: from_x0(x_t, x0, logsnr), x0, eps, LOGSNRS)
    close(actual, torch.zeros(6, 3, dtype=torch.float64), 1e-20)


def test_eps_loss_is_snr_times_x0_loss():
    x0, eps = draws(2, 6, 3)
    expected = LOGSNRS.exp().unsqueeze(-1) * x0_loss(tanh_denoiser, x0, eps, LOGSNRS)
    close(eps_loss(tanh_denoiser, x0, eps, LOGSNRS), expected, 1e-10)


def test_v_loss_is_eps_loss_over_alpha_squared():
    x0, eps = draws(2, 6, 3)
    expected = eps_loss(tanh_denoiser, x0, eps, LOGSNRS) / LOGSNRS.sigmoid().unsqueeze(-1)
    close(v_loss(tanh_denoiser, x0, eps, LOGSNRS), expected, 1e-10)


@pytest.mark.parametrize("t", [2, 500, 1000])
def test_mean_loss_is_a_weighted_eps_loss(t):
    """The weight is (1 - alpha_t)^2 / (alpha_t (1 - alpha_bar_t)): homework 7, problem 2.4.

    The variance that divides both is left out.
    """
    x0, eps = draws(2, 6, 3)
    logsnr_s, logsnr_t = (LINEAR.logsnr[i].expand(6) for i in (t - 1, t))
    weight = LINEAR.beta[t] ** 2 / (LINEAR.alpha[t] * (1 - LINEAR.alpha_bar[t]))
    expected = weight * eps_loss(tanh_denoiser, x0, eps, logsnr_t)
    close(mean_loss(tanh_denoiser, x0, eps, logsnr_s, logsnr_t), expected, 1e-10)


@every_loss
def test_loss_has_a_gradient_for_the_network(loss):
    x0, eps = draws(2, 6, 3)
    gain = torch.ones((), dtype=torch.float64, requires_grad=True)
    loss(lambda x_t, logsnr: from_x0(x_t, gain * x_t, logsnr), x0, eps, LOGSNRS).mean().backward()
    assert gain.grad.isfinite()
    assert gain.grad != 0


# the least loss


@pytest.mark.parametrize(("std", "expected"), [(1.0, 0.275513), (0.5, None)])
def test_least_eps_loss_of_gaussian_data(std, expected):
    """It is alpha_bar s^2 / (alpha_bar s^2 + 1 - alpha_bar) at each t.

    The error is linear in (x0 / s, eps), so that its mean square is the sum of its two squared
    coefficients.
    """
    denoise = gaussian(torch.zeros(1, dtype=torch.float64), std**2).denoise
    logsnr, alpha_bar = LINEAR.logsnr[1:], LINEAR.alpha_bar[1:]
    zero, one = torch.zeros(1000, 1, dtype=torch.float64), torch.ones(1000, 1, dtype=torch.float64)
    of_eps, of_x0 = eps_loss(denoise, zero, one, logsnr), eps_loss(denoise, std * one, zero, logsnr)
    loss = (of_eps + of_x0).flatten()
    close(loss, alpha_bar * std**2 / (alpha_bar * std**2 + 1 - alpha_bar), 1e-10)
    if expected:
        assert loss.mean().item() == pytest.approx(expected, abs=5e-7)


@every_loss
@pytest.mark.parametrize("scale", [0.9, 1.1])
def test_exact_denoiser_has_the_least_loss(loss, scale):
    """A denoiser whose x0 is scaled has a larger loss."""
    mixture = GaussianMixture(double(0.3, 0.7), double([-1.0], [0.8]), double(0.1, 0.2))
    generator, n = seeded(), 20_000
    x0 = mixture.sample(n, generator)
    eps = torch.randn(n, 1, generator=generator, dtype=torch.float64)
    logsnr = torch.linspace(-4, 4, n, dtype=torch.float64)

    def scaled(x_t, logsnr):
        return from_x0(x_t, scale * mixture.denoise(x_t, logsnr).x0, logsnr)

    assert loss(mixture.denoise, x0, eps, logsnr).mean() < loss(scaled, x0, eps, logsnr).mean()


# one core for text and images


@every_loss
def test_loss_of_image_and_text_is_bit_identical(loss):
    x0, eps = draws(2, 6, 3, 4, 4)
    image = loss(tanh_denoiser, x0, eps, LOGSNRS)
    text = loss(tanh_denoiser, x0.view(6, 16, 3), eps.view(6, 16, 3), LOGSNRS)
    assert text.equal(image.view(6, 16, 3))


@pytest.mark.parametrize(
    "function",
    [diffuse, lambda x0, x_t, t: posterior(x0, x_t, t + 1, t).mean],
    ids=["diffuse", "posterior"],
)
def test_process_of_image_and_text_is_bit_identical(function):
    x0, eps = draws(2, 6, 3, 4, 4)
    text = function(x0.view(6, 16, 3), eps.view(6, 16, 3), LOGSNRS)
    assert text.equal(function(x0, eps, LOGSNRS).view(6, 16, 3))


def test_alpha_sigma_values_ignore_the_shape():
    image = alpha_sigma(LOGSNRS, torch.empty(6, 3, 4, 4))
    text = alpha_sigma(LOGSNRS, torch.empty(6, 16, 3))
    assert all(a.flatten().equal(b.flatten()) for a, b in zip(image, text, strict=True))
