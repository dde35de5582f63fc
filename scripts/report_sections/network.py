"""A small network for points in the plane, its training, and a distance between samples."""

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from textdiff.nn import LogSNREmbedding
from textdiff.progress import ProgressBar


class Perceptron(nn.Module):
    """A perceptron with three hidden layers that depends on the log SNR."""

    def __init__(self, size_in: int, size_out: int, width: int = 128) -> None:
        super().__init__()
        self.input, self.logsnr_embedding = nn.Linear(size_in, width), LogSNREmbedding(width)
        layers = (nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.hidden, self.output = nn.Sequential(*layers), nn.Linear(width, size_out)

    def forward(self, x: Float[Tensor, "b i"], logsnr: Float[Tensor, " b"]) -> Float[Tensor, "b o"]:
        h = nn.functional.silu(self.input(x)) * (1 + self.logsnr_embedding(logsnr))
        return self.output(self.hidden(h))


def perceptron(size_in: int, size_out: int) -> Perceptron:
    """A new perceptron, always with the same initial weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Perceptron(size_in, size_out)


def fit(
    networks: Iterable[nn.Module],
    loss: Callable[[torch.Generator], Tensor],
    steps: int,
    label: str,
    lr: float = 2e-3,
) -> list[float]:
    """Trains networks with Adam and a cosine learning rate, and returns the loss of each step.

    Args:
        loss: Loss on a new batch, as a function of the generator of its noise.
    """
    parameters = [parameter for network in networks for parameter in network.parameters()]
    optimizer, rng, losses = torch.optim.Adam(parameters, lr), generator(0), []
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in ProgressBar(range(steps), desc=label, unit="step", leave=False):
        optimizer.zero_grad()
        value = loss(rng)
        value.backward()
        optimizer.step()
        schedule.step()
        losses.append(value.item())
    return losses


def generator(seed: int) -> torch.Generator:
    """A new random generator."""
    return torch.Generator().manual_seed(seed)


def energy_distance(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> float:
    """Energy distance 2 E|x - y| - E|x - x'| - E|y - y'| (Szekely & Rizzo, 2013).

    It is 0 on average for two samples of one distribution.
    """
    n, m = len(x), len(y)
    within = torch.cdist(x, x).sum() / (n * (n - 1)) + torch.cdist(y, y).sum() / (m * (m - 1))
    return float(2 * torch.cdist(x, y).mean() - within)
