"""Score matching on Gaussians, where expectations of quadratics are exact over a few points, and on a mixture, to Monte-Carlo error."""

import math
from itertools import product

import pytest
import torch
from torch.testing import assert_close

from textdiff.diffusion.gaussian import Prediction, alpha_sigma, diffuse, to_score
from textdiff.diffusion.loss import eps_loss
from textdiff.diffusion.oracle import GaussianMixture
from textdiff.diffusion.score import (
    annealed_langevin,
    denoising,
    explicit,
    implicit,
    langevin,
    ncsn,
    rademacher,
    sliced,
    value_and_slope,
    value_and_trace,
)

CLEAN = torch.tensor(math.inf, dtype=torch.float64)
N = 40_000


def double(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


MIXTURE = GaussianMixture(double(0.3, 0.7), double([-1.0, 0.5], [1.0, 0.0]), double(0.2, 0.5))


def true_score(x: torch.Tensor) -> torch.Tensor:
    return MIXTURE.score(x, CLEAN.expand(len(x)))


def wrong(gain: float):
    """A score that is no gradient and no mixture's."""
    return lambda x: gain * (x @ double([0.3, -1.0], [0.4, 0.2])).tanh() - 0.5 * x


def mean_is(values: torch.Tensor, expected: float = 0.0) -> bool:
    """Within four standard errors."""
    return abs(values.mean().item() - expected) < 4 * values.std().item() / math.sqrt(len(values))


# the trace


def test_the_exact_trace_is_the_jacobians():
    x = draws(5, 2)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: wrong(1.0)(row.unsqueeze(0)).squeeze(0)))(x)
    value, trace = value_and_trace(wrong(1.0), x)
    assert_close(trace, jacobian.diagonal(dim1=1, dim2=2).sum(1))
    assert_close(value, wrong(1.0)(x))


@pytest.mark.parametrize("reduced", [True, False])
def test_over_all_signs_the_sliced_objective_is_the_implicit_one_exactly(reduced):
    x = draws(5, 2)
    signs = [double(*pair).expand(5, 2) for pair in product((1.0, -1.0), repeat=2)]
    average = torch.stack([sliced(wrong(1.0), x, v, reduced=reduced) for v in signs]).mean(0)
    assert_close(average, implicit(wrong(1.0), x))


@pytest.mark.parametrize("reduced", [True, False])
def test_over_gaussian_directions_the_sliced_objective_is_the_implicit_one_on_average(reduced):
    x = draws(1, 2).expand(N, 2)
    assert mean_is((sliced(wrong(1.0), x, draws(N, 2, seed=1), reduced=reduced) - implicit(wrong(1.0), x)).detach())


@pytest.mark.parametrize("signs", [True, False])
def test_the_variance_of_a_traces_estimate_is_the_known_one(signs):
    """2 sum over i != j of J_ij^2 for signs (none for a diagonal J), 2 |J|^2 for Gaussian directions; J symmetric."""
    jacobian = double([1.0, 0.3, -0.2], [0.3, -2.0, 0.5], [-0.2, 0.5, 0.7])
    x = torch.zeros(N, 3, dtype=torch.float64)
    v = rademacher(x, torch.Generator().manual_seed(0)) if signs else draws(N, 3, seed=2)
    _, slope = value_and_slope(lambda x: x @ jacobian, x, v)
    estimates = (v * slope).sum(1).detach()
    counted = jacobian - jacobian.diag().diag() if signs else jacobian
    assert estimates.var().item() == pytest.approx(2 * (counted**2).sum().item(), rel=0.05)
    assert mean_is(estimates, jacobian.trace().item())


# the identities


@pytest.mark.parametrize("a", [0.0, 0.7, 3.0])
def test_on_a_gaussian_explicit_less_implicit_is_the_fisher_information_half(a):
    """Exactly: both are quadratic for s(x) = -a x, and +-s has the moments of N(0, s^2). E[s^2/2 + s'] at the truth is -1/(2 s^2)."""
    s2 = 0.6
    x = double([math.sqrt(s2)], [-math.sqrt(s2)])
    gap = explicit(lambda x: -a * x, x, lambda x: -x / s2).mean() - implicit(lambda x: -a * x, x).mean()
    assert gap.item() == pytest.approx(1 / (2 * s2), abs=1e-12)
    assert implicit(lambda x: -x / s2, x).mean().item() == pytest.approx(-1 / (2 * s2), abs=1e-12)


def test_on_a_mixture_explicit_and_implicit_differ_by_a_constant_whatever_the_score():
    x = MIXTURE.sample(N, torch.Generator().manual_seed(0))
    gaps = [(explicit(score, x, true_score) - implicit(score, x)).detach() for score in (wrong(1.0), wrong(-2.0), true_score)]
    assert mean_is(gaps[0] - gaps[1])
    assert mean_is(gaps[0] - gaps[2])
    assert mean_is(gaps[0] - (true_score(x) ** 2).sum(1) / 2)


def test_the_cross_term_of_denoising_score_matching_needs_no_true_score():
    """Homework 7, problem 3: E grad log q(x~) s(x~) = E grad log q(x~ | x) s(x~), the latter -eps / sigma."""
    sigma, eps = 0.5, draws(N, 2, seed=1)
    noisy = MIXTURE.sample(N, torch.Generator().manual_seed(0)) + sigma * eps
    logsnr = double(-2 * math.log(sigma)).expand(N)  # of x~ / sqrt(1 + sigma^2), the same density in the core's coordinates
    size = math.sqrt(1 + sigma**2)
    true = MIXTURE.score(noisy / size, logsnr) / size
    assert mean_is(((true + eps / sigma) * wrong(1.0)(noisy)).sum(1))


