"""The built-in images, each one white pixel on black, and metrics that need no other images."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

SIDE = 16


class DotMetrics(NamedTuple):
    """Metrics of samples of dots.

    Args:
        single: Share of images with exactly one white pixel (191 or more) and all others black
            (below 64).
        uniform_p: p-value of a chi-squared test that the positions of these pixels are uniform over
            16 fields. A small value means that they are not.
    """

    single: float
    uniform_p: float


def dots(n: int = 8192) -> UInt8[Tensor, "n 1 16 16"]:
    """n images, the same at every call."""
    positions = torch.from_numpy(np.random.default_rng(0).integers(SIDE * SIDE, size=n))
    pixels = torch.nn.functional.one_hot(positions, SIDE * SIDE).byte().mul(255)
    return pixels.view(n, 1, SIDE, SIDE)


def judge(pixels: UInt8[Tensor, "n 1 h w"]) -> DotMetrics:
    """The metrics of images. It needs scipy, which scikit-learn installs."""
    from scipy.stats import chisquare

    white, black = pixels[:, 0] >= 191, pixels[:, 0] < 64
    single = white[(white.flatten(1).sum(1) == 1) & (white | black).flatten(1).all(1)]
    if not len(single):
        return DotMetrics(0.0, 0.0)
    _, rows, columns = single.nonzero(as_tuple=True)
    _, _, height, width = pixels.shape
    counts = torch.bincount(rows * 4 // height * 4 + columns * 4 // width, minlength=16)
    return DotMetrics(len(single) / len(pixels), float(chisquare(counts.numpy()).pvalue))
