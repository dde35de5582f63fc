"""The discrete T-step chain of the textbooks, as a view: of given betas, or of a schedule at t = 1/T, ..., 1. All in float64.

Arrays have T + 1 entries and are indexed by the paper's t: entry 0 is the data (beta_0 = 0, alpha_bar_0 = 1), entries 1..T the steps.
beta = 0 (nothing changes) and beta = 1 (pure noise) are allowed anywhere. Samplers take `chain.logsnr.flip(0)`.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from textdiff.diffusion.gaussian import Gaussian
from textdiff.diffusion.schedule import Schedule

Steps = Float64[Tensor, " entries"]  # T + 1 of them


class PosteriorCoefficients(NamedTuple):
    """mean of q(x_{t-1} | x_t, x_0) = x0 * x0 + x_t * x_t, entry t."""

    x0: Steps
    x_t: Steps


@dataclass(frozen=True, eq=False)
class Chain:
    """q(x_t | x_{t-1}) = N(sqrt(alpha_t) x_{t-1}, beta_t I) for t = 1..T; `beta[0]` is 0. Built by `from_betas` or `from_schedule`."""

    beta: Steps

    @classmethod
    def from_betas(cls, betas: Tensor) -> "Chain":
        """From beta_1..beta_T. Raises ValueError if one is not in [0, 1]."""
        betas = betas.to(torch.float64)
        bad = ((betas < 0) | (betas > 1) | betas.isnan()).nonzero()
        if len(bad):
            raise ValueError(f"every beta must lie in [0, 1], got beta_{int(bad[0]) + 1} = {betas[bad[0, 0]]:.6g}")
        return cls(torch.cat([betas.new_zeros(1), betas]))

    @classmethod
    def from_schedule(cls, schedule: Schedule, T: int, max_beta: float = 1.0) -> "Chain":
        """The chain whose alpha_bar_t is the schedule's at t/T, with alpha_bar_0 = 1; `max_beta` = 0.999 is improved DDPM's cap."""
        logsnr = schedule(torch.arange(1, T + 1, dtype=torch.float64) / T)
        kept = torch.cat([logsnr.new_zeros(1), torch.nn.functional.logsigmoid(logsnr)])  # log alpha_bar
        return cls.from_betas((-kept.diff().expm1()).nan_to_num(1.0).clamp(0, max_beta))

    @property
    def T(self) -> int:
        return len(self.beta) - 1

    @cached_property
    def alpha(self) -> Steps:
        return 1 - self.beta

    @cached_property
    def alpha_bar(self) -> Steps:
        return self._log_alpha_bar.exp()

    @cached_property
    def logsnr(self) -> Steps:
        """log(alpha_bar / (1 - alpha_bar)): +inf where nothing has changed yet, -inf once all signal is gone."""
        return self._log_alpha_bar - (-self._log_alpha_bar.expm1()).log()

    @cached_property
    def _log_alpha_bar(self) -> Steps:
        return (-self.beta).log1p().cumsum(0)

    @cached_property
    def noise_bar(self) -> Steps:
        """1 - alpha_bar without cancellation."""
        return -self._log_alpha_bar.expm1()

    def step(self, x: Tensor, t: int) -> Gaussian:
        """q(x_t | x_{t-1} = x): mean sqrt(1 - beta_t) x and covariance beta_t I (its diagonal)."""
        return self.jump(x, t - 1, t)

    def jump(self, x: Tensor, s: int, t: int) -> Gaussian:
        """q(x_t | x_s = x): the k-step jump, k = t - s. Raises ValueError unless 0 <= s <= t <= T."""
        if not 0 <= s <= t <= self.T:
            raise ValueError(f"a jump goes from s to t with 0 <= s <= t <= {self.T}, got s = {s}, t = {t}")
        kept = self.alpha[s + 1 : t + 1].prod()
        lost = -(-self.beta[s + 1 : t + 1]).log1p().sum().expm1()
        return Gaussian(kept.sqrt() * x.double(), lost.expand_as(x))

    def marginal(self, x0: Tensor, t: int) -> Gaussian:
        """q(x_t | x_0): DDPM eq. 4."""
        return self.jump(x0, 0, t)

    @cached_property
    def posterior_coefficients(self) -> PosteriorCoefficients:
        """DDPM eq. 7, where x_t's coefficient has sqrt(alpha_t): some course notes print sqrt(alpha_bar_t). While alpha_bar_t = 1 it is (1, 0)."""
        x0 = _before(self.alpha_bar).sqrt() * self.beta / self.noise_bar
        x_t = self.alpha.sqrt() * _before(self.noise_bar) / self.noise_bar
        untouched = self.noise_bar == 0
        return PosteriorCoefficients(x0.masked_fill(untouched, 1), x_t.masked_fill(untouched, 0))

    @cached_property
    def small_variance(self) -> Steps:
        """beta~_t, the variance of q(x_{t-1} | x_t, x_0), best for data that are one point; exactly 0 at t = 1."""
        return (self.beta * _before(self.noise_bar) / self.noise_bar).masked_fill(self.noise_bar == 0, 0)

    @property
    def large_variance(self) -> Steps:
        """beta_t, best for standard normal data."""
        return self.beta

    @cached_property
    def clipped_log_small_variance(self) -> Steps:
        """log beta~_t with entry 1 (and 0) replaced by entry 2, so that it is finite: for likelihoods and learned variances, never to sample with."""
        kept = self.small_variance.clone()
        kept[:2] = kept[min(2, self.T)]
        return kept.log()

    def posterior(self, x0: Tensor, x_t: Tensor, t: int) -> Gaussian:
        """q(x_{t-1} | x_t, x_0) in the x0-form. Raises ValueError unless 1 <= t <= T, and so does the eps-form."""
        self._check_step(t)
        per_x0, per_x_t = self.posterior_coefficients
        return Gaussian(per_x0[t] * x0.double() + per_x_t[t] * x_t.double(), self.small_variance[t].expand_as(x_t))

    def posterior_from_eps(self, eps: Tensor, x_t: Tensor, t: int) -> Gaussian:
        """The same in the eps-form, mean (x_t - beta_t eps / sqrt(1 - alpha_bar_t)) / sqrt(alpha_t). beta_t = 1 has no such form: not finite."""
        self._check_step(t)
        if self.beta[t] == 0:
            return Gaussian(x_t.double(), self.small_variance[t].expand_as(x_t))
        mean = (x_t.double() - self.beta[t] / self.noise_bar[t].sqrt() * eps.double()) / self.alpha[t].sqrt()
        return Gaussian(mean, self.small_variance[t].expand_as(x_t))

    def _check_step(self, t: int) -> None:
        if not 1 <= t <= self.T:
            raise ValueError(f"a step t lies in 1..{self.T}, got {t}")


def _before(table: Steps) -> Steps:
    """Entry t - 1 at place t; entry 0 stays."""
    return torch.cat([table[:1], table[:-1]])


def linear_betas(T: int, first: float = 1e-4, last: float = 0.02) -> Float64[Tensor, " T"]:
    """DDPM's table (sec. 4). It is not rescaled with T, as some codes do: for another T choose other ends."""
    return torch.linspace(first, last, T, dtype=torch.float64)
