"""How likely a denoiser finds data: the variational bound, term by term, and the likelihood of the probability-flow ODE. All in nats.

Everything comes unreduced, `(b, *d)`, so that text can leave out its padding; a sample's figure is the sum. The last term of the bound,
-log p(data | x at the cleanest level), is up to the data: words are rounded, pixels are quantized.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from textdiff.diffusion.gaussian import Denoiser, alpha_sigma, expand
from textdiff.diffusion.loss import bound_weight, eps_loss


def prior_kl(x0: Float[Tensor, "b *d"], logsnr: Float[Tensor, " b"]) -> Float[Tensor, "b *d"]:
    """L_T = KL(q(x_T | x_0) || N(0, I)) at the noisiest log SNR: DDPM eq. 5."""
    alpha, _ = alpha_sigma(logsnr, x0)
    return 0.5 * (alpha**2 * (x0**2 - 1) - torch.nn.functional.logsigmoid(-expand(logsnr, x0)))


def step_kl(
    denoise: Denoiser,
    x0: Float[Tensor, "b *d"],
    eps: Float[Tensor, "b *d"],
    logsnr_s: Float[Tensor, " b"],
    logsnr_t: Float[Tensor, " b"],
    *,
    large_variance: bool = False,
) -> Float[Tensor, "b *d"]:
    """L_{t-1} = KL(q(x_s | x_t, x_0) || p(x_s | x_t)) at x_t made of x0 and eps: DDPM eq. 5 and 12, VDM eq. 13. p has the posterior's variance
    beta~, or the step's own beta: the larger by sigma_t^2 / sigma_s^2, which costs a constant as well."""
    kl = expand(bound_weight(logsnr_s, logsnr_t), x0) * eps_loss(denoise, x0, logsnr_t, eps)
    if not large_variance:
        return kl
    log_ratio = expand(torch.nn.functional.logsigmoid(-logsnr_s) - torch.nn.functional.logsigmoid(-logsnr_t), x0)  # of beta~ to beta
    return log_ratio.exp() * kl + 0.5 * (log_ratio.expm1() - log_ratio)


def discretized_nats(x0: Float[Tensor, "b *d"], mean: Float[Tensor, "b *d"], std: Float[Tensor, "b *#d"], levels: int = 256) -> Float[Tensor, "b *d"]:
    """L_0 of pixels: -log of what N(mean, std^2) gives the interval around x0, one of `levels` even numbers from -1 to 1, of which the first
    and the last reach to infinity, so that they add up to 1: DDPM eq. 13. On the CPU in float64, for tails far out."""
    place, half = x0, 1 / (levels - 1)
    x0, mean, std = (part.cpu().double() for part in (x0, mean, std))
    low = torch.where(x0 < -1 + half, -torch.inf, (x0 - half - mean) / std)
    high = torch.where(x0 > 1 - half, torch.inf, (x0 + half - mean) / std)
    low, high = torch.where(low + high > 0, -high, low), torch.where(low + high > 0, -low, high)  # the lower tail is the precise one
    below, above = torch.special.log_ndtr(low), torch.special.log_ndtr(high)
    return -(above + torch.log(-torch.expm1(below - above))).to(place)


def ode_log_prob(
    denoise: Denoiser,
    x: Float[Tensor, "b *d"],
    logsnrs: Float[Tensor, " n"],
    probe: Callable[[Float[Tensor, "b *d"]], Float[Tensor, "b *d"]] | None = None,
) -> Float[Tensor, "b *d"]:
    """log p(x) of x at log SNR `logsnrs[0]` under the probability-flow ODE, followed down to the noise at `logsnrs[-1]` by Heun's method.

    With y = x / alpha and rho = sigma / alpha the ODE is dy/drho = eps, and log p(y) changes by -tr(d eps/d y) (Song et al., arXiv:2011.13456,
    eq. 39). The trace is exact, a backward pass a dimension, or Hutchinson's estimate with `probe(x)`, drawn once: right on average for any x.
    """
    v = probe(x) if probe else None
    level = [step.expand(len(x)) for step in logsnrs.to(x.device, x.dtype)]
    eps, trace = _eps_and_trace(denoise, x, level[0], v)
    log_prob = -alpha_sigma(level[0], x).alpha.log().expand_as(x)
    for t, s in pairwise(level):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = alpha_sigma(t, x), alpha_sigma(s, x)
        length = sigma_s / alpha_s - sigma_t / alpha_t
        with torch.no_grad():
            eps_there = denoise(alpha_s * (x / alpha_t + length * eps), s).eps
        x = alpha_s * (x / alpha_t + length * (eps + eps_there) / 2)
        before = sigma_t * trace
        eps, trace = _eps_and_trace(denoise, x, s, v)
        log_prob = log_prob + expand(t - s, x) / 2 * (before + sigma_s * trace) / 2  # the trapezoid rule over log rho = -log SNR / 2
    return log_prob + alpha_sigma(level[-1], x).alpha.log() - 0.5 * (x**2 + math.log(2 * math.pi))


def _eps_and_trace(denoise: Denoiser, x: Tensor, logsnr: Tensor, v: Tensor | None) -> tuple[Tensor, Tensor]:
    """eps(x), and elementwise v * (d eps/d x)^T v, whose sum is the trace in expectation; without a probe, the Jacobian's diagonal."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        eps = denoise(x, logsnr).eps
        if v is None:
            each = eps.flatten(1).sum(0)  # samples do not depend on each other
            rows = [torch.autograd.grad(out, x, retain_graph=True)[0].flatten(1)[:, i] for i, out in enumerate(each)]
            return eps.detach(), torch.stack(rows, 1).view_as(x)
        (pulled,) = torch.autograd.grad((eps * v).sum(), x)
    return eps.detach(), v * pulled
