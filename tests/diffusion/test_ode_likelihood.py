"""Likelihood of the probability-flow ODE, against the exact log density."""

import math

import pytest
import torch
from tensors import double, draws, linspace, seeded
from torch.distributions import Normal
from torch.testing import assert_close

from textdiff.diffusion.gaussian import diffuse
from textdiff.diffusion.gaussian_mixture import GaussianMixture, gaussian
from textdiff.diffusion.likelihood import ode_log_prob, ode_nats

CLEAN, NOISY = 8.0, -20.0
MIXTURE = GaussianMixture(double(0.3, 0.7), double([-1.0, 0.5], [1.0, 0.0]), double(0.04, 0.25))
SIGNS = [double(a, b).expand(64, 2) for a in (1.0, -1.0) for b in (1.0, -1.0)]


def rademacher(x: torch.Tensor) -> torch.Tensor:
    return torch.randint(2, x.shape, generator=seeded(1)).to(x) * 2 - 1


def logsnrs(steps: int) -> torch.Tensor:
    return linspace(CLEAN, NOISY, steps + 1)


def diffused(data: GaussianMixture, d: int) -> tuple[torch.Tensor, torch.Tensor]:
    """64 samples at the clean end and their exact log density per dimension."""
    logsnr = double(CLEAN).expand(64)
    x = diffuse(data.sample(64, seeded()), draws(64, d), logsnr)
    return x, data.log_prob(x, logsnr) / d


@pytest.mark.parametrize("variance", [0.04, 1.0, 4.0])
def test_ode_gives_the_likelihood_of_a_gaussian(variance):
    data = gaussian(double(0.5, -1.0, 0.0), variance)
    x, expected = diffused(data, 3)
    actual = ode_log_prob(data.denoise, x, logsnrs(400), rademacher).mean(1)
    assert_close(actual, expected, atol=1e-3, rtol=0)


def test_mean_over_sign_probes_gives_mixture_likelihood():
    """A single probe is a random estimate of the trace; the four pairs of signs are exact."""
    x, expected = diffused(MIXTURE, 2)
    estimates = [
        ode_log_prob(MIXTURE.denoise, x, logsnrs(400), lambda x, v=v: v).mean(1) for v in SIGNS
    ]
    assert_close(torch.stack(estimates).mean(0), expected, atol=1e-3, rtol=0)


def test_exact_trace_gives_mixture_likelihood():
    x, expected = diffused(MIXTURE, 2)
    actual = ode_log_prob(MIXTURE.denoise, x, logsnrs(600)).mean(1)
    assert_close(actual, expected, atol=1e-3, rtol=0)


def test_random_probes_are_unbiased():
    """Hutchinson's estimate at one point, within four standard errors of the exact trace's."""
    n, x = 4000, draws(1, 2, seed=3).expand(4000, 2)
    exact = ode_log_prob(MIXTURE.denoise, x[:1], logsnrs(40)).sum()
    estimates = ode_log_prob(MIXTURE.denoise, x, logsnrs(40), rademacher).sum(1)
    assert abs(estimates.mean() - exact) < 4 * estimates.std() / math.sqrt(n)
    assert estimates.std() > 1e-3


def test_ode_likelihood_has_second_order():
    data, x = gaussian(double(0.0, 0.0), 0.25), draws(16, 2)
    truth = data.log_prob(x, double(CLEAN).expand(16))
    coarse, fine = (
        (ode_log_prob(data.denoise, x, logsnrs(n), rademacher).sum(1) - truth).abs().max()
        for n in (100, 200)
    )
    assert math.log2(coarse / fine) == pytest.approx(2, abs=0.15)


def test_elements_with_zero_probe_add_no_trace():
    """Padding with probe 0, which the sum omits, does not change a sample's likelihood."""
    data, x = gaussian(torch.zeros(4, dtype=torch.float64), 0.25), draws(5, 4)
    mask = torch.arange(4) < 2
    whole = ode_log_prob(data.denoise, x, logsnrs(50), torch.ones_like)
    half = ode_log_prob(data.denoise, x, logsnrs(50), lambda x: mask.to(x).expand_as(x))
    assert_close(half[:, :2], whole[:, :2], atol=1e-10, rtol=0)


@pytest.mark.parametrize("variance", [0.04, 1.0, 4.0])
def test_ode_nats_match_gaussian_closed_form(variance):
    """log q(x | x0) - log p(x), both from Normal's own formula."""
    data, eps = gaussian(double(0.5, -1.0), variance), draws(64, 2, seed=1)
    x0 = data.sample(64, seeded())
    actual = ode_nats(data.denoise, x0, eps, (NOISY, CLEAN), rademacher, 400)
    alpha, sigma = (math.sqrt(1 / (1 + math.exp(sign * CLEAN))) for sign in (-1, 1))
    std = math.sqrt(alpha**2 * variance + sigma**2)
    q, p = Normal(alpha * x0, sigma), Normal(alpha * double(0.5, -1.0), std)
    x = alpha * x0 + sigma * eps
    expected = q.log_prob(x) - p.log_prob(x)
    assert_close(actual.sum(1), expected.sum(1), atol=2e-3, rtol=0)
