"""Samplers: iterators over the reverse process, from noise at `logsnrs[0]` to data at `logsnrs[-1]`.

`logsnrs` are n + 1 rising log SNRs (`schedule.grid`, or `chain.logsnr.flip(0)`), the last may be +inf; two equal neighbours (beta = 0) make no step.
Each step yields a `Step`; the sample is the last one's `x0` (equal to its `x` where the grid ends at +inf). Progress bars, films and early stops are
up to the caller.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from textdiff.diffusion.gaussian import Denoiser, alpha_sigma, posterior, transition

Noise = Callable[[Float[Tensor, "b *d"]], Float[Tensor, "b *d"]]  # x -> standard normal noise like x
Generators = torch.Generator | Sequence[torch.Generator] | Noise  # with one a sample, no sample depends on its companions


@dataclass(frozen=True, slots=True)
class Step:
    """After step `index` (1..n): the state, the prediction of the data that led to it, and the state's log SNR."""

    index: int
    x: Float[Tensor, "b *d"]
    x0: Float[Tensor, "b *d"]
    logsnr: Float[Tensor, ""]


Sampler = Callable[..., Iterator[Step]]


def randn_like(x: Float[Tensor, "b *d"], generator: Generators) -> Float[Tensor, "b *d"]:
    """Standard normal noise of x's shape, type and device."""
    if callable(generator):
        return generator(x)
    if isinstance(generator, torch.Generator):
        return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    if len(generator) != len(x):
        raise ValueError(f"one generator a sample is needed: {len(x)} samples, got {len(generator)} generators")
    return torch.stack([torch.randn(x.shape[1:], generator=g, dtype=x.dtype, device=x.device) for g in generator])


def ddpm(
    denoise: Denoiser,
    x: Float[Tensor, "b *d"],
    logsnrs: Float[Tensor, " n"],
    *,
    generator: Generators,
    large_variance: bool = False,
) -> Iterator[Step]:
    """Ancestral sampling, DDPM algorithm 2, over steps of any size; variance beta~ (default) or beta. A step to +inf adds no noise."""
    levels, t, s = _levels(logsnrs, x)
    of_x0, var = posterior(torch.ones_like(t), torch.zeros_like(t), s, t)
    of_x = posterior(torch.zeros_like(t), torch.ones_like(t), s, t).mean
    if large_variance:
        var = torch.where(s.isinf(), var, transition(t, s, t).var)
    for index, a, b, c in _numbered(of_x0, of_x, var.sqrt()):
        x0 = denoise(x, levels[index - 1]).x0
        before, x = x, (a * x0).add_(x, alpha=b)
        if c:
            x = x.add_(randn_like(before, generator), alpha=c)
        yield Step(index, x, x0, s[index - 1])


def ddim(denoise: Denoiser, x: Float[Tensor, "b *d"], logsnrs: Float[Tensor, " n"], *, generator: Generators, eta: float = 0.0) -> Iterator[Step]:
    """DDIM (arXiv:2010.02502) eq. 12, 16: eta = 0 is deterministic, eta = 1 is `ddpm`."""
    levels, t, s = _levels(logsnrs, x)
    alpha_s, sigma_s = alpha_sigma(s, s)
    new_noise = -(t - s).expm1()  # the posterior's variance is sigma_s^2 times this
    for index, a, b, c in _numbered(alpha_s, sigma_s * (1 - eta**2 * new_noise).sqrt(), eta * sigma_s * new_noise.sqrt()):
        x0, eps = denoise(x, levels[index - 1])
        x = (a * x0).add_(eps, alpha=b)
        if eta:
            x = x.add_(randn_like(x, generator), alpha=c)
        yield Step(index, x, x0, s[index - 1])


