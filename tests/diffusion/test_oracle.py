"""The ground truth is true: density, score and denoiser of a diffused mixture, each against an independent route."""

import math

import pytest
import torch
from torch.testing import assert_close

from textdiff.diffusion.gaussian import Prediction, alpha_sigma, diffuse, to_score
from textdiff.diffusion.oracle import GaussianMixture, gaussian


def double(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


LINE = GaussianMixture(double(0.3, 0.7), double([-1.5], [1.0]), double(0.05, 0.4))
SPACE = GaussianMixture(
    double(0.2, 0.5, 0.3), torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64), double(0.1, 0.5, 1.0)
)
LOGSNRS = double(-6, -1, 0, 1.5, 6)
X = torch.randn(5, 2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
every_level = pytest.mark.parametrize("logsnr", LOGSNRS.tolist())


def close(actual, expected, tolerance=1e-12):
    assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), rtol=tolerance, atol=tolerance)


@every_level
def test_the_density_integrates_to_one(logsnr):
    x = torch.linspace(-12, 12, 40_001, dtype=torch.float64)
    density = LINE.log_prob(x.unsqueeze(1), double(logsnr).expand(len(x))).exp()
    close(torch.trapezoid(density, x), 1, 1e-9)


@every_level
def test_the_density_at_a_level_is_the_datas_diffused(logsnr):
    """q(x_t) = integral of p(x_0) N(x_t; alpha x_0, sigma^2 I)."""
    x0 = torch.linspace(-12, 12, 40_001, dtype=torch.float64)
    data = LINE.log_prob(x0.unsqueeze(1), double(math.inf).expand(len(x0))).exp()
    alpha, sigma = (part.item() for part in alpha_sigma(double(logsnr), double(0)))
    for x_t in (-2.0, 0.0, 1.3):
        density = torch.trapezoid(data * torch.distributions.Normal(alpha * x0, sigma).log_prob(double(x_t)).exp(), x0)
        close(LINE.log_prob(double([x_t]), double(logsnr)), density.log().view(1), 1e-8)


@every_level
def test_the_denoiser_is_the_mean_of_the_data_given_x_t(logsnr):
    """By quadrature of E[x0 | x_t]."""
    x0 = torch.linspace(-12, 12, 40_001, dtype=torch.float64)
    prior = LINE.log_prob(x0.unsqueeze(1), double(math.inf).expand(len(x0)))
    alpha, sigma = (part.item() for part in alpha_sigma(double(logsnr), double(0)))
    for x_t in (-2.0, 0.0, 1.3):
        posterior = (prior + torch.distributions.Normal(alpha * x0, sigma).log_prob(double(x_t))).softmax(0)
        close(LINE.denoise(double([x_t]), double(logsnr)).x0, (posterior * x0).sum().view(1, 1), 1e-8)


def test_the_score_is_the_gradient_of_the_log_density():
    x_t = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(SPACE.log_prob(x_t, LOGSNRS).sum(), x_t)
    close(SPACE.score(X, LOGSNRS), gradient)


def test_the_denoiser_and_the_score_are_one_by_tweedies_formula():
    """E[x0 | x_t] = (x_t + sigma^2 score) / alpha."""
    close(to_score(SPACE.denoise(X, LOGSNRS), LOGSNRS), SPACE.score(X, LOGSNRS), 1e-10)


def test_the_denoiser_splits_x_t_into_signal_and_noise():
    x0, eps = SPACE.denoise(X, LOGSNRS)
    close(diffuse(x0, LOGSNRS, eps), X)


def test_without_signal_the_best_guess_is_the_mean_of_the_data():
    x0, eps = SPACE.denoise(X, double(*[-math.inf] * 5))
    mean = (SPACE.weight.view(3, 1, 1) * SPACE.mean).sum(0)
    close(x0, mean.expand(5, 2, 4))
    close(eps, X)


def test_without_signal_the_density_is_standard_normal():
    close(SPACE.log_prob(X, double(*[-math.inf] * 5)), torch.distributions.Normal(0.0, 1.0).log_prob(X).sum((1, 2)))


