"""Variational bound: each term is a divergence, and the sum bounds -log p(x0)."""

import math
from itertools import pairwise

import pytest
import torch
from chains import LINEAR
from tensors import close, double, draws, linspace, seeded
from torch.distributions import Normal, kl_divergence
from torch.testing import assert_close

from textdiff.diffusion.gaussian import diffuse, from_x0, posterior, transition
from textdiff.diffusion.gaussian_mixture import GaussianMixture, gaussian
from textdiff.diffusion.likelihood import (
    discretized_nats,
    prior_and_diffusion_loss,
    prior_kl,
    step_kl,
)
from textdiff.diffusion.paths import even_in_logsnr
from textdiff.diffusion.schedules import bounded, cosine

CLEAN, NOISY = 8.0, -20.0
MIXTURE = GaussianMixture(double(0.3, 0.7), double([-1.0, 0.5], [1.0, 0.0]), double(0.04, 0.25))


# terms of the bound


def test_prior_term_is_the_kl_to_standard_normal():
    x0, logsnr = draws(4, 3), double(-9.0, -2.0, 0.0, 5.0)
    alpha, sigma = logsnr.sigmoid().sqrt().unsqueeze(1), (-logsnr).sigmoid().sqrt().unsqueeze(1)
    prior = Normal(torch.zeros_like(x0), torch.ones_like(x0))
    expected = kl_divergence(Normal(alpha * x0, sigma), prior)
    assert_close(prior_kl(x0, logsnr), expected, atol=1e-12, rtol=1e-10)


def test_prior_term_matches_ddpm_figure():
    """2.911e-5 bits per dimension for data of unit square."""
    bits = prior_kl(double([1.0]), LINEAR.logsnr[-1:]).item() / math.log(2)
    assert_close(bits, 2.911e-5, atol=1e-8, rtol=0)


@pytest.mark.parametrize("large_variance", [False, True])
def test_diffusion_term_is_the_kl_of_gaussians(large_variance):
    """p has the posterior's variance, or that of the forward step."""
    x0, eps, error = draws(3, 4), draws(3, 4, seed=1), 0.3 * draws(3, 4, seed=2)
    s, t = double(5.0, 0.0, -3.0), double(3.0, -0.5, -8.0)
    x_t = diffuse(x0, eps, t)
    true, model = (posterior(data, x_t, s, t) for data in (x0, x0 + error))
    var = transition(x0, s, t).var if large_variance else model.var
    expected = kl_divergence(Normal(true.mean, true.var.sqrt()), Normal(model.mean, var.sqrt()))

    def denoise(x_t, logsnr):
        return from_x0(x_t, x0 + error, logsnr)

    actual = step_kl(denoise, x0, eps, s, t, large_variance=large_variance)
    assert_close(actual, expected, atol=1e-12, rtol=1e-8)


# the bound


def reconstruction_nats(mixture: GaussianMixture, x0: torch.Tensor) -> torch.Tensor:
    """L_0 with the decoder N(denoised x_1, 1 / SNR_1)."""
    logsnr = double(CLEAN).expand(len(x0))
    mean = mixture.denoise(diffuse(x0, draws(*x0.shape, seed=4), logsnr), logsnr).x0
    return -Normal(mean, math.exp(-CLEAN / 2)).log_prob(x0)


def mean_bound(steps: int, n: int = 4000) -> float:
    """Bound on -log p(x0), averaged over the mixture, with its exact denoiser."""
    x0 = MIXTURE.sample(n, seeded(3))
    logsnrs = [logsnr.expand(n) for logsnr in linspace(CLEAN, NOISY, steps + 1)]
    total = prior_kl(x0, logsnrs[-1]) + reconstruction_nats(MIXTURE, x0)
    for i, (s, t) in enumerate(pairwise(logsnrs)):
        total += step_kl(MIXTURE.denoise, x0, draws(n, 2, seed=10 + i), s, t)
    return total.sum(1).mean().item()


def test_bound_is_above_the_negative_log_likelihood():
    """The gap is inversely proportional to the number of steps."""
    x0 = MIXTURE.sample(4000, seeded(3))
    truth = -MIXTURE.log_prob(x0, double(math.inf).expand(4000)).mean().item()
    coarse, fine = mean_bound(300) - truth, mean_bound(600) - truth
    assert 0 < fine < coarse
    assert coarse / fine == pytest.approx(2, abs=0.2)


