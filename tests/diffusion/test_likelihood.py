"""The bound's terms are the divergences they stand for, the bound lies above the truth and touches it, and the ODE finds the truth."""

import math
from itertools import pairwise

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.testing import assert_close

from textdiff.diffusion.chain import Chain, linear_betas
from textdiff.diffusion.gaussian import diffuse, from_x0, posterior, transition
from textdiff.diffusion.likelihood import discretized_nats, ode_log_prob, prior_kl, step_kl
from textdiff.diffusion.oracle import GaussianMixture, gaussian

CLEAN, NOISY = 8.0, -20.0


def double(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def signs(x: torch.Tensor) -> torch.Tensor:
    """Rademacher probes."""
    return torch.randint(2, x.shape, generator=torch.Generator().manual_seed(1)).to(x) * 2 - 1


MIXTURE = GaussianMixture(double(0.3, 0.7), double([-1.0, 0.5], [1.0, 0.0]), double(0.04, 0.25))


def levels(n: int) -> torch.Tensor:
    return torch.linspace(CLEAN, NOISY, n + 1, dtype=torch.float64)


# the bound


def test_the_prior_term_is_the_divergence_from_the_standard_normal():
    x0, logsnr = draws(4, 3), double(-9.0, -2.0, 0.0, 5.0)
    alpha, sigma = logsnr.sigmoid().sqrt().unsqueeze(1), (-logsnr).sigmoid().sqrt().unsqueeze(1)
    expected = kl_divergence(Normal(alpha * x0, sigma), Normal(torch.zeros_like(x0), torch.ones_like(x0)))
    assert_close(prior_kl(x0, logsnr), expected, atol=1e-12, rtol=1e-10)


def test_the_prior_term_of_ddpms_table_is_its_published_figure():
    """2.911e-5 bits a dimension for data of unit square."""
    logsnr = Chain.from_betas(linear_betas(1000)).logsnr[-1:]
    assert_close(prior_kl(double([1.0]), logsnr).item() / math.log(2), 2.911e-5, atol=1e-8, rtol=0)


@pytest.mark.parametrize("large_variance", [False, True])
def test_a_steps_term_is_the_divergence_of_two_gaussians(large_variance):
    """p has the posterior's variance or the step's own, alpha_s^2 (sigma_t^2 / alpha_t^2 - sigma_s^2 / alpha_s^2) scaled to x_t: torch's formula."""
    x0, eps, s, t = draws(3, 4), draws(3, 4, seed=1), double(5.0, 0.0, -3.0), double(3.0, -0.5, -8.0)
    x_t = diffuse(x0, t, eps)
    guess = x0 + 0.3 * draws(3, 4, seed=2)
    true, model = (posterior(data, x_t, s, t) for data in (x0, guess))
    var = transition(x0, s, t).var if large_variance else model.var
    expected = kl_divergence(Normal(true.mean, true.var.sqrt()), Normal(model.mean, var.sqrt()))
    got = step_kl(lambda x_t, logsnr: from_x0(x_t, logsnr, guess), x0, eps, s, t, large_variance=large_variance)
    assert_close(got, expected, atol=1e-12, rtol=1e-8)


def bound(steps: int, n: int = 4000) -> float:
    """On -log p(x0), on average over data of the mixture, by its exact denoiser; the decoder is N(denoised x_1, 1 / SNR_1)."""
    x0 = MIXTURE.sample(n, torch.Generator().manual_seed(3))
    grid = [level.expand(n) for level in levels(steps)]
    variance = (-grid[0]).exp().unsqueeze(1)
    guess = MIXTURE.denoise(diffuse(x0, grid[0], draws(n, 2, seed=4)), grid[0]).x0
    total = prior_kl(x0, grid[-1]) - Normal(guess, variance.sqrt()).log_prob(x0)
    for i, (s, t) in enumerate(pairwise(grid)):
        total += step_kl(MIXTURE.denoise, x0, draws(n, 2, seed=10 + i), s, t)
    return total.sum(1).mean().item()


def test_the_bound_lies_above_the_truth_and_its_gap_falls_with_the_number_of_steps():
    x0 = MIXTURE.sample(4000, torch.Generator().manual_seed(3))
    truth = -MIXTURE.log_prob(x0, double(math.inf).expand(4000)).mean().item()
    half, whole = bound(300) - truth, bound(600) - truth
    assert 0 < whole < half
    assert half / whole == pytest.approx(2, abs=0.2)


# the ODE


@pytest.mark.parametrize("s2", [0.04, 1.0, 4.0])
def test_the_ode_finds_the_likelihood_of_a_gaussian(s2):
    oracle = gaussian(double(0.5, -1.0, 0.0), s2)
    x = diffuse(oracle.sample(64, torch.Generator().manual_seed(0)), double(CLEAN).expand(64), draws(64, 3))
    got = ode_log_prob(oracle.denoise, x, levels(400), signs).sum(1)
    assert_close(got / 3, oracle.log_prob(x, double(CLEAN).expand(64)) / 3, atol=1e-3, rtol=0)


def test_the_ode_finds_the_likelihood_of_a_mixture_with_many_probes():
    """The trace of a function of two coupled variables is random, but right on average: here over the four pairs of signs."""
    n = 64
    x = diffuse(MIXTURE.sample(n, torch.Generator().manual_seed(0)), double(CLEAN).expand(n), draws(n, 2))
    probes = [double(a, b).expand(n, 2) for a in (1.0, -1.0) for b in (1.0, -1.0)]
    got = torch.stack([ode_log_prob(MIXTURE.denoise, x, levels(400), lambda x, v=v: v).sum(1) for v in probes]).mean(0)
    assert_close(got / 2, MIXTURE.log_prob(x, double(CLEAN).expand(n)) / 2, atol=1e-3, rtol=0)


def test_the_ode_finds_the_likelihood_of_a_mixture_with_the_exact_trace():
    n = 64
    x = diffuse(MIXTURE.sample(n, torch.Generator().manual_seed(0)), double(CLEAN).expand(n), draws(n, 2))
    got = ode_log_prob(MIXTURE.denoise, x, levels(600)).sum(1)
    assert_close(got / 2, MIXTURE.log_prob(x, double(CLEAN).expand(n)) / 2, atol=1e-3, rtol=0)


def test_random_probes_are_right_on_average():
    """Hutchinson's estimate at one point, by many draws: within four standard errors of the exact trace's."""
    n, x = 4000, draws(1, 2, seed=3).expand(4000, 2)
    exact = ode_log_prob(MIXTURE.denoise, x[:1], levels(40)).sum()
    estimates = ode_log_prob(MIXTURE.denoise, x, levels(40), signs).sum(1)
    assert abs(estimates.mean() - exact) < 4 * estimates.std() / math.sqrt(n)
    assert estimates.std() > 1e-3


def test_the_odes_error_falls_with_the_square_of_the_steps():
    oracle = gaussian(double(0.0, 0.0), 0.25)
    x = draws(16, 2)
    truth = oracle.log_prob(x, double(CLEAN).expand(16))
    coarse, fine = ((ode_log_prob(oracle.denoise, x, levels(n), signs).sum(1) - truth).abs().max() for n in (100, 200))
    assert math.log2(coarse / fine) == pytest.approx(2, abs=0.15)


def test_what_is_not_probed_adds_no_trace():
    """So padding, whose probe is 0 and whose elements are left out of the sum, does not change a sample's likelihood."""
    oracle = gaussian(torch.zeros(4, dtype=torch.float64), 0.25)
    x = draws(5, 4)
    whole = ode_log_prob(oracle.denoise, x, levels(50), torch.ones_like)
    half = ode_log_prob(oracle.denoise, x, levels(50), lambda x: (torch.arange(4) < 2).to(x).expand_as(x))
    assert_close(half[:, :2], whole[:, :2], atol=1e-10, rtol=0)


# pixels


@pytest.mark.parametrize("levels", [2, 16, 256])
@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.1), (0.3, 0.001), (-1.0, 0.01), (1.7, 0.5), (0.0, 5.0)])
def test_what_the_shades_of_a_pixel_are_given_adds_up_to_one(mean, std, levels):
    shades = torch.linspace(-1, 1, levels, dtype=torch.float64).unsqueeze(1)
    nats = discretized_nats(shades, double(mean).expand(levels, 1), double(std).expand(levels, 1), levels)
    assert_close((-nats).exp().sum(), double(1.0).squeeze(), atol=1e-12, rtol=0)


def test_a_shade_gets_the_gaussians_mass_around_it():
    x0, mean, std, half = double(0.2, -1.0, 1.0), double(0.25, -0.9, 0.8), double(0.1, 0.2, 0.3), 1 / 255
    gaussian = Normal(mean, std)
    mass = torch.stack([gaussian.cdf(x0 + half)[0] - gaussian.cdf(x0 - half)[0], gaussian.cdf(x0 + half)[1], 1 - gaussian.cdf(x0 - half)[2]])
    assert_close(discretized_nats(x0[:, None], mean[:, None], std[:, None]).squeeze(1), -mass.log(), atol=1e-9, rtol=0)


@pytest.mark.parametrize("side", [-1, 1])
def test_a_shade_far_from_the_mean_has_finite_nats(side):
    """Forty standard deviations away, where the mass is far below the smallest number."""
    nats = discretized_nats(double(0.4 * side)[:, None], double(0.0)[:, None], double(0.01)[:, None])
    edge = (0.4 - 1 / 255) / 0.01
    assert nats.item() == pytest.approx(edge**2 / 2 + math.log(edge * math.sqrt(2 * math.pi)), rel=1e-3)
