"""Measurement of the speed of a device."""

import time
from collections.abc import Callable
from functools import cache, partial

import torch

TRIAL = 0.1  # seconds of a measurement, whose fastest run counts
ROWS = 2048  # number of input rows of the linear layers that are timed


@cache
def bf16_gain(device: torch.device, width: int) -> float:
    """Speed-up of a linear layer by bf16 autocast, forward and backward."""
    layer = torch.nn.Linear(width, 4 * width, dtype=torch.float32, device=device)
    x = torch.ones(ROWS, width, dtype=torch.float32, device=device, requires_grad=True)

    def step(precision: str) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            y = layer(x)
        y.sum().backward()

    with torch.enable_grad():
        in_float32, in_bf16 = _best_seconds(device, partial(step, "no"), partial(step, "bf16"))
        return in_float32 / in_bf16


def _best_seconds(device: torch.device, *works: Callable[[], object]) -> list[float]:
    """Seconds of the best run of each. They take turns, so that other programs slow all alike."""
    for work in works:
        work()  # the first run is slower than the others
    rounds: list[list[float]] = []
    while len(rounds) < 5 or sum(map(sum, rounds)) < TRIAL * len(works):
        rounds.append([timed(work, device) for work in works])
    return [min(seconds) for seconds in zip(*rounds, strict=True)]


@cache
def matmul_rate(dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s of matrix products of a transformer's shape (rows x width x 4 width), the best run."""
    width, rows = (256, 512) if device.type == "cpu" else (2048, 8192)
    columns = 4 * width
    a = torch.ones(rows, width, dtype=dtype, device=device)
    b = torch.ones(width, columns, dtype=dtype, device=device)
    return 2 * rows * width * columns / _best_seconds(device, lambda: a @ b)[0]


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that the work takes, including the operations that it starts on the device."""
    synchronize(device)
    began = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - began


def synchronize(device: torch.device) -> None:
    """Waits for all work on the device."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