def estimated_bound(mixture: GaussianMixture, x0: torch.Tensor, steps: int) -> torch.Tensor:
    """The same bound per sample, from four random steps."""
    generator = seeded(5)
    offsets = torch.rand(len(x0), 4, generator=generator, dtype=torch.float64)

    def noise(x):
        return torch.randn(x.shape, generator=generator, dtype=x.dtype)

    schedule = bounded(cosine, NOISY, CLEAN)
    loss = prior_and_diffusion_loss(
        mixture.denoise, x0, even_in_logsnr(schedule), offsets, noise, steps
    )
    return (loss + reconstruction_nats(mixture, x0)).sum(1)


@pytest.mark.parametrize("variance", [0.04, 1.0])
def test_estimated_bound_converges_to_gaussian_entropy(variance):
    """It lies above the entropy for few steps, and meets it for many."""
    data = gaussian(double(0.5, -1.0), variance)
    x0 = data.sample(20_000, seeded(3))
    entropy = -data.log_prob(x0, double(math.inf).expand(len(x0))).mean().item()
    coarse, fine = (estimated_bound(data, x0, steps) for steps in (20, 100_000))
    assert coarse.mean().item() > entropy
    error = 5 * fine.std().item() / math.sqrt(len(x0))  # five standard errors
    assert fine.mean().item() == pytest.approx(entropy, abs=error)


def test_one_draw_per_step_is_the_whole_sum():
    """With as many strata as steps every step is used once."""
    x0, steps, path = draws(3, 2), 10, even_in_logsnr(bounded(cosine, NOISY, CLEAN))
    offsets = torch.full((3, steps), 0.5, dtype=torch.float64)
    actual = prior_and_diffusion_loss(MIXTURE.denoise, x0, path, offsets, torch.ones_like, steps)
    logsnrs = [logsnr.expand(3) for logsnr in linspace(CLEAN, NOISY, steps + 1)]
    expected = prior_kl(x0, logsnrs[-1])
    for s, t in pairwise(logsnrs):
        expected = expected + step_kl(MIXTURE.denoise, x0, torch.ones_like(x0), s, t)
    close(actual, expected, 1e-4)


# pixels


@pytest.mark.parametrize("levels", [2, 16, 256])
@pytest.mark.parametrize(
    ("mean", "std"), [(0.0, 0.1), (0.3, 0.001), (-1.0, 0.01), (1.7, 0.5), (0.0, 5.0)]
)
def test_masses_of_all_pixel_values_sum_to_one(mean, std, levels):
    values = linspace(-1, 1, levels).unsqueeze(1)
    mean, std = double(mean).expand(levels, 1), double(std).expand(levels, 1)
    nats = discretized_nats(values, mean, std, levels)
    assert_close((-nats).exp().sum(), double(1.0).squeeze(), atol=1e-12, rtol=0)


def test_pixel_mass_is_that_of_its_interval():
    """The first and the last interval extend to infinity."""
    x0, mean, std = double(0.2, -1.0, 1.0), double(0.25, -0.9, 0.8), double(0.1, 0.2, 0.3)
    below, above = (Normal(mean, std).cdf(x0 + half) for half in (-1 / 255, 1 / 255))
    mass = torch.stack([above[0] - below[0], above[1], 1 - below[2]])
    nats = discretized_nats(x0[:, None], mean[:, None], std[:, None])
    assert_close(nats.squeeze(1), -mass.log(), atol=1e-9, rtol=0)


@pytest.mark.parametrize("side", [-1, 1])
def test_pixel_in_the_far_tail_is_finite(side):
    """Forty standard deviations from the mean the mass underflows."""
    x0, mean, std = (double(value)[:, None] for value in (0.4 * side, 0.0, 0.01))
    edge = (0.4 - 1 / 255) / 0.01
    expected = edge**2 / 2 + math.log(edge * math.sqrt(2 * math.pi))
    assert discretized_nats(x0, mean, std).item() == pytest.approx(expected, rel=1e-3)
