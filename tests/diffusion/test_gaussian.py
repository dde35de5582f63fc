"""Gaussian algebra in log-SNR form: the forward process, the posterior and predictions."""

import math

import pytest
import torch
from tensors import close, double, draws, linspace
from torch.distributions import Normal

from textdiff.diffusion.gaussian import (
    PREDICTIONS,
    Prediction,
    alpha_sigma,
    diffuse,
    expand,
    from_eps,
    from_mean,
    from_score,
    from_v,
    from_x0,
    posterior,
    to_score,
    to_v,
    transition,
)

INF = math.inf
TO_OUTPUT = {
    "eps": lambda prediction, _: prediction.eps,
    "x0": lambda prediction, _: prediction.x0,
    "v": to_v,
    "score": to_score,
}
LOGSNRS = double(-9.0, -3.0, 0.0, 0.5, 4.0, 9.0)
SHAPES = [(6,), (6, 5), (6, 4, 3), (6, 2, 3, 3)]
TOLERANCES = [(torch.float32, 1e-5), (torch.float64, 1e-12)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
every_dtype = pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES, ids=str)


# the forward process


def test_alpha_squared_plus_sigma_squared_is_one():
    alpha, sigma = alpha_sigma(LOGSNRS, LOGSNRS)
    close(alpha**2 + sigma**2, torch.ones(6, dtype=torch.float64))


def test_log_snr_is_two_log_alpha_over_sigma():
    alpha, sigma = alpha_sigma(LOGSNRS, LOGSNRS)
    close(2 * (alpha / sigma).log(), LOGSNRS)


def test_alpha_sigma_are_exact_at_infinity():
    alpha, sigma = alpha_sigma(double(INF, -INF), double(0, 0))
    assert alpha.tolist() == [1, 0]
    assert sigma.tolist() == [0, 1]


@every_shape
def test_expand_multiplies_each_sample_by_its_number(shape):
    x = draws(*shape)
    products = [number * sample for number, sample in zip(LOGSNRS, x, strict=True)]
    close(expand(LOGSNRS, x) * x, torch.stack(products))


@every_shape
@every_dtype
def test_diffuse_is_alpha_x0_plus_sigma_eps(shape, dtype, tolerance):
    x0, eps = draws(2, *shape, dtype=dtype)
    x_t = diffuse(x0, eps, LOGSNRS.to(dtype))
    assert x_t.dtype == dtype
    for i, logsnr in enumerate(LOGSNRS.tolist()):
        alpha, sigma = (1 / math.sqrt(1 + math.exp(sign * logsnr)) for sign in (-1, 1))
        close(x_t[i], alpha * x0[i] + sigma * eps[i], tolerance)


def test_diffuse_at_infinity_is_data_or_noise():
    x0, eps = draws(2, 2, 3)
    x_t = diffuse(x0, eps, double(INF, -INF))
    assert x_t.equal(torch.stack([x0[0], eps[1]]))


def test_transition_of_a_marginal_is_a_marginal():
    x0 = draws(6, 3)
    s, t = LOGSNRS, LOGSNRS - linspace(0.1, 8, 6)
    alpha_s, sigma_s = alpha_sigma(s, x0)
    alpha_t, sigma_t = alpha_sigma(t, x0)
    mean, added = transition(alpha_s * x0, s, t)
    close(mean, alpha_t * x0)
    close((alpha_t / alpha_s * sigma_s) ** 2 + added, sigma_t**2)


def test_transition_from_clean_data_is_the_marginal():
    x0, eps = draws(2, 6, 3)
    mean, var = transition(x0, double(*[INF] * 6), LOGSNRS)
    close(mean + var.sqrt() * eps, diffuse(x0, eps, LOGSNRS))


def test_transition_to_no_signal_is_standard_normal():
    mean, var = transition(draws(1, 3), double(1.0), double(-INF))
    close(mean, torch.zeros(1, 3, dtype=torch.float64))
    close(var, torch.ones(1, 1, dtype=torch.float64))


# the posterior


@pytest.mark.parametrize(("s", "t"), [(2.0, 0.0), (0.0, -0.1), (5.0, -5.0)])
def test_posterior_is_bayes_rule_on_a_grid(s, t):
    """q(x_s | x_0) q(x_t | x_s), multiplied point by point and normalized."""
    x0, x_t = double(0.8), double(-0.4)
    x_s = linspace(-12, 12, 40_001)
    alpha_s, sigma_s = alpha_sigma(double(s), x0)
    step = transition(x_s, double(s).expand(len(x_s)), double(t).expand(len(x_s)))
    log_likelihood = Normal(step.mean, step.var.sqrt()).log_prob(x_t)
    density = (Normal(alpha_s * x0, sigma_s).log_prob(x_s) + log_likelihood).softmax(0)
    mean = (density * x_s).sum().view(1)
    actual = posterior(x0, x_t, double(s), double(t))
    close(actual.mean, mean, 1e-7)
    close(actual.var, (density * (x_s - mean) ** 2).sum().view(1), 1e-7)


def test_posterior_averaged_over_x_t_is_the_marginal():
    """Laws of total mean and variance. The misprint sqrt(alpha_bar_t) violates both."""
    x0, zero = draws(6, 3), torch.zeros(6, 3, dtype=torch.float64)
    s, t = LOGSNRS, LOGSNRS - 1.5
    alpha_s, sigma_s = alpha_sigma(s, x0)
    alpha_t, sigma_t = alpha_sigma(t, x0)
    mean, var = posterior(x0, alpha_t * x0, s, t)
    coef_xt = posterior(zero, torch.ones_like(zero), s, t).mean
    close(mean, alpha_s * x0)
    close((coef_xt * sigma_t) ** 2 + var, (sigma_s**2).expand(6, 3))


