"""Samplers: iterators over the reverse process, from noise to data.

`logsnrs` are n + 1 rising log SNRs, noise first (`schedules.grid`, or `chain.logsnr.flip(0)`); the
last one may be +inf. Each is one number, or, along a path of `paths`, a tensor with one per sample
or coordinate. A coordinate is copied in steps in which its log SNR stays the same; steps in which
nothing changes (beta = 0) are left out. Each step yields a `Step`, and the sample is the `x0` of
the last one, which equals its `x` if the grid ends at +inf. The caller adds progress bars, stored
trajectories and early stops.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from textdiff.diffusion.gaussian import (
    Denoiser,
    LogSNR,
    X,
    alpha_sigma,
    posterior,
    transition,
)

LogSNRs = Float[Tensor, "n ..."]
Noise = Callable[[X], X]  # x -> standard normal noise of x's shape, dtype and device
# With one generator per sample, no sample depends on the rest of its batch.
Generators = torch.Generator | Sequence[torch.Generator] | Noise


@dataclass(frozen=True, slots=True)
class Step:
    """State after step `index` (1..n), its log SNR, and the prediction of x0 that led to it."""

    index: int
    x: X
    x0: X
    logsnr: Float[Tensor, "..."]


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
    grid = _Grid(logsnrs, x)
    t, s = grid.before, grid.after
    zeros, ones = torch.zeros_like(t), torch.ones_like(t)
    coef_x0, var = posterior(ones, zeros, s, t)
    coef_xt = posterior(zeros, ones, s, t).mean
    if large_variance:
        var = torch.where(s.isinf(), var, transition(t, s, t).var)
    noisy = _somewhere(var > 0)
    coefficients = coef_x0, coef_xt, var.sqrt()
    for step, coef_x0, coef_xt, noise_std in grid.steps(*coefficients):
        x0 = denoise(x, step.before).x0
        new = (coef_x0 * x0).add_(coef_xt * x)
        if noisy[step.index - 1]:
            new = new.add_(noise_std * randn_like(x, generator))
        x = step.keep(x, new)
        yield Step(step.index, x, x0, step.end)


def ddim(
    denoise: Denoiser, x: X, logsnrs: LogSNRs, *, generator: Generators, eta: float = 0.0
) -> Iterator[Step]:
    """DDIM (arXiv:2010.02502) eq. 12, 16: eta = 0 is deterministic, eta = 1 is `ddpm`."""
    grid = _Grid(logsnrs, x)
    alpha_s, sigma_s = alpha_sigma(grid.after, grid.after)
    new_noise = -(grid.before - grid.after).expm1()  # the posterior's variance over sigma_s^2
    coef_eps = sigma_s * (1 - eta**2 * new_noise).sqrt()
    coefficients = alpha_s, coef_eps, eta * sigma_s * new_noise.sqrt()
    for step, coef_x0, coef_eps, noise_std in grid.steps(*coefficients):
        x0, eps = denoise(x, step.before)
        new = (coef_x0 * x0).add_(coef_eps * eps)
        if eta:
            new = new.add_(noise_std * randn_like(x, generator))
        x = step.keep(x, new)
        yield Step(step.index, x, x0, step.end)


def dpm_solver(
    denoise: Denoiser, x: X, logsnrs: LogSNRs, *, generator: Generators | None = None
) -> Iterator[Step]:
    """DPM-Solver++(2M) (arXiv:2211.01095, algorithm 2), deterministic.

    The first and the last step of a coordinate are of first order. The last one is often long (to
    +inf, or where x0 is already determined), and second-order extrapolation over it would diverge.
    """
    grid = _Grid(logsnrs, x)
    t, s = grid.before, grid.after
    (alpha_s, sigma_s), sigma_t = alpha_sigma(s, s), alpha_sigma(t, t).sigma
    length = torch.where(s == t, 0, s - t) / 2
    previous = torch.cat([torch.zeros_like(length[:1]), length[:-1]])
    second_order = (previous > 0) & (s < s[-1])
    extrapolation = torch.where(second_order, length / (2 * previous), 0)
    coefficients = -alpha_s * (-length).expm1(), sigma_s / sigma_t, extrapolation
    previous_x0 = x  # not used by the first step
    for step, coef_x0, coef_xt, weight in grid.steps(*coefficients):
        x0 = denoise(x, step.before).x0
        x0_ahead = torch.where(weight > 0, x0 + weight * (x0 - previous_x0), x0)
        x = step.keep(x, (coef_xt * x).add_(coef_x0 * x0_ahead))
        previous_x0 = x0
        yield Step(step.index, x, x0, step.end)


def heun(
    denoise: Denoiser, x: X, logsnrs: LogSNRs, *, generator: Generators | None = None
) -> Iterator[Step]:
    """Heun's method on the probability-flow ODE d(x / alpha) = eps d(sigma / alpha), deterministic.

    It is EDM (arXiv:2206.00364), algorithm 1 without churn: second order with two evaluations per
    step. A step to +inf is an Euler step with one evaluation.

    Raises:
        ValueError: The start is at log SNR = -inf, where x / alpha is infinite.
    """
    if logsnrs[0].isneginf().any():
        raise ValueError(
            "heun cannot start at log SNR = -inf: use a bounded schedule or another sampler"
        )
    grid = _Grid(logsnrs, x)
    t, s = grid.before, grid.after
    (alpha_t, sigma_t), (alpha_s, sigma_s) = alpha_sigma(t, t), alpha_sigma(s, s)
    length = sigma_s / alpha_s - sigma_t / alpha_t
    bounded = s < torch.inf
    corrected = _somewhere(bounded)
    coefficients = alpha_s / alpha_t, alpha_s * length, bounded
    for step, coef_xt, coef_eps, is_bounded in grid.steps(*coefficients):
        x_t = x
        x0, eps = denoise(x_t, step.before)
        x = step.keep(x_t, (coef_xt * x_t).add_(coef_eps * eps))
        if corrected[step.index - 1]:
            x0, eps_euler = denoise(x, step.after)
            second = (coef_xt * x_t).add_(coef_eps / 2 * (eps + eps_euler))
            x = step.keep(x_t, torch.where(is_bounded > 0, second, x))
        yield Step(step.index, x, x0, step.end)


def feed_back(denoise: Denoiser, x: X, logsnrs: LogSNRs) -> Iterator[Step]:
    """Deterministic decoder z_{l-1} = z_Phi(z_l, l), which uses its x0 as the next state.

    Source: TTIC 31230, quiz 3, problem 2. It does not sample the data: from pure noise the best
    prediction is the mean of the data for any noise, and all results are equal.
    """
    for (step,) in _Grid(logsnrs, x).steps():
        x0 = denoise(x, step.before).x0
        x = step.keep(x, x0)
        yield Step(step.index, x, x0, step.end)


@dataclass(frozen=True, slots=True)
class _GridStep:
    """Step `index` of a grid, with the log SNRs `before` and `after` it as denoisers take them.

    Args:
        end: Log SNRs after the step as they were given.
        still: True at coordinates whose log SNR does not change; None if all change.
    """

    index: int
    before: LogSNR
    after: LogSNR
    end: Float[Tensor, "..."]
    still: Tensor | None

    def keep(self, x_t: X, x: X) -> X:
        """x, with the coordinates of x_t whose log SNR does not change."""
        return x if self.still is None else torch.where(self.still, x_t, x)


class _Grid:
    """The steps from noise x to data.

    Attributes:
        before: Log SNRs before each step, of a shape that broadcasts against x. They are in float64
            on the CPU, as are those `after` it: the coefficients of all steps are computed at once.
    """

    def __init__(self, logsnrs: LogSNRs, x: X) -> None:
        self.logsnrs, self.x = logsnrs.unique_consecutive(dim=0), x
        if not (self.logsnrs[1:] >= self.logsnrs[:-1]).all():
            raise ValueError(
                "a sampler's log SNRs must rise from noise to data: "
                "use schedules.grid or chain.logsnr.flip(0)"
            )
        float64 = self.logsnrs.cpu().double()
        if logsnrs.ndim > 1:
            float64 = float64.view(*float64.shape, *[1] * (x.ndim + 1 - logsnrs.ndim))
        self.before, self.after = float64[:-1], float64[1:]

    def steps(self, *coefficients: Tensor) -> Iterator[tuple[Any, ...]]:
        """Yields each step and its coefficients."""
        x, still = self.x, self.before == self.after
        some_still, still = _somewhere(still), still.to(x.device)
        levels = self.logsnrs.to(x.device, x.dtype)
        levels = levels.unsqueeze(1) if levels.ndim == 1 else levels
        levels = levels.expand(-1, len(x), *levels.shape[2:])
        rows = [each.to(x).unbind() for each in coefficients]
        for i, some in enumerate(some_still):
            ends = levels[i], levels[i + 1], self.logsnrs[i + 1]
            yield _GridStep(i + 1, *ends, still[i] if some else None), *(row[i] for row in rows)


def _somewhere(condition: Tensor) -> list[bool]:
    """Whether a condition holds somewhere in each step."""
    return condition.reshape(len(condition), -1).any(1).tolist()


SAMPLERS: dict[str, Sampler] = {"ddpm": ddpm, "ddim": ddim, "dpm_solver": dpm_solver, "heun": heun}
# Network evaluations per step.
EVALUATIONS = {"ddpm": 1, "ddim": 1, "dpm_solver": 1, "heun": 2}
