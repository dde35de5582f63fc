"""Noise schedules: plain functions t -> log SNR, t in [0, 1], 0 = data, 1 = noise, strictly falling.

Every schedule starts from alpha_bar(t), the signal's share of the variance, and log SNR = log alpha_bar / (1 - alpha_bar), written so that
no precision is lost at either end. Near t = 0 and t = 1 most of them run to infinity; `bounded` zooms into a finite range.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

Schedule = Callable[[Float[Tensor, "*n"]], Float[Tensor, "*n"]]


def linear(t: Float[Tensor, "*n"], beta_min: float = 0.1, beta_max: float = 20.0) -> Float[Tensor, "*n"]:
    """beta(t) grows linearly: the VP-SDE (Song et al., arXiv:2011.13456, eq. 32-33), the limit of DDPM's table for T -> inf."""
    integral = t * (beta_min + 0.5 * t * (beta_max - beta_min))
    return -integral.expm1().log()


def cosine(t: Float[Tensor, "*n"], s: float = 0.008) -> Float[Tensor, "*n"]:
    """alpha_bar = cos^2((t + s)/(1 + s) pi/2) / cos^2(s/(1 + s) pi/2): improved DDPM (arXiv:2102.09672) eq. 17."""
    start = s / (1 + s) * math.pi / 2
    turn = t / (1 + s) * math.pi / 2
    left = (1 - t) / (1 + s) * math.pi / 2
    return 2 * left.sin().log() - (turn.sin() * (2 * start + turn).sin()).log()


def sqrt(t: Float[Tensor, "*n"], s: float = 1e-4) -> Float[Tensor, "*n"]:
    """alpha_bar = 1 - sqrt(t + s): Diffusion-LM (arXiv:2205.14217) app. A. Noise starts at standard deviation s^(1/4) = 0.1; -inf from 1 - s on."""
    noise = (t + s).sqrt()
    return ((1 - t - s).clamp(min=0) / (1 + noise)).log() - noise.log()


def sigmoid(t: Float[Tensor, "*n"], start: float = -3.0, end: float = 3.0, tau: float = 1.0) -> Float[Tensor, "*n"]:
    """alpha_bar is a sigmoid's slice rescaled to [0, 1] (Jabri et al., arXiv:2212.11972). Not GeoDiff's, whose *beta* is a sigmoid."""
    half = (end - start) / (2 * tau)
    tilt = math.log(math.cosh(start / (2 * tau)) / math.cosh(end / (2 * tau)))
    return ((1 - t) * half).sinh().log() - (t * half).sinh().log() + tilt


def constant_alpha(t: Float[Tensor, "*n"], horizon: float = 5.0) -> Float[Tensor, "*n"]:
    """`z_l = alpha z_{l-1} + sqrt(1 - alpha^2) eps`: L equal steps of it, alpha = exp(-horizon / L), have exactly these marginals, and so has
    the Ornstein-Uhlenbeck limit `w(tau) = e^-tau w(0) + sqrt(1 - e^-2tau) eps` at tau = t horizon (TTIC 31230, quiz 3, problem 1)."""
    return -(2 * horizon * t).expm1().log()


def gumbel(t: Float[Tensor, "*n"], center: Tensor | float, scale: Tensor | float, logsnr_min: float, logsnr_max: float) -> Float[Tensor, "*n"]:
    """Noise levels -lambda distributed as a Gumbel(center, scale) cut to the range: the schedule that a model fits to its own loss.

    If the loss at noise level g is `loss_inf exp(-exp(-(g - center) / scale))`, this spends equal time on equal shares of it (LangFlow; after
    CDCD's time warping, arXiv:2211.15089, sec. 3.3). `center` and `scale` may be tensors. Computed in
    the precision of t: in float32 to 2e-3.
    """
    most, least = (torch.exp((center + t.new_full((), bound)) / scale) for bound in (logsnr_max, logsnr_min))
    between = least - most
    left = torch.log(t + (1 - t) * between.exp()), torch.log1p((1 - t) * between.expm1())  # equal; precise near t = 0, near 1
    surprise = least - torch.where(t < 0.5, *left)  # -log of a Gumbel's distribution function
    return (scale * surprise.log() - center).clamp(logsnr_min, logsnr_max)


def bounded(schedule: Schedule, logsnr_min: float, logsnr_max: float) -> Schedule:
    """The part of the curve between two log SNRs, stretched over t in [0, 1]; a curve that ends inside the range ends where it does.

    Raises ValueError if no part of it lies in the range.
    """
    first, last = (_time_of(schedule, bound) for bound in (logsnr_max, logsnr_min))
    if last - first < 1e-9:
        ends = schedule(torch.tensor([0, 1], dtype=torch.float64, device="cpu")).tolist()
        raise ValueError(f"this schedule's log SNR runs from {ends[0]:.4g} to {ends[1]:.4g}, not between {logsnr_min:g} and {logsnr_max:g}")
    return partial(_stretched, schedule=schedule, first=first, last=last)


def grid(schedule: Schedule, steps: int) -> Float[Tensor, " n"]:
    """The log SNRs of a sampler with `steps` steps: steps + 1 of them in float32, noise first. An unbounded schedule starts at -inf,
    where x_t says nothing of x0: only an x0-prediction survives that, so zoom with `bounded` first."""
    return schedule(torch.linspace(1, 0, steps + 1, dtype=torch.float64, device="cpu")).float()


def _stretched(t: Float[Tensor, "*n"], schedule: Schedule, first: float, last: float) -> Float[Tensor, "*n"]:
    return schedule(first + (last - first) * t)


def _time_of(schedule: Schedule, logsnr: float) -> float:
    """Bisection, which ends at 0 or 1 if the log SNR is out of reach: no schedule needs to know its own inverse."""
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
