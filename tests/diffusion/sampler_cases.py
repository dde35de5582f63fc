"""Exact denoisers, log SNRs and a runner for the tests of the samplers."""

import math
from collections.abc import Iterator

import pytest
import torch
from tensors import double, seeded

from textdiff.diffusion.gaussian import PREDICTIONS, Denoiser
from textdiff.diffusion.samplers import SAMPLERS, Step
from textdiff.diffusion.schedules import bounded, cosine, grid

INF = math.inf
TO_DATA = double(-8.0, -4.0, -1.0, 0.5, 3.0, 7.0, INF)
FINE = torch.cat([grid(bounded(cosine, -10.0, 8.0), 100).double(), double(INF)])
ORDER = {"ddim": 1, "dpm_solver": 2, "heun": 2}  # of the deterministic samplers
every_sampler = pytest.mark.parametrize("name", SAMPLERS)
every_deterministic = pytest.mark.parametrize("name", ORDER)


def network(x_t, logsnr):
    """A smooth function of both inputs, in place of a network."""
    shift = (0.1 * logsnr).view(-1, *[1] * (x_t.ndim - 1))
    return PREDICTIONS["v"](x_t, (x_t + shift).tanh(), logsnr)


def run(
    name: str, denoise: Denoiser, x: torch.Tensor, logsnrs=TO_DATA, seed: int = 1, **options
) -> list[Step]:
    """All steps of a sampler."""
    return list(SAMPLERS[name](denoise, x, logsnrs, generator=seeded(seed), **options))


def last(steps: Iterator[Step]) -> torch.Tensor:
    """The state after the last step."""
    *_, step = steps
    return step.x


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))
