"""Batches of images for training and validation."""

from collections.abc import Iterator

import numpy as np
import torch

from image.sources import Images
from textdiff.config import TrainConfig
from textdiff.prng import uniform
from textdiff.training import batching
from textdiff.training.batching import MicroBatch


def training_batches(
    images: Images, flip: bool, train: TrainConfig, first_step: int, rank: int, world: int
) -> Iterator[list[MicroBatch]]:
    """This process's micro-batches of each step, from `first_step` on, without end.

    Args:
        flip: Whether each image is mirrored with probability 1/2.
    """
    steps = batching.batch_stream(
        np.ones(len(images), np.int64),
        train.batch_size,
        train.seed,
        first_step,
        rank=rank,
        world=world,
        accumulation=train.accumulation,
    )
    for parts in steps:
        yield [_micro_batch(images, part, flip) for part in parts]


def validation_batches(
    images: Images, batch_size: int, rank: int, world: int
) -> Iterator[MicroBatch]:
    """This process's part of all images, once. Weights are shares of all images."""
    sizes = np.ones(len(images))
    for start in range(0, len(images), batch_size):
        batch = np.arange(start, min(start + batch_size, len(images)))
        (part,) = batching.split_batch(batch, start, sizes, rank, world, accumulation=1)
        micro_batch = _micro_batch(images, part, flip=False)
        yield micro_batch._replace(weight=micro_batch.weight * len(batch) / len(images))


def _micro_batch(images: Images, part: batching.BatchPart, flip: bool) -> MicroBatch:
    chosen = images[torch.from_numpy(part.examples)]
    index, pixels = torch.from_numpy(part.indices.astype(np.int64)), chosen.pixels
    if flip:
        mirrored = (uniform(index, stream=3) < 0.5)[:, None, None, None]
        pixels = torch.where(mirrored, pixels.flip(-1), pixels)
    label = {} if chosen.labels is None else {"label": chosen.labels}
    return MicroBatch({"pixels": pixels, "index": index, **label}, part.weight, len(pixels))
