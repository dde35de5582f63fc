"""Weights of the variational bound and min-SNR weights."""

import math

import pytest
import torch
from chains import LINEAR, every_schedule
from tensors import close, double, draws, linspace
from torch.distributions import Normal, kl_divergence

from textdiff.diffusion.gaussian import PREDICTIONS, Prediction, diffuse, from_x0, posterior, to_v
from textdiff.diffusion.losses import (
    bound_weight,
    chain_bound_weight,
    continuous_bound_weight,
    eps_loss,
    min_snr_weight,
    x0_loss,
)
from textdiff.diffusion.schedules import SCHEDULES

LOGSNRS = double(-9.0, -3.0, 0.0, 1.0, 3.0, 9.0)
every_gap = pytest.mark.parametrize("gap", [0.01, 0.5, 3.0])


def tanh_denoiser(x_t, logsnr):
    return PREDICTIONS["v"](x_t, (0.3 * x_t).tanh(), logsnr)


# the variational bound


def exact_step_kl(x0: torch.Tensor, eps: torch.Tensor, gap: float) -> torch.Tensor:
    """KL(q(x_s | x_t, x_0) || p(x_s | x_t)) by torch, both with the posterior's variance."""
    s, t, x_t = LOGSNRS + gap, LOGSNRS, diffuse(x0, eps, LOGSNRS)
    true, var = posterior(x0, x_t, s, t)
    model, _ = posterior(tanh_denoiser(x_t, t).x0, x_t, s, t)
    return kl_divergence(Normal(true, var.sqrt()), Normal(model, var.sqrt()))


@every_gap
def test_bound_weight_times_eps_loss_is_kl(gap):
    x0, eps = draws(2, 6, 3)
    weight = bound_weight(LOGSNRS + gap, LOGSNRS).unsqueeze(-1)
    loss = weight * eps_loss(tanh_denoiser, x0, eps, LOGSNRS)
    close(loss, exact_step_kl(x0, eps, gap), 1e-9)


@every_gap
def test_snr_difference_times_x0_loss_is_kl(gap):
    """With the factor 1/2."""
    x0, eps = draws(2, 6, 3)
    weight = 0.5 * ((LOGSNRS + gap).exp() - LOGSNRS.exp()).unsqueeze(-1)
    loss = weight * x0_loss(tanh_denoiser, x0, eps, LOGSNRS)
    close(loss, exact_step_kl(x0, eps, gap), 1e-9)


def test_chain_weight_with_small_variance_is_bound_weight():
    weight = chain_bound_weight(LINEAR, LINEAR.small_variance)[2:]
    close(weight, bound_weight(LINEAR.logsnr[1:-1], LINEAR.logsnr[2:]), 1e-9)


@pytest.mark.parametrize(
    ("variance", "expected"),
    [
        (LINEAR.large_variance, [0.27269, 0.0055097, 0.0102045]),
        (LINEAR.small_variance, [0.59967, 0.0055145, 0.0102045]),
    ],
    ids=["large", "small"],
)
def test_chain_weights_of_ddpm_table(variance, expected):
    weights = chain_bound_weight(LINEAR, variance)[[2, 501, 1000]]
    assert weights.tolist() == pytest.approx(expected, rel=2e-5)


def test_chain_weight_times_eps_loss_is_kl():
    """Two Gaussians of one variance: squared distance of the means over twice that variance."""
    (x_t, eps), t = draws(2, 1, 3), 700
    predicted = torch.zeros_like(eps)
    true, model = (LINEAR.posterior_from_eps(noise, x_t, t).mean for noise in (eps, predicted))
    weight = chain_bound_weight(LINEAR, LINEAR.large_variance)[t]
    kl = (true - model) ** 2 / (2 * LINEAR.large_variance[t])
    close(weight * (eps - predicted) ** 2, kl, 1e-10)


@every_schedule
def test_continuous_weight_is_limit_of_bound_weight(schedule):
    """Per unit of time, for step length 0."""
    t, step = linspace(0.1, 0.9, 9), 1e-6
    per_time = bound_weight(schedule(t - step / 2), schedule(t + step / 2)) / step
    close(continuous_bound_weight(schedule, t), per_time, 1e-4)


def test_continuous_weight_works_under_no_grad():
    t = double(0.5)
    with torch.no_grad():
        weight = continuous_bound_weight(SCHEDULES["linear"], t)
    assert not t.requires_grad
    assert not weight.requires_grad


def test_exact_bound_is_entropy_of_gaussian_data():
    """L_T + sum of L_{t-1} + L_0 in nats, with the decoder N(x_1 / alpha_1, sigma_1^2 / alpha_1^2).

    It is tight in the limit of small steps.
    """
    std, logsnr = 0.7, linspace(12, -12, 100_001)
    alpha_bar, noise = logsnr.sigmoid(), (-logsnr).sigmoid()
    least = alpha_bar * std**2 / (alpha_bar * std**2 + noise)  # eps-loss
    prior = 0.5 * (alpha_bar[-1] * std**2 + noise[-1] - 1 - noise[-1].log())
    diffusion = (bound_weight(logsnr[:-1], logsnr[1:]) * least[1:]).sum()
    reconstruction = 0.5 * (math.log(2 * math.pi * math.e) - logsnr[0])
    entropy = 0.5 * math.log(2 * math.pi * math.e * std**2)
    close(prior + diffusion + reconstruction, entropy, 3e-3)


# min-SNR


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_min_snr_weighs_x0_error_alike(prediction):
    """The weighted error is the same for every parameterization."""
    x0, eps, predicted_x0 = draws(3, 6, 3)
    predicted = from_x0(diffuse(x0, eps, LOGSNRS), predicted_x0, LOGSNRS)
    errors = {
        "eps": eps - predicted.eps,
        "x0": x0 - predicted.x0,
        "v": to_v(Prediction(x0, eps), LOGSNRS) - to_v(predicted, LOGSNRS),
    }
    weighted = min_snr_weight(LOGSNRS, 5.0, prediction).unsqueeze(-1) * errors[prediction] ** 2
    close(weighted, LOGSNRS.exp().clamp(max=5).unsqueeze(-1) * errors["x0"] ** 2, 1e-9)


def test_min_snr_matches_published_formulas():
    snr = LOGSNRS.exp()
    close(min_snr_weight(LOGSNRS), snr.clamp(max=5) / snr)
    close(min_snr_weight(LOGSNRS, prediction="x0"), snr.clamp(max=5))
    close(min_snr_weight(LOGSNRS, prediction="v"), snr.clamp(max=5) / (snr + 1))


def test_min_snr_refuses_an_unknown_prediction():
    with pytest.raises(ValueError, match="got 'score'"):
        min_snr_weight(LOGSNRS, prediction="score")
