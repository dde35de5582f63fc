"""Noise levels as both models use them: schedules by name, and the bound from a few of its steps."""

from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from textdiff.config import InputError
from textdiff.counter import hashed, normal, uniform
from textdiff.diffusion.gaussian import Denoiser
from textdiff.diffusion.likelihood import prior_kl, step_kl
from textdiff.diffusion.schedule import SCHEDULES, Schedule, bounded, grid


@cache
def named_schedule(name: str, logsnr_min: float, logsnr_max: float) -> Schedule:
    """t -> log SNR. Raises InputError if the schedule lies out of the bounds."""
    try:
        return bounded(SCHEDULES[name], logsnr_min, logsnr_max)
    except ValueError as error:
        raise InputError(f"model.schedule {name} does not fit model.logsnr_min and model.logsnr_max: {error}") from error


def ends(schedule: Schedule) -> tuple[float, float]:
    """Its noisiest and its cleanest log SNR: the only levels that a network trained on it knows."""
    noisiest, cleanest = grid(schedule, 1).tolist()
    return noisiest, cleanest


def bound_but_last(
    denoise: Denoiser, x0: Float[Tensor, "b *d"], key: Int[Tensor, " b"], schedule: Schedule, steps: int, draws: int
) -> Float[Tensor, "b *d"]:
    """L_T + sum L_{t-1} in nats, of `steps` steps of equal length in log SNR from end to end of the schedule, of which `draws` are drawn,
    stratified: an unbiased estimate. `key` numbers the samples, whose randomness is a function of it. L_0 is up to the data."""
    noisiest, cleanest = ends(schedule)
    levels = torch.linspace(cleanest, noisiest, steps + 1, device=x0.device)
    place = torch.arange(draws, device=x0.device)
    chosen = ((place + uniform(hashed(key, 20).unsqueeze(1) + place, stream=20)) / draws * steps).long().clamp(max=steps - 1)  # b draws
    total = prior_kl(x0, levels[-1:].expand(len(x0)))
    for draw in range(draws):
        eps = normal(hashed(key, 21) + draw, x0.shape, stream=21)
        total = total + steps / draws * step_kl(denoise, x0, eps, levels[chosen[:, draw]], levels[chosen[:, draw] + 1])
    return total
