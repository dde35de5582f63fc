"""Randomness that is a function of counters: the same numbers whatever the batch, padding, process or device, with no state to save.

SplitMix64 (Steele, Lea & Flood, OOPSLA 2014) over int64 tensors. Training and text generation draw from it.
"""

import math
from collections.abc import Callable
from functools import wraps
from itertools import count
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from textdiff.device import has_exact_int64

GOLDEN = -0x61C8864680B583EB  # 2^64 times the golden ratio's fraction, as a signed 64-bit number


def exactly(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`function(counter, ...)`, computed on the CPU where the counter's device is not exact."""

    @wraps(function)
    def compute(counter: Tensor, *args: Any, **options: Any) -> Tensor:
        if has_exact_int64(counter.device):
            return function(counter, *args, **options)
        return function(counter.cpu(), *args, **options).to(counter.device)

    return compute


@exactly
def hashed(counter: Int[Tensor, "*d"], stream: int) -> Int[Tensor, "*d"]:
    """64 well-mixed bits for each counter; another `stream` is independent."""
    z = (counter + stream * 0x632BE59BD9B4E019 % 2**63) * -0x61C8864680B583EB
    z = (z ^ _shifted(z, 30)) * -0x40A7B892E31B1A47
    z = (z ^ _shifted(z, 27)) * -0x6B2FB644ECCEEE15
    return z ^ _shifted(z, 31)


@exactly
def uniform(counter: Int[Tensor, "*d"], stream: int) -> Float[Tensor, "*d"]:
    """Strictly in (0, 1), 23 bits: with one more, float32 would round the last half up to 1. In torch's default dtype, as all of this file."""
    return (_shifted(hashed(counter, stream), 41).to(torch.get_default_dtype()) + 0.5) / 2**23


@exactly
def normal(counter: Int[Tensor, " b"], shape: torch.Size, stream: int) -> Float[Tensor, "b *d"]:
    """Standard normal noise of `shape` (b, *d); element (i, ...) depends on `counter[i]` and its place (...) alone."""
    place = torch.arange(shape[1:].numel(), device=counter.device)
    counters = hashed(counter, stream).unsqueeze(1) + place
    radius = (-2 * uniform(counters, 1).log()).sqrt()
    return (radius * (2 * math.pi * uniform(counters, 2)).cos()).view(shape)


def dropout(h: Float[Tensor, "b *d"], counter: Int[Tensor, " b"], rate: float, stream: int) -> Float[Tensor, "b *d"]:
    """h with elements set to 0 with probability `rate` (to 2^-16) and the others scaled up; a hash decides for four of them."""
    return h * kept(counter, h.shape, rate, stream).to(h.dtype).div_(1 - rate)


@exactly
def kept(counter: Int[Tensor, " b"], shape: torch.Size, rate: float, stream: int) -> Bool[Tensor, "b *d"]:
    """True with probability 1 - `rate`, an element of `shape`."""
    size = shape[1:].numel()
    counters = hashed(counter, stream).unsqueeze(1) + torch.arange(-(-size // 4), device=counter.device)
    bits = hashed(counters, stream).view(torch.int16)[:, :size].view(shape)
    return bits >= round(rate * 2**16) - 2**15


@exactly
def even_times(index: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
    """frac(n times the golden ratio), a low-discrepancy sequence in [0, 1), to 2^-24, for an example's number n in the run."""
    return _shifted(index % 2**40 * GOLDEN, 40).to(torch.get_default_dtype()) / 2**24


def sample_keys(seed: int, n: int) -> Int[Tensor, " n"]:
    """What sample i of n is a function of."""
    return hashed(torch.arange(n), stream=seed + 1)


def sample_noise(keys: Int[Tensor, " b"]) -> Callable[[Float[Tensor, "b *d"]], Float[Tensor, "b *d"]]:
    """For samplers: at every call a new draw, a function of the sample's key, the call's number and the place in the sample."""
    calls = count()
    return lambda x: normal(hashed(keys, next(calls)), x.shape, stream=1).to(x.dtype)


def _shifted(z: Int[Tensor, "*d"], bits: int) -> Int[Tensor, "*d"]:
    """Logical shift to the right."""
    return (z >> bits) & (2 ** (64 - bits) - 1)
