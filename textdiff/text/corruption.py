"""Randomness of training examples: log SNR, given words, and the positions of the loss."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from textdiff.device import wants_static_shapes
from textdiff.diffusion.schedules import Schedule
from textdiff.prng import fold_in, low_discrepancy_times, uniform


def sample_logsnr(
    index: Int[Tensor, " b"],
    schedule: Schedule,
    logsnr_range: tuple[float, float],
    uniform_prob: float = 0.0,
) -> Float[Tensor, " b"]:
    """Log SNR of each example: low-discrepancy times of the schedule, or uniform over the range.

    Args:
        index: Indices of the examples in the run, from which the randomness is derived.
        uniform_prob: Probability that the log SNR is uniform instead of scheduled.
    """
    scheduled = schedule(low_discrepancy_times(index))
    if not uniform_prob:
        return scheduled
    low, high = logsnr_range
    uniform_logsnr = low + (high - low) * uniform(index, stream=3)
    return torch.where(uniform(index, stream=4) < uniform_prob, uniform_logsnr, scheduled)


def infill_mask(
    index: Int[Tensor, " b"], mask: Bool[Tensor, "b l"], infill_prob: float
) -> Bool[Tensor, "b l"]:
    """True where words are given: a prefix or scattered words, a random share of the sentence.

    Args:
        index: Indices of the examples in the run, from which the randomness is derived.
        mask: True at real positions.
        infill_prob: Probability that an example has given words.
    """
    position = torch.arange(mask.shape[1], device=index.device)
    share = uniform(index, stream=5).unsqueeze(1)
    prefix = position < share * mask.sum(1, keepdim=True)
    keys = fold_in(index, 6).unsqueeze(1) + position
    scattered = uniform(keys, stream=6) < share
    given = torch.where(uniform(index, stream=7).unsqueeze(1) < 0.5, prefix, scattered)
    return given & mask & (uniform(index, stream=8) < infill_prob).unsqueeze(1)


class CorruptedBatch(NamedTuple):
    """A batch with noise: x_t = alpha x0 + sigma eps.

    Args:
        ids: Tokens.
        mask: True at real positions.
        keys: Indices of the examples in the run.
        known: True where words are given.
        x0: Embeddings of the tokens.
    """

    ids: Int[Tensor, "b l"]
    mask: Bool[Tensor, "b l"]
    keys: Int[Tensor, " b"]
    known: Bool[Tensor, "b l"]
    x0: Float[Tensor, "b l d"]
    eps: Float[Tensor, "b l d"]
    logsnr: Float[Tensor, " b"]
    x_t: Float[Tensor, "b l d"]

    @property
    def x_in(self) -> Float[Tensor, "b l d"]:
        """The noisy vectors, with the embeddings of given words."""
        return torch.where(self.known.unsqueeze(-1), self.x0, self.x_t)


class LossPositions(NamedTuple):
    """The positions at which the loss is computed: the selected ones, or all of them.

    On devices where shapes must not depend on data, these are all positions, and the losses of
    the others are set to 0.
    """

    selected: Bool[Tensor, "b l"]
    indices: tuple[Tensor, ...] | None

    @classmethod
    def of(cls, selected: Bool[Tensor, "b l"]) -> "LossPositions":
        """The positions where `selected` is true."""
        static = wants_static_shapes(selected.device)
        return cls(selected, None if static else selected.nonzero(as_tuple=True))

    def gather(self, values: Shaped[Tensor, "b l *d"]) -> Shaped[Tensor, "n *d"]:
        """Values at the positions, one row each."""
        return values.flatten(0, 1) if self.indices is None else values[self.indices]

    def scatter(self, values: Float[Tensor, " n"]) -> Float[Tensor, "b l"]:
        """Values put back at their positions, and 0 elsewhere."""
        if self.indices is None:
            return values.view_as(self.selected).where(self.selected, 0)
        zeros = torch.zeros_like(self.selected, dtype=values.dtype)
        return zeros.index_put(self.indices, values)
