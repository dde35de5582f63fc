"""Random numbers as pure functions of integer keys.

The same key gives the same numbers whatever the batch, padding, process or device, and there is no
state to save. The hash is SplitMix64 (Steele, Lea & Flood, OOPSLA 2014) on int64 tensors. Numbers
have torch's default dtype.
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

GOLDEN_RATIO = -0x61C8864680B583EB  # 2^64 times its fractional part, as a signed 64-bit number

Noise = Callable[[Float[Tensor, "b *d"]], Float[Tensor, "b *d"]]


def on_exact_device(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Computes `function(key, ...)` on the CPU if the key's device has no exact int64."""

    @wraps(function)
    def compute(key: Tensor, *args: Any, **options: Any) -> Tensor:
        if has_exact_int64(key.device):
            return function(key, *args, **options)
        return function(key.cpu(), *args, **options).to(key.device)

    return compute


@on_exact_device
def fold_in(key: Int[Tensor, "*d"], data: int) -> Int[Tensor, "*d"]:
    """A new key from each key and an integer: 64 well-mixed bits."""
    z = (key + data * 0x632BE59BD9B4E019 % 2**63) * -0x61C8864680B583EB
    z = (z ^ _shift_right(z, 30)) * -0x40A7B892E31B1A47
    z = (z ^ _shift_right(z, 27)) * -0x6B2FB644ECCEEE15
    return z ^ _shift_right(z, 31)


@on_exact_device
def uniform(key: Int[Tensor, "*d"], stream: int) -> Float[Tensor, "*d"]:
    """Uniform number in the open interval (0, 1) for each key.

    It has 23 bits: with one more, float32 would round the largest one up to 1.
    """
    bits = _shift_right(fold_in(key, stream), 41)
    return (bits.to(torch.get_default_dtype()) + 0.5) / 2**23


@on_exact_device
def normal(key: Int[Tensor, " b"], shape: torch.Size, stream: int) -> Float[Tensor, "b *d"]:
    """Standard normal noise of `shape` (b, *d), by the Box-Muller transform.

    Element (i, ...) depends only on `key[i]` and on its position (...).
    """
    position = torch.arange(shape[1:].numel(), device=key.device)
    keys = fold_in(key, stream).unsqueeze(1) + position
    radius = (-2 * uniform(keys, 1).log()).sqrt()
    return (radius * (2 * math.pi * uniform(keys, 2)).cos()).view(shape)


def dropout(
    h: Float[Tensor, "b *d"], key: Int[Tensor, " b"], rate: float, stream: int
) -> Float[Tensor, "b *d"]:
    """Dropout: sets elements to 0 with probability `rate` and scales up the others."""
    return h * dropout_mask(key, h.shape, rate, stream).to(h.dtype).div_(1 - rate)


@on_exact_device
def dropout_mask(
    key: Int[Tensor, " b"], shape: torch.Size, rate: float, stream: int
) -> Bool[Tensor, "b *d"]:
    """True with probability 1 - `rate` (to 2^-16) for each element; a hash decides for four."""
    size = shape[1:].numel()
    position = torch.arange(-(-size // 4), device=key.device)
    keys = fold_in(key, stream).unsqueeze(1) + position
    bits = fold_in(keys, stream).view(torch.int16)[:, :size].view(shape)
    return bits >= round(rate * 2**16) - 2**15


@on_exact_device
def low_discrepancy_times(index: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Fractional part of index times the golden ratio: a low-discrepancy sequence in [0, 1).

    Args:
        index: Indices of examples in the run.
    """
    return _shift_right(index % 2**40 * GOLDEN_RATIO, 40).to(torch.get_default_dtype()) / 2**24


def sample_keys(seed: int, n: int, first: int = 0) -> Int[Tensor, " n"]:
    """Key of each of n samples, whose numbers begin with `first`."""
    return fold_in(torch.arange(first, first + n), seed + 1)


def noise_generator(keys: Int[Tensor, " b"]) -> Noise:
    """A source of noise for samplers: every call `noise(x)` gives new noise like x.

    Args:
        keys: Key of each sample in the batch.
    """
    calls = count()
    return lambda x: normal(fold_in(keys, next(calls)), x.shape, stream=1).to(x.dtype)


def uniform_generator(keys: Int[Tensor, " b"]) -> Callable[[int], Float[Tensor, "b n"]]:
    """A source of uniform numbers in (0, 1): every call gives n new ones for each key."""
    calls = count()

    def draw(n: int) -> Tensor:
        position = torch.arange(n, device=keys.device)
        return uniform(fold_in(fold_in(keys, 24), next(calls)).unsqueeze(1) + position, stream=24)

    return draw


def likelihood_noise(keys: Int[Tensor, " b"]) -> Noise:
    """A source of noise for estimates of the variational bound, as `noise_generator`."""
    calls, keys = count(), fold_in(keys, 21)
    return lambda x: normal(keys + next(calls), x.shape, stream=21)


def stratified_offsets(key: Int[Tensor, " b"], draws: int) -> Float[Tensor, "b draws"]:
    """Uniform offsets in (0, 1) for each key, for stratified draws of time."""
    return uniform(fold_in(key, 20).unsqueeze(1) + torch.arange(draws, device=key.device), 20)


def _shift_right(z: Int[Tensor, "*d"], bits: int) -> Int[Tensor, "*d"]:
    """Logical shift to the right."""
    return (z >> bits) & (2 ** (64 - bits) - 1)
