"""Linear SDEs dx = f(t) x dt + g(t) dw: forward paths, reverse paths and the probability-flow ODE.

Times start at 0 (data); a score is a function (x, t). Every such SDE is the variance-preserving
process in other coordinates, so that one denoiser is the score of all of them (`score_of`).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from textdiff.diffusion.gaussian import Broadcast, Denoiser, X, expand
from textdiff.diffusion.samplers import Generators, randn_like

TimeFunction = Callable[[Tensor], Tensor]
TimeScore = Callable[[X, Tensor], X]
Times = Float[Tensor, " n"]


@dataclass(frozen=True)
class SDE:
    """dx = drift(t) x dt + diffusion(t) dw with q(x_t | x_0) = N(scale(t) x_0, std(t)^2 I).

    `end` is the time at which the data are replaced by noise.
    """

    drift: TimeFunction
    diffusion: TimeFunction
    scale: TimeFunction
    std: TimeFunction
    end: float

    def logsnr(self, t: Tensor) -> Tensor:
        """Log SNR at time t."""
        return 2 * (self.scale(t) / self.std(t)).log()


def vp(beta_min: float = 0.1, beta_max: float = 20.0) -> SDE:
    """Variance-preserving SDE, the limit of DDPM's chain: f = -beta/2, g^2 = beta.

    Source: Song et al., arXiv:2011.13456, eq. 11, 29, 32-33.
    """
    beta, integral = _linear_beta(beta_min, beta_max)
    return SDE(
        drift=lambda t: -beta(t) / 2,
        diffusion=lambda t: beta(t).sqrt(),
        scale=lambda t: (-integral(t) / 2).exp(),
        std=lambda t: (-(-integral(t)).expm1()).sqrt(),
        end=1.0,
    )


def sub_vp(beta_min: float = 0.1, beta_max: float = 20.0) -> SDE:
    """Sub-VP SDE: the mean of `vp` and its variance squared, std = 1 - alpha^2 (eq. 14, 29)."""
    beta, integral = _linear_beta(beta_min, beta_max)
    return SDE(
        drift=lambda t: -beta(t) / 2,
        diffusion=lambda t: (beta(t) * -(-2 * integral(t)).expm1()).sqrt(),
        scale=lambda t: (-integral(t) / 2).exp(),
        std=lambda t: -(-integral(t)).expm1(),
        end=1.0,
    )


def ve(sigma_min: float = 0.01, sigma_max: float = 50.0) -> SDE:
    """Variance-exploding SDE, the limit of NCSN's noise levels (eq. 9, 30-31).

    sigma(t) = sigma_min (sigma_max / sigma_min)^t. At t = 0 the data are clean:
    std^2 = sigma(t)^2 - sigma_min^2.
    """
    growth = math.log(sigma_max / sigma_min)
    return SDE(
        drift=torch.zeros_like,
        diffusion=lambda t: sigma_min * (growth * t).exp() * math.sqrt(2 * growth),
        scale=torch.ones_like,
        std=lambda t: sigma_min * (2 * growth * t).expm1().sqrt(),
        end=1.0,
    )


def ornstein_uhlenbeck(theta: float = 1.0, end: float = 5.0) -> SDE:
    """dx = -theta x dt + sqrt(2 theta) dw, the limit of the chain with constant alpha.

    Source: TTIC 31230, quiz 3, problem 1 e.
    """
    return SDE(
        drift=lambda t: torch.full_like(t, -theta),
        diffusion=lambda t: torch.full_like(t, math.sqrt(2 * theta)),
        scale=lambda t: (-theta * t).exp(),
        std=lambda t: (-(-2 * theta * t).expm1()).sqrt(),
        end=end,
    )


def score_of(denoise: Denoiser, sde: SDE) -> TimeScore:
    """Converts a denoiser of the variance-preserving process to the score of an SDE.

    x / sqrt(scale^2 + std^2) is variance-preserving and has the same log SNR.
    """

    def score(x: Tensor, t: Tensor) -> Tensor:
        size = (sde.scale(t) ** 2 + sde.std(t) ** 2).sqrt()
        return -denoise(x / size, sde.logsnr(t).to(x).expand(len(x))).eps / sde.std(t)

    return score


def euler_maruyama(sde: SDE, x: X, times: Times, *, generator: Generators) -> Iterator[X]:
    """Simulates the forward SDE from data at times[0] with the Euler-Maruyama method.

    Raises:
        ValueError: The times do not rise.
    """
    _check_order(times, rising=True)
    for t, s in pairwise(times):
        noise = sde.diffusion(t) * (s - t).sqrt() * randn_like(x, generator)
        x = x + sde.drift(t) * x * (s - t) + noise
        yield x


def reverse_sde(
    sde: SDE, score: TimeScore, x: X, times: Times, *, generator: Generators
) -> Iterator[X]:
    """Simulates the reverse SDE from noise at times[0] with the Euler-Maruyama method.

    Its drift is f x - g^2 score, and its marginals are those of the forward SDE (Anderson, 1982).

    Raises:
        ValueError: The times do not fall.
    """
    _check_order(times, rising=False)
    for t, s in pairwise(times):
        g = sde.diffusion(t)
        drift = sde.drift(t) * x - g**2 * score(x, t)
        x = x + drift * (s - t) + g * (t - s).sqrt() * randn_like(x, generator)
        yield x


def probability_flow(sde: SDE, score: TimeScore, x: X, times: Times) -> Iterator[X]:
    """Integrates the probability-flow ODE in either direction with Heun's method.

    Its drift is f x - g^2 score / 2, and its marginals are those of the SDE (arXiv:2011.13456,
    eq. 13).

    Raises:
        ValueError: A time is 0, where clean data have no score.
    """
    _check_score_is_finite(sde, times)

    def drift(x: Tensor, t: Tensor) -> Tensor:
        return sde.drift(t) * x - sde.diffusion(t) ** 2 / 2 * score(x, t)

    for t, s in pairwise(times):
        slope = drift(x, t)
        x = x + (s - t) * (slope + drift(x + (s - t) * slope, s)) / 2
        yield x


def predictor_corrector(
    sde: SDE,
    score: TimeScore,
    x: X,
    times: Times,
    *,
    generator: Generators,
    corrections: int = 1,
    ratio: float = 0.16,
) -> Iterator[X]:
    """Predictor-corrector sampling (arXiv:2011.13456, algorithms 2 to 5) from noise at times[0].

    Each step of the reverse SDE is followed by `corrections` Langevin steps at the new time.
    `ratio` is the paper's signal-to-noise ratio r: the norm of a Langevin step's drift over that of
    its noise. Norms are per sample, so that no sample depends on the rest of its batch.

    Raises:
        ValueError: The times do not fall, or one is 0, where clean data have no score.
    """
    _check_score_is_finite(sde, times)
    for t, s in pairwise(times):
        (x,) = reverse_sde(sde, score, x, torch.stack([t, s]), generator=generator)
        for _ in range(corrections):
            gradient, z = score(x, s), randn_like(x, generator)
            step = 2 * (ratio * _norm(z) / _norm(gradient)) ** 2
            x = x + step * gradient + (2 * step).sqrt() * z
        yield x


def _check_order(times: Times, rising: bool) -> None:
    if ((times.diff() > 0) != rising).any():
        order = "rise, from data to noise" if rising else "fall, from noise to data"
        raise ValueError(f"the times of this path must {order}")


def _check_score_is_finite(sde: SDE, times: Times) -> None:
    if (sde.std(times) == 0).any():
        raise ValueError("the score is not finite at time 0: end at a later time, for example 1e-3")


def _norm(x: X) -> Broadcast:
    return expand(x.flatten(1).norm(dim=1), x)


def _linear_beta(beta_min: float, beta_max: float) -> tuple[TimeFunction, TimeFunction]:
    """beta(t), which is linear in t, and its integral from 0."""
    return (
        lambda t: beta_min + t * (beta_max - beta_min),
        lambda t: t * (beta_min + t * (beta_max - beta_min) / 2),
    )


SDES = {"vp": vp, "sub_vp": sub_vp, "ve": ve, "ornstein_uhlenbeck": ornstein_uhlenbeck}
