"""Samplers: iterators over the reverse process, from noise to data.

`logsnrs` are n + 1 rising log SNRs, noise first (`schedules.grid`, or `chain.logsnr.flip(0)`). The
last one may be +inf; two equal neighbours (beta = 0) make no step. Each step yields a `Step`, and
the sample is the `x0` of the last one, which equals its `x` if the grid ends at +inf. The caller
adds progress bars, stored trajectories and early stops.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from textdiff.diffusion.gaussian import Denoiser, X, alpha_sigma, posterior, transition

LogSNRs = Float[Tensor, " n"]
Noise = Callable[[X], X]  # x -> standard normal noise of x's shape, dtype and device
# With one generator per sample, no sample depends on the rest of its batch.
Generators = torch.Generator | Sequence[torch.Generator] | Noise


@dataclass(frozen=True, slots=True)
class Step:
    """State after step `index` (1..n), its log SNR, and the prediction of x0 that led to it."""

    index: int
    x: X
    x0: X
    logsnr: Float[Tensor, ""]


Sampler = Callable[..., Iterator[Step]]


def randn_like(x: X, generator: Generators) -> X:
    """Draws standard normal noise of x's shape, dtype and device.

    Raises:
        ValueError: The number of generators is not the number of samples.
    """
    if callable(generator):
        return generator(x)
    if isinstance(generator, torch.Generator):
        return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    if len(generator) != len(x):
        raise ValueError(
            f"one generator per sample is needed: {len(x)} samples, got {len(generator)} generators"
        )
    return torch.stack(
        [torch.randn(x.shape[1:], generator=g, dtype=x.dtype, device=x.device) for g in generator]
    )


def ddpm(
    denoise: Denoiser,
    x: X,
    logsnrs: LogSNRs,
    *,
    generator: Generators,
    large_variance: bool = False,
) -> Iterator[Step]:
    """Ancestral sampling, DDPM (arXiv:2006.11239) algorithm 2, with steps of any size.

    The variance is beta~, or beta with `large_variance`. A step to +inf adds no noise.
    """
    batched, t, s = _steps(logsnrs, x)
    zeros, ones = torch.zeros_like(t), torch.ones_like(t)
    coef_x0, var = posterior(ones, zeros, s, t)
    coef_xt = posterior(zeros, ones, s, t).mean
    if large_variance:
        var = torch.where(s.isinf(), var, transition(t, s, t).var)
    coefficients = _per_step(coef_x0, coef_xt, var.sqrt())
    for index, coef_x0, coef_xt, noise_std in coefficients:
        x0 = denoise(x, batched[index - 1]).x0
        x_t, x = x, (coef_x0 * x0).add_(x, alpha=coef_xt)
        if noise_std:
            x = x.add_(randn_like(x_t, generator), alpha=noise_std)
        yield Step(index, x, x0, s[index - 1])


def ddim(
    denoise: Denoiser, x: X, logsnrs: LogSNRs, *, generator: Generators, eta: float = 0.0
) -> Iterator[Step]:
    """DDIM (arXiv:2010.02502) eq. 12, 16: eta = 0 is deterministic, eta = 1 is `ddpm`."""
    batched, t, s = _steps(logsnrs, x)
    alpha_s, sigma_s = alpha_sigma(s, s)
    new_noise = -(t - s).expm1()  # the posterior's variance over sigma_s^2
    coef_eps = sigma_s * (1 - eta**2 * new_noise).sqrt()
    coefficients = _per_step(alpha_s, coef_eps, eta * sigma_s * new_noise.sqrt())
    for index, coef_x0, coef_eps, noise_std in coefficients:
        x0, eps = denoise(x, batched[index - 1])
        x = (coef_x0 * x0).add_(eps, alpha=coef_eps)
        if eta:
            x = x.add_(randn_like(x, generator), alpha=noise_std)
        yield Step(index, x, x0, s[index - 1])


def dpm_solver(
    denoise: Denoiser, x: X, logsnrs: LogSNRs, *, generator: Generators | None = None
) -> Iterator[Step]:
    """DPM-Solver++(2M) (arXiv:2211.01095, algorithm 2), deterministic.

    The first and the last step are of first order. The last one is often long (to +inf, or where x0
    is already determined), and second-order extrapolation over it would diverge.
    """
    batched, t, s = _steps(logsnrs, x)
    (alpha_s, sigma_s), sigma_t = alpha_sigma(s, s), alpha_sigma(t, t).sigma
    length = (s - t) / 2
    extrapolation = torch.zeros_like(t)
    extrapolation[1:-1] = (length[1:] / (2 * length[:-1]))[: len(t) - 2]
    coefficients = _per_step(-alpha_s * (-length).expm1(), sigma_s / sigma_t, extrapolation)
    previous_x0 = x  # not used by the first step
    for index, coef_x0, coef_xt, weight in coefficients:
        x0 = denoise(x, batched[index - 1]).x0
        x0_ahead = x0.lerp(previous_x0, -weight) if weight else x0
        x = (coef_xt * x).add_(x0_ahead, alpha=coef_x0)
        previous_x0 = x0
        yield Step(index, x, x0, s[index - 1])


def heun(
    denoise: Denoiser, x: X, logsnrs: LogSNRs, *, generator: Generators | None = None
) -> Iterator[Step]:
    """Heun's method on the probability-flow ODE d(x / alpha) = eps d(sigma / alpha), deterministic.

    It is EDM (arXiv:2206.00364), algorithm 1 without churn: second order with two evaluations per
    step. A step to +inf is an Euler step with one evaluation.

    Raises:
        ValueError: The start is at log SNR = -inf, where x / alpha is infinite.
    """
    if logsnrs[0].isinf():
        raise ValueError(
            "heun cannot start at log SNR = -inf: use a bounded schedule or another sampler"
        )
    batched, t, s = _steps(logsnrs, x)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = alpha_sigma(t, t), alpha_sigma(s, s)
    length = sigma_s / alpha_s - sigma_t / alpha_t
    for index, coef_xt, coef_eps, end in _per_step(alpha_s / alpha_t, alpha_s * length, s):
        x_t = x
        x0, eps = denoise(x_t, batched[index - 1])
        x = (coef_xt * x_t).add_(eps, alpha=coef_eps)
        if end < math.inf:
            x0, eps_euler = denoise(x, batched[index])
            x = (coef_xt * x_t).add_(eps + eps_euler, alpha=coef_eps / 2)
        yield Step(index, x, x0, s[index - 1])


def feed_back(denoise: Denoiser, x: X, logsnrs: LogSNRs) -> Iterator[Step]:
    """Deterministic decoder z_{l-1} = z_Phi(z_l, l), which uses its x0 as the next state.

    Source: TTIC 31230, quiz 3, problem 2. It does not sample the data: from pure noise the best
    prediction is the mean of the data for any noise, and all results are equal.
    """
    batched, _, s = _steps(logsnrs, x)
    for index, logsnr in enumerate(batched[:-1], 1):
        x = denoise(x, logsnr).x0
        yield Step(index, x, x, s[index - 1])


def _steps(logsnrs: LogSNRs, x: X) -> tuple[Sequence[Tensor], Tensor, Tensor]:
    """Log SNRs of all states, one number per sample, and those before (t) and after (s) each step.

    t and s are in float64 on the CPU: the coefficients of all steps are computed at once.
    """
    logsnrs = logsnrs.unique_consecutive()
    if not (logsnrs.diff() > 0).all():
        raise ValueError(
            "a sampler's log SNRs must rise from noise to data: "
            "use schedules.grid or chain.logsnr.flip(0)"
        )
    batched = logsnrs.to(x.device, x.dtype).unsqueeze(1).expand(-1, len(x)).unbind()
    float64 = logsnrs.cpu().double()
    return batched, float64[:-1], float64[1:]


def _per_step(*coefficients: LogSNRs) -> Iterator[tuple[Any, ...]]:
    """Yields (index, one float of each coefficient) for every step."""
    return zip(count(1), *(each.tolist() for each in coefficients), strict=False)


SAMPLERS: dict[str, Sampler] = {"ddpm": ddpm, "ddim": ddim, "dpm_solver": dpm_solver, "heun": heun}
# Network evaluations per step.
EVALUATIONS = {"ddpm": 1, "ddim": 1, "dpm_solver": 1, "heun": 2}
