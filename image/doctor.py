"""The image model's part of `textdiff doctor`: what it checks and times."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from image.config import ImageConfig
from image.model import ImageDiffusionConfig, ImageDiffusionModel, scaled
from textdiff.diffusion.samplers import SAMPLERS
from textdiff.diffusion.schedules import grid
from textdiff.doctor import ModelKind, TrainingBenchmark
from textdiff.options import load_config
from textdiff.prng import noise_generator, sample_keys

# height, which is the width, channels and number of classes of the images of each configuration
IMAGES = {
    "image_digits": (8, 1, 10),
    "image_dots": (16, 1, 0),
    "image_mnist": (28, 1, 10),
    "image_cifar10": (32, 3, 10),
}


def subject() -> ModelKind:
    """The image model, as the doctor needs it."""
    return ModelKind(
        "images", _small_model, _batch(8, 8, 1, 10), _sample, tuple(IMAGES), _training_benchmark
    )


def _small_model() -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        options: dict[str, Any] = {"width": 16, "channel_multipliers": [1, 2], "res_blocks": 1}
        model = ImageDiffusionModel(ImageDiffusionConfig(classes=[*"0123456789"], **options))
        for parameter in model.parameters():  # zeros, as at the start, would hide mistakes
            parameter.data += 0.02 * torch.randn(parameter.shape)
    return model


def _batch(n: int, side: int, channels: int, classes: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (n, channels, side, side), generator=generator).byte()
    label = {"label": torch.arange(n) % classes} if classes else {}
    return {"pixels": pixels, "index": torch.arange(n), **label}


def _sample(model: Any, device: torch.device, precision: str) -> Tensor:
    """x0 after one step of the sampler."""
    batch = {name: tensor.to(device) for name, tensor in _batch(8, 8, 1, 10).items()}
    noise = noise_generator(sample_keys(0, 8).to(device))
    denoise = model.denoiser(batch["label"], 1.0, precision)
    with torch.no_grad():
        x, logsnrs = noise(scaled(batch["pixels"])), grid(model.schedule(), 4)
        return next(SAMPLERS["ddpm"](denoise, x, logsnrs, generator=noise)).x0


def _training_benchmark(path: Path) -> TrainingBenchmark:
    config = load_config(path, ImageConfig)
    side, channels, classes = IMAGES[path.stem]
    options: dict[str, Any] = {"height": side, "image_width": side, **asdict(config.model)}
    options["channels"] = channels
    options["classes"] = [str(number) for number in range(classes)]
    model = partial(ImageDiffusionModel, ImageDiffusionConfig(**options))
    batch = _batch(config.train.batch_size, side, channels, classes)
    name = f"configs/{path.name}"
    return TrainingBenchmark(name, config, model, batch, len(batch["index"]), "images")
