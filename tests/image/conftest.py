from collections.abc import Callable

import pytest
import torch

from image.model import ImageDiffusion, ImageDiffusionConfig

SMALL = {"width": 8, "multipliers": (1, 2), "blocks": 1, "attention": (1,)}


@pytest.fixture(scope="session")
def new_image_model() -> Callable[..., ImageDiffusion]:
    """`new_image_model(channels=3, ...)`: a small model in which nothing is zero; the same weights at every call."""

    def new(**options: object) -> ImageDiffusion:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = ImageDiffusion(ImageDiffusionConfig(**SMALL | options))
            for parameter in model.parameters():  # what starts at zero would hide mistakes
                parameter.data += 0.05 * torch.randn(parameter.shape)
        return model.eval()

    return new


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.randint(256, (6, 1, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
