"""The discrete diffusion process of T steps, from given betas or from a schedule, in float64.

Arrays have T + 1 entries and are indexed by the paper's t: entry 0 is the data (beta_0 = 0,
alpha_bar_0 = 1), entries 1..T are the steps. A schedule is evaluated at t = 1/T, ..., 1. beta = 0
(no change) and beta = 1 (pure noise) are allowed at every step. Samplers take
`chain.logsnr.flip(0)`.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.nn.functional import logsigmoid

from textdiff.diffusion.gaussian import Gaussian
from textdiff.diffusion.schedules import Schedule

PerStep = Float64[Tensor, " entries"]  # T + 1 entries


class PosteriorCoefficients(NamedTuple):
    """Coefficients of the mean of q(x_{t-1} | x_t, x_0) = coef_x0 x_0 + coef_xt x_t, entry t."""

    coef_x0: PerStep
    coef_xt: PerStep


@dataclass(frozen=True, eq=False)
class Chain:
    """The Markov chain q(x_t | x_{t-1}) = N(sqrt(alpha_t) x_{t-1}, beta_t I), t = 1..T.

    Entry 0 of `beta` is 0. Build it with `from_betas` or `from_schedule`.
    """

    beta: PerStep

    @classmethod
    def from_betas(cls, betas: Tensor) -> "Chain":
        """Builds the chain of beta_1..beta_T.

        Raises:
            ValueError: A beta is not in [0, 1].
        """
        betas = betas.to(torch.float64)
        invalid = ((betas < 0) | (betas > 1) | betas.isnan()).nonzero().flatten().tolist()
        if invalid:
            t, beta = invalid[0] + 1, betas[invalid[0]]
            raise ValueError(f"every beta must lie in [0, 1], got beta_{t} = {beta:.6g}")
        return cls(torch.cat([betas.new_zeros(1), betas]))

    @classmethod
    def from_schedule(cls, schedule: Schedule, T: int, max_beta: float = 1.0) -> "Chain":
        """Builds the chain with the schedule's alpha_bar at t/T and alpha_bar_0 = 1.

        Betas are clipped at `max_beta`; improved DDPM (arXiv:2102.09672) clips at 0.999.
        """
        logsnr = schedule(torch.arange(1, T + 1, dtype=torch.float64) / T)
        log_alpha_bar = torch.cat([logsnr.new_zeros(1), logsigmoid(logsnr)])
        betas = -log_alpha_bar.diff().expm1()
        return cls.from_betas(betas.nan_to_num(1.0).clamp(0, max_beta))

    @property
    def T(self) -> int:
        """Number of steps."""
        return len(self.beta) - 1

    @cached_property
    def alpha(self) -> PerStep:
        """1 - beta_t."""
        return 1 - self.beta

    @cached_property
    def alpha_bar(self) -> PerStep:
        """Product of alpha_1 ... alpha_t."""
        return self._log_alpha_bar.exp()

    @cached_property
    def noise_bar(self) -> PerStep:
        """1 - alpha_bar_t without cancellation."""
        return -self._log_alpha_bar.expm1()

    @cached_property
    def logsnr(self) -> PerStep:
        """log(alpha_bar / (1 - alpha_bar)): inf for clean data, -inf for pure noise."""
        return self._log_alpha_bar - self.noise_bar.log()

    @cached_property
    def _log_alpha_bar(self) -> PerStep:
        return (-self.beta).log1p().cumsum(0)

    def step(self, x: Tensor, t: int) -> Gaussian:
        """q(x_t | x_{t-1} = x) with mean sqrt(1 - beta_t) x and covariance beta_t I."""
        return self.transition(x, t - 1, t)

    def transition(self, x: Tensor, s: int, t: int) -> Gaussian:
        """q(x_t | x_s = x) over k = t - s steps at once.

        Raises:
            ValueError: 0 <= s <= t <= T does not hold.
        """
        if not 0 <= s <= t <= self.T:
            raise ValueError(f"a transition needs 0 <= s <= t <= {self.T}, got s = {s}, t = {t}")
        signal = self.alpha[s + 1 : t + 1].prod()
        var = -(-self.beta[s + 1 : t + 1]).log1p().sum().expm1()
        return Gaussian(signal.sqrt() * x.double(), var.expand_as(x))

    def marginal(self, x0: Tensor, t: int) -> Gaussian:
        """q(x_t | x_0): DDPM (arXiv:2006.11239) eq. 4."""
        return self.transition(x0, 0, t)

    @cached_property
    def posterior_coefficients(self) -> PosteriorCoefficients:
        """Coefficients of the posterior mean: DDPM eq. 7. They are (1, 0) while alpha_bar_t = 1.

        The coefficient of x_t has sqrt(alpha_t); some course notes print sqrt(alpha_bar_t).
        """
        coef_x0 = _previous(self.alpha_bar).sqrt() * self.beta / self.noise_bar
        coef_xt = self.alpha.sqrt() * _previous(self.noise_bar) / self.noise_bar
        clean = self.noise_bar == 0
        return PosteriorCoefficients(coef_x0.masked_fill(clean, 1), coef_xt.masked_fill(clean, 0))

    @cached_property
    def small_variance(self) -> PerStep:
        """beta~_t, the variance of q(x_{t-1} | x_t, x_0); exactly 0 at t = 1.

        It is optimal for data that are one point.
        """
        var = self.beta * _previous(self.noise_bar) / self.noise_bar
        return var.masked_fill(self.noise_bar == 0, 0)

    @property
    def large_variance(self) -> PerStep:
        """beta_t. It is optimal for standard normal data."""
        return self.beta

    @cached_property
    def clipped_log_small_variance(self) -> PerStep:
        """log beta~_t with entries 0 and 1 replaced by entry 2, so that all are finite.

        It is meant for likelihoods and learned variances, not for sampling.
        """
        variance = self.small_variance.clone()
        variance[:2] = variance[min(2, self.T)]
        return variance.log()

    def posterior(self, x0: Tensor, x_t: Tensor, t: int) -> Gaussian:
        """q(x_{t-1} | x_t, x_0) from x_0.

        Raises:
            ValueError: 1 <= t <= T does not hold.
        """
        self._check_step(t)
        coef_x0, coef_xt = (coef[t] for coef in self.posterior_coefficients)
        mean = coef_x0 * x0.double() + coef_xt * x_t.double()
        return Gaussian(mean, self.small_variance[t].expand_as(x_t))

    def posterior_from_eps(self, eps: Tensor, x_t: Tensor, t: int) -> Gaussian:
        """q(x_{t-1} | x_t, x_0) from eps.

        The mean is (x_t - beta_t eps / sqrt(1 - alpha_bar_t)) / sqrt(alpha_t). With beta_t = 1 this
        form does not exist, and the mean is not finite.

        Raises:
            ValueError: 1 <= t <= T does not hold.
        """
        self._check_step(t)
        var = self.small_variance[t].expand_as(x_t)
        if self.beta[t] == 0:
            return Gaussian(x_t.double(), var)
        noise = self.beta[t] / self.noise_bar[t].sqrt() * eps.double()
        return Gaussian((x_t.double() - noise) / self.alpha[t].sqrt(), var)

    def _check_step(self, t: int) -> None:
        if not 1 <= t <= self.T:
            raise ValueError(f"a step t lies in 1..{self.T}, got {t}")


def _previous(table: PerStep) -> PerStep:
    """Table with entry t - 1 at index t; entry 0 is unchanged."""
    return torch.cat([table[:1], table[:-1]])


def linear_betas(T: int, first: float = 1e-4, last: float = 0.02) -> Float64[Tensor, " T"]:
    """Linear betas of DDPM, sec. 4.

    They are not rescaled with T: choose `first` and `last` for another T.
    """
    return torch.linspace(first, last, T, dtype=torch.float64)
