"""Likelihood of data under a denoiser: the variational bound and the probability-flow ODE, in nats.

Results are not reduced and have the shape of the data, `(b, *d)`, so that text can mask its
padding; the sum is the likelihood of a sample. The reconstruction term L_0, -log p(data | x at the
clean end), depends on the data: words are rounded, pixels are quantized.
"""

import math
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from textdiff.diffusion.gaussian import (
    Broadcast,
    Denoiser,
    LogSNR,
    X,
    alpha_sigma,
    diffuse,
    expand,
)
from textdiff.diffusion.losses import bound_weight, eps_loss
from textdiff.diffusion.paths import Path
from textdiff.diffusion.samplers import LogSNRs, Noise


def prior_kl(x0: X, logsnr: LogSNR) -> X:
    """L_T = KL(q(x_T | x_0) || N(0, I)) at the noisiest log SNR: DDPM (arXiv:2006.11239) eq. 5."""
    alpha, _ = alpha_sigma(logsnr, x0)
    return 0.5 * (alpha**2 * (x0**2 - 1) - logsigmoid(-expand(logsnr, x0)))


def step_kl(
    denoise: Denoiser,
    x0: X,
    eps: X,
    logsnr_s: LogSNR,
    logsnr_t: LogSNR,
    *,
    large_variance: bool = False,
) -> X:
    """L_{t-1} = KL(q(x_s | x_t, x_0) || p(x_s | x_t)): DDPM eq. 5 and 12, VDM eq. 13.

    Args:
        denoise: Denoiser that defines the mean of p.
        x0: Clean data.
        eps: Noise that makes x_t.
        logsnr_s: Log SNR after the reverse step.
        logsnr_t: Log SNR before the reverse step.
        large_variance: Variance beta of the forward step for p, instead of the posterior's
            variance beta~. It is larger by sigma_t^2 / sigma_s^2, which adds a constant too.
    """
    kl = expand(bound_weight(logsnr_s, logsnr_t), x0) * eps_loss(denoise, x0, eps, logsnr_t)
    if not large_variance:
        return kl
    log_ratio = expand(logsigmoid(-logsnr_s) - logsigmoid(-logsnr_t), x0)  # of beta~ to beta
    return log_ratio.exp() * kl + 0.5 * (log_ratio.expm1() - log_ratio)


def prior_and_diffusion_loss(
    denoise: Denoiser,
    x0: X,
    path: Path,
    offsets: Float[Tensor, "b draws"],
    noise: Noise,
    steps: int,
) -> X:
    """L_T + sum L_{t-1} in nats: the variational bound without the reconstruction term L_0.

    It is an unbiased estimate for `steps` steps of equal length along the path, from a few
    stratified draws of the step. More steps take no more time and tighten the bound (VDM,
    arXiv:2107.00630, sec. 4.1). Coordinates that are given have no meaning in the result.

    Args:
        denoise: Denoiser that defines p.
        x0: Clean data.
        path: Log SNRs along the reverse process, such as `paths.even_in_logsnr(schedule)`.
        offsets: Uniform numbers in [0, 1), one per draw.
        noise: Function that returns standard normal noise of the shape of its argument.
        steps: Number of reverse steps.
    """
    draws = offsets.shape[1]
    strata = torch.arange(draws, device=x0.device)
    step = ((strata + offsets) / draws * steps).long().clamp(max=steps - 1)  # b draws
    total = prior_kl(x0, path(torch.ones_like(offsets[:, 0])))
    for s in step.unbind(1):
        kl = step_kl(denoise, x0, noise(x0), path(s / steps), path((s + 1) / steps))
        total = total + steps / draws * kl
    return total


def ode_nats(
    denoise: Denoiser, x0: X, eps: X, logsnr_range: tuple[float, float], probe: Noise, steps: int
) -> X:
    """log q(x | x0) - log p(x) in nats, of x = alpha x0 + sigma eps at the clean end.

    p is the density of the probability-flow ODE. With the reconstruction term it is an upper bound
    on -log p(x0) for any x0, since the noise dequantizes the data.

    Args:
        denoise: Denoiser that defines the ODE.
        x0: Clean data.
        eps: Standard normal noise.
        logsnr_range: Log SNR at the noisy and at the clean end.
        probe: Random directions for Hutchinson's estimate of the trace.
        steps: Number of steps of Heun's method.
    """
    noisy, clean = logsnr_range
    start = torch.full((len(x0),), clean, device=x0.device)
    with torch.no_grad():
        x = diffuse(x0, eps, start)
    logsnrs = torch.linspace(clean, noisy, steps + 1, device=x0.device)
    log_p = ode_log_prob(denoise, x, logsnrs, probe)
    sigma = alpha_sigma(start, x0).sigma
    log_q = -0.5 * (eps**2 + math.log(2 * math.pi)) - sigma.log()
    return log_q - log_p


