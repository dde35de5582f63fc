"""The built-in images: one white pixel on black. They judge samples themselves, as the built-in grammar judges sentences."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

SIDE = 16


class Verdict(NamedTuple):
    """The share of images with exactly one white dot on black (three quarters of the way to each), and how likely a uniform choice of places is as
    uneven as theirs (chi-squared, 16 fields)."""

    single: float
    uniform_p: float


def dots(n: int = 8192) -> UInt8[Tensor, "n 1 16 16"]:
    """A deterministic sequence."""
    places = torch.from_numpy(np.random.default_rng(0).integers(SIDE * SIDE, size=n))
    return torch.nn.functional.one_hot(places, SIDE * SIDE).byte().mul(255).view(n, 1, SIDE, SIDE)


def judge(pixels: UInt8[Tensor, "n 1 h w"]) -> Verdict:
    """Needs scikit-learn's scipy."""
    from scipy.stats import chisquare

    white, black = pixels[:, 0] >= 191, pixels[:, 0] < 64
    single = white[(white.flatten(1).sum(1) == 1) & (white | black).flatten(1).all(1)]
    _, rows, columns = single.nonzero(as_tuple=True)
    fields = torch.bincount(rows * 4 // pixels.shape[2] * 4 + columns * 4 // pixels.shape[3], minlength=16)
    return Verdict(len(single) / len(pixels), float(chisquare(fields.numpy()).pvalue) if len(single) else 0.0)
