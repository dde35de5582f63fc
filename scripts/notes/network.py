"""A small network for points in the plane, how it is trained, and how far two sets of points are apart."""

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from textdiff.layers import NoiseLevel


class Perceptron(nn.Module):
    """(x, log SNR) -> numbers of `size_out` for each sample."""

    def __init__(self, size_in: int, size_out: int, width: int = 128) -> None:
        super().__init__()
        self.enter, self.level = nn.Linear(size_in, width), NoiseLevel(width)
        self.middle, self.leave = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()), nn.Linear(width, size_out)

    def forward(self, x: Float[Tensor, "b i"], logsnr: Float[Tensor, " b"]) -> Float[Tensor, "b o"]:
        return self.leave(self.middle(nn.functional.silu(self.enter(x)) * (1 + self.level(logsnr))))


def fit(networks: Iterable[nn.Module], loss: Callable[[torch.Generator], Tensor], steps: int, label: str, lr: float = 2e-3) -> list[float]:
    """Adam with the rate falling to 0; the loss of every step. `loss` is given what its noise comes from."""
    parameters = [parameter for network in networks for parameter in network.parameters()]
    optimizer, dice, losses = torch.optim.Adam(parameters, lr), torch.Generator().manual_seed(0), []
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in tqdm(range(steps), desc=label, unit="step", leave=False):
        optimizer.zero_grad()
        value = loss(dice)
        value.backward()
        optimizer.step()
        rate.step()
        losses.append(float(value))
    return losses


def energy_distance(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> float:
    """2 E|x - y| - E|x - x'| - E|y - y'|: 0 for two samples of one law (Szekely & Rizzo, 2013)."""
    n, m = len(x), len(y)
    return float(2 * torch.cdist(x, y).mean() - torch.cdist(x, x).sum() / (n * (n - 1)) - torch.cdist(y, y).sum() / (m * (m - 1)))
