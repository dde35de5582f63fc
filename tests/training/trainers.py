"""A tiny model, its batches, and the state of trainers, for the tests of training."""

from itertools import islice

import torch
from torch import Tensor, nn

from textdiff.text.dataset import Corpus, training_batches
from textdiff.training.batching import MicroBatch
from textdiff.training.trainer import Trainer, TrainStep


class Slope(nn.Module):
    """One weight, whose loss is its square times x, with the gradient 2 x weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))
        self.register_buffer("total", torch.zeros(()))

    def forward(self, x: Tensor, progress: Tensor) -> dict[str, Tensor]:
        self.total += x.sum()
        return {"square": (self.weight.square() * x).mean(), "constant": progress.detach()}


def constant_batches(x: float = 1.0) -> list[list[MicroBatch]]:
    """100 equal batches of `Slope`."""
    return [[MicroBatch({"x": torch.full((4,), x)}, 1.0, 4)]] * 100


def run(trainer: Trainer, corpus: Corpus, n: int) -> list[TrainStep]:
    """The next n steps on a corpus of sentences of different lengths."""
    batches = training_batches(corpus, trainer.config, trainer.step, rank=0, world=1)
    return list(islice(trainer.train(batches), n))


def moments(trainer: Trainer) -> list[dict]:
    """States of the optimizers."""
    return [optimizer.state_dict()["state"] for optimizer in trainer.optimizers]


def weights(trainer: Trainer) -> dict[str, dict]:
    """Weights and buffers of the model and of its average."""
    return {"model": trainer.raw.state_dict(), "ema": trainer.ema.state_dict()}
