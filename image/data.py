"""Images cut into the batches of a step."""

from collections.abc import Iterator

import numpy as np
import torch

from image.sources import Images
from textdiff import batches
from textdiff.batches import MicroBatch
from textdiff.config import Train
from textdiff.counter import uniform


def batched(images: Images, flip: bool, train: Train, first_step: int, rank: int, world: int) -> Iterator[list[MicroBatch]]:
    """A step's micro-batches for this process, from `first_step` on, without end."""
    sizes = np.ones(len(images), np.int64)
    plan = batches.endless(sizes, train.batch_size, train.seed, first_step, rank=rank, world=world, accumulate=train.accumulate)
    for parts in plan:
        yield [_micro(images, part, flip) for part in parts]


def in_turn(images: Images, batch_size: int, rank: int, world: int) -> Iterator[MicroBatch]:
    """Once through all images for validation; shares are of all of them."""
    for start in range(0, len(images), batch_size):
        batch = np.arange(start, min(start + batch_size, len(images)))
        (part,) = batches.parts(batch, start, np.ones(len(images)), rank, world, accumulate=1)
        micro = _micro(images, part, flip=False)
        yield micro._replace(share=micro.share * len(batch) / len(images))


def _micro(images: Images, part: batches.Part, flip: bool) -> MicroBatch:
    chosen, index = images[torch.from_numpy(part.examples)], torch.from_numpy(part.numbers.astype(np.int64))
    pixels = chosen.pixels
    if flip:
        pixels = torch.where((uniform(index, stream=3) < 0.5)[:, None, None, None], pixels.flip(-1), pixels)
    label = {} if chosen.labels is None else {"label": chosen.labels}
    return MicroBatch({"pixels": pixels, "index": index, **label}, part.share, len(pixels))
