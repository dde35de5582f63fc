"""What `textdiff doctor` checks and times of images."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from image.config import ImageRun
from image.model import ImageDiffusion, ImageDiffusionConfig, scaled
from textdiff.counter import sample_keys, sample_noise
from textdiff.diffusion.samplers import SAMPLERS
from textdiff.diffusion.schedule import grid
from textdiff.doctor import Configuration, Subject
from textdiff.folder import load_options

# height, which is the width, and number of classes of the images that each configuration trains on
IMAGES = {"image_digits": (8, 10), "image_dots": (16, 0), "image_mnist": (28, 10)}


def subject() -> Subject:
    return Subject("images", _small, _batch(8, 8, 10), _sample, tuple(IMAGES), _configuration)


def _small() -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        shape: dict[str, Any] = {"width": 16, "multipliers": (1, 2), "blocks": 1}
        model = ImageDiffusion(ImageDiffusionConfig(classes=[*"0123456789"], **shape))
        for parameter in model.parameters():  # what starts at zero would hide mistakes
            parameter.data += 0.02 * torch.randn(parameter.shape)
    return model


def _batch(n: int, side: int, classes: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (n, 1, side, side), generator=generator).byte()
    label = {"label": torch.arange(n) % classes} if classes else {}
    return {"pixels": pixels, "index": torch.arange(n), **label}


def _sample(model: Any, device: torch.device, precision: str) -> Tensor:
    batch = {name: tensor.to(device) for name, tensor in _batch(8, 8, 10).items()}
    noise = sample_noise(sample_keys(0, 8).to(device))
    denoise = model.denoiser(batch["label"], 1.0, precision)
    with torch.no_grad():
        x, logsnrs = noise(scaled(batch["pixels"])), grid(model.schedule(), 4)
        return next(SAMPLERS["ddpm"](denoise, x, logsnrs, generator=noise)).x0


def _configuration(path: Path) -> Configuration:
    config = load_options(path, ImageRun)
    side, classes = IMAGES[path.stem]
    shape: dict[str, Any] = {"height": side, "image_width": side, "classes": [str(i) for i in range(classes)]}
    settings = ImageDiffusionConfig(**shape, **asdict(config.model))
    batch = _batch(config.train.batch_size, side, classes)
    return Configuration(f"configs/{path.name}", config, partial(ImageDiffusion, settings), batch, len(batch["index"]), "images")
