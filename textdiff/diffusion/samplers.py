"""Samplers: iterators over the reverse process, from noise at `logsnrs[0]` to data at `logsnrs[-1]`.

`logsnrs` are n + 1 rising log SNRs (`schedule.grid`, or `chain.logsnr.flip(0)`), the last may be +inf; two equal neighbours (beta = 0) make no step.
Each step yields a `Step`; the sample is the last one's `x0` (equal to its `x` where the grid ends at +inf). Progress bars, films and early stops are
up to the caller.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from textdiff.diffusion.gaussian import Denoiser, alpha_sigma, expand, posterior, transition

Noise = Callable[[Float[Tensor, "b *d"]], Float[Tensor, "b *d"]]  # x -> standard normal noise like x
Generators = torch.Generator | Sequence[torch.Generator] | Noise  # with one a sample, no sample depends on its companions


@dataclass(frozen=True)
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
    for index, t, s in _steps(logsnrs, x):
        x0 = denoise(x, t).x0
        mean, var = posterior(x0, x, s, t)
        if large_variance and not s.isinf().any():
            var = transition(x, s, t).var
        x = mean + var.sqrt() * randn_like(x, generator)
        yield Step(index, x, x0, s[0])


def ddim(denoise: Denoiser, x: Float[Tensor, "b *d"], logsnrs: Float[Tensor, " n"], *, generator: Generators, eta: float = 0.0) -> Iterator[Step]:
    """DDIM (arXiv:2010.02502) eq. 12, 16: eta = 0 is deterministic, eta = 1 is `ddpm`."""
    for index, t, s in _steps(logsnrs, x):
        prediction = denoise(x, t)
        alpha_s, sigma_s = alpha_sigma(s, x)
        new_noise = -expand(t - s, x).expm1()  # the posterior's variance is sigma_s^2 times this
        x = alpha_s * prediction.x0 + sigma_s * (1 - eta**2 * new_noise).sqrt() * prediction.eps
        if eta:
            x = x + eta * sigma_s * new_noise.sqrt() * randn_like(x, generator)
        yield Step(index, x, prediction.x0, s[0])


def dpm_solver(denoise: Denoiser, x: Float[Tensor, "b *d"], logsnrs: Float[Tensor, " n"], *, generator: Generators | None = None) -> Iterator[Step]:
    """DPM-Solver++(2M) (arXiv:2211.01095, algorithm 2), deterministic. Its first and its last step are of first order: the last one is
    often long (to +inf, or where nothing is left to decide), and extrapolating over it would explode."""
    before: tuple[Tensor, Tensor] | None = None  # last x0 and the length of the step it led to
    last = len(logsnrs.unique_consecutive()) - 1
    for index, t, s in _steps(logsnrs, x):
        x0 = denoise(x, t).x0
        length = expand(s - t, x) / 2
        drift = x0
        if before is not None and index < last:
            drift = x0 + length / (2 * before[1]) * (x0 - before[0])
        alpha_s, sigma_s = alpha_sigma(s, x)
        _, sigma_t = alpha_sigma(t, x)
        x = sigma_s / sigma_t * x - alpha_s * (-length).expm1() * drift
        before = x0, length
        yield Step(index, x, x0, s[0])


def heun(denoise: Denoiser, x: Float[Tensor, "b *d"], logsnrs: Float[Tensor, " n"], *, generator: Generators | None = None) -> Iterator[Step]:
    """Heun's method on the probability-flow ODE (EDM, arXiv:2206.00364, algorithm 1 without churn): d(x / alpha) = eps d(sigma / alpha).

    Second order at two evaluations a step; a step to +inf takes one, Euler's. Raises ValueError for a start at -inf, where x / alpha is infinite.
    """
    if logsnrs[0].isinf():
        raise ValueError("heun cannot start at log SNR = -inf: use a schedule that is bounded, or another sampler")
    for index, t, s in _steps(logsnrs, x):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = alpha_sigma(t, x), alpha_sigma(s, x)
        length = sigma_s / alpha_s - sigma_t / alpha_t
        x0, eps = denoise(x, t)
        x, start = alpha_s * (x / alpha_t + length * eps), x
        if not s.isinf().any():
            x0, eps_there = denoise(x, s)
            x = alpha_s * (start / alpha_t + length * (eps + eps_there) / 2)
        yield Step(index, x, x0, s[0])


def _steps(logsnrs: Float[Tensor, " n"], x: Float[Tensor, "b *d"]) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(index, log SNR before, log SNR after), one number a sample. Raises ValueError unless they rise."""
    logsnrs = logsnrs.unique_consecutive()
    if not (logsnrs.diff() > 0).all():
        raise ValueError("a sampler's log SNRs must rise from noise to data: use schedule.grid or chain.logsnr.flip(0)")
    logsnrs = logsnrs.to(x.device, x.dtype)
    for index in range(1, len(logsnrs)):
        yield index, logsnrs[index - 1].expand(len(x)), logsnrs[index].expand(len(x))


SAMPLERS: dict[str, Sampler] = {"ddpm": ddpm, "ddim": ddim, "dpm_solver": dpm_solver, "heun": heun}