@every_dtype
def test_posterior_is_precise_for_tiny_steps(dtype, tolerance):
    """The variance then is that of the forward step, sigma^2 times the fall of log SNR."""
    s, step = LOGSNRS.to(dtype), 2.0**-18
    x0, x_t = draws(2, 6, 3, dtype=dtype)
    mean, var = posterior(x0, x_t, s, s - step)
    assert (mean.dtype, var.dtype) == (dtype, dtype)
    ratio = var / alpha_sigma(s, x0).sigma ** 2
    close(ratio, torch.full((6, 1), step, dtype=dtype), tolerance + step)
    close(mean, x_t, 30 * step)


def test_posterior_at_clean_data_is_x0():
    x0, x_t = draws(2, 6, 3)
    mean, var = posterior(x0, x_t, double(*[INF] * 6), LOGSNRS)
    assert mean.equal(x0)
    assert var.equal(torch.zeros(6, 1, dtype=torch.float64))


def test_posterior_given_pure_noise_is_the_marginal():
    x0, x_t = draws(2, 6, 3)
    mean, var = posterior(x0, x_t, LOGSNRS, double(*[-INF] * 6))
    alpha, sigma = alpha_sigma(LOGSNRS, x0)
    close(mean, alpha * x0)
    close(var, sigma**2)


# predictions


@pytest.mark.parametrize("name", PREDICTIONS)
@every_shape
@every_dtype
def test_prediction_is_consistent_with_x_t(name, shape, dtype, tolerance):
    """`x_t = alpha x0 + sigma eps` for any output of the network."""
    x_t, output = draws(2, *shape, dtype=dtype)
    logsnr = torch.tensor([-3.0, -1.0, 0.0, 1.0, 2.0, 3.0], dtype=dtype)
    x0, eps = PREDICTIONS[name](x_t, output, logsnr)
    assert (x0.dtype, eps.dtype) == (dtype, dtype)
    close(diffuse(x0, eps, logsnr), x_t, tolerance)


@pytest.mark.parametrize("first", PREDICTIONS)
@pytest.mark.parametrize("second", PREDICTIONS)
def test_parameterizations_convert_to_each_other(first, second):
    x0, eps = draws(2, 6, 3)
    x_t, prediction = diffuse(x0, eps, LOGSNRS), Prediction(x0, eps)
    for name in (first, second):
        prediction = PREDICTIONS[name](x_t, TO_OUTPUT[name](prediction, LOGSNRS), LOGSNRS)
    close(prediction.x0, x0, 1e-10)
    close(prediction.eps, eps, 1e-10)


def test_v_is_the_angular_velocity_of_x_t():
    """v = alpha eps - sigma x0 = d x_t / d phi, where alpha = cos phi, sigma = sin phi."""
    x0, eps = draws(2, 6, 3)
    step, phi = 1e-5, alpha_sigma(LOGSNRS, x0).alpha.acos()
    angles = phi + step, phi - step
    after, before = (angle.cos() * x0 + angle.sin() * eps for angle in angles)
    close(to_v(Prediction(x0, eps), LOGSNRS), (after - before) / (2 * step), 1e-9)


def test_score_is_minus_eps_over_sigma():
    """It is the gradient of log q(x_t | x_0), by autograd. The course notes omit the sign."""
    x0, eps = draws(2, 6, 3)
    x_t = diffuse(x0, eps, LOGSNRS).requires_grad_()
    alpha, sigma = alpha_sigma(LOGSNRS, x0)
    (score,) = torch.autograd.grad(Normal(alpha * x0, sigma).log_prob(x_t).sum(), x_t)
    close(to_score(Prediction(x0, eps), LOGSNRS), score, 1e-10)
    close(from_score(x_t.detach(), score, LOGSNRS).x0, x0, 1e-10)


@pytest.mark.parametrize("gap", [0.01, 1.0, INF])
def test_posterior_mean_determines_the_prediction(gap):
    x0, eps = draws(2, 6, 3)
    x_t, s, t = diffuse(x0, eps, LOGSNRS), LOGSNRS + gap, LOGSNRS
    prediction = from_mean(x_t, posterior(x0, x_t, s, t).mean, s, t)
    close(prediction.x0, x0, 1e-9)
    close(prediction.eps, eps, 1e-9)


@pytest.mark.parametrize("from_output", [from_x0, from_v])
def test_x0_and_v_work_without_signal(from_output):
    x0, eps = draws(2, 2, 3)
    output = {from_x0: x0, from_v: -x0}[from_output]
    prediction = from_output(eps, output, double(-INF, -INF))
    close(prediction.x0, x0)
    close(prediction.eps, eps)


@pytest.mark.parametrize("from_output", [from_eps, from_score])
def test_noise_without_signal_does_not_determine_x0(from_output):
    _, eps = draws(2, 2, 3)
    assert not from_output(eps, eps, double(-INF, -INF)).x0.isfinite().any()


def test_prediction_without_noise_is_x_t():
    """For all parameterizations but x0."""
    x_t, output = draws(2, 2, 3)
    for from_output in (from_eps, from_v, from_score):
        close(from_output(x_t, output, double(INF, INF)).x0, x_t)


@every_shape
def test_posterior_of_a_sample_ignores_its_batch(shape):
    x0, x_t = draws(2, *shape)
    batch = posterior(x0, x_t, LOGSNRS + 1, LOGSNRS).mean
    rows = zip(x0.split(1), x_t.split(1), LOGSNRS.split(1), strict=True)
    single = [posterior(x0, x_t, logsnr + 1, logsnr).mean for x0, x_t, logsnr in rows]
    close(torch.cat(single), batch)
