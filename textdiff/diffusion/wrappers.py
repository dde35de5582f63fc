"""Functions Denoiser -> Denoiser: guidance, clamping and self-conditioning.

Samplers need no options for them. A wrapper that changes x0 recomputes eps, so that
`x_t = alpha x0 + sigma eps` still holds.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from textdiff.diffusion.gaussian import (
    Denoiser,
    LogSNR,
    PerSample,
    Prediction,
    X,
    alpha_sigma,
    from_x0,
)

# (x_t, log SNR, earlier estimate of x0) -> prediction, and the estimate for the next call
Network = Callable[[X, LogSNR, X], tuple[Prediction, X]]


def guided(conditional: Denoiser, unconditional: Denoiser, scale: float) -> Denoiser:
    """Classifier-free guidance (arXiv:2207.12598, eq. 6).

    Scale 1 is the conditional model, 0 the unconditional one; more than 1 extrapolates.
    """

    def denoise(x_t: Tensor, logsnr: Tensor) -> Prediction:
        cond, uncond = conditional(x_t, logsnr), unconditional(x_t, logsnr)
        x0 = uncond.x0 + scale * (cond.x0 - uncond.x0)
        return Prediction(x0, uncond.eps + scale * (cond.eps - uncond.eps))

    return denoise


def classifier_guided(
    denoise: Denoiser, log_prob: Callable[[X, LogSNR], PerSample], scale: float = 1.0
) -> Denoiser:
    """Classifier guidance (arXiv:2105.05233, eq. 14): eps falls by sigma grad log p(y | x_t).

    With scale 1 and the exact p(y | x_t) it is the denoiser of the data given y. A classifier of
    clean data can be used on x0: `log_prob(denoise(x_t, logsnr).x0)`, as in universal guidance
    (arXiv:2302.07121). This is too confident by the variance of x0 given x_t.

    Args:
        log_prob: log p(y | x_t) of each sample, in nats, with a gradient.
        scale: Power of p(y | x_t). At 0 the denoiser itself is returned.
    """
    if scale == 0:
        return denoise

    def guided_denoise(x_t: Tensor, logsnr: Tensor) -> Prediction:
        with torch.enable_grad():
            noisy = x_t.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(log_prob(noisy, logsnr).sum(), noisy)
        x0, eps = denoise(x_t, logsnr)
        alpha, sigma = alpha_sigma(logsnr, x_t)
        return Prediction(x0 + scale * sigma**2 / alpha * gradient, eps - scale * sigma * gradient)

    return guided_denoise


def clamped(denoise: Denoiser, project: Callable[[X], X]) -> Denoiser:
    """Projects x0 onto the set of possible data.

    It is [-1, 1] for pixels and the nearest embedding for words (Diffusion-LM's clamping trick).
    """

    def clamped_denoise(x_t: Tensor, logsnr: Tensor) -> Prediction:
        return from_x0(x_t, project(denoise(x_t, logsnr).x0), logsnr)

    return clamped_denoise


def self_conditioned(network: Network) -> Denoiser:
    """Gives the network its earlier estimate of x0, zero at first (Analog Bits, arXiv:2208.04202).

    The result has state: make a new one for each run of a sampler.
    """
    previous: list[Tensor] = []

    def denoise(x_t: Tensor, logsnr: Tensor) -> Prediction:
        last = previous[0] if previous else torch.zeros_like(x_t)
        prediction, estimate = network(x_t, logsnr, last)
        previous[:] = [estimate]
        return prediction

    return denoise
