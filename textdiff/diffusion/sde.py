"""Continuous time: dx = f(t) x dt + g(t) dw, the linear SDEs of diffusion, forwards, backwards, and as an ODE without noise.

Times are numbers from 0 (data) on; a score is a function (x, t). Every such SDE is the variance-preserving process in other coordinates, so that one
denoiser serves them all (`score_of`).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from textdiff.diffusion.gaussian import Denoiser
from textdiff.diffusion.samplers import Generators, randn_like

OfTime = Callable[[Tensor], Tensor]
TimeScore = Callable[[Float[Tensor, "b *d"], Tensor], Float[Tensor, "b *d"]]


@dataclass(frozen=True)
class SDE:
    """dx = rate(t) x dt + diffusion(t) dw, whose q(x_t | x_0) = N(scale(t) x_0, std(t)^2 I); `end` is where data are forgotten."""

    rate: OfTime
    diffusion: OfTime
    scale: OfTime
    std: OfTime
    end: float

    def logsnr(self, t: Tensor) -> Tensor:
        return 2 * (self.scale(t) / self.std(t)).log()


def vp(beta_min: float = 0.1, beta_max: float = 20.0) -> SDE:
    """Variance preserving: the limit of DDPM's chain (Song et al., arXiv:2011.13456, eq. 11, 29, 32-33). f = -beta/2, g^2 = beta."""
    beta, integral = _beta(beta_min, beta_max)
    return SDE(lambda t: -beta(t) / 2, lambda t: beta(t).sqrt(), lambda t: (-integral(t) / 2).exp(), lambda t: (-(-integral(t)).expm1()).sqrt(), 1.0)


def sub_vp(beta_min: float = 0.1, beta_max: float = 20.0) -> SDE:
    """The same mean, with the square of its variance: std = 1 - alpha^2 (eq. 14, 29)."""
    beta, integral = _beta(beta_min, beta_max)
    return SDE(
        lambda t: -beta(t) / 2,
        lambda t: (beta(t) * -(-2 * integral(t)).expm1()).sqrt(),
        lambda t: (-integral(t) / 2).exp(),
        lambda t: -(-integral(t)).expm1(),
        1.0,
    )


def ve(sigma_min: float = 0.01, sigma_max: float = 50.0) -> SDE:
    """Variance exploding: the limit of NCSN's ladder sigma(t) = sigma_min (sigma_max / sigma_min)^t (eq. 9, 30-31), from a clean start: std^2 is
    sigma(t)^2 - sigma_min^2."""
    growth = math.log(sigma_max / sigma_min)
    return SDE(
        torch.zeros_like,
        lambda t: sigma_min * (growth * t).exp() * math.sqrt(2 * growth),
        torch.ones_like,
        lambda t: sigma_min * (2 * growth * t).expm1().sqrt(),
        1.0,
    )


def ornstein_uhlenbeck(theta: float = 1.0, end: float = 5.0) -> SDE:
    """dx = -theta x dt + sqrt(2 theta) dw: the limit of the chain of constant alpha (TTIC 31230, quiz 3, problem 1 e)."""
    return SDE(
        lambda t: torch.full_like(t, -theta),
        lambda t: torch.full_like(t, math.sqrt(2 * theta)),
        lambda t: (-theta * t).exp(),
        lambda t: (-(-2 * theta * t).expm1()).sqrt(),
        end,
    )


def score_of(denoise: Denoiser, sde: SDE) -> TimeScore:
    """The score of x_t from a denoiser of the variance-preserving process: x / sqrt(scale^2 + std^2) has the same log SNR."""

    def score(x: Tensor, t: Tensor) -> Tensor:
        size = (sde.scale(t) ** 2 + sde.std(t) ** 2).sqrt()
        return -denoise(x / size, sde.logsnr(t).to(x).expand(len(x))).eps / sde.std(t)

    return score


# --- paths; `times` rise for the forward one and fall for the others


