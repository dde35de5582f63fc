"""A page of tiny models, served on a free port."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

pytest.importorskip("gradio")

from image import ImageDiffusion
from image import demo as image_tabs
from image.model import ImageDiffusionConfig, ImageDiffusionModel
from textdiff import TextDiffusion
from textdiff.demo.page import build_page, launch
from textdiff.demo.text import tabs_of


@pytest.fixture(scope="session")
def pipe(model, tokenizer) -> TextDiffusion:
    return TextDiffusion(model, tokenizer)


@pytest.fixture(scope="session")
def pairs_pipe(new_model, tokenizer) -> TextDiffusion:
    """A model that writes targets after sources, which end with a full stop."""
    model = new_model(separator=tokenizer.token_to_id(".")).eval()
    return TextDiffusion(model, tokenizer)


@pytest.fixture(scope="session")
def image_model() -> ImageDiffusionModel:
    options = {"width": 8, "channel_multipliers": [1, 2], "res_blocks": 1, "classes": ["a", "b"]}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ImageDiffusionModel(ImageDiffusionConfig(**options)).eval()


@pytest.fixture(scope="session")
def address(
    pipe: TextDiffusion,
    pairs_pipe: TextDiffusion,
    image_model: ImageDiffusionModel,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """Address of a page of three models."""
    os.environ["GRADIO_TEMP_DIR"] = str(tmp_path_factory.mktemp("pictures"))
    images = image_tabs.tabs_of(ImageDiffusion(image_model))
    page = build_page({"text": tabs_of(pipe), "pairs": tabs_of(pairs_pipe), "images": images})
    yield launch(page, "127.0.0.1", None).rstrip("/")
    page.close()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A picture of another shape than the model's."""
    from PIL import Image

    path = tmp_path / "photo.png"
    Image.linear_gradient("L").resize((64, 48)).save(path)
    return path
