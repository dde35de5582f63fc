"""Posterior q(x_{t-1} | x_t, x_0) of the T-step chain: mean, variances and dtype."""

import pytest
import torch
from chains import CHAINS, LINEAR, every_chain
from tensors import close, double, draws, linspace
from torch.distributions import Normal

from textdiff.diffusion import gaussian
from textdiff.diffusion.discrete import Chain

COEF_X0, COEF_XT = (coefficient[1:] for coefficient in LINEAR.posterior_coefficients)
ALPHA_BAR, PREVIOUS_ALPHA_BAR = LINEAR.alpha_bar[1:], LINEAR.alpha_bar[:-1]
# the coefficient of x_t with the course notes' misprint sqrt(alpha_bar_t)
MISPRINT = ALPHA_BAR.sqrt() * (1 - PREVIOUS_ALPHA_BAR) / (1 - ALPHA_BAR)


def test_posterior_mean_has_sqrt_alpha():
    """The mean of x_{t-1} given x_0 alone is sqrt(alpha_bar_{t-1}) x_0.

    With the course notes' sqrt(alpha_bar_t) the error is 0.2475.
    """

    def error(coef_xt):
        mean = COEF_X0 + coef_xt * ALPHA_BAR.sqrt()
        return (mean - PREVIOUS_ALPHA_BAR.sqrt()).abs().max().item()

    assert error(COEF_XT) < 1e-12
    assert error(MISPRINT) == pytest.approx(0.2475, abs=5e-5)


def test_posterior_and_marginal_give_the_previous_variance():
    """Law of total variance given x_0. With the course notes' misprint the error is 0.98."""

    def error(coef_xt):
        var = coef_xt**2 * (1 - ALPHA_BAR) + LINEAR.small_variance[1:]
        return (var - (1 - PREVIOUS_ALPHA_BAR)).abs().max().item()

    assert error(COEF_XT) < 1e-14
    assert error(MISPRINT) == pytest.approx(0.98, abs=5e-3)


def test_posterior_matches_ddpm_table():
    coef_x0, coef_xt = LINEAR.posterior_coefficients
    assert coef_xt[501].item() == pytest.approx(0.994104, abs=5e-7)
    assert coef_xt[1000].item() == pytest.approx(0.989949, abs=5e-7)
    assert coef_x0[1000].item() == pytest.approx(1.283515e-4, rel=1e-6)


@every_chain
def test_mean_from_eps_is_mean_from_x0(chain):
    x0, eps = draws(2, 3), draws(2, 3, seed=1)
    for t in range(1, chain.T + 1):
        if chain.beta[t] == 1:
            continue  # eps does not determine x0
        mean, var = chain.marginal(x0, t)
        x_t = mean + var.sqrt() * eps
        close(chain.posterior_from_eps(eps, x_t, t).mean, chain.posterior(x0, x_t, t).mean, 1e-10)


def test_posterior_mean_from_the_score():
    """The mean is (x_t + beta_t score) / sqrt(alpha_t)."""
    x_t, eps = draws(2, 3), draws(2, 3, seed=1)
    for t in (1, 2, 500, 1000):
        score = gaussian.to_score(gaussian.Prediction(x_t, eps), LINEAR.logsnr[t].expand(2))
        mean = (x_t + LINEAR.beta[t] * score) / LINEAR.alpha[t].sqrt()
        close(LINEAR.posterior_from_eps(eps, x_t, t).mean, mean, 1e-10)


@pytest.mark.parametrize(("x0", "x_t", "t"), [(1.0, 0.3, 2), (-0.5, 1.2, 3), (0.7, -0.7, 5)])
def test_posterior_is_bayes_rule_on_a_grid(x0, x_t, t):
    """q(x_{t-1} | x_0) q(x_t | x_{t-1}), multiplied point by point and normalized."""
    chain = Chain.from_betas(torch.tensor([0.1, 0.3, 0.2, 0.5, 0.4]))
    x_s = linspace(-10, 10, 20_001)
    prior, likelihood = chain.marginal(torch.full_like(x_s, x0), t - 1), chain.step(x_s, t)
    log_prior = Normal(prior.mean, prior.var.sqrt()).log_prob(x_s)
    log_likelihood = Normal(likelihood.mean, likelihood.var.sqrt()).log_prob(torch.tensor(x_t))
    density = (log_prior + log_likelihood).softmax(0)
    mean = (density * x_s).sum()
    posterior = chain.posterior(double([x0]), double([x_t]), t)
    close(posterior.mean.squeeze(), mean, 1e-7)
    close(posterior.var.squeeze(), (density * (x_s - mean) ** 2).sum(), 1e-7)


@every_chain
def test_posterior_matches_log_snr_form(chain):
    x0, x_t, t = draws(chain.T, 3), draws(chain.T, 3, seed=1), torch.arange(1, chain.T + 1)
    mean, var = gaussian.posterior(x0, x_t, chain.logsnr[:-1], chain.logsnr[1:])
    coef_x0, coef_xt = chain.posterior_coefficients
    close(mean, coef_x0[t, None] * x0 + coef_xt[t, None] * x_t, 1e-10)
    close(var.flatten(), chain.small_variance[1:], 1e-10)


def test_last_reverse_step_is_x0_without_noise():
    coef_x0, coef_xt = LINEAR.posterior_coefficients
    assert (coef_x0[1], coef_xt[1], LINEAR.small_variance[1]) == (1, 0, 0)


def test_small_variance_is_at_most_large_variance():
    for chain in CHAINS.values():
        assert (chain.small_variance <= chain.large_variance).all()


def test_large_variance_is_that_of_the_transition():
    x = draws(1000, 2)
    var = gaussian.transition(x, LINEAR.logsnr[:-1], LINEAR.logsnr[1:]).var
    close(var.flatten(), LINEAR.large_variance[1:], 1e-10)


def test_clipped_log_variance_differs_at_step_one_only():
    """At step 1 it is that of step 2."""
    clipped = LINEAR.clipped_log_small_variance
    assert LINEAR.small_variance[2].item() == pytest.approx(5.453188e-5, rel=1e-6)
    assert clipped[1].item() == pytest.approx(-9.816725, abs=1e-6)
    close(clipped[2:].exp(), LINEAR.small_variance[2:])


def test_float32_inputs_give_float64_results():
    chain, x = Chain.from_betas(torch.tensor([0.1, 0.0, 0.2])), draws(2, 3).float()
    assert chain.alpha_bar.dtype == torch.float64
    forms = chain.posterior, chain.posterior_from_eps
    for result in (chain.step(x, 1), *(form(x, x, t) for form in forms for t in (1, 2, 3))):
        assert {part.dtype for part in result} == {torch.float64}
