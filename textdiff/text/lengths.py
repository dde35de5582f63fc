"""Lengths of the sequences that a text model samples."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from textdiff.config import UserError
from textdiff.prng import sample_keys, uniform
from textdiff.text.autoregressive import Autoregressive
from textdiff.text.predictor import WordPredictor


def writes_documents(model: WordPredictor | Autoregressive) -> bool:
    """Whether the model can write texts longer than its sequences, window by window.

    It must have learned to continue given words, in training text without ends (`data.pack`).
    """
    if isinstance(model, Autoregressive):
        return False
    return model.config.infill_prob > 0 and bool(model.lengths[-1] == 1)


def sequence_lengths(
    model: WordPredictor | Autoregressive,
    n: int,
    seed: int,
    length: int | None,
    given: int,
    room: int,
) -> Int[Tensor, " n"]:
    """Number of tokens of each of n sequences.

    Args:
        length: The number that is asked for, or None.
        given: Number of given tokens. At least one follows them.
        room: Smallest number of tokens after these, in lengths that are drawn.

    Raises:
        UserError: If the model cannot have it.
    """
    longest, at_least = model.config.length, given + 1
    if writes_documents(model):
        if length is None and at_least > longest:
            length = at_least + longest // 2
        longest = max(longest, length or 0)
    trained = f"{longest}, the longest that this model was trained for"
    if at_least > longest:
        raise UserError(f"the text of {given} tokens leaves no room: at most {trained}")
    if length is not None:
        if not at_least <= length <= longest:
            raise UserError(f"--length must be between {at_least} and {trained}, got {length}")
        return torch.full((n,), length)
    if isinstance(model, Autoregressive):
        return torch.full((n,), longest)  # at most: the model ends its sentences itself
    return draw_lengths(model.lengths, n, seed, min(given + room, longest))


def draw_lengths(
    weight: Float[Tensor, " k"], n: int, seed: int, at_least: int
) -> Int[Tensor, " n"]:
    """Lengths from `at_least` to k - 1, the same for the same seed.

    Args:
        weight: Weight of each length. If none from `at_least` on has any, all have the same.
    """
    possible = torch.arange(len(weight)) >= at_least
    weight = weight.cpu().double() * possible
    weight = weight if weight.sum() > 0 else possible.double()
    drawn = uniform(sample_keys(seed, n), stream=0).double() * weight.sum()
    return torch.searchsorted(weight.cumsum(0), drawn)