def discretized_nats(x0: X, mean: X, std: Broadcast, levels: int = 256) -> X:
    """L_0 of pixels in nats: -log of the mass of N(mean, std^2) on the interval around x0.

    x0 is one of `levels` equally spaced values from -1 to 1. The first and the last interval extend
    to infinity, so that the masses add up to 1: DDPM eq. 13. The computation is on the CPU in
    float64, because the tails are far out.
    """
    half = 1 / (levels - 1)
    pixels, mean, std = (part.cpu().double() for part in (x0, mean, std))
    low = torch.where(pixels < -1 + half, -torch.inf, (pixels - half - mean) / std)
    high = torch.where(pixels > 1 - half, torch.inf, (pixels + half - mean) / std)
    mirrored = low + high > 0  # the lower tail is the precise one
    low, high = torch.where(mirrored, -high, low), torch.where(mirrored, -low, high)
    log_cdf_low, log_cdf_high = torch.special.log_ndtr(low), torch.special.log_ndtr(high)
    return -(log_cdf_high + torch.log(-torch.expm1(log_cdf_low - log_cdf_high))).to(x0)


def ode_log_prob(denoise: Denoiser, x: X, logsnrs: LogSNRs, probe: Noise | None = None) -> X:
    """log p(x) in nats of x at log SNR `logsnrs[0]` under the probability-flow ODE.

    Heun's method integrates the ODE to the noise at `logsnrs[-1]`. With y = x / alpha and
    rho = sigma / alpha the ODE is dy/drho = eps, and log p(y) changes by -tr(d eps/d y)
    (Song et al., arXiv:2011.13456, eq. 39).

    Args:
        denoise: Denoiser that defines the ODE.
        x: Data at log SNR `logsnrs[0]`.
        logsnrs: Falling log SNRs, clean end first.
        probe: Random directions for Hutchinson's estimate of the trace, which is unbiased; they are
            drawn once. Without it the trace is exact, with one backward pass per dimension.
    """
    v = probe(x) if probe else None
    batched = [logsnr.expand(len(x)) for logsnr in logsnrs.to(x.device, x.dtype)]
    eps, trace = _eps_and_trace(denoise, x, batched[0], v)
    log_prob = -alpha_sigma(batched[0], x).alpha.log().expand_as(x)
    for s, t in pairwise(batched):
        (alpha_s, sigma_s), (alpha_t, sigma_t) = alpha_sigma(s, x), alpha_sigma(t, x)
        length = sigma_t / alpha_t - sigma_s / alpha_s
        with torch.no_grad():
            eps_euler = denoise(alpha_t * (x / alpha_s + length * eps), t).eps
        x = alpha_t * (x / alpha_s + length * (eps + eps_euler) / 2)
        slope_s = sigma_s * trace
        eps, trace = _eps_and_trace(denoise, x, t, v)
        # trapezoid rule over log rho = -log SNR / 2
        log_prob = log_prob + expand(s - t, x) / 2 * (slope_s + sigma_t * trace) / 2
    return log_prob + alpha_sigma(batched[-1], x).alpha.log() - 0.5 * (x**2 + math.log(2 * math.pi))


def _eps_and_trace(
    denoise: Denoiser, x: Tensor, logsnr: Tensor, v: Tensor | None
) -> tuple[Tensor, Tensor]:
    """eps(x), and elementwise v * (d eps/d x)^T v, whose sum is the trace in expectation.

    Without v, the second result is the diagonal of the Jacobian.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        eps = denoise(x, logsnr).eps
        if v is None:
            outputs = eps.flatten(1).sum(0)  # samples do not depend on each other
            diagonal = [
                torch.autograd.grad(output, x, retain_graph=True)[0].flatten(1)[:, i]
                for i, output in enumerate(outputs)
            ]
            return eps.detach(), torch.stack(diagonal, 1).view_as(x)
        (vjp,) = torch.autograd.grad((eps * v).sum(), x)
    return eps.detach(), v * vjp
