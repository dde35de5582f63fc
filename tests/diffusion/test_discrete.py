"""Forward process of the T-step chain: one step, k steps, and chains in closed form."""

import math

import pytest
import torch
from chains import LINEAR, every_chain
from tensors import close, draws, seeded
from torch.testing import assert_close

from textdiff.diffusion import gaussian
from textdiff.diffusion.discrete import Chain, linear_betas
from textdiff.diffusion.schedules import constant_alpha

ZEROS, ONES = torch.zeros(2, 3, dtype=torch.float64), torch.ones(2, 3, dtype=torch.float64)


@pytest.mark.parametrize("t", [1, 500, 1000])
def test_step_has_ddpm_mean_and_variance(t):
    """Mean sqrt(1 - beta_t) x and variance beta_t."""
    x = draws(3, 2)
    mean, var = LINEAR.step(x, t)
    close(mean, (1 - LINEAR.beta[t]).sqrt() * x)
    close(var, LINEAR.beta[t].expand(3, 2))


def test_sampled_steps_have_the_mean_and_covariance():
    """Within five standard errors."""
    n, t = 200_000, 700
    x = torch.tensor([1.5, -0.5], dtype=torch.float64)
    mean, var = LINEAR.step(x.expand(n, 2), t)
    samples = mean + var.sqrt() * draws(n, 2)
    beta = LINEAR.beta[t].item()
    mean_error, cov_error = 5 * math.sqrt(beta / n), 5 * beta * math.sqrt(2 / n)
    assert_close(samples.mean(0), math.sqrt(1 - beta) * x, rtol=0, atol=mean_error)
    covariance = beta * torch.eye(2, dtype=torch.float64)
    assert_close(samples.T.cov(), covariance, rtol=0, atol=cov_error)


@every_chain
@pytest.mark.parametrize(("s", "t"), [(0, 1), (0, 100), (3, 3), (17, 60), (99, 100)])
def test_transition_composes_its_steps(chain, s, t):
    mean, var = draws(4, 3), torch.zeros(4, 3, dtype=torch.float64)
    transition = chain.transition(mean, s, t)
    for k in range(s + 1, t + 1):
        (mean, added), var = chain.step(mean, k), chain.alpha[k] * var
        var = var + added
    close(transition.mean, mean)
    close(transition.var, var)


@pytest.mark.parametrize(("s", "t"), [(-1, 0), (3, 2), (0, 1001)])
def test_transition_out_of_range_is_refused(s, t):
    with pytest.raises(ValueError, match=f"0 <= s <= t <= 1000, got s = {s}, t = {t}"):
        Chain.from_betas(linear_betas(1000)).transition(torch.zeros(2), s, t)


@pytest.mark.parametrize("t", [-1, 0, 1001])
@pytest.mark.parametrize("form", ["posterior", "posterior_from_eps"])
def test_posterior_out_of_range_is_refused(form, t):
    with pytest.raises(ValueError, match=f"lies in 1..1000, got {t}"):
        getattr(Chain.from_betas(linear_betas(1000)), form)(torch.zeros(2), torch.zeros(2), t)


def test_sampled_path_has_moments_of_transition():
    """Within five standard errors."""
    n, chain = 50_000, Chain.from_betas(torch.tensor([0.1, 0.3, 0.05, 0.6]))
    generator = seeded(1)
    x = torch.full((n, 1), 2.0, dtype=torch.float64)
    transition = chain.transition(x[:1], 0, 4)
    for t in range(1, 5):
        mean, var = chain.step(x, t)
        x = mean + var.sqrt() * torch.randn(x.shape, generator=generator, dtype=x.dtype)
    var = transition.var.item()
    assert_close(x.mean(), transition.mean.squeeze(), rtol=0, atol=5 * math.sqrt(var / n))
    assert_close(x.var(), transition.var.squeeze(), rtol=0, atol=5 * var * math.sqrt(2 / n))


@every_chain
def test_marginal_is_ddpm_equation_4(chain):
    x0 = draws(2, 3)
    for t in (0, 1, 50, chain.T):
        mean, var = chain.marginal(x0, t)
        close(mean, chain.alpha_bar[t].sqrt() * x0)
        close(var, (1 - chain.alpha_bar[t]).expand(2, 3))


@every_chain
def test_marginal_is_diffuse_at_its_log_snr(chain):
    x0, eps, t = draws(chain.T + 1, 3), draws(chain.T + 1, 3, seed=1), torch.arange(chain.T + 1)
    mean, var = chain.alpha_bar.sqrt()[t, None] * x0, (1 - chain.alpha_bar)[t, None]
    close(gaussian.diffuse(x0, eps, chain.logsnr), mean + var.sqrt() * eps)


