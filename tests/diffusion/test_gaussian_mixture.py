"""Density, score and denoiser of a diffused mixture, each against an independent computation."""

import math

import pytest
import torch
from tensors import close, double, draws, linspace, seeded
from torch.distributions import Normal
from torch.testing import assert_close

from textdiff.diffusion.gaussian import Prediction, alpha_sigma, diffuse, to_score
from textdiff.diffusion.gaussian_mixture import GaussianMixture, gaussian

LINE = GaussianMixture(double(0.3, 0.7), double([-1.5], [1.0]), double(0.05, 0.4))
SPACE = GaussianMixture(double(0.2, 0.5, 0.3), draws(3, 2, 4, seed=3), double(0.1, 0.5, 1.0))
SPACE_MEAN = (SPACE.weight.view(3, 1, 1) * SPACE.mean).sum(0)
LOGSNRS = double(-6, -1, 0, 1.5, 6)
X = draws(5, 2, 4)
GRID = linspace(-12, 12, 40_001)
every_logsnr = pytest.mark.parametrize("logsnr", LOGSNRS.tolist())


def data_log_prob() -> torch.Tensor:
    """Log density of LINE on GRID."""
    return LINE.log_prob(GRID.unsqueeze(1), double(math.inf).expand(len(GRID)))


@every_logsnr
def test_density_integrates_to_one(logsnr):
    density = LINE.log_prob(GRID.unsqueeze(1), double(logsnr).expand(len(GRID))).exp()
    close(torch.trapezoid(density, GRID), 1, 1e-9)


@every_logsnr
def test_density_is_the_diffused_data_density(logsnr):
    """q(x_t) = integral of p(x_0) N(x_t; alpha x_0, sigma^2 I)."""
    alpha, sigma = (part.item() for part in alpha_sigma(double(logsnr), double(0)))
    for x_t in (-2.0, 0.0, 1.3):
        joint = (data_log_prob() + Normal(alpha * GRID, sigma).log_prob(double(x_t))).exp()
        density = torch.trapezoid(joint, GRID)
        close(LINE.log_prob(double([x_t]), double(logsnr)), density.log().view(1), 1e-8)


@every_logsnr
def test_denoiser_is_the_conditional_mean(logsnr):
    """E[x0 | x_t] by quadrature."""
    alpha, sigma = (part.item() for part in alpha_sigma(double(logsnr), double(0)))
    for x_t in (-2.0, 0.0, 1.3):
        likelihood = Normal(alpha * GRID, sigma).log_prob(double(x_t))
        mean = ((data_log_prob() + likelihood).softmax(0) * GRID).sum()
        close(LINE.denoise(double([x_t]), double(logsnr)).x0, mean.view(1, 1), 1e-8)


def test_score_is_the_gradient_of_log_density():
    x_t = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(SPACE.log_prob(x_t, LOGSNRS).sum(), x_t)
    close(SPACE.score(X, LOGSNRS), gradient)


def test_denoiser_and_score_obey_tweedies_formula():
    """E[x0 | x_t] = (x_t + sigma^2 score) / alpha."""
    close(to_score(SPACE.denoise(X, LOGSNRS), LOGSNRS), SPACE.score(X, LOGSNRS), 1e-10)


def test_prediction_is_consistent_with_x_t():
    x0, eps = SPACE.denoise(X, LOGSNRS)
    close(diffuse(x0, eps, LOGSNRS), X)


def test_denoiser_without_signal_is_the_data_mean():
    x0, eps = SPACE.denoise(X, double(*[-math.inf] * 5))
    close(x0, SPACE_MEAN.expand(5, 2, 4))
    close(eps, X)


def test_density_without_signal_is_standard_normal():
    log_prob = SPACE.log_prob(X, double(*[-math.inf] * 5))
    close(log_prob, Normal(0.0, 1.0).log_prob(X).sum((1, 2)))


