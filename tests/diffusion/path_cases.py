"""Paths over the coordinates of a correlated Gaussian, with exact expectations, and networks."""

import math
from collections.abc import Callable

import pytest
import torch
from sampler_cases import INF
from tensors import double, draws
from torch import Tensor

from textdiff.diffusion.gaussian import PREDICTIONS, Denoiser, expand, from_x0
from textdiff.diffusion.likelihood import prior_and_diffusion_loss
from textdiff.diffusion.paths import NoisePath, places, stagger_of
from textdiff.diffusion.samplers import SAMPLERS

D = 4
ROOT = draws(D, D, seed=4)
COVARIANCE = ROOT @ ROOT.T / D + 0.1 * torch.eye(D, dtype=torch.float64)
ALONE = COVARIANCE.diag().diag()  # the same marginals, independent
NOISY, CLEAN = -14.0, 10.0
MOVING = torch.tensor([True, False, True, False])  # the others are given

every_path = pytest.mark.parametrize(
    ("order", "window"),
    [((0, 1, 2, 3), None), ((0, 1, 2, 3), 1), ((0, 1, 2, 3), 2), ((2, 0, 3, 1), 1)],
    ids=["together", "one by one", "two at a time", "another order"],
)


def straight(t: Tensor) -> Tensor:
    """A schedule that is linear in log SNR, so that no rounding is lost in its steps."""
    return CLEAN + (NOISY - CLEAN) * t


def to_data(t: Tensor) -> Tensor:
    """A schedule without any noise at time 0."""
    return torch.where(t > 0, 7 - 18 * t, INF)


def ordered(
    schedule: Callable,
    priority: Tensor,
    window: int | None,
    moving: Tensor | None = None,
) -> NoisePath:
    """The path of coordinates in order of priority; all together if there is no window."""
    moving = torch.ones_like(priority, dtype=torch.bool) if moving is None else moving
    stagger = moving.new_zeros(len(moving)) if window is None else stagger_of(window, moving)
    return NoisePath(schedule, moving.double(), places(priority, moving), stagger.double())


def optimal(covariance: Tensor) -> Denoiser:
    """The exact denoiser S A (A S A + Sigma)^-1 x_t of N(0, S), for any levels."""

    def denoise(x_t, logsnr):
        shared = (logsnr == logsnr[:1]).all()  # then one matrix is enough
        levels = (logsnr[:1] if shared else logsnr).double()
        alpha, variance = levels.sigmoid().sqrt(), (-levels).sigmoid()
        noisy = alpha.unsqueeze(2) * covariance * alpha.unsqueeze(1) + variance.diag_embed()
        gain = torch.linalg.solve(noisy, alpha.unsqueeze(2) * covariance)  # transposed
        return from_x0(x_t, (x_t.unsqueeze(1) @ gain).squeeze(1), logsnr)

    return denoise


def smooth(x_t, logsnr):
    """A function of each coordinate and its log SNR, in place of a network; it is not exact."""
    return PREDICTIONS["v"](x_t, (x_t + expand(0.1 * logsnr, x_t)).tanh(), logsnr)


def entropies(variances: Tensor) -> Tensor:
    """Entropy of one-dimensional Gaussians in nats."""
    return 0.5 * (2 * math.pi * math.e * variances).log()


def conditional(given: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Regression matrix and covariance of x[others] given x[given] (Schur complement)."""
    cross = COVARIANCE[given][:, others]
    weight = torch.linalg.solve(COVARIANCE[given][:, given], cross)
    return weight, COVARIANCE[others][:, others] - cross.T @ weight


def chain_rule(order: tuple[int, ...]) -> Tensor:
    """Entropy of each coordinate given those of lower priority numbers."""
    priority = torch.tensor(order)
    variances = [conditional(priority < own, priority == own)[1] for own in order]
    return entropies(torch.cat(variances).squeeze(1))


def mean_bound(
    denoise: Denoiser, order: tuple, window: int | None, moving: Tensor | None, steps: int
) -> Tensor:
    """The expected bound of each coordinate, exactly, of a denoiser that is linear in x_t.

    The loss is a quadratic form of (x0, eps). Its expectation is the mean over points whose second
    moments are those of data and noise; every step is used for each point. The decoder is
    N(x / alpha, 1 / SNR).
    """
    points = math.sqrt(2 * D) * torch.eye(2 * D, dtype=torch.float64).repeat(steps, 1)
    x0 = points[:, :D] @ torch.linalg.cholesky(COVARIANCE).T
    offsets = ((torch.arange(steps).double() + 0.5) / steps).repeat_interleave(2 * D)
    n = len(points)
    moving = None if moving is None else moving.expand(n, D)
    path = ordered(straight, double(*order).expand(n, D), window, moving)
    nats = prior_and_diffusion_loss(
        denoise, x0, path, offsets.unsqueeze(1), lambda _: points[:, D:], steps
    )
    return nats.mean(0) + entropies(double(-CLEAN).exp())


def bound(
    denoise: Denoiser,
    order: tuple[int, ...],
    window: int | None,
    moving: Tensor | None = None,
    steps: int = 5000,
) -> Tensor:
    """The expected bound for infinitely many steps; its error falls as 1 / steps."""
    coarse, fine = (mean_bound(denoise, order, window, moving, n) for n in (steps, 2 * steps))
    return 2 * fine - coarse


def responses(
    name: str, order: tuple[int, ...], window: int | None, steps: int, moving: Tensor
) -> Tensor:
    """The samples that each number alone leads to, exactly: a sampler is linear in its numbers.

    The numbers are the start x, in the first D rows, and the noises of the steps. Where moving is
    False, the start is the given value.
    """
    path = ordered(to_data, double(order), window, moving.unsqueeze(0))
    noises = steps if name == "ddpm" else 0
    x, *noise = torch.eye(D * (noises + 1), dtype=torch.float64).split(D, 1)
    grid = path.grid(steps).expand(-1, len(x), D)
    sampler = SAMPLERS[name](optimal(COVARIANCE), x, grid, generator=lambda _: noise.pop())
    *_, step = sampler
    return step.x
