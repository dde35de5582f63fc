"""Which examples make up which step, on which process: a pure function of (seed, step), so that resuming needs no saved state.

Knows neither text nor images. Examples are numbers 0..n-1; their `sizes` (tokens; 1 an image) sort them so that a batch holds examples of
about one size, and say how much each part of a batch weighs in the mean over all of it.
"""

from collections.abc import Iterator
from itertools import chain, count, islice
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


def shuffled(sizes: np.ndarray, batch_size: int, seed: int, epoch: int) -> Iterator[np.ndarray]:
    """An epoch's batches in order, all full: what is left over is left out, unless it is all there is."""
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(np.arange(len(sizes), dtype=np.int32 if len(sizes) < 2**31 else np.int64))  # as of int64, in half the memory
    order = order[: max(1, len(order) // batch_size) * batch_size]
    for start in range(0, len(order), POOL * batch_size):
        pool = order[start : start + POOL * batch_size]
        pool = pool[np.argsort(sizes[pool], kind="stable")]
        cut = np.split(pool, range(batch_size, len(pool), batch_size))
        yield from (cut[i] for i in rng.permutation(len(cut)))


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


def of_process(part: Part, first: int, rank: int, world: int, share: float) -> Part:
    """A part of a process's own batch, `share` of all processes' batches: its numbers lie between those of the others."""
    return Part(part.examples, first + rank + world * (part.numbers - first), part.share * share)


def endless(
    sizes: np.ndarray, batch_size: int, seed: int, first_step: int = 0, *, rank: int = 0, world: int = 1, accumulate: int = 1
) -> Iterator[list[Part]]:
    """The parts of this process at step `first_step`, `first_step` + 1, ..."""
    per_epoch = max(1, len(sizes) // batch_size)
    epoch, position = divmod(first_step, per_epoch)
    epochs = chain.from_iterable(shuffled(sizes, batch_size, seed, number) for number in count(epoch))
    for step, batch in enumerate(islice(epochs, position, None), first_step):
        yield parts(batch, first_number(seed, step, batch_size), sizes, rank, world, accumulate)


def first_number(seed: int, step: int, batch_size: int) -> int:
    """The number in the run of a step's first example; another seed's numbers are others."""
    return int(np.random.default_rng(seed).integers(2**22)) * 2**40 + step * batch_size
