"""Fixtures of the tests of training."""

from collections.abc import Callable
from pathlib import Path

import pytest
from accelerate import Accelerator
from torch import nn

from textdiff.config import TrainConfig
from textdiff.training.trainer import Trainer


@pytest.fixture
def new_trainer(accelerator: Accelerator, tmp_path: Path) -> Callable[..., Trainer]:
    """`new_trainer(model, lr=..., ...)`: in float32, with few steps and no warm-up."""

    def new(model: nn.Module, **options: object) -> Trainer:
        settings = {"steps": 8, "batch_size": 16, "warmup": 0, "precision": "no", "ema": 0.9}
        config = TrainConfig(**settings | options)
        return Trainer(model, config, tmp_path / "state", accelerator)

    return new
