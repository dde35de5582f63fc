"""Fixtures of the image tests: a tiny model, a tiny run, image folders and idx files."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import idx_bytes
from PIL import Image

from image.cli import main
from image.model import ImageDiffusionConfig, ImageDiffusionModel

SMALL = {"width": 8, "channel_multipliers": [1, 2], "res_blocks": 1, "stagger_prob": 0.25}
TINY_RUN = [
    *("--model.width", "8", "--model.channel_multipliers", "[1,2]", "--model.res_blocks", "1"),
    *("--model.stagger_prob", "0.25"),
    *("--train.batch_size", "16", "--train.precision", "no", "--train.steps", "4"),
    *("--train.log_every", "1", "--train.save_every", "2", "--train.valid_every", "4"),
]


@pytest.fixture(scope="session")
def new_image_model() -> Callable[..., ImageDiffusionModel]:
    """`new_image_model(channels=3, ...)`: a small model with the same weights at every call."""

    def new(**options: object) -> ImageDiffusionModel:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = ImageDiffusionModel(ImageDiffusionConfig(**SMALL | options))
            for parameter in model.parameters():  # zeros, as at the start, would hide mistakes
                parameter.data += 0.05 * torch.randn(parameter.shape)
        return model.eval()

    return new


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.randint(256, (6, 1, 8, 8), generator=torch.Generator().manual_seed(0)).byte()


@pytest.fixture(scope="session")
def tiny_run() -> list[str]:
    """Options of a training run of 4 steps on the digits."""
    return TINY_RUN


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a run of 4 steps. For reading only."""
    folder = str(tmp_path_factory.mktemp("runs") / "tiny")
    main("train", ["--run", folder, *TINY_RUN])
    return folder


@pytest.fixture
def square(tmp_path: Path) -> str:
    """A picture file, white on its left half."""
    image = Image.new("L", (16, 16))
    image.paste(255, (0, 0, 8, 16))
    image.save(tmp_path / "square.png")
    return str(tmp_path / "square.png")


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """`folder(name=image, ...)`: a folder of images; `__` in a name stands for a slash."""

    def new(**images: Image.Image) -> Path:
        for name, image in images.items():
            path = tmp_path / "images" / (name.replace("__", "/") + ".png")
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
        return tmp_path / "images"

    return new


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """An idx file of ten images with labels. All pixels of image i are i, its label is i % 3."""
    pixels = np.arange(10)[:, None, None] * np.ones((1, 5, 7))
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(idx_bytes(pixels)))
    labels = gzip.compress(idx_bytes(np.arange(10) % 3))
    path.with_name("train-labels-idx1-ubyte.gz").write_bytes(labels)
    return path
