"""Orders in which the pixels of an image lose their noise, as noise paths."""

from math import prod

import torch
from jaxtyping import Float, Int
from torch import Tensor

from textdiff.diffusion.paths import NoisePath, places, stagger_of
from textdiff.diffusion.schedules import Schedule
from textdiff.prng import fold_in, uniform

Map = Float[Tensor, "b 1 h w"]


def order_path(
    schedule: Schedule, start: Map, keys: Int[Tensor, " b"], order: str, window: int
) -> NoisePath:
    """The noise path of an order.

    Args:
        start: Time of the schedule at which each pixel starts. Pixels at 0 never move.
        keys: Keys of the images, for random order.
        order: parallel, raster (line by line), coarse-to-fine or random.
        window: Number of pixels that lose their noise at the same time, if not parallel.
    """
    moving = start.flatten(1) > 0
    place = places(priority(order, keys, start.shape[2:]), moving).view_as(start)
    stagger = stagger_of(window, moving) * (order != "parallel")
    return NoisePath(schedule, start, place, stagger)


def priority(order: str, keys: Int[Tensor, " b"], size: torch.Size) -> Float[Tensor, "b n"]:
    """Numbers that rise in the order of the pixels.

    Coarse-to-fine, a pixel's grid is the coarsest of every 2^k-th row and column that has it.

    Args:
        size: Height and width.
    """
    position = torch.arange(prod(size), device=keys.device)
    if order == "random":
        return uniform(fold_in(keys, 11).unsqueeze(1) + position, stream=11)
    if order == "coarse-to-fine":
        row, column = (torch.arange(side, device=keys.device) for side in size)
        either = (row.unsqueeze(1) | column).flatten()
        spacing = either & -either  # the largest power of 2 that divides row and column
        coarsest = spacing.where(either > 0, 2 * prod(size))
        position = (-coarsest).argsort(stable=True).argsort()
    return position.float().expand(len(keys), -1)