def dpm_solver(denoise: Denoiser, x: Float[Tensor, "b *d"], logsnrs: Float[Tensor, " n"], *, generator: Generators | None = None) -> Iterator[Step]:
    """DPM-Solver++(2M) (arXiv:2211.01095, algorithm 2), deterministic. Its first and its last step are of first order: the last one is
    often long (to +inf, or where nothing is left to decide), and extrapolating over it would explode."""
    levels, t, s = _levels(logsnrs, x)
    (alpha_s, sigma_s), sigma_t = alpha_sigma(s, s), alpha_sigma(t, t).sigma
    length = (s - t) / 2
    ahead = torch.zeros_like(t)
    ahead[1:-1] = (length[1:] / (2 * length[:-1]))[: len(t) - 2]
    before = x  # the x0 of the step before; not looked at by the first
    for index, a, b, c in _numbered(sigma_s / sigma_t, -alpha_s * (-length).expm1(), ahead):
        x0 = denoise(x, levels[index - 1]).x0
        x = (a * x).add_(x0.lerp(before, -c) if c else x0, alpha=b)
        before = x0
        yield Step(index, x, x0, s[index - 1])


def heun(denoise: Denoiser, x: Float[Tensor, "b *d"], logsnrs: Float[Tensor, " n"], *, generator: Generators | None = None) -> Iterator[Step]:
    """Heun's method on the probability-flow ODE (EDM, arXiv:2206.00364, algorithm 1 without churn): d(x / alpha) = eps d(sigma / alpha).

    Second order at two evaluations a step; a step to +inf takes one, Euler's. Raises ValueError for a start at -inf, where x / alpha is infinite.
    """
    if logsnrs[0].isinf():
        raise ValueError("heun cannot start at log SNR = -inf: use a schedule that is bounded, or another sampler")
    levels, t, s = _levels(logsnrs, x)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = alpha_sigma(t, t), alpha_sigma(s, s)
    length = sigma_s / alpha_s - sigma_t / alpha_t
    for index, a, b, end in _numbered(alpha_s / alpha_t, alpha_s * length, s):
        start = x
        x0, eps = denoise(start, levels[index - 1])
        x = (a * start).add_(eps, alpha=b)
        if end < math.inf:
            x0, eps_there = denoise(x, levels[index])
            x = (a * start).add_(eps + eps_there, alpha=b / 2)
        yield Step(index, x, x0, s[index - 1])


def feed_back(denoise: Denoiser, x: Float[Tensor, "b *d"], logsnrs: Float[Tensor, " n"]) -> Iterator[Step]:
    """The deterministic decoder that takes its guess at the data for the next state, z_{l-1} = z_Phi(z_l, l) (TTIC 31230, quiz 3, problem 2). No
    sampler: from pure noise the best guess is the mean of the data, whatever the noise, and all samples are one."""
    levels, _, s = _levels(logsnrs, x)
    for index, level in enumerate(levels[:-1], 1):
        x = denoise(x, level).x0
        yield Step(index, x, x, s[index - 1])


def _levels(logsnrs: Float[Tensor, " n"], x: Float[Tensor, "b *d"]) -> tuple[Sequence[Tensor], Tensor, Tensor]:
    """The log SNRs as denoisers want them, one number a sample, and those before and after each step, in float64: what is linear in them is worked
    out for all steps at once. Raises ValueError unless they rise."""
    logsnrs = logsnrs.unique_consecutive()
    if not (logsnrs.diff() > 0).all():
        raise ValueError("a sampler's log SNRs must rise from noise to data: use schedule.grid or chain.logsnr.flip(0)")
    levels = logsnrs.to(x.device, x.dtype).unsqueeze(1).expand(-1, len(x)).unbind()
    exact = logsnrs.cpu().double()
    return levels, exact[:-1], exact[1:]


def _numbered(*coefficients: Float[Tensor, " n"]) -> Iterator[tuple[Any, ...]]:
    """(index, a number of each) for every step."""
    return zip(count(1), *(each.tolist() for each in coefficients), strict=False)


SAMPLERS: dict[str, Sampler] = {"ddpm": ddpm, "ddim": ddim, "dpm_solver": dpm_solver, "heun": heun}
