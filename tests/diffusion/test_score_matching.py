"""Score matching and Langevin dynamics.

On Gaussians, expectations of quadratics are exact means over a few points. On mixtures they are
Monte-Carlo estimates.
"""

import math
from itertools import product

import pytest
import torch
from tensors import double, draws, seeded
from torch.testing import assert_close

from textdiff.diffusion.gaussian import Prediction, alpha_sigma, diffuse, to_score
from textdiff.diffusion.gaussian_mixture import GaussianMixture
from textdiff.diffusion.losses import eps_loss
from textdiff.diffusion.score_matching import (
    annealed_langevin,
    denoising,
    explicit,
    implicit,
    langevin,
    ncsn,
    rademacher,
    sliced,
    value_and_trace,
    value_and_vjp,
)

N = 40_000
MIXTURE = GaussianMixture(double(0.3, 0.7), double([-1.0, 0.5], [1.0, 0.0]), double(0.2, 0.5))
every_variance = pytest.mark.parametrize("reduction", [True, False])


def true_score(x: torch.Tensor) -> torch.Tensor:
    return MIXTURE.score(x, double(math.inf).expand(len(x)))


def other_score(gain: float):
    """A function that is neither a gradient nor the score of a mixture."""
    return lambda x: gain * (x @ double([0.3, -1.0], [0.4, 0.2])).tanh() - 0.5 * x


def noisy_score(y: torch.Tensor) -> torch.Tensor:
    """Score of the mixture with noise of sigma = 0.5, in the core's coordinates y / sqrt(1.25)."""
    size, logsnr = math.sqrt(1.25), double(2 * math.log(2)).expand(len(y))
    return MIXTURE.score(y / size, logsnr) / size


def has_mean(values: torch.Tensor, expected: float = 0.0) -> bool:
    """Within four standard errors."""
    return abs(values.mean().item() - expected) < 4 * values.std().item() / math.sqrt(len(values))


# the trace


def test_exact_trace_is_that_of_the_jacobian():
    x, score = draws(5, 2), other_score(1.0)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: score(row[None]).squeeze(0)))(x)
    value, trace = value_and_trace(score, x)
    assert_close(trace, jacobian.diagonal(dim1=1, dim2=2).sum(1))
    assert_close(value, score(x))


@every_variance
def test_sliced_over_all_signs_is_implicit(reduction):
    x, score = draws(5, 2), other_score(1.0)
    signs = [double(*pair).expand(5, 2) for pair in product((1.0, -1.0), repeat=2)]
    values = [sliced(score, x, v, variance_reduction=reduction) for v in signs]
    assert_close(torch.stack(values).mean(0), implicit(score, x))


@every_variance
def test_sliced_has_the_mean_of_implicit(reduction):
    """Over Gaussian directions."""
    x, score, v = draws(1, 2).expand(N, 2), other_score(1.0), draws(N, 2, seed=1)
    values = sliced(score, x, v, variance_reduction=reduction)
    assert has_mean((values - implicit(score, x)).detach())


@pytest.mark.parametrize("signs", [True, False])
def test_trace_estimate_has_the_known_variance(signs):
    """It is 2 sum_{i != j} J_ij^2 for signs and 2 |J|^2 for Gaussian directions, J symmetric."""
    jacobian = double([1.0, 0.3, -0.2], [0.3, -2.0, 0.5], [-0.2, 0.5, 0.7])
    x = torch.zeros(N, 3, dtype=torch.float64)
    v = rademacher(x, seeded()) if signs else draws(N, 3, seed=2)
    _, vjp = value_and_vjp(lambda x: x @ jacobian, x, v)
    estimates = (v * vjp).sum(1).detach()
    entries = jacobian - jacobian.diag().diag() if signs else jacobian
    assert estimates.var().item() == pytest.approx(2 * (entries**2).sum().item(), rel=0.05)
    assert has_mean(estimates, jacobian.trace().item())


# the identities


@pytest.mark.parametrize("a", [0.0, 0.7, 3.0])
def test_explicit_less_implicit_is_half_fisher_information(a):
    """Exactly: both are quadratic for s(x) = -a x, and +-s has the moments of N(0, s^2).

    E[s^2/2 + s'] of the true score is -1/(2 s^2).
    """
    s2 = 0.6
    x = double([math.sqrt(s2)], [-math.sqrt(s2)])
    explicit_mean = explicit(lambda x: -a * x, x, lambda x: -x / s2).mean()
    gap = explicit_mean - implicit(lambda x: -a * x, x).mean()
    assert gap.item() == pytest.approx(1 / (2 * s2), abs=1e-12)
    assert implicit(lambda x: -x / s2, x).mean().item() == pytest.approx(-1 / (2 * s2), abs=1e-12)


def test_explicit_and_implicit_differ_by_a_constant():
    """On a mixture, for any score."""
    x = MIXTURE.sample(N, seeded())
    gaps = [
        (explicit(score, x, true_score) - implicit(score, x)).detach()
        for score in (other_score(1.0), other_score(-2.0), true_score)
    ]
    assert has_mean(gaps[0] - gaps[1])
    assert has_mean(gaps[0] - gaps[2])
    assert has_mean(gaps[0] - (true_score(x) ** 2).sum(1) / 2)


