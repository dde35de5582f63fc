"""Randomness of training examples: the log SNR of each pixel."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from image.orders import priority
from textdiff.diffusion.paths import NoisePath, places, stagger_of
from textdiff.diffusion.schedules import Schedule
from textdiff.prng import fold_in, low_discrepancy_times, uniform

Index = Int[Tensor, " b"]
Mask = Bool[Tensor, "b 1 h w"]


def sample_levels(
    index: Index, size: torch.Size, schedule: Schedule, infill_prob: float, stagger_prob: float
) -> tuple[Float[Tensor, "b 1 h w"], Mask]:
    """Log SNR of each pixel: that of its image, with given pixels and staggered paths in some.

    Returns:
        The log SNRs, and True at the pixels that have noise.

    Args:
        index: Indices of the examples in the run, from which the randomness is derived.
        size: Height and width.
        infill_prob: Probability that an example has given pixels.
        stagger_prob: Probability that the pixels of an example are on a staggered path, in any
            order, with any window.
    """
    moving = ~given_pixels(index, size, infill_prob)
    staggered = uniform(index, stream=14) < stagger_prob
    flat, order = moving.flatten(1), uniform(index, stream=12).unsqueeze(1)
    kinds = (priority(name, index, size) for name in ("raster", "coarse-to-fine", "random"))
    raster, coarse_to_fine, shuffled = kinds
    chosen = torch.where(order < 2 / 3, coarse_to_fine, shuffled)
    place = places(torch.where(order < 1 / 3, raster, chosen), flat).view_as(moving)
    window = flat.sum(1).clamp(min=1) ** uniform(index, stream=13)
    stagger = stagger_of(window, flat) * staggered
    path = NoisePath(schedule, moving.to(place), place, stagger)
    times = path.times(low_discrepancy_times(index))
    return schedule(times), times > 0


def given_pixels(index: Index, size: torch.Size, infill_prob: float) -> Mask:
    """True where pixels are given: a half-plane, a rectangle, all but one, or scattered pixels.

    Args:
        index: Indices of the examples in the run, from which the randomness is derived.
        size: Height and width.
        infill_prob: Probability that an example has given pixels.
    """
    height, width = size
    row, column = (
        torch.arange(height, device=index.device),
        torch.arange(width, device=index.device),
    )
    y, x = (row.unsqueeze(1) + 0.5) / height - 0.5, (column + 0.5) / width - 0.5

    def draw(stream: int) -> Tensor:
        return uniform(index, stream)[:, None, None]

    angle, share = 2 * math.pi * draw(5), draw(6)
    distance = angle.cos() * x + angle.sin() * y
    farthest = (angle.cos().abs() + angle.sin().abs()) / 2  # of the corners
    half_plane = distance < (2 * share - 1) * farthest
    inside = _between(column, width * draw(7), width * draw(8))
    inside = inside & _between(row.unsqueeze(1), height * draw(9), height * draw(10))
    keys = fold_in(index, 16).unsqueeze(1) + torch.arange(height * width, device=index.device)
    scattered = uniform(keys, stream=16).view(-1, height, width) < share
    kind = draw(15)
    given = torch.where(kind < 3 / 4, inside ^ (kind < 1 / 2), scattered)
    given = torch.where(kind < 1 / 4, half_plane, given) & (draw(17) < infill_prob)
    return given.unsqueeze(1)


def _between(position: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """True at the pixels that contain a point between a and b, at least one."""
    return (position > torch.minimum(a, b) - 1) & (position <= torch.maximum(a, b))
