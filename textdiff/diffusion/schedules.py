"""Noise schedules: strictly falling functions t -> log SNR, t in [0, 1], 0 = data, 1 = noise.

Every schedule is defined by alpha_bar(t), the signal's share of the variance, and
log SNR = log(alpha_bar / (1 - alpha_bar)), written so that no precision is lost at either end. Most
of them are infinite at t = 0 or t = 1; `bounded` restricts a schedule to a finite range.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

Times = Float[Tensor, "*n"]
Schedule = Callable[[Times], Times]


def linear(t: Times, beta_min: float = 0.1, beta_max: float = 20.0) -> Times:
    """Linear beta(t) of the VP-SDE (Song et al., arXiv:2011.13456, eq. 32-33).

    It is the limit of DDPM's betas for T -> inf.
    """
    integral = t * (beta_min + 0.5 * t * (beta_max - beta_min))
    return -integral.expm1().log()


def cosine(t: Times, s: float = 0.008) -> Times:
    """alpha_bar = cos^2((t + s)/(1 + s) pi/2) / cos^2(s/(1 + s) pi/2).

    Source: improved DDPM (arXiv:2102.09672) eq. 17.
    """
    start = s / (1 + s) * math.pi / 2
    angle = t / (1 + s) * math.pi / 2
    complement = (1 - t) / (1 + s) * math.pi / 2
    return 2 * complement.sin().log() - (angle.sin() * (2 * start + angle).sin()).log()


def sqrt(t: Times, s: float = 1e-4) -> Times:
    """alpha_bar = 1 - sqrt(t + s): Diffusion-LM (arXiv:2205.14217) app. A.

    At t = 0 the noise has standard deviation s^(1/4) = 0.1. From t = 1 - s on log SNR is -inf.
    """
    noise = (t + s).sqrt()
    return ((1 - t - s).clamp(min=0) / (1 + noise)).log() - noise.log()


def sigmoid(t: Times, start: float = -3.0, end: float = 3.0, tau: float = 1.0) -> Times:
    """alpha_bar is a section of a sigmoid, rescaled to [0, 1] (Jabri et al., arXiv:2212.11972).

    It differs from GeoDiff's schedule, where beta is a sigmoid.
    """
    half = (end - start) / (2 * tau)
    shift = math.log(math.cosh(start / (2 * tau)) / math.cosh(end / (2 * tau)))
    return ((1 - t) * half).sinh().log() - (t * half).sinh().log() + shift


def constant_alpha(t: Times, horizon: float = 5.0) -> Times:
    """Marginals of `z_l = alpha z_{l-1} + sqrt(1 - alpha^2) eps` (TTIC 31230, quiz 3, problem 1).

    L equal steps with alpha = exp(-horizon / L) have exactly these marginals, and so has their
    Ornstein-Uhlenbeck limit `w(tau) = e^-tau w(0) + sqrt(1 - e^-2tau) eps` at tau = t horizon.
    """
    return -(2 * horizon * t).expm1().log()


def gumbel(
    t: Times, center: Tensor | float, scale: Tensor | float, logsnr_min: float, logsnr_max: float
) -> Times:
    """Schedule whose -log SNR has a truncated Gumbel(center, scale) distribution.

    If the loss at g = -log SNR is `loss_inf exp(-exp(-(g - center) / scale))`, equal shares of the
    loss take equal times (LangFlow; after CDCD's time warping, arXiv:2211.15089, sec. 3.3). It is
    computed in the precision of t; in float32 the error is at most 2e-3.

    Args:
        t: Times in [0, 1].
        center: Location of the distribution; a tensor receives gradients.
        scale: Scale of the distribution; a tensor receives gradients.
        logsnr_min: Log SNR at t = 1.
        logsnr_max: Log SNR at t = 0.
    """
    ends = (t.new_full((), end) for end in (logsnr_max, logsnr_min))
    # -log F at both ends, where F is the distribution function of -log SNR
    clean, noisy = (torch.exp((center + logsnr) / scale) for logsnr in ends)
    log_ratio = noisy - clean
    # two equal forms of log(F(t) / F(1)), precise near t = 0 and near t = 1
    near_clean = torch.log(t + (1 - t) * log_ratio.exp())
    near_noisy = torch.log1p((1 - t) * log_ratio.expm1())
    neg_log_cdf = noisy - torch.where(t < 0.5, near_clean, near_noisy)
    return (scale * neg_log_cdf.log() - center).clamp(logsnr_min, logsnr_max)


def bounded(schedule: Schedule, logsnr_min: float, logsnr_max: float) -> Schedule:
    """Restricts a schedule to a range of log SNR and rescales its time to [0, 1].

    A schedule that ends inside the range keeps that end.

    Raises:
        ValueError: No part of the schedule lies in the range.
    """
    first, last = (_time_of(schedule, bound) for bound in (logsnr_max, logsnr_min))
    if last - first < 1e-9:
        ends = schedule(torch.tensor([0, 1], dtype=torch.float64, device="cpu")).tolist()
        raise ValueError(
            f"this schedule's log SNR runs from {ends[0]:.4g} to {ends[1]:.4g}, "
            f"not between {logsnr_min:g} and {logsnr_max:g}"
        )
    return partial(_rescaled, schedule=schedule, first=first, last=last)


def with_even_share(schedule: Schedule, share: float, knots: int = 4097) -> Schedule:
    """A schedule whose time is in part spread evenly over log SNR, with the same ends.

    Its time at a log SNR is `(1 - share) t + share (logsnr(0) - logsnr) / (logsnr(0) - logsnr(1))`,
    where t is the time of `schedule`. So it passes no log SNR infinitely fast.

    Args:
        schedule: A bounded schedule.
        share: Share of the time that is spread evenly, from 0 to 1.
        knots: Number of times of `schedule` between which log SNR is interpolated.
    """
    t = torch.linspace(0, 1, knots, dtype=torch.float64)
    logsnr = schedule(t)
    times = (1 - share) * t + share * (logsnr[0] - logsnr) / (logsnr[0] - logsnr[-1])

    def softened(t: Times) -> Times:
        asked = t.cpu().double()
        after = torch.searchsorted(times, asked).clamp(1, knots - 1)
        part = (asked - times[after - 1]) / (times[after] - times[after - 1])
        return logsnr[after - 1].lerp(logsnr[after], part).to(t.dtype).to(t.device)

    return softened


def grid(schedule: Schedule, steps: int) -> Float[Tensor, " n"]:
    """Log SNRs for a sampler with `steps` steps: steps + 1 numbers in float32, noise first.

    An unbounded schedule starts at -inf, where only a prediction of x0 is defined. Use `bounded`
    first for the other predictions.
    """
    return schedule(torch.linspace(1, 0, steps + 1, dtype=torch.float64, device="cpu")).float()


def endpoints(schedule: Schedule) -> tuple[float, float]:
    """Log SNR at the noisy end (t = 1) and at the clean end (t = 0)."""
    noisy, clean = grid(schedule, 1).tolist()
    return noisy, clean


def _rescaled(t: Times, schedule: Schedule, first: float, last: float) -> Times:
    return schedule(first + (last - first) * t)


def _time_of(schedule: Schedule, logsnr: float) -> float:
    """Inverts a schedule by bisection. The result is 0 or 1 if the log SNR is out of its range."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        above = schedule(torch.tensor(middle, dtype=torch.float64, device="cpu")) > logsnr
        low, high = (middle, high) if above else (low, middle)
    return (low + high) / 2


SCHEDULES: dict[str, Schedule] = {
    "linear": linear,
    "cosine": cosine,
    "sqrt": sqrt,
    "sigmoid": sigmoid,
    "constant_alpha": constant_alpha,
}