def test_one_component_is_a_gaussian():
    """Its denoiser is the linear (Wiener) filter."""
    mean, var = X[0], 0.3
    alpha, sigma = alpha_sigma(LOGSNRS, X)
    gain = alpha * var / (alpha**2 * var + sigma**2)
    close(gaussian(mean, var).denoise(X, LOGSNRS).x0, mean + gain * (X - alpha * mean))


def test_weights_of_equal_components_add_up():
    halves = GaussianMixture(double(0.4, 0.6), torch.stack([X[0], X[0]]), double(0.3, 0.3))
    close(halves.denoise(X, LOGSNRS).x0, gaussian(X[0], 0.3).denoise(X, LOGSNRS).x0)
    close(halves.log_prob(X, LOGSNRS), gaussian(X[0], 0.3).log_prob(X, LOGSNRS))


def test_denoiser_of_point_masses_selects_the_nearest():
    """At a high log SNR."""
    points = GaussianMixture(double(0.5, 0.5), double([-1, 0], [1, 0]), double(0, 0))
    x0 = points.denoise(double([-0.9, 0.1], [0.8, 0.2]), double(9, 9)).x0
    close(x0, [[-1, 0], [1, 0]])


def test_denoiser_is_finite_far_from_all_components():
    far = LINE.denoise(double([1e4]), double(9))
    assert far.x0.isfinite().all()
    assert far.eps.isfinite().all()


def test_samples_have_the_moments_of_the_mixture():
    n = 100_000
    samples = SPACE.sample(n, seeded())
    square = (SPACE.weight.view(3, 1, 1) * (SPACE.var.view(3, 1, 1) + SPACE.mean**2)).sum(0)
    var = square - SPACE_MEAN**2
    error = 5 * (var / n).sqrt()  # five standard errors
    assert ((samples.mean(0) - SPACE_MEAN).abs() < error).all()
    assert_close(samples.var(0), var, rtol=0.03, atol=0)


def test_samples_have_the_entropy_of_the_mixture():
    n = 100_000
    log_prob = LINE.log_prob(LINE.sample(n, seeded()), double(math.inf).expand(n))
    density = data_log_prob()
    entropy = -torch.trapezoid(density.exp() * density, GRID)
    error = 5 * (log_prob.std() / math.sqrt(n)).item()  # five standard errors
    assert_close(-log_prob.mean(), entropy, rtol=0, atol=error)


def test_denoising_error_is_orthogonal_to_x_t():
    """E[(x0 - E[x0 | x_t]) f(x_t)] = 0 for every f, which defines the conditional mean."""
    n, generator = 200_000, seeded()
    x0, logsnr = LINE.sample(n, generator), double(0.5).expand(n)
    x_t = diffuse(x0, torch.randn(n, 1, generator=generator, dtype=torch.float64), logsnr)
    error = x0 - LINE.denoise(x_t, logsnr).x0
    for f in (torch.ones_like(x_t), x_t, x_t**2, x_t.sin()):
        product = error * f
        assert product.mean().abs() < 5 * product.std() / math.sqrt(n)  # five standard errors


def test_shape_of_the_data_does_not_matter():
    flat = GaussianMixture(SPACE.weight, SPACE.mean.flatten(1), SPACE.var)
    close(flat.denoise(X.flatten(1), LOGSNRS).x0, SPACE.denoise(X, LOGSNRS).x0.flatten(1))
    close(flat.log_prob(X.flatten(1), LOGSNRS), SPACE.log_prob(X, LOGSNRS))


def test_float32_denoiser_matches_float64():
    single = GaussianMixture(SPACE.weight.float(), SPACE.mean.float(), SPACE.var.float())
    prediction = single.denoise(X.float(), LOGSNRS.float())
    assert isinstance(prediction, Prediction)
    close(prediction.x0.double(), SPACE.denoise(X, LOGSNRS).x0, 1e-5)