@every_chain
def test_alpha_bar_is_the_product_of_alpha(chain):
    close(chain.alpha_bar, chain.alpha.cumprod(0))


def test_entry_zero_is_the_data():
    assert (LINEAR.beta[0], LINEAR.alpha_bar[0], LINEAR.logsnr[0]) == (0, 1, math.inf)
    assert LINEAR.T == 1000


def test_log_snr_is_precise_for_tiny_betas():
    chain = Chain.from_betas(torch.tensor([1e-13, 3e-13], dtype=torch.float64))
    close(chain.logsnr[1:], [-math.log(1e-13), -math.log(4e-13)])


def constant_alpha_chain(alpha: float) -> Chain:
    return Chain.from_betas(torch.full((20,), 1 - alpha**2, dtype=torch.float64))


def test_constant_alpha_chain_has_closed_form_marginals():
    """After l steps the signal is alpha^l."""
    alpha, x0 = 0.9, draws(2, 3)
    for step in range(21):
        mean, var = constant_alpha_chain(alpha).marginal(x0, step)
        close(mean, alpha**step * x0)
        close(var[0, 0], 1 - alpha ** (2 * step))


def test_constant_alpha_transition_depends_on_k_only():
    """k steps multiply the signal by alpha^k from any start."""
    alpha, z = 0.9, draws(2, 3)
    for start in (0, 5, 13):
        mean, var = constant_alpha_chain(alpha).transition(z, start, start + 7)
        close(mean, alpha**7 * z)
        close(var[0, 0], 1 - alpha**14)


@pytest.mark.parametrize("steps", [1, 10, 500])
def test_constant_alpha_chain_is_ornstein_uhlenbeck(steps):
    """The marginals are equal for every number of steps."""
    horizon, w0 = 5.0, draws(1, 1)
    chain = Chain.from_schedule(constant_alpha, steps)
    close(chain.alpha[1:], [math.exp(-2 * horizon / steps)] * steps)
    for step in (1, steps // 2, steps):
        tau = horizon * step / steps
        mean, var = chain.marginal(w0, step)
        close(mean, math.exp(-tau) * w0)
        close(var[0, 0], -math.expm1(-2 * tau))


def test_zero_betas_change_nothing():
    chain, x, eps = Chain.from_betas(torch.zeros(5)), draws(2, 3), draws(2, 3, seed=1)
    for t in range(1, 6):
        posteriors = chain.posterior(x, x, t), chain.posterior_from_eps(eps, x, t)
        for mean, var in (chain.step(x, t), chain.marginal(x, t), *posteriors):
            close(mean, x)
            close(var, ZEROS)
    assert (chain.logsnr == math.inf).all()


def test_zero_beta_between_others_changes_nothing():
    chain, x0, x = Chain.from_betas(torch.tensor([0.1, 0.0, 0.2])), draws(2, 3), draws(2, 3, seed=1)
    posteriors = chain.posterior(x0, x, 2), chain.posterior_from_eps(x0, x, 2)
    for mean, var in (chain.step(x, 2), *posteriors):
        close(mean, x)
        close(var, ZEROS)


@pytest.mark.parametrize("betas", [[1.0, 1.0, 1.0], [0.1, 1.0, 0.2], [0.1, 0.2, 1.0]])
def test_beta_one_is_pure_noise(betas):
    """The state before that step has no influence on the state after it."""
    chain, x0, x = Chain.from_betas(torch.tensor(betas)), draws(2, 3), draws(2, 3, seed=1)
    t = betas.index(1.0) + 1
    for mean, var in (chain.step(x, t), chain.transition(x, 0, 3), chain.marginal(x0, t)):
        close(mean, ZEROS)
        close(var, ONES)
    posterior, previous = chain.posterior(x0, x, t), chain.marginal(x0, t - 1)
    close(posterior.mean, previous.mean)
    close(posterior.var, previous.var)
    assert chain.logsnr[t] == -math.inf
    tables = chain.alpha_bar, chain.small_variance, *chain.posterior_coefficients
    assert all(table.isfinite().all() for table in tables)


@pytest.mark.parametrize(("beta", "t"), [(-0.01, 1), (1.5, 2), (math.nan, 3)])
def test_invalid_beta_is_refused_by_its_index(beta, t):
    betas = torch.full((4,), 0.1)
    betas[t - 1] = beta
    with pytest.raises(ValueError, match=rf"got beta_{t} = "):
        Chain.from_betas(betas)


def test_ddpm_table_rescaled_too_far_is_refused():
    """For fewer than 20 steps a beta exceeds 1."""
    with pytest.raises(ValueError, match=r"got beta_6 = 1\.1155"):
        Chain.from_betas(linear_betas(10) * 1000 / 10)