def test_the_mixture_of_one_component_is_the_gaussian():
    """Its denoiser is the linear (Wiener) filter."""
    mean, var = X[0], 0.3
    alpha, sigma = alpha_sigma(LOGSNRS, X)
    close(gaussian(mean, var).denoise(X, LOGSNRS).x0, mean + alpha * var / (alpha**2 * var + sigma**2) * (X - alpha * mean))


def test_a_component_counted_twice_counts_for_its_weight():
    halves = GaussianMixture(double(0.4, 0.6), torch.stack([X[0], X[0]]), double(0.3, 0.3))
    close(halves.denoise(X, LOGSNRS).x0, gaussian(X[0], 0.3).denoise(X, LOGSNRS).x0)
    close(halves.log_prob(X, LOGSNRS), gaussian(X[0], 0.3).log_prob(X, LOGSNRS))


def test_the_denoiser_of_point_masses_picks_the_nearest_when_noise_is_small():
    points = GaussianMixture(double(0.5, 0.5), double([-1, 0], [1, 0]), double(0, 0))
    x0 = points.denoise(double([-0.9, 0.1], [0.8, 0.2]), double(9, 9)).x0
    close(x0, [[-1, 0], [1, 0]])


def test_the_denoiser_survives_points_far_from_every_component():
    far = LINE.denoise(double([1e4]), double(9))
    assert far.x0.isfinite().all()
    assert far.eps.isfinite().all()


def test_samples_have_the_mixtures_moments():
    n = 100_000
    samples = SPACE.sample(n, torch.Generator().manual_seed(0))
    mean = (SPACE.weight.view(3, 1, 1) * SPACE.mean).sum(0)
    var = (SPACE.weight.view(3, 1, 1) * (SPACE.var.view(3, 1, 1) + SPACE.mean**2)).sum(0) - mean**2
    error = 5 * (var / n).sqrt()  # five standard errors
    assert ((samples.mean(0) - mean).abs() < error).all()
    assert_close(samples.var(0), var, rtol=0.03, atol=0)


def test_samples_have_the_mixtures_average_log_density():
    n = 100_000
    samples = LINE.sample(n, torch.Generator().manual_seed(0))
    log_prob = LINE.log_prob(samples, double(math.inf).expand(n))
    x = torch.linspace(-12, 12, 40_001, dtype=torch.float64)
    density = LINE.log_prob(x.unsqueeze(1), double(math.inf).expand(len(x)))
    entropy = -torch.trapezoid(density.exp() * density, x)
    assert_close(-log_prob.mean(), entropy, rtol=0, atol=5 * (log_prob.std() / math.sqrt(n)).item())  # five standard errors


def test_the_error_of_the_denoiser_has_no_relation_to_what_it_saw():
    """E[(x0 - E[x0 | x_t]) f(x_t)] = 0 for every f: the law that makes it the least-squares guess."""
    n, generator = 200_000, torch.Generator().manual_seed(0)
    x0, logsnr = LINE.sample(n, generator), double(0.5).expand(n)
    x_t = diffuse(x0, logsnr, torch.randn(n, 1, generator=generator, dtype=torch.float64))
    error = x0 - LINE.denoise(x_t, logsnr).x0
    for f in (torch.ones_like(x_t), x_t, x_t**2, x_t.sin()):
        product = error * f
        assert product.mean().abs() < 5 * product.std() / math.sqrt(n)  # five standard errors


def test_the_shape_of_the_data_does_not_matter():
    flat = GaussianMixture(SPACE.weight, SPACE.mean.flatten(1), SPACE.var)
    close(flat.denoise(X.flatten(1), LOGSNRS).x0, SPACE.denoise(X, LOGSNRS).x0.flatten(1))
    close(flat.log_prob(X.flatten(1), LOGSNRS), SPACE.log_prob(X, LOGSNRS))


def test_a_prediction_says_as_much_in_float32():
    single = GaussianMixture(SPACE.weight.float(), SPACE.mean.float(), SPACE.var.float())
    prediction = single.denoise(X.float(), LOGSNRS.float())
    assert isinstance(prediction, Prediction)
    close(prediction.x0.double(), SPACE.denoise(X, LOGSNRS).x0, 1e-5)