def test_denoising_and_explicit_on_the_noisy_density_differ_by_a_constant():
    sigma, eps, x = double(0.5).expand(N), draws(N, 2, seed=1), MIXTURE.sample(N, torch.Generator().manual_seed(0))
    size = math.sqrt(1.25)

    def true(y: torch.Tensor) -> torch.Tensor:
        return MIXTURE.score(y / size, double(2 * math.log(2)).expand(len(y))) / size

    gaps = [denoising(score, x, sigma, eps) - explicit(score, x + 0.5 * eps, true) for score in (wrong(1.0), wrong(-2.0), true)]
    assert mean_is(gaps[0] - gaps[1])
    assert mean_is(gaps[0] - gaps[2])


def test_on_a_gaussian_the_best_linear_score_by_denoising_is_that_of_the_noisy_density():
    """Exactly, over the four points (+-s, +-1): its slope is -1 / (s^2 + sigma^2), not the data's."""
    s2, sigma = 0.6, 0.5
    x, eps = double(*[[a * math.sqrt(s2)] for a in (1, 1, -1, -1)]), double([1.0], [-1.0], [1.0], [-1.0])
    a = double(1 / (s2 + sigma**2)).requires_grad_()
    (gradient,) = torch.autograd.grad(denoising(lambda y: -a * y, x, double(sigma).expand(4), eps).mean(), a)
    assert gradient.item() == pytest.approx(0, abs=1e-12)


def test_the_score_of_the_noise_has_a_minus():
    """grad log q(x_t | x_0) = -eps / sqrt(1 - alpha_bar): lecture 15 prints the network's without it."""
    logsnr, x0, eps = double(-1.0, 2.0), draws(2, 3), draws(2, 3, seed=1)
    x_t = diffuse(x0, logsnr, eps).requires_grad_()
    alpha, sigma = alpha_sigma(logsnr, x0)
    (slope,) = torch.autograd.grad((-((x_t - alpha * x0) ** 2) / (2 * sigma**2)).sum(), x_t)
    assert_close(slope, -eps / sigma)
    assert_close(to_score(Prediction(x0, eps), logsnr), slope)


# NCSN


def test_ncsns_objective_is_half_of_ddpms():
    """With DDPM's noise levels as the ladder and its network as the score: noise sigma / alpha, y = x_t / alpha, s(y) = -eps(x_t) alpha / sigma."""
    logsnr, x0, eps = double(-3.0, 0.0, 4.0), draws(3, 2), draws(3, 2, seed=1)
    alpha, sigma = alpha_sigma(logsnr, x0)
    noise = (-logsnr / 2).exp()
    loss = ncsn(lambda y: -MIXTURE.denoise(alpha * y, logsnr).eps * alpha / sigma, x0, noise, eps)
    assert_close(loss, eps_loss(MIXTURE.denoise, x0, logsnr, eps).sum(1) / 2)


@pytest.mark.parametrize(("h", "variance"), [(0.1, 1.025641), (0.5, 1.142857)])
def test_langevin_dynamics_has_the_known_variance(h, variance):
    *_, x = langevin(lambda x: -x, draws(N, 1), h, 150, generator=torch.Generator().manual_seed(0))
    assert x.var().item() == pytest.approx(variance, abs=5 * variance * math.sqrt(2 / N))


def test_annealed_langevin_finds_both_modes_in_their_proportion():
    """Which plain Langevin from noise does not: it stays where it fell."""
    modes = GaussianMixture(double(0.3, 0.7), double([-3.0], [3.0]), double(0.1, 0.1))
    x = draws(4000, 1)
    *_, last = annealed_langevin(modes.denoise, x, torch.linspace(-8, 6, 60), generator=torch.Generator().manual_seed(0))
    right = last.x > 0
    assert right.double().mean().item() == pytest.approx(0.7, abs=4 * math.sqrt(0.21 / 4000) + 0.02)
    assert last.x[right].mean().item() == pytest.approx(3, abs=0.05)
    assert last.x[right].var().item() == pytest.approx(0.1, abs=0.03)
    *_, stuck = langevin(lambda x: modes.score(x, double(6.0).expand(len(x))), x, 0.01, 600, generator=torch.Generator().manual_seed(0))
    assert (stuck > 0).double().mean().item() == pytest.approx(0.5, abs=0.05)


# as losses


@pytest.mark.parametrize("objective", ["explicit", "implicit", "sliced", "denoising"])
def test_an_objective_trains_a_network_to_the_score_of_a_gaussian(objective):
    """A line -a x + b on N(1, 0.5): a = 2 (denoising: 1 / (0.5 + 0.25))."""
    x = 1 + math.sqrt(0.5) * draws(2000, 1)
    a, b = double(0.0).requires_grad_(), double(0.0).requires_grad_()
    losses = {
        "explicit": lambda s: explicit(s, x, lambda x: -(x - 1) / 0.5),
        "implicit": lambda s: implicit(s, x),
        "sliced": lambda s: sliced(s, x, torch.ones_like(x)),
        "denoising": lambda s: denoising(s, x, double(0.5).expand(2000), draws(2000, 1, seed=1)),
    }
    optimizer = torch.optim.LBFGS([a, b], max_iter=50)

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        loss = losses[objective](lambda x: b - a * x).mean()
        loss.backward()
        return loss

    optimizer.step(step)
    expected = 1 / 0.75 if objective == "denoising" else 2
    assert a.item() == pytest.approx(expected, rel=0.15 if objective == "denoising" else 0.1)
    assert (b / a).item() == pytest.approx(1, abs=0.1)
