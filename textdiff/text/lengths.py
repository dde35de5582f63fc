"""Lengths of the sequences that a text model samples, and their likelihood."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from textdiff.config import UserError
from textdiff.prng import sample_keys, uniform
from textdiff.text.autoregressive import Autoregressive
from textdiff.text.functional import source_positions
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
    first: int = 0,
) -> Int[Tensor, " n"]:
    """Number of tokens of each of n sequences.

    Args:
        length: The number that is asked for, or None.
        given: Number of given tokens. At least one follows them.
        room: Smallest number of tokens after these, in lengths that are drawn.
        first: Number of the first sequence, if they are drawn in parts.

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
    return draw_lengths(model.lengths, n, seed, min(given + room, longest), first)


def draw_lengths(
    weight: Float[Tensor, " k"], n: int, seed: int, at_least: int, first: int = 0
) -> Int[Tensor, " n"]:
    """Lengths from `at_least` to k - 1. Each depends only on its number and the seed.

    Args:
        weight: Weight of each length. If none from `at_least` on has any, all have the same.
        first: Number of the first.
    """
    return _at_quantiles(weight, uniform(sample_keys(seed, n, first), stream=0), at_least)


def spread_lengths(
    weight: Float[Tensor, " k"], n: int, at_least: int, first: float = 0.5
) -> Int[Tensor, " n"]:
    """Lengths from `at_least` to k - 1 that are spread evenly over their distribution.

    The first is the median, the next two are the quartiles, and so on: their quantiles are the
    sequence of van der Corput in base 2.

    Args:
        weight: Weight of each length. If none from `at_least` on has any, all have the same.
        first: Quantile of the first length. The others become longer or shorter with it.
    """
    number, quantiles = torch.arange(1, n + 1), torch.zeros(n, dtype=torch.float64)
    for bit in range(n.bit_length()):  # the bits of the number after the point, in reverse
        quantiles += (number >> bit & 1) * 0.5 ** (bit + 1)
    return _at_quantiles(weight, quantiles ** (math.log(first) / math.log(0.5)), at_least)


def _at_quantiles(
    weight: Float[Tensor, " k"], quantiles: Float[Tensor, " n"], at_least: int
) -> Int[Tensor, " n"]:
    possible = torch.arange(len(weight)) >= at_least
    weight = weight.cpu().double() * possible
    weight = weight if weight.sum() > 0 else possible.double()
    return torch.searchsorted(weight.cumsum(0), quantiles.double() * weight.sum())


def given_positions(model: WordPredictor, ids: Int[Tensor, "b l"]) -> Bool[Tensor, "b l"]:
    """True at the words of sources and at separators, which a model of pairs does not code.

    Raises:
        UserError: If the model has sources and a sequence has no separator.
    """
    source = source_positions(ids, model.config.separator)
    if model.config.has_sources and not source.any(1).all():
        pair = "source, separator and target in each sequence"
        raise UserError(f"the likelihood of a model of pairs needs {pair}")
    return source


def length_nats(
    model: WordPredictor, ids: Int[Tensor, "b l"], mask: Bool[Tensor, "b l"]
) -> Float[Tensor, " b"]:
    """-log p(length): frequencies in the training text, smoothed so that none is zero.

    That of a target is given its source, as in sampling.
    """
    if not model.config.has_sources:
        smoothed = 0.9999 * model.lengths + 1e-4 / len(model.lengths)
        return -smoothed.log()[mask.sum(1)]
    source = given_positions(model, ids)
    given = source.sum(1, keepdim=True)
    size = torch.arange(model.config.length + 1, device=ids.device)
    possible = ((size > 0) & (size <= model.config.length - given)).double()
    frequencies = model.target_lengths(ids, source) * possible
    frequencies = torch.where(frequencies.sum(1, keepdim=True) > 0, frequencies, possible)
    total, smooth = (each.sum(1, keepdim=True) for each in (frequencies, possible))
    smoothed = 0.9999 * frequencies / total + 1e-4 * possible / smooth
    lengths = mask.sum(1, keepdim=True) - given
    return -smoothed.gather(1, lengths).log().squeeze(1).to(model.lengths)
