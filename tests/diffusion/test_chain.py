"""The T-step chain: what one step, k steps and one step back do to a point, and the figures of the textbooks' tables."""

import math
from functools import partial

import pytest
import torch
from torch.distributions import Normal
from torch.testing import assert_close

from textdiff.diffusion import gaussian
from textdiff.diffusion.chain import Chain, linear_betas
from textdiff.diffusion.schedule import SCHEDULES, constant_alpha, cosine, linear, sqrt

LINEAR = Chain.from_betas(linear_betas(1000))
CHAINS = {name: Chain.from_schedule(schedule, 100) for name, schedule in SCHEDULES.items()} | {"ddpm": LINEAR}
every_chain = pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)


def points(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(actual, expected, tolerance=1e-12):
    assert_close(torch.as_tensor(actual), torch.as_tensor(expected, dtype=torch.float64), rtol=tolerance, atol=tolerance)


def before(per_step: torch.Tensor) -> torch.Tensor:
    """Entry t - 1 at t = 1..T."""
    return per_step[:-1]


# the forward process


@pytest.mark.parametrize("t", [1, 500, 1000])
def test_a_step_shrinks_by_sqrt_one_minus_beta_and_adds_variance_beta(t):
    x = points(3, 2)
    mean, var = LINEAR.step(x, t)
    close(mean, (1 - LINEAR.beta[t]).sqrt() * x)
    close(var, LINEAR.beta[t].expand(3, 2))


def test_a_step_drawn_many_times_has_its_mean_and_covariance():
    n, t = 200_000, 700
    x = torch.tensor([1.5, -0.5], dtype=torch.float64)
    mean, var = LINEAR.step(x.expand(n, 2), t)
    drawn = mean + var.sqrt() * points(n, 2)
    beta = LINEAR.beta[t].item()
    assert_close(drawn.mean(0), math.sqrt(1 - beta) * x, rtol=0, atol=5 * math.sqrt(beta / n))  # five standard errors
    assert_close(drawn.T.cov(), beta * torch.eye(2, dtype=torch.float64), rtol=0, atol=5 * beta * math.sqrt(2 / n))


@every_chain
@pytest.mark.parametrize(("s", "t"), [(0, 1), (0, 100), (3, 3), (17, 60), (99, 100)])
def test_a_jump_is_the_product_of_its_steps(chain, s, t):
    mean, var = points(4, 3), torch.zeros(4, 3, dtype=torch.float64)
    jump = chain.jump(mean, s, t)
    for k in range(s + 1, t + 1):
        (mean, added), var = chain.step(mean, k), chain.alpha[k] * var
        var = var + added
    close(jump.mean, mean)
    close(jump.var, var)


@pytest.mark.parametrize(("s", "t"), [(-1, 0), (3, 2), (0, 1001)])
def test_a_jump_out_of_the_chain_is_refused(s, t):
    with pytest.raises(ValueError, match=f"0 <= s <= t <= 1000, got s = {s}, t = {t}"):
        Chain.from_betas(linear_betas(1000)).jump(torch.zeros(2), s, t)


@pytest.mark.parametrize("t", [-1, 0, 1001])
@pytest.mark.parametrize("form", ["posterior", "posterior_from_eps"])
def test_a_posterior_out_of_the_chain_is_refused(form, t):
    with pytest.raises(ValueError, match=f"lies in 1..1000, got {t}"):
        getattr(Chain.from_betas(linear_betas(1000)), form)(torch.zeros(2), torch.zeros(2), t)


def test_steps_drawn_one_by_one_have_the_moments_of_the_jump():
    n, chain = 50_000, Chain.from_betas(torch.tensor([0.1, 0.3, 0.05, 0.6]))
    generator = torch.Generator().manual_seed(1)
    x = torch.full((n, 1), 2.0, dtype=torch.float64)
    jump = chain.jump(x[:1], 0, 4)
    for t in range(1, 5):
        mean, var = chain.step(x, t)
        x = mean + var.sqrt() * torch.randn(x.shape, generator=generator, dtype=x.dtype)
    var = jump.var.item()
    assert_close(x.mean(), jump.mean.squeeze(), rtol=0, atol=5 * math.sqrt(var / n))  # five standard errors
    assert_close(x.var(), jump.var.squeeze(), rtol=0, atol=5 * var * math.sqrt(2 / n))


@every_chain
def test_the_marginal_is_the_jump_from_the_data_in_alpha_bar(chain):
    x0 = points(2, 3)
    for t in (0, 1, 50, chain.T):
        mean, var = chain.marginal(x0, t)
        close(mean, chain.alpha_bar[t].sqrt() * x0)
        close(var, (1 - chain.alpha_bar[t]).expand(2, 3))


@every_chain
def test_the_marginal_is_diffuse_at_the_chains_log_snr(chain):
    x0, eps, t = points(chain.T + 1, 3), points(chain.T + 1, 3, seed=1), torch.arange(chain.T + 1)
    mean, var = chain.alpha_bar.sqrt()[t, None] * x0, (1 - chain.alpha_bar)[t, None]
    close(gaussian.diffuse(x0, chain.logsnr, eps), mean + var.sqrt() * eps)


@every_chain
def test_alpha_bar_is_the_running_product_of_alpha(chain):
    close(chain.alpha_bar, chain.alpha.cumprod(0))


def test_entry_zero_is_the_data():
    assert (LINEAR.beta[0], LINEAR.alpha_bar[0], LINEAR.logsnr[0]) == (0, 1, math.inf)
    assert LINEAR.T == 1000


def test_log_snr_keeps_its_precision_where_beta_is_tiny():
    chain = Chain.from_betas(torch.tensor([1e-13, 3e-13], dtype=torch.float64))
    close(chain.logsnr[1:], [-math.log(1e-13), -math.log(4e-13)])


# chains in closed form


def test_the_constant_alpha_chain_keeps_alpha_to_the_l_after_l_steps():
    alpha, x0 = 0.9, points(2, 3)
    chain = Chain.from_betas(torch.full((20,), 1 - alpha**2, dtype=torch.float64))
    for step in range(21):
        mean, var = chain.marginal(x0, step)
        close(mean, alpha**step * x0)
        close(var[0, 0], 1 - alpha ** (2 * step))


def test_k_steps_of_the_constant_alpha_chain_keep_alpha_to_the_k_wherever_they_start():
    alpha, z = 0.9, points(2, 3)
    chain = Chain.from_betas(torch.full((20,), 1 - alpha**2, dtype=torch.float64))
    for start in (0, 5, 13):
        mean, var = chain.jump(z, start, start + 7)
        close(mean, alpha**7 * z)
        close(var[0, 0], 1 - alpha**14)


@pytest.mark.parametrize("steps", [1, 10, 500])
def test_the_constant_alpha_chain_is_the_ornstein_uhlenbeck_process_at_every_number_of_steps(steps):
    horizon, w0 = 5.0, points(1, 1)
    chain = Chain.from_schedule(constant_alpha, steps)
    close(chain.alpha[1:], [math.exp(-2 * horizon / steps)] * steps)
    for step in (1, steps // 2, steps):
        tau = horizon * step / steps
        mean, var = chain.marginal(w0, step)
        close(mean, math.exp(-tau) * w0)
        close(var[0, 0], -math.expm1(-2 * tau))


def test_a_beta_of_zero_everywhere_changes_nothing():
    chain, x, eps = Chain.from_betas(torch.zeros(5)), points(2, 3), points(2, 3, seed=1)
    for t in range(1, 6):
        for mean, var in (chain.step(x, t), chain.marginal(x, t), chain.posterior(x, x, t), chain.posterior_from_eps(eps, x, t)):
            close(mean, x)
            close(var, torch.zeros(2, 3))
    assert (chain.logsnr == math.inf).all()


def test_a_beta_of_zero_in_the_middle_is_a_step_that_does_nothing():
    chain, x0, x = Chain.from_betas(torch.tensor([0.1, 0.0, 0.2])), points(2, 3), points(2, 3, seed=1)
    for mean, var in (chain.step(x, 2), chain.posterior(x0, x, 2), chain.posterior_from_eps(x0, x, 2)):
        close(mean, x)
        close(var, torch.zeros(2, 3))


@pytest.mark.parametrize("betas", [[1.0, 1.0, 1.0], [0.1, 1.0, 0.2], [0.1, 0.2, 1.0]])
def test_a_beta_of_one_is_pure_noise_and_nothing_before_it_is_remembered(betas):
    chain, x0, x = Chain.from_betas(torch.tensor(betas)), points(2, 3), points(2, 3, seed=1)
    t = betas.index(1.0) + 1
    for mean, var in (chain.step(x, t), chain.jump(x, 0, 3), chain.marginal(x0, t)):
        close(mean, torch.zeros(2, 3))
        close(var, torch.ones(2, 3))
    back, before_x0 = chain.posterior(x0, x, t), chain.marginal(x0, t - 1)
    close(back.mean, before_x0.mean)
    close(back.var, before_x0.var)
    assert chain.logsnr[t] == -math.inf
    assert all(table.isfinite().all() for table in (chain.alpha_bar, chain.small_variance, *chain.posterior_coefficients))


@pytest.mark.parametrize(("bad", "where"), [(-0.01, 1), (1.5, 2), (math.nan, 3)])
def test_a_beta_outside_zero_to_one_is_refused_by_its_number(bad, where):
    betas = torch.full((4,), 0.1)
    betas[where - 1] = bad
    with pytest.raises(ValueError, match=rf"got beta_{where} = "):
        Chain.from_betas(betas)


def test_ddpms_table_rescaled_to_fewer_than_twenty_steps_is_refused():
    with pytest.raises(ValueError, match=r"got beta_6 = 1\.1155"):
        Chain.from_betas(linear_betas(10) * 1000 / 10)


# one step back


def test_the_posterior_mean_has_sqrt_alpha_t_before_x_t_and_not_sqrt_alpha_bar_t():
    """The mean of x_{t-1} given x_0 alone must come out as sqrt(alpha_bar_{t-1}) x_0: the typo of the course notes misses it by 0.2475."""
    per_x0, per_x_t = LINEAR.posterior_coefficients
    noise_before = 1 - before(LINEAR.alpha_bar)
    typo = LINEAR.alpha_bar[1:].sqrt() * noise_before / (1 - LINEAR.alpha_bar[1:])

    def error(coefficient):
        return (per_x0[1:] + coefficient * LINEAR.alpha_bar[1:].sqrt() - before(LINEAR.alpha_bar).sqrt()).abs().max().item()

    assert error(per_x_t[1:]) < 1e-12
    assert error(typo) == pytest.approx(0.2475, abs=5e-5)


def test_the_posterior_and_the_marginal_give_the_variance_of_the_marginal_before():
    """Law of total variance, x_0 given; the typo of the course notes misses it by 0.98."""
    per_x_t, noise, noise_before = LINEAR.posterior_coefficients.x_t[1:], 1 - LINEAR.alpha_bar[1:], 1 - before(LINEAR.alpha_bar)
    typo = LINEAR.alpha_bar[1:].sqrt() * noise_before / noise

    def error(coefficient):
        return (coefficient**2 * noise + LINEAR.small_variance[1:] - noise_before).abs().max().item()

    assert error(per_x_t) < 1e-14
    assert error(typo) == pytest.approx(0.98, abs=5e-3)


def test_the_posterior_coefficients_of_ddpms_table_are_the_published_figures():
    per_x0, per_x_t = LINEAR.posterior_coefficients
    assert per_x_t[501].item() == pytest.approx(0.994104, abs=5e-7)
    assert per_x_t[1000].item() == pytest.approx(0.989949, abs=5e-7)
    assert per_x0[1000].item() == pytest.approx(1.283515e-4, rel=1e-6)


@every_chain
def test_the_mean_in_eps_form_is_the_mean_in_x0_form(chain):
    x0, eps = points(2, 3), points(2, 3, seed=1)
    for t in range(1, chain.T + 1):
        if chain.beta[t] == 1:
            continue  # eps then says nothing of x0
        mean, var = chain.marginal(x0, t)
        x_t = mean + var.sqrt() * eps
        close(chain.posterior_from_eps(eps, x_t, t).mean, chain.posterior(x0, x_t, t).mean, 1e-10)


def test_the_mean_in_score_form_is_x_t_plus_beta_times_the_score_over_sqrt_alpha():
    x_t, eps = points(2, 3), points(2, 3, seed=1)
    for t in (1, 2, 500, 1000):
        score = gaussian.to_score(gaussian.Prediction(x_t, eps), LINEAR.logsnr[t].expand(2))
        close(LINEAR.posterior_from_eps(eps, x_t, t).mean, (x_t + LINEAR.beta[t] * score) / LINEAR.alpha[t].sqrt(), 1e-10)


@pytest.mark.parametrize(("x0", "x_t", "t"), [(1.0, 0.3, 2), (-0.5, 1.2, 3), (0.7, -0.7, 5)])
def test_the_posterior_is_bayes_rule_on_a_grid(x0, x_t, t):
    """q(x_{t-1} | x_0) q(x_t | x_{t-1}), multiplied point by point and normalized."""
    chain = Chain.from_betas(torch.tensor([0.1, 0.3, 0.2, 0.5, 0.4]))
    x_s = torch.linspace(-10, 10, 20_001, dtype=torch.float64)
    prior, likelihood = chain.marginal(torch.full_like(x_s, x0), t - 1), chain.step(x_s, t)
    log_density = Normal(prior.mean, prior.var.sqrt()).log_prob(x_s) + Normal(likelihood.mean, likelihood.var.sqrt()).log_prob(torch.tensor(x_t))
    density = log_density.softmax(0)
    mean = (density * x_s).sum()
    posterior = chain.posterior(torch.tensor([[x0]]).double(), torch.tensor([[x_t]]).double(), t)
    close(posterior.mean.squeeze(), mean, 1e-7)
    close(posterior.var.squeeze(), (density * (x_s - mean) ** 2).sum(), 1e-7)


@every_chain
def test_the_posterior_is_the_one_in_log_snr_form(chain):
    x0, x_t, t = points(chain.T, 3), points(chain.T, 3, seed=1), torch.arange(1, chain.T + 1)
    mean, var = gaussian.posterior(x0, x_t, before(chain.logsnr), chain.logsnr[1:])
    per_x0, per_x_t = chain.posterior_coefficients
    close(mean, per_x0[t, None] * x0 + per_x_t[t, None] * x_t, 1e-10)
    close(var.flatten(), chain.small_variance[1:], 1e-10)


def test_the_last_step_back_is_x0_without_noise():
    assert (LINEAR.posterior_coefficients.x0[1], LINEAR.posterior_coefficients.x_t[1], LINEAR.small_variance[1]) == (1, 0, 0)


def test_the_small_variance_is_at_most_the_large_one():
    for chain in CHAINS.values():
        assert (chain.small_variance <= chain.large_variance).all()


def test_the_large_variance_of_a_chain_is_the_transitions():
    x = points(1000, 2)
    close(gaussian.transition(x, before(LINEAR.logsnr), LINEAR.logsnr[1:]).var.flatten(), LINEAR.large_variance[1:], 1e-10)


def test_the_clipped_log_variance_is_that_of_step_two_at_step_one_and_the_true_one_elsewhere():
    clipped = LINEAR.clipped_log_small_variance
    assert LINEAR.small_variance[2].item() == pytest.approx(5.453188e-5, rel=1e-6)
    assert clipped[1].item() == pytest.approx(-9.816725, abs=1e-6)
    close(clipped[2:].exp(), LINEAR.small_variance[2:])


# chains of schedules


@pytest.mark.parametrize("T", [1, 7, 1000])
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_a_schedules_chain_has_the_schedules_alpha_bar(schedule, T):
    at_steps = schedule(torch.arange(1, T + 1, dtype=torch.float64) / T).sigmoid()
    close(Chain.from_schedule(schedule, T).alpha_bar[1:], at_steps)


def test_the_terminal_alpha_bar_is_the_known_figure_of_each_table():
    first, last = 1e-4, 0.02
    betas = {
        4.035830e-5: linear_betas(1000),
        4.660099e-3: torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2,  # Stable Diffusion's scaled linear
        3.968e-5: torch.linspace(-6, 6, 1000, dtype=torch.float64).sigmoid() * (last - first) + first,  # GeoDiff's sigmoid, a sigmoid of beta
    }
    for alpha_bar, table in betas.items():
        assert Chain.from_betas(table).alpha_bar[-1].item() == pytest.approx(alpha_bar, rel=2e-4)
    capped = {"cosine": 2.428767e-9, "sigmoid": 3.0028e-7}
    for name, alpha_bar in capped.items():
        assert Chain.from_schedule(SCHEDULES[name], 1000, max_beta=0.999).alpha_bar[-1].item() == pytest.approx(alpha_bar, rel=1e-5)


def test_the_prior_kl_of_ddpms_table_is_the_known_figure():
    """KL(q(x_T | x_0) || N(0, 1)) in bits a dimension where x_0^2 = 1."""
    mean, var = LINEAR.marginal(torch.ones(1, 1, dtype=torch.float64), 1000)
    bits = 0.5 * (mean**2 + var - 1 - var.log()) / math.log(2)
    assert bits.item() == pytest.approx(2.911e-5, abs=5e-9)


def test_the_sqrt_schedules_first_step_is_taken_from_clean_data():
    """Diffusion-LM's alpha_bar starts at 0.99: beta_1 is 2.34e-2 relative to that and alpha_bar_T 4.5465e-7; ours are relative to 1."""
    chain = Chain.from_schedule(sqrt, 1000, max_beta=0.999)
    assert 1 - chain.alpha[1].item() / 0.99 == pytest.approx(2.34e-2, rel=1e-3)
    assert chain.alpha_bar[-1].item() / 0.99 == pytest.approx(4.5465e-7, rel=1e-5)


def test_the_cosine_chain_ends_in_pure_noise_unless_capped_and_the_cap_touches_its_last_step_alone():
    free, capped = Chain.from_schedule(cosine, 1000), Chain.from_schedule(cosine, 1000, max_beta=0.999)
    assert (free.beta[-1], free.alpha_bar[-1]) == (1, 0)
    assert capped.beta[-1] == 0.999
    close(capped.beta[:-1], free.beta[:-1])


def test_a_schedule_that_loses_its_signal_early_gives_steps_of_pure_noise_from_there_on():
    chain = Chain.from_schedule(partial(sqrt, s=0.5), 10)
    assert (chain.alpha_bar[5:] == 0).all()
    assert (chain.beta[5:] == 1).all()


def test_ddpms_table_tends_to_the_vp_sde_for_many_steps():
    """beta(t) / T at step t T: the gap closes like 1 / T."""

    def gap(T):
        t = torch.arange(1, T + 1, dtype=torch.float64) / T
        return (Chain.from_betas((0.1 + t * 19.9) / T).alpha_bar[1:] - linear(t).sigmoid()).abs().max()

    assert gap(4000) < 1e-3
    assert_close(gap(2000) / gap(4000), torch.tensor(2.0, dtype=torch.float64), rtol=0, atol=0.05)


@pytest.mark.parametrize("T", [10, 1000, 4000])
def test_ddpms_table_has_the_same_ends_for_every_number_of_steps(T):
    close(linear_betas(T)[[0, -1]], [1e-4, 0.02])


def test_whatever_comes_in_float32_leaves_in_float64():
    chain, x = Chain.from_betas(torch.tensor([0.1, 0.0, 0.2])), points(2, 3).float()
    assert chain.alpha_bar.dtype == torch.float64
    for gaussian_ in (chain.step(x, 1), *(form(x, x, t) for form in (chain.posterior, chain.posterior_from_eps) for t in (1, 2, 3))):
        assert {part.dtype for part in gaussian_} == {torch.float64}