def euler_maruyama(sde: SDE, x: Float[Tensor, "b *d"], times: Float[Tensor, " n"], *, generator: Generators) -> Iterator[Float[Tensor, "b *d"]]:
    """Forwards, from data at times[0]."""
    _check_order(times, rising=True)
    for t, s in pairwise(times):
        x = x + sde.rate(t) * x * (s - t) + sde.diffusion(t) * (s - t).sqrt() * randn_like(x, generator)
        yield x


def reverse_sde(
    sde: SDE, score: TimeScore, x: Float[Tensor, "b *d"], times: Float[Tensor, " n"], *, generator: Generators
) -> Iterator[Float[Tensor, "b *d"]]:
    """Backwards, from noise at times[0], with the same marginals: drift f x - g^2 score (Anderson, 1982). Euler-Maruyama."""
    _check_order(times, rising=False)
    for t, s in pairwise(times):
        g = sde.diffusion(t)
        x = x + (sde.rate(t) * x - g**2 * score(x, t)) * (s - t) + g * (t - s).sqrt() * randn_like(x, generator)
        yield x


def probability_flow(sde: SDE, score: TimeScore, x: Float[Tensor, "b *d"], times: Float[Tensor, " n"]) -> Iterator[Float[Tensor, "b *d"]]:
    """The ODE with the same marginals, either way: drift f x - g^2 score / 2 (arXiv:2011.13456, eq. 13). Heun's method."""

    _check_end(sde, times)

    def drift(x: Tensor, t: Tensor) -> Tensor:
        return sde.rate(t) * x - sde.diffusion(t) ** 2 / 2 * score(x, t)

    for t, s in pairwise(times):
        here = drift(x, t)
        x = x + (s - t) * (here + drift(x + (s - t) * here, s)) / 2
        yield x


def predictor_corrector(
    sde: SDE,
    score: TimeScore,
    x: Float[Tensor, "b *d"],
    times: Float[Tensor, " n"],
    *,
    generator: Generators,
    corrections: int = 1,
    ratio: float = 0.16,
) -> Iterator[Float[Tensor, "b *d"]]:
    """A step of the reverse SDE, then `corrections` Langevin steps at the new time, so large that the score's pull is `ratio` times as long as the
    noise (arXiv:2011.13456, algorithms 2 to 5). Norms are each sample's own, so that no sample depends on its companions."""
    _check_end(sde, times)
    for t, s in pairwise(times):
        (x,) = reverse_sde(sde, score, x, torch.stack([t, s]), generator=generator)
        for _ in range(corrections):
            pull, z = score(x, s), randn_like(x, generator)
            step = 2 * (ratio * _norm(z) / _norm(pull)) ** 2
            x = x + step * pull + (2 * step).sqrt() * z
        yield x


def _check_order(times: Float[Tensor, " n"], rising: bool) -> None:
    """Raises ValueError if time runs the other way."""
    if ((times.diff() > 0) != rising).any():
        raise ValueError(f"times must {'rise: this path begins with data' if rising else 'fall: this path begins with noise'}")


def _check_end(sde: SDE, times: Float[Tensor, " n"]) -> None:
    """At time 0 clean data have no score. Raises ValueError."""
    if (sde.std(times) == 0).any():
        raise ValueError("the score is not finite at time 0: let times end a little before, at 1e-3, say")


def _norm(x: Float[Tensor, "b *d"]) -> Float[Tensor, "b *#d"]:
    return x.flatten(1).norm(dim=1).view(-1, *[1] * (x.ndim - 1))


def _beta(beta_min: float, beta_max: float) -> tuple[OfTime, OfTime]:
    """beta(t), which grows linearly, and its integral from 0."""
    return lambda t: beta_min + t * (beta_max - beta_min), lambda t: t * (beta_min + t * (beta_max - beta_min) / 2)


SDES = {"vp": vp, "sub_vp": sub_vp, "ve": ve, "ornstein_uhlenbeck": ornstein_uhlenbeck}
