"""The eps-loss and its weightings. Losses come unreduced, `(b, *d)`: text masks its padding, images average.

Weights are one number a sample, to be multiplied onto the squared error of eps summed over its dimensions (nats) unless said otherwise.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from textdiff.diffusion.chain import Chain, Steps
from textdiff.diffusion.gaussian import Denoiser, Prediction, diffuse, posterior, to_v
from textdiff.diffusion.schedule import Schedule


def eps_loss(denoise: Denoiser, x0: Float[Tensor, "b *d"], logsnr: Float[Tensor, " b"], eps: Float[Tensor, "b *d"]) -> Float[Tensor, "b *d"]:
    """(eps - eps_theta(x_t))^2 elementwise: DDPM eq. 14, L_simple."""
    return (eps - denoise(diffuse(x0, logsnr, eps), logsnr).eps) ** 2


def x0_loss(denoise: Denoiser, x0: Float[Tensor, "b *d"], logsnr: Float[Tensor, " b"], eps: Float[Tensor, "b *d"]) -> Float[Tensor, "b *d"]:
    """(x0 - x0_theta(x_t))^2 elementwise: the eps-loss over SNR. What Diffusion-LM trains."""
    return (x0 - denoise(diffuse(x0, logsnr, eps), logsnr).x0) ** 2


def v_loss(denoise: Denoiser, x0: Float[Tensor, "b *d"], logsnr: Float[Tensor, " b"], eps: Float[Tensor, "b *d"]) -> Float[Tensor, "b *d"]:
    """(v - v_theta(x_t))^2 elementwise: the eps-loss over alpha^2 (progressive distillation, arXiv:2202.00512, sec. 4)."""
    return (to_v(Prediction(x0, eps), logsnr) - to_v(denoise(diffuse(x0, logsnr, eps), logsnr), logsnr)) ** 2


def mean_loss(
    denoise: Denoiser, x0: Float[Tensor, "b *d"], eps: Float[Tensor, "b *d"], logsnr_s: Float[Tensor, " b"], logsnr_t: Float[Tensor, " b"]
) -> Float[Tensor, "b *d"]:
    """(mu~ - mu_theta)^2 elementwise, the squared error of the mean of q(x_s | x_t, x_0): DDPM eq. 8 without its weight. The eps-loss times
    (1 - alpha^2)^2 / (alpha^2 (1 - alpha_bar)) with alpha^2 = alpha_bar_t / alpha_bar_s, as homework 7's problem 2.4 proves."""
    x_t = diffuse(x0, logsnr_t, eps)
    return (posterior(x0, x_t, logsnr_s, logsnr_t).mean - posterior(denoise(x_t, logsnr_t).x0, x_t, logsnr_s, logsnr_t).mean) ** 2


def bound_weight(logsnr_s: Float[Tensor, " b"], logsnr_t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """KL(q(x_s | x_t, x_0) || p(x_s | x_t)) with the posterior's variance, a unit of squared eps error: 1/2 (SNR_s / SNR_t - 1), VDM eq. 14."""
    return 0.5 * (logsnr_s - logsnr_t).expm1()


def continuous_bound_weight(schedule: Schedule, t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """The limit of `bound_weight` for T -> inf, a unit of t: -1/2 d log SNR / dt, VDM eq. 15."""
    with torch.enable_grad():
        t = t.detach().requires_grad_()
        (slope,) = torch.autograd.grad(schedule(t).sum(), t)
    return -0.5 * slope


def chain_bound_weight(chain: Chain, variance: Steps) -> Steps:
    """DDPM eq. 12: beta_t^2 / (2 sigma_t^2 alpha_t (1 - alpha_bar_t)) for `variance` sigma_t^2; entry t, meaningful for t >= 2."""
    return chain.beta**2 / (2 * variance * chain.alpha * chain.noise_bar)


def min_snr_weight(logsnr: Float[Tensor, " b"], gamma: float = 5.0, prediction: str = "eps") -> Float[Tensor, " b"]:
    """min-SNR-gamma (arXiv:2303.09556): the x0-error weighted by min(SNR, gamma), as a weight on the squared error of `prediction`.

    Raises ValueError if `prediction` is not eps, x0 or v.
    """
    per_x0 = {"x0": torch.zeros_like(logsnr), "eps": logsnr, "v": torch.nn.functional.softplus(logsnr)}  # log of error / x0-error
    if prediction not in per_x0:
        raise ValueError(f"prediction must be one of {', '.join(per_x0)}, got {prediction!r}")
    return (logsnr.clamp(max=math.log(gamma)) - per_x0[prediction]).exp()


LOSSES = {"eps": eps_loss, "x0": x0_loss, "v": v_loss}
