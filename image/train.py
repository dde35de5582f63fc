"""Training of an image model: from a configuration to a run folder."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import torch

from image.card import image_facts
from image.config import ImageConfig
from image.data import training_batches, validation_batches
from image.grid import grid
from image.model import ImageDiffusionConfig, ImageDiffusionModel
from image.sampling import DEFAULT, generate, sample_request
from image.sources import Images, open_images
from textdiff.sampling import collect
from textdiff.training.batching import MicroBatch
from textdiff.training.card import write_card
from textdiff.training.checkpoint import reraise_write_errors, sha256
from textdiff.training.logger import ValidationReport
from textdiff.training.loop import Export, Validation, fit, new_accelerator, with_measured_steps
from textdiff.training.run_dir import RunDir, open_run_dir
from textdiff.training.trainer import Trainer

VALID_IMAGES = 1024  # at most, for the validation loss
SAMPLES = 36  # in the grid of each validation


def train(config: ImageConfig, run_dir: RunDir[ImageConfig] | None = None) -> Path:
    """Trains an image model and returns the run folder.

    Args:
        run_dir: The checked run folder, by default that of a new run.

    Raises:
        UserError: If the input cannot be used. It is checked before any long work.
    """
    run_dir = run_dir or open_run_dir(config)
    images, valid = open_images(config.data)
    accelerator, config = new_accelerator(config, run_dir)
    rank, world = accelerator.process_index, accelerator.num_processes
    held_out = [*validation_batches(valid[:VALID_IMAGES], config.train.batch_size, rank, world)]
    model = build_model(config, images)

    def batches(first_step: int) -> Iterator[list[MicroBatch]]:
        flip, options = config.data.flip, config.train
        return training_batches(images, flip, options, first_step, rank, world)

    with run_dir.locked(accelerator.is_main_process):
        if not run_dir.saved:
            config = with_measured_steps(config, model, batches, accelerator)
        state, fingerprints = run_dir.path / "state", {"the training images": _sha256(images)}
        trainer = Trainer(model, config.train, state, accelerator, fingerprints)
        if run_dir.resume:
            trainer.resume()  # before anything is written, for it may be refused
        if accelerator.is_main_process:
            run_dir.begin(config)
        accelerator.wait_for_everyone()
        with closing(fit(trainer, batches(trainer.step), held_out, config, "images")) as events:
            for event in events:
                if isinstance(event, Validation):
                    with event.interruptible():
                        event.report(_validation_report(event, config, run_dir.path / "samples"))
                elif isinstance(event, Export):
                    facts = image_facts(config, model, len(images), len(valid))
                    write_card(config, facts, event.step)
    return run_dir.path


def build_model(config: ImageConfig, images: Images) -> ImageDiffusionModel:
    """A new model for the images."""
    torch.manual_seed(config.train.seed)
    channels, height, width = images.pixels.shape[1:]
    settings = ImageDiffusionConfig(
        channels=channels,
        height=height,
        image_width=width,
        classes=list(images.classes),
        **asdict(config.model),
    )
    return ImageDiffusionModel(settings)


def _validation_report(
    event: Validation[ImageDiffusionModel], config: ImageConfig, folder: Path
) -> ValidationReport:
    """Writes a grid of samples into the folder."""
    path = folder / f"step-{event.step:06d}.png"
    folder.mkdir(exist_ok=True)
    request = sample_request(event.model, SAMPLES, seed=0)
    sampling = replace(DEFAULT, precision=config.train.precision)
    samples = torch.stack([*collect(generate(event.model, request, sampling))])
    with reraise_write_errors("samples", folder):
        grid(samples).save(path)
    return ValidationReport({}, [], [str(path)])


def _sha256(images: Images) -> str:
    """Digest of pixels and labels."""
    labels = b"" if images.labels is None else images.labels.numpy().tobytes()
    return sha256(images.pixels.numpy().tobytes(), labels)
