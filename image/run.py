"""An image run: a configuration becomes images, a model and batches, and what is seen of the model while it learns."""

import logging
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from image.config import ImageRun, Sampling
from image.data import batched, in_turn
from image.generate import finished, from_noise, generate
from image.model import ImageDiffusion, ImageDiffusionConfig
from image.picture import grid
from image.sources import Images, open_images
from textdiff.batches import MicroBatch
from textdiff.checkpoint import digest, telling
from textdiff.folder import check_folder
from textdiff.journal import Seen
from textdiff.loop import Work, new_accelerator, run

log = logging.getLogger("textdiff")

VALID_IMAGES = 1024  # at most, for the validation loss while training
SAMPLES = 36


def train(config: ImageRun, *, resume: bool = False, overwrite: bool = False) -> Path:
    """Trains, with progress on standard error, and returns the run folder. What is wrong with the input is raised before any long work."""
    check_folder(config, resume, overwrite)
    folder = Path(config.run)
    images, valid = open_images(config.data)
    accelerator, config = new_accelerator(config, resume=resume)
    rank, world = accelerator.process_index, accelerator.num_processes

    def batches(first_step: int) -> Iterator[list[MicroBatch]]:
        return batched(images, config.data.flip, config.train, first_step, rank, world)

    def held_out() -> Iterator[MicroBatch]:
        return in_turn(valid[:VALID_IMAGES], config.train.batch_size, rank, world)

    def see(model: ImageDiffusion, step: int) -> Seen:
        path = folder / "samples" / f"step-{step:06d}.png"
        path.parent.mkdir(exist_ok=True)
        samples = finished(generate(model, from_noise(model, SAMPLES, seed=0), Sampling(steps=20, precision=config.train.precision)))
        with telling("samples", path.parent):
            grid(samples).save(path)
        return Seen({}, [], [str(path)])

    identity = {"the training images": digest(images.pixels.numpy().tobytes(), b"" if images.labels is None else images.labels.numpy().tobytes())}
    work = Work(_model(config, images), batches, held_out, see, "images", identity)
    run(work, config, accelerator, resume=resume, overwrite=overwrite)
    return folder


def _model(config: ImageRun, images: Images) -> ImageDiffusion:
    torch.manual_seed(config.train.seed)
    channels, height, width = images.pixels.shape[1:]
    shape: dict[str, Any] = {"channels": channels, "height": height, "image_width": width, "classes": images.classes}
    return ImageDiffusion(ImageDiffusionConfig(**shape, **asdict(config.model)))
