"""Orders in which the words of a sentence lose their noise, as noise paths."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from textdiff.config import check
from textdiff.diffusion.paths import NoisePath, places, stagger_of
from textdiff.diffusion.schedules import Schedule
from textdiff.prng import fold_in, uniform


def order_path(
    schedule: Schedule,
    start: Float[Tensor, "b l"],
    mask: Bool[Tensor, "b l"],
    keys: Int[Tensor, " b"],
    order: str,
    window: int,
) -> NoisePath:
    """The noise path of an order.

    Args:
        start: Time of the schedule at which each word starts. Words at 0 never move.
        mask: True at real positions.
        keys: Keys of the sentences, for random order.
        order: parallel, left-to-right, right-to-left or random.
        window: Number of words that lose their noise at the same time, if not parallel.

    Raises:
        UserError: If there is no such order.
    """
    moving = mask & (start > 0)
    position = torch.arange(start.shape[1], device=start.device).expand(start.shape)
    shuffled = uniform(fold_in(keys, 31).unsqueeze(1) + position, stream=31)
    priorities = {
        "parallel": position,
        "left-to-right": position,
        "right-to-left": -position,
        "random": shuffled,
    }
    check(order in priorities, "order", f"one of {', '.join(priorities)}", order)
    stagger = stagger_of(window, moving) * (order != "parallel")
    return NoisePath(schedule, start, places(priorities[order].float(), moving), stagger)
