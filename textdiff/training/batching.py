"""Division of a data set into batches, as a pure function of (seed, step).

Resuming therefore needs no saved state of the data order. Examples are the numbers 0..n-1. Their
sizes (tokens; 1 for an image) are used to put examples of similar size into one batch and to weight
the parts of a batch in its mean.
"""

from collections.abc import Iterator
from itertools import chain, count, islice
from typing import NamedTuple

import numpy as np
from torch import Tensor

POOL = 32  # number of batches that are sorted by size together
INDICES = 2**40  # number of example indices of each seed


class MicroBatch(NamedTuple):
    """A part of a batch, as the trainer takes it.

    Args:
        tensors: Arguments of the model's forward.
        weight: Share of the global batch that this part is.
        size: Number of tokens or images.
    """

    tensors: dict[str, Tensor]
    weight: float
    size: int


class BatchPart(NamedTuple):
    """The examples of one micro-batch on one process.

    Args:
        examples: Numbers of the examples in the data set.
        indices: Index of each example in the whole run, from which its randomness is derived.
        weight: Share of the global batch that this part is.
    """

    examples: np.ndarray
    indices: np.ndarray
    weight: float


def epoch_batches(
    sizes: np.ndarray, batch_size: int, seed: int, epoch: int
) -> Iterator[np.ndarray]:
    """Shuffled batches of one epoch, all of them full.

    The remainder is left out, unless there are fewer examples than one batch needs.
    """
    rng = np.random.default_rng([seed, epoch])
    # the permutation is that of int64, in half the memory
    order = rng.permutation(np.arange(len(sizes), dtype=np.int32 if len(sizes) < 2**31 else None))
    order = order[: max(1, len(order) // batch_size) * batch_size]
    for start in range(0, len(order), POOL * batch_size):
        pool = order[start : start + POOL * batch_size]
        pool = pool[np.argsort(sizes[pool], kind="stable")]
        batches = np.split(pool, range(batch_size, len(pool), batch_size))
        yield from (batches[i] for i in rng.permutation(len(batches)))


def split_batch(
    batch: np.ndarray, first_index: int, sizes: np.ndarray, rank: int, world: int, accumulation: int
) -> list[BatchPart]:
    """This process's part of a batch, as `accumulation` micro-batches.

    Each takes every (world * accumulation)-th example. A part that would be empty gets one example
    with weight 0, so that all processes take part in every backward pass.
    """
    total, ways = sizes[batch].sum(), world * accumulation
    parts = []
    for way in range(rank * accumulation, (rank + 1) * accumulation):
        chosen = np.arange(way, len(batch), ways)
        weight = float(sizes[batch[chosen]].sum() / total)
        chosen = chosen if len(chosen) else np.zeros(1, dtype=int)
        parts.append(BatchPart(batch[chosen], first_index + chosen, weight))
    return parts


def interleave_indices(
    part: BatchPart, first_index: int, rank: int, world: int, weight: float
) -> BatchPart:
    """A part of a batch that one process formed by itself, with indices unique in the run.

    Args:
        weight: Share of all processes' batches that this process's batch is.
    """
    indices = first_index + rank + world * (part.indices - first_index)
    return BatchPart(part.examples, indices, part.weight * weight)


def batch_stream(
    sizes: np.ndarray,
    batch_size: int,
    seed: int,
    first_step: int = 0,
    *,
    rank: int = 0,
    world: int = 1,
    accumulation: int = 1,
) -> Iterator[list[BatchPart]]:
    """This process's parts of the batches of steps `first_step`, `first_step` + 1, ..."""
    per_epoch = max(1, len(sizes) // batch_size)
    epoch, position = divmod(first_step, per_epoch)
    epochs = chain.from_iterable(
        epoch_batches(sizes, batch_size, seed, number) for number in count(epoch)
    )
    for step, batch in enumerate(islice(epochs, position, None), first_step):
        index = first_index(seed, step, batch_size)
        yield split_batch(batch, index, sizes, rank, world, accumulation)


def first_index(seed: int, step: int, batch_size: int) -> int:
    """Index in the run of a step's first example. Each seed has its own range of indices."""
    return int(np.random.default_rng(seed).integers(2**22)) * INDICES + step * batch_size
