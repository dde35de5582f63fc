"""Schedules and chains of the tests: DDPM's table and one chain per schedule."""

import pytest
import torch
from tensors import linspace

from textdiff.diffusion.discrete import Chain, linear_betas
from textdiff.diffusion.schedules import SCHEDULES

LINEAR = Chain.from_betas(linear_betas(1000))
INSIDE = linspace(0.01, 0.99, 99)  # times without the ends
CHAINS = {name: Chain.from_schedule(schedule, 100) for name, schedule in SCHEDULES.items()}
CHAINS["ddpm"] = LINEAR
every_chain = pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)


def float32_error(schedule) -> float:
    """The largest error of log SNR in float32.

    The times are exact in float32 and in float64, and many of them are near the ends.
    """
    near_zero = 10 ** torch.linspace(-7, 0, 10_001)
    t = torch.cat([torch.linspace(0, 1, 100_001), near_zero, 1 - near_zero])
    return float((schedule(t).double() - schedule(t.double())).abs().max())