def test_denoising_cross_term_needs_no_true_score():
    """E grad log q(y) s(y) = E grad log q(y | x) s(y) with grad log q(y | x) = -eps / sigma.

    Source: homework 7, problem 3.
    """
    sigma, eps = 0.5, draws(N, 2, seed=1)
    y = MIXTURE.sample(N, seeded()) + sigma * eps
    assert has_mean(((noisy_score(y) + eps / sigma) * other_score(1.0)(y)).sum(1))


def test_denoising_and_explicit_differ_by_a_constant():
    """With the explicit objective of the noisy density."""
    sigma, eps, x = double(0.5).expand(N), draws(N, 2, seed=1), MIXTURE.sample(N, seeded())
    gaps = [
        denoising(score, x, eps, sigma) - explicit(score, x + 0.5 * eps, noisy_score)
        for score in (other_score(1.0), other_score(-2.0), noisy_score)
    ]
    assert has_mean(gaps[0] - gaps[1])
    assert has_mean(gaps[0] - gaps[2])


def test_denoising_learns_the_noisy_score():
    """The best linear score of a Gaussian has slope -1 / (s^2 + sigma^2), not that of the data.

    The mean is exact over the four points (+-s, +-1).
    """
    s2, sigma = 0.6, double(0.5).expand(4)
    x = double(*[[sign * math.sqrt(s2)] for sign in (1, 1, -1, -1)])
    eps = double([1.0], [-1.0], [1.0], [-1.0])
    a = double(1 / (s2 + 0.5**2)).requires_grad_()
    (gradient,) = torch.autograd.grad(denoising(lambda y: -a * y, x, eps, sigma).mean(), a)
    assert gradient.item() == pytest.approx(0, abs=1e-12)


def test_score_of_noise_is_negative():
    """grad log q(x_t | x_0) = -eps / sqrt(1 - alpha_bar). Lecture 15 omits the sign."""
    logsnr, x0, eps = double(-1.0, 2.0), draws(2, 3), draws(2, 3, seed=1)
    x_t = diffuse(x0, eps, logsnr).requires_grad_()
    alpha, sigma = alpha_sigma(logsnr, x0)
    (slope,) = torch.autograd.grad((-((x_t - alpha * x0) ** 2) / (2 * sigma**2)).sum(), x_t)
    assert_close(slope, -eps / sigma)
    assert_close(to_score(Prediction(x0, eps), logsnr), slope)


# NCSN and Langevin dynamics


def test_ncsn_objective_is_half_of_ddpm():
    """With noise levels sigma / alpha, y = x_t / alpha and s(y) = -eps(x_t) alpha / sigma."""
    logsnr, x0, eps = double(-3.0, 0.0, 4.0), draws(3, 2), draws(3, 2, seed=1)
    alpha, sigma = alpha_sigma(logsnr, x0)

    def score(y):
        return -MIXTURE.denoise(alpha * y, logsnr).eps * alpha / sigma

    loss = ncsn(score, x0, eps, (-logsnr / 2).exp())
    assert_close(loss, eps_loss(MIXTURE.denoise, x0, eps, logsnr).sum(1) / 2)


@pytest.mark.parametrize(("h", "variance"), [(0.1, 1.025641), (0.5, 1.142857)])
def test_langevin_dynamics_has_the_known_variance(h, variance):
    *_, x = langevin(lambda x: -x, draws(N, 1), h, 150, generator=seeded())
    assert x.var().item() == pytest.approx(variance, abs=5 * variance * math.sqrt(2 / N))


def test_annealed_langevin_finds_both_modes():
    """In the right proportion. Langevin dynamics without annealing stays at its first mode."""
    data = GaussianMixture(double(0.3, 0.7), double([-3.0], [3.0]), double(0.1, 0.1))
    x = draws(4000, 1)
    *_, last = annealed_langevin(data.denoise, x, torch.linspace(-8, 6, 60), generator=seeded())
    right = last.x > 0
    assert right.double().mean().item() == pytest.approx(0.7, abs=4 * math.sqrt(0.21 / 4000) + 0.02)
    assert last.x[right].mean().item() == pytest.approx(3, abs=0.05)
    assert last.x[right].var().item() == pytest.approx(0.1, abs=0.03)

    def score(x):
        return data.score(x, double(6.0).expand(len(x)))

    *_, plain = langevin(score, x, 0.01, 600, generator=seeded())
    assert (plain > 0).double().mean().item() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("objective", ["explicit", "implicit", "sliced", "denoising"])
def test_objective_trains_the_score_of_a_gaussian(objective):
    """A line -a x + b on N(1, 0.5): a = 2 (for `denoising` 1 / (0.5 + 0.25))."""
    x = 1 + math.sqrt(0.5) * draws(2000, 1)
    a, b = double(0.0).requires_grad_(), double(0.0).requires_grad_()
    losses = {
        "explicit": lambda s: explicit(s, x, lambda x: -(x - 1) / 0.5),
        "implicit": lambda s: implicit(s, x),
        "sliced": lambda s: sliced(s, x, torch.ones_like(x)),
        "denoising": lambda s: denoising(s, x, draws(2000, 1, seed=1), double(0.5).expand(2000)),
    }
    optimizer = torch.optim.LBFGS([a, b], max_iter=50)

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        loss = losses[objective](lambda x: b - a * x).mean()
        loss.backward()
        return loss

    optimizer.step(step)
    expected, error = (1 / 0.75, 0.15) if objective == "denoising" else (2, 0.1)
    assert a.item() == pytest.approx(expected, rel=error)
    assert (b / a).item() == pytest.approx(1, abs=0.1)
