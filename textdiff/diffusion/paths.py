"""Noise paths: the log SNR of every coordinate at every moment tau of sampling.

tau runs from 1, the start, to 0, the data. A coordinate with time t(tau) has log SNR schedule(t).
What is asked of a sampler is then one of these paths:

- generate: every coordinate starts at time 1.
- rewrite: coordinates start at the strength of the change.
- infill, continue: given coordinates start at time 0, the clean end, and never move.
- stream: coordinates move one after another, at most `window` of them at a time.

All equations of `gaussian`, and the variational bound, hold for each coordinate alone (MuLAN,
arXiv:2312.13236). The bound of the optimal denoiser is the entropy along every path; if one
coordinate moves at a time, it is the chain rule.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from textdiff.diffusion.gaussian import LogSNR, PerSample
from textdiff.diffusion.schedules import Schedule, endpoints

Path = Callable[[PerSample], LogSNR]  # tau of each sample -> log SNRs
Coordinates = Float[Tensor, "b *n"]


@dataclass(frozen=True)
class NoisePath:
    """A path t(tau) = start clip(tau (1 + stagger) - stagger (1 - place), 0, 1).

    With stagger 0 all coordinates move together. AR-Diffusion (arXiv:2305.09515) and Rolling
    Diffusion (arXiv:2402.09470) are staggered paths.

    Args:
        schedule: Noise schedule of each coordinate.
        start: Time at which a coordinate starts: 1 is noise, 0 is clean.
        place: Place in the order of sampling, from 0 (first) to 1 (last); see `places`.
        stagger: How far the coordinates are apart; see `stagger_of`.
    """

    schedule: Schedule
    start: Coordinates
    place: Coordinates
    stagger: PerSample

    def __call__(self, tau: PerSample) -> Coordinates:
        """Log SNR of each coordinate."""
        return self.schedule(self.times(tau))

    def times(self, tau: PerSample) -> Coordinates:
        """Time of each coordinate."""
        shape = -1, *[1] * (self.place.ndim - 1)
        tau, stagger = tau.view(shape), self.stagger.to(tau).view(shape)
        times = tau * (1 + stagger) - stagger * (1 - self.place)
        return self.start.to(times) * times.clamp(0, 1)

    def grid(self, steps: int, power: float = 1.0) -> Float[Tensor, "m b *n"]:
        """Log SNRs of a sampler with `steps` steps, noisy end first, in float32 on the CPU.

        Args:
            power: After step k, tau is 1 - (k / steps)^power. Above 1, few coordinates of a
                staggered path move in the first steps, when least is known about the others.
        """
        taus = 1 - (1 - _taus(steps)) ** power
        return torch.stack([self(tau.expand(len(self.start))) for tau in taus]).float()


def even_in_logsnr(schedule: Schedule) -> Path:
    """The path of samples whose log SNR moves evenly between the endpoints of a schedule."""
    noisy, clean = endpoints(schedule)
    return lambda tau: clean + (noisy - clean) * tau


def places(priority: Float[Tensor, "b n"], moving: Bool[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    """Place of each moving coordinate in the order of rising priority, from 0 to 1.

    Args:
        priority: Numbers that differ within a sample.
        moving: True at the coordinates that are sampled. The place of the others has no meaning.
    """
    order = priority.masked_fill(~moving, torch.inf).argsort(1).argsort(1)
    last = moving.sum(1, keepdim=True) - 1
    return (order / last.clamp(min=1)).clamp(max=1)


def stagger_of(window: PerSample | int, moving: Bool[Tensor, "b n"]) -> PerSample:
    """The stagger with which about `window` of the moving coordinates move at the same time."""
    return (moving.sum(1) - 1).clamp(min=0) / window


def _taus(steps: int) -> Float[Tensor, " m"]:
    return torch.linspace(1, 0, steps + 1, dtype=torch.float64, device="cpu")
