"""Randomness of training examples: log SNR of each word, and the positions of the loss."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from textdiff.device import wants_static_shapes
from textdiff.diffusion.paths import NoisePath, places, stagger_of
from textdiff.diffusion.schedules import Schedule
from textdiff.prng import fold_in, low_discrepancy_times, uniform
from textdiff.text.functional import source_words
from textdiff.text.transformer import NoisyText


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


def sample_levels(
    index: Int[Tensor, " b"],
    mask: Bool[Tensor, "b l"],
    schedule: Schedule,
    logsnr: Float[Tensor, " b"],
    clean: float,
    infill_prob: float,
    stagger_prob: float,
    source: Bool[Tensor, "b l"] | None = None,
) -> tuple[Float[Tensor, "b l"], Bool[Tensor, "b l"]]:
    """Log SNR of each word: that of its sentence, with given words and staggered paths in some.

    Returns:
        The log SNRs, and True at the words that have noise.

    Args:
        index: Indices of the examples in the run, from which the randomness is derived.
        mask: True at real positions.
        logsnr: Log SNR of the words of other sentences.
        clean: Log SNR of given words.
        infill_prob: Probability that an example has given words.
        stagger_prob: Probability that the words of an example are on a staggered path, in any
            order, with any window.
        source: True at words that are always given.
    """
    given = infill_mask(index, mask, infill_prob)
    given = given if source is None else given | source
    levels = torch.where(given, clean, logsnr.unsqueeze(1))
    if not stagger_prob:
        return levels, mask & ~given
    staggered = (uniform(index, stream=14) < stagger_prob).unsqueeze(1)
    times = _staggered_path(index, mask & ~given, schedule).times(low_discrepancy_times(index))
    on_path = torch.where(times == 0, clean, schedule(times))
    noisy = mask & torch.where(staggered, times > 0, ~given)
    return torch.where(staggered, on_path, levels), noisy


def _staggered_path(
    index: Int[Tensor, " b"], moving: Bool[Tensor, "b l"], schedule: Schedule
) -> NoisePath:
    """A path from left to right, from right to left, or in random order."""
    position = torch.arange(moving.shape[1], device=index.device)
    shuffled = uniform(fold_in(index, 11).unsqueeze(1) + position, stream=11)
    order = uniform(index, stream=12).unsqueeze(1)
    directed = torch.where(order < 1 / 3, position, -position)
    place = places(torch.where(order < 2 / 3, directed.to(shuffled), shuffled), moving)
    window = moving.sum(1).clamp(min=1) ** uniform(index, stream=13)
    return NoisePath(schedule, moving.to(place), place, stagger_of(window, moving))


def infill_mask(
    index: Int[Tensor, " b"], mask: Bool[Tensor, "b l"], infill_prob: float
) -> Bool[Tensor, "b l"]:
    """True where words are given: a prefix, scattered words or all but a span, of random share.

    Args:
        index: Indices of the examples in the run, from which the randomness is derived.
        mask: True at real positions.
        infill_prob: Probability that an example has given words.
    """
    position, size = torch.arange(mask.shape[1], device=index.device), mask.sum(1, keepdim=True)
    share = uniform(index, stream=5).unsqueeze(1)
    keys = fold_in(index, 6).unsqueeze(1) + position
    scattered = uniform(keys, stream=6) < share
    first = uniform(index, stream=10).unsqueeze(1) * share * size
    outside = (position < first) | (position >= first + (1 - share) * size)
    kind = uniform(index, stream=7).unsqueeze(1)
    given = torch.where(kind < 1 / 3, position < share * size, scattered)
    given = torch.where(kind < 2 / 3, given, outside)
    return given & mask & (uniform(index, stream=8) < infill_prob).unsqueeze(1)


def dropped_sources(
    index: Int[Tensor, " b"],
    ids: Int[Tensor, "b l"],
    separator: int,
    prob: float,
) -> Bool[Tensor, "b l"] | None:
    """True at the words of dropped sources; None if sources are never dropped.

    Args:
        index: Indices of the examples in the run, from which the randomness is derived.
        prob: Probability that an example has no source.
    """
    if not prob:
        return None
    chosen = uniform(index, stream=15) < prob
    return source_words(ids, separator) & chosen.unsqueeze(1)


class CorruptedBatch(NamedTuple):
    """A batch with noise: x_t = alpha x0 + sigma eps, or 0 at the words of dropped sources.

    Args:
        ids: Tokens.
        mask: True at real positions.
        keys: Indices of the examples in the run.
        x0: Embeddings of the tokens.
        logsnr: Log SNR of each word.
        predicted: True at words that are not clean.
        source: True at the words of sources.
        dropped: True at the words of dropped sources. If None, there are none.
    """

    ids: Int[Tensor, "b l"]
    mask: Bool[Tensor, "b l"]
    keys: Int[Tensor, " b"]
    x0: Float[Tensor, "b l d"]
    eps: Float[Tensor, "b l d"]
    logsnr: Float[Tensor, "b l"]
    predicted: Bool[Tensor, "b l"]
    x_t: Float[Tensor, "b l d"]
    source: Bool[Tensor, "b l"]
    dropped: Bool[Tensor, "b l"] | None

    @property
    def text(self) -> NoisyText:
        """The noisy sentences, without self-conditioning."""
        return NoisyText(self.x_t, self.logsnr, self.mask)

    @property
    def targets(self) -> Float[Tensor, " b"]:
        """Number of words of each sentence that are not in its source."""
        return (self.mask & ~self.source).sum(1).clamp(min=1).to(self.x0.dtype)

    @property
    def has_one_level(self) -> Bool[Tensor, " b"]:
        """Whether all words of a sentence, except its source, have the same log SNR."""
        return ((self.logsnr == self.logsnr[:, -1:]) | self.source).all(1)


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
