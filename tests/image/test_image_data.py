"""Laws of the batches of images."""

import pytest
import torch
from image_files import opened
from torch.testing import assert_close

from image.data import training_batches, validation_batches
from image.sources import Images
from textdiff.config import TrainConfig


def test_epoch_holds_every_image_once(mnist):
    train, _ = opened(mnist, valid_share=0.2)
    steps = training_batches(train, False, TrainConfig(batch_size=4), 0, rank=0, world=1)
    found = torch.cat([next(steps)[0].tensors["pixels"][:, 0, 0, 0] for _ in range(2)])
    assert sorted(found.tolist()) == sorted(train.pixels[:, 0, 0, 0].tolist())


def test_flip_mirrors_half_of_the_images():
    images = Images(torch.tensor([[[[0, 255]]]], dtype=torch.uint8).repeat(1000, 1, 1, 1))
    config = TrainConfig(batch_size=1000)
    flipped, plain = (
        next(training_batches(images, flip, config, 0, rank=0, world=1))[0].tensors["pixels"]
        for flip in (True, False)
    )
    assert (flipped[:, 0, 0, 0] == 255).float().mean().item() == pytest.approx(0.5, abs=0.08)
    assert not plain[:, 0, 0, 0].any()


def test_validation_weights_add_up_to_one(mnist):
    train, _ = opened(mnist)
    batches = [batch for rank in range(2) for batch in validation_batches(train, 2, rank, world=2)]
    assert_close(sum(batch.weight for batch in batches), 1.0)
