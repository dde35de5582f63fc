"""The Gaussian algebra: the forward process, its posterior, and the pair (x0, eps) in all its disguises."""

import math

import pytest
import torch
from torch.distributions import Normal
from torch.testing import assert_close

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
OUTPUTS = {"eps": lambda pair, _: pair.eps, "x0": lambda pair, _: pair.x0, "v": to_v, "score": to_score}
LOGSNRS = [-9.0, -3.0, 0.0, 0.5, 4.0, 9.0]
SHAPES = [(6,), (6, 5), (6, 4, 3), (6, 2, 3, 3)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
every_dtype = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)], ids=str)


def draws(*shape: int, count: int = 2, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn((count, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def levels(*values: float, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.tensor(values or LOGSNRS, dtype=dtype)


def close(actual, expected, tolerance=1e-12):
    assert_close(actual, expected, rtol=tolerance, atol=tolerance)


# the forward process


def test_signal_and_noise_share_a_variance_of_one():
    alpha, sigma = alpha_sigma(levels(), draws(6, count=1)[0])
    close(alpha**2 + sigma**2, torch.ones(6, dtype=torch.float64))


def test_log_snr_is_the_log_of_alpha_squared_over_sigma_squared():
    alpha, sigma = alpha_sigma(levels(), levels())
    close(2 * (alpha / sigma).log(), levels())


def test_alpha_and_sigma_are_exact_at_infinite_log_snr():
    alpha, sigma = alpha_sigma(levels(INF, -INF), levels(0, 0))
    assert alpha.tolist() == [1, 0]
    assert sigma.tolist() == [0, 1]


@every_shape
def test_one_number_a_sample_multiplies_its_sample_and_no_other(shape):
    x, per_sample = draws(*shape, count=1)[0], levels()
    close(expand(per_sample, x) * x, torch.stack([number * sample for number, sample in zip(per_sample, x, strict=True)]))


@every_shape
@every_dtype
def test_diffuse_is_alpha_x0_plus_sigma_eps(shape, dtype, tolerance):
    x0, eps = draws(*shape, dtype=dtype)
    x_t = diffuse(x0, levels(dtype=dtype), eps)
    assert x_t.dtype == dtype
    for i, logsnr in enumerate(LOGSNRS):
        alpha, sigma = (1 / math.sqrt(1 + math.exp(sign * logsnr)) for sign in (-1, 1))
        close(x_t[i], alpha * x0[i] + sigma * eps[i], tolerance)


def test_diffuse_is_the_data_at_plus_and_the_noise_at_minus_infinity():
    x0, eps = draws(2, 3)
    x_t = diffuse(x0, levels(INF, -INF), eps)
    assert x_t.equal(torch.stack([x0[0], eps[1]]))


def test_a_transition_composes_with_the_past_to_the_marginal():
    x0 = draws(6, 3, count=1)[0]
    s, t = levels(), levels() - torch.linspace(0.1, 8, 6, dtype=torch.float64)
    alpha_s, sigma_s = alpha_sigma(s, x0)
    alpha_t, sigma_t = alpha_sigma(t, x0)
    mean, added = transition(alpha_s * x0, s, t)
    close(mean, alpha_t * x0)
    close((alpha_t / alpha_s * sigma_s) ** 2 + added, sigma_t**2)


def test_a_transition_from_clean_data_is_the_marginal():
    x0, eps = draws(6, 3)
    mean, var = transition(x0, levels(*[INF] * 6), levels())
    close(mean + var.sqrt() * eps, diffuse(x0, levels(), eps))


def test_a_transition_to_no_signal_is_standard_normal():
    mean, var = transition(draws(1, 3, count=1)[0], levels(1.0), levels(-INF))
    close(mean, torch.zeros(1, 3, dtype=torch.float64))
    close(var, torch.ones(1, 1, dtype=torch.float64))


# its posterior


@pytest.mark.parametrize(("s", "t"), [(2.0, 0.0), (0.0, -0.1), (5.0, -5.0)])
def test_the_posterior_is_bayes_rule_on_a_grid(s, t):
    """q(x_s | x_0) q(x_t | x_s), multiplied point by point and normalized."""
    x0, x_t = levels(0.8), levels(-0.4)
    x_s = torch.linspace(-12, 12, 40_001, dtype=torch.float64)
    alpha_s, sigma_s = alpha_sigma(levels(s), x0)
    step = transition(x_s, levels(s).expand(len(x_s)), levels(t).expand(len(x_s)))
    density = (Normal(alpha_s * x0, sigma_s).log_prob(x_s) + Normal(step.mean, step.var.sqrt()).log_prob(x_t)).softmax(0)
    mean = (density * x_s).sum().view(1)
    actual = posterior(x0, x_t, levels(s), levels(t))
    close(actual.mean, mean, 1e-7)
    close(actual.var, (density * (x_s - mean) ** 2).sum().view(1), 1e-7)


def test_averaged_over_x_t_the_posterior_is_the_marginal_before():
    """Laws of total mean and variance; the typo sqrt(alpha_bar_t) for sqrt(alpha_t) breaks both."""
    x0, zero = draws(6, 3, count=1)[0], torch.zeros(6, 3, dtype=torch.float64)
    s, t = levels(), levels() - 1.5
    alpha_s, sigma_s = alpha_sigma(s, x0)
    alpha_t, sigma_t = alpha_sigma(t, x0)
    mean, var = posterior(x0, alpha_t * x0, s, t)
    per_x_t = posterior(zero, torch.ones_like(zero), s, t).mean
    close(mean, alpha_s * x0)
    close((per_x_t * sigma_t) ** 2 + var, (sigma_s**2).expand(6, 3))


@every_dtype
def test_the_posterior_keeps_its_precision_over_tiny_steps(dtype, tolerance):
    """Its variance then is the step's own, sigma^2 times the fall of log SNR."""
    s, step = levels(dtype=dtype), 2.0**-18
    x0, x_t = draws(6, 3, dtype=dtype)
    mean, var = posterior(x0, x_t, s, s - step)
    assert (mean.dtype, var.dtype) == (dtype, dtype)
    close(var / alpha_sigma(s, x0).sigma ** 2, torch.full((6, 1), step, dtype=dtype), tolerance + step)
    close(mean, x_t, 30 * step)


def test_the_posterior_before_the_data_is_x0_without_noise():
    x0, x_t = draws(6, 3)
    mean, var = posterior(x0, x_t, levels(*[INF] * 6), levels())
    assert mean.equal(x0)
    assert var.equal(torch.zeros(6, 1, dtype=torch.float64))


def test_the_posterior_given_pure_noise_is_the_marginal():
    x0, x_t = draws(6, 3)
    mean, var = posterior(x0, x_t, levels(), levels(*[-INF] * 6))
    alpha, sigma = alpha_sigma(levels(), x0)
    close(mean, alpha * x0)
    close(var, sigma**2)


# predictions


@pytest.mark.parametrize("name", PREDICTIONS)
@every_shape
@every_dtype
def test_a_prediction_splits_x_t_into_signal_and_noise(name, shape, dtype, tolerance):
    """Whatever the network says of x_t, `x_t = alpha x0 + sigma eps`."""
    x_t, output = draws(*shape, dtype=dtype)
    logsnr = levels(-3.0, -1.0, 0.0, 1.0, 2.0, 3.0, dtype=dtype)
    x0, eps = PREDICTIONS[name](x_t, logsnr, output)
    assert (x0.dtype, eps.dtype) == (dtype, dtype)
    close(diffuse(x0, logsnr, eps), x_t, tolerance)


@pytest.mark.parametrize("said", PREDICTIONS)
@pytest.mark.parametrize("read", PREDICTIONS)
def test_a_pair_survives_being_said_in_one_form_and_read_in_another(said, read):
    x0, eps = draws(6, 3)
    x_t = diffuse(x0, levels(), eps)
    once = PREDICTIONS[said](x_t, levels(), OUTPUTS[said](Prediction(x0, eps), levels()))
    twice = PREDICTIONS[read](x_t, levels(), OUTPUTS[read](once, levels()))
    close(twice.x0, x0, 1e-10)
    close(twice.eps, eps, 1e-10)


def test_v_is_alpha_eps_minus_sigma_x0():
    """The velocity of x_t as its angle turns: d x_t / d phi where alpha = cos phi, sigma = sin phi."""
    x0, eps = draws(6, 3)
    turn, phi = 1e-5, alpha_sigma(levels(), x0).alpha.acos()
    after, before = ((phi + sign * turn).cos() * x0 + (phi + sign * turn).sin() * eps for sign in (1, -1))
    close(to_v(Prediction(x0, eps), levels()), (after - before) / (2 * turn), 1e-9)


def test_the_score_is_minus_eps_over_sigma():
    """The gradient of log q(x_t | x_0), by autograd: it points back to the data. The course notes lack the sign."""
    x0, eps = draws(6, 3)
    x_t = diffuse(x0, levels(), eps).requires_grad_()
    alpha, sigma = alpha_sigma(levels(), x0)
    (score,) = torch.autograd.grad(Normal(alpha * x0, sigma).log_prob(x_t).sum(), x_t)
    close(to_score(Prediction(x0, eps), levels()), score, 1e-10)
    close(from_score(x_t.detach(), levels(), score).x0, x0, 1e-10)


@pytest.mark.parametrize("gap", [0.01, 1.0, INF])
def test_the_posterior_mean_determines_the_pair(gap):
    x0, eps = draws(6, 3)
    x_t, s, t = diffuse(x0, levels(), eps), levels() + gap, levels()
    prediction = from_mean(x_t, s, t, posterior(x0, x_t, s, t).mean)
    close(prediction.x0, x0, 1e-9)
    close(prediction.eps, eps, 1e-9)


@pytest.mark.parametrize("read", [from_x0, from_v])
def test_without_signal_x0_and_v_still_determine_the_pair(read):
    x0, eps = draws(2, 3)
    output = {from_x0: x0, from_v: -x0}[read]
    close(read(eps, levels(-INF, -INF), output).x0, x0)
    close(read(eps, levels(-INF, -INF), output).eps, eps)


@pytest.mark.parametrize("read", [from_eps, from_score])
def test_without_signal_noise_does_not_determine_x0(read):
    _, eps = draws(2, 3)
    assert not read(eps, levels(-INF, -INF), eps).x0.isfinite().any()


def test_without_noise_every_reading_of_x_t_but_x0s_is_x_t():
    x_t, output = draws(2, 3)
    for read in (from_eps, from_v, from_score):
        close(read(x_t, levels(INF, INF), output).x0, x_t)


@every_shape
def test_a_sample_is_treated_the_same_alone_and_in_company(shape):
    x0, x_t = draws(*shape)
    together = posterior(x0, x_t, levels() + 1, levels()).mean
    alone = [posterior(x0[i : i + 1], x_t[i : i + 1], levels()[i : i + 1] + 1, levels()[i : i + 1]).mean for i in range(6)]
    close(torch.cat(alone), together)
