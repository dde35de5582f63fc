"""Diffusion losses and their weights.

Losses are not reduced and have the shape of the data, `(b, *d)`: text masks its padding, images
average. Weights are one number per log SNR. Unless stated otherwise, a weight multiplies the
squared error of eps summed over its dimensions, and the product is in nats.
"""

import math

import torch
from torch.nn.functional import softplus

from textdiff.diffusion.discrete import Chain, PerStep
from textdiff.diffusion.gaussian import (
    Denoiser,
    LogSNR,
    PerSample,
    Prediction,
    X,
    diffuse,
    posterior,
    to_v,
)
from textdiff.diffusion.schedules import Schedule


def eps_loss(denoise: Denoiser, x0: X, eps: X, logsnr: LogSNR) -> X:
    """Elementwise (eps - eps_theta(x_t))^2: DDPM (arXiv:2006.11239) eq. 14, L_simple."""
    return (eps - denoise(diffuse(x0, eps, logsnr), logsnr).eps) ** 2


def x0_loss(denoise: Denoiser, x0: X, eps: X, logsnr: LogSNR) -> X:
    """Elementwise (x0 - x0_theta(x_t))^2, the eps-loss over SNR: the loss of Diffusion-LM."""
    return (x0 - denoise(diffuse(x0, eps, logsnr), logsnr).x0) ** 2


def v_loss(denoise: Denoiser, x0: X, eps: X, logsnr: LogSNR) -> X:
    """Elementwise (v - v_theta(x_t))^2, the eps-loss over alpha^2.

    Source: progressive distillation, arXiv:2202.00512, sec. 4.
    """
    prediction = denoise(diffuse(x0, eps, logsnr), logsnr)
    return (to_v(Prediction(x0, eps), logsnr) - to_v(prediction, logsnr)) ** 2


def mean_loss(denoise: Denoiser, x0: X, eps: X, logsnr_s: LogSNR, logsnr_t: LogSNR) -> X:
    """Elementwise (mu~ - mu_theta)^2 of the mean of q(x_s | x_t, x_0): DDPM eq. 8, unweighted.

    It is the eps-loss times (1 - alpha^2)^2 / (alpha^2 (1 - alpha_bar)) with
    alpha^2 = alpha_bar_t / alpha_bar_s (homework 7, problem 2.4).
    """
    x_t = diffuse(x0, eps, logsnr_t)
    true = posterior(x0, x_t, logsnr_s, logsnr_t).mean
    return (true - posterior(denoise(x_t, logsnr_t).x0, x_t, logsnr_s, logsnr_t).mean) ** 2


def bound_weight(logsnr_s: LogSNR, logsnr_t: LogSNR) -> LogSNR:
    """KL(q(x_s | x_t, x_0) || p(x_s | x_t)) per unit of squared error of eps, in nats.

    It is 1/2 (SNR_s / SNR_t - 1) if p has the posterior's variance: VDM (arXiv:2107.00630) eq. 14.
    """
    return 0.5 * (logsnr_s - logsnr_t).expm1()


def continuous_bound_weight(schedule: Schedule, t: PerSample) -> PerSample:
    """Limit of `bound_weight` per unit of t for T -> inf: -1/2 d log SNR / dt, VDM eq. 15."""
    with torch.enable_grad():
        t = t.detach().requires_grad_()
        (slope,) = torch.autograd.grad(schedule(t).sum(), t)
    return -0.5 * slope


def chain_bound_weight(chain: Chain, variance: PerStep) -> PerStep:
    """DDPM eq. 12: beta_t^2 / (2 variance_t alpha_t (1 - alpha_bar_t)), entry t, for t >= 2."""
    return chain.beta**2 / (2 * variance * chain.alpha * chain.noise_bar)


def min_snr_weight(logsnr: LogSNR, gamma: float = 5.0, prediction: str = "eps") -> LogSNR:
    """Min-SNR-gamma weight (arXiv:2303.09556) on the squared error of `prediction`.

    In terms of the squared error of x0 the weight is min(SNR, gamma).

    Raises:
        ValueError: `prediction` is not eps, x0 or v.
    """
    log_error_ratio = {  # log of the squared error over that of x0
        "x0": torch.zeros_like(logsnr),
        "eps": logsnr,
        "v": softplus(logsnr),
    }
    if prediction not in log_error_ratio:
        known = ", ".join(log_error_ratio)
        raise ValueError(f"prediction must be one of {known}, got {prediction!r}")
    return (logsnr.clamp(max=math.log(gamma)) - log_error_ratio[prediction]).exp()


LOSSES = {"eps": eps_loss, "x0": x0_loss, "v": v_loss}
