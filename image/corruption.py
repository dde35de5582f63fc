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
    """Log SNR of each pixel. Some images have given pixels, or pixels on a staggered path.

    Args:
        index: Indices of the examples in the run, from which the randomness is derived.
        size: Height and width.
        schedule: Noise schedule of each pixel.
        infill_prob: Probability that an image has given pixels, which are at its clean end.
        stagger_prob: Probability that the other pixels lose their noise one after another.

    Returns:
        The log SNRs, and True at the pixels that have noise.
    """
    moving = ~given_pixels(index, size, infill_prob)
    start = moving.float()
    place, stagger = torch.zeros_like(start), torch.zeros_like(start[:, 0, 0, 0])
    if stagger_prob:
        place, stagger = _staggered(index, moving)
        stagger = stagger * (uniform(index, stream=14) < stagger_prob)
    times = NoisePath(schedule, start, place, stagger).times(low_discrepancy_times(index))
    return schedule(times), times > 0


def _staggered(index: Index, moving: Mask) -> tuple[Float[Tensor, "b 1 h w"], Float[Tensor, " b"]]:
    """Places and staggers of paths in any order, with any window up to all moving pixels."""
    flat, order = moving.flatten(1), uniform(index, stream=12).unsqueeze(1)
    kinds = ("raster", "coarse-to-fine", "random")
    raster, coarse_to_fine, shuffled = (priority(name, index, moving.shape[2:]) for name in kinds)
    chosen = torch.where(order < 2 / 3, coarse_to_fine, shuffled)
    place = places(torch.where(order < 1 / 3, raster, chosen), flat).view_as(moving)
    window = flat.sum(1).clamp(min=1) ** uniform(index, stream=13)
    return place, stagger_of(window, flat)


def given_pixels(index: Index, size: torch.Size, infill_prob: float) -> Mask:
    """True at given pixels: a half-plane, a rectangle, all but a rectangle, or scattered pixels.

    Args:
        index: Indices of the examples in the run, from which the randomness is derived.
        size: Height and width.
        infill_prob: Probability that an image has given pixels.
    """
    height, width = size
    row, column = (torch.arange(side, device=index.device) for side in size)
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
