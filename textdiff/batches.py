"""Which examples make up which step, on which process: a pure function of (seed, step), so that resuming needs no saved state.

Knows neither text nor images. Examples are numbers 0..n-1; their `sizes` (tokens; 1 an image) sort them so that a batch holds examples of
about one size, and say how much each part of a batch weighs in the mean over all of it.
"""

from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

import numpy as np
from torch import Tensor

POOL = 32  # batches that are sorted by size together


class MicroBatch(NamedTuple):
    """Tensors for the model's forward, the share of the step's global batch that they are, and how many tokens or images."""

    tensors: dict[str, Tensor]
    share: float
    size: int


class Part(NamedTuple):
    """One micro-batch of one process: the examples, each one's number in the whole run, and the part's share of the global batch."""

    examples: np.ndarray
    numbers: np.ndarray
    share: float


def shuffled(sizes: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """An epoch's batches in order, all full: what is left over is left out, unless it is all there is."""
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(sizes))
    order = order[: max(1, len(order) // batch_size) * batch_size]
    batches: list[np.ndarray] = []
    for pool in np.split(order, range(POOL * batch_size, len(order), POOL * batch_size)):
        pool = pool[np.argsort(sizes[pool], kind="stable")]
        cut = np.split(pool, range(batch_size, len(pool), batch_size))
        batches += [cut[i] for i in rng.permutation(len(cut))]
    return batches


def parts(batch: np.ndarray, first: int, sizes: np.ndarray, rank: int, world: int, accumulate: int) -> list[Part]:
    """This process's share of a batch, in `accumulate` parts: every (world * accumulate)-th example. A part that would be empty gets one
    example with share 0, so that all processes take part in every backward pass."""
    total, ways = sizes[batch].sum(), world * accumulate
    mine = []
    for way in range(rank * accumulate, (rank + 1) * accumulate):
        chosen = np.arange(way, len(batch), ways)
        share = float(sizes[batch[chosen]].sum() / total)
        chosen = chosen if len(chosen) else np.zeros(1, dtype=int)
        mine.append(Part(batch[chosen], first + chosen, share))
    return mine


def endless(
    sizes: np.ndarray, batch_size: int, seed: int, first_step: int = 0, *, rank: int = 0, world: int = 1, accumulate: int = 1
) -> Iterator[list[Part]]:
    """The parts of this process at step `first_step`, `first_step` + 1, ..."""
    per_epoch = max(1, len(sizes) // batch_size)
    batches: list[np.ndarray] = []
    for step in count(first_step):
        epoch, position = divmod(step, per_epoch)
        if position == 0 or not batches:
            batches = shuffled(sizes, batch_size, seed, epoch)
        yield parts(batches[position], first_number(seed, step, batch_size), sizes, rank, world, accumulate)


def first_number(seed: int, step: int, batch_size: int) -> int:
    """The number in the run of a step's first example; another seed's numbers are others."""
    return int(np.random.default_rng(seed).integers(2**22)) * 2**40 + step * batch_size
