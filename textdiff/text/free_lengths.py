"""Infilling of free length: the number of words for which a [MASK*] stands.

The given words decide it. By Bayes' rule,

    p(places | given words) is proportional to p(length) p(given words | places, length),

where the places follow from the numbers. The last factor is a product over the given words, one
after another: each is predicted from pure noise, while those before it are clean and all others
are pure noise (the chain rule of noise paths with a window of 1). Such states occur in every
infill. The logarithms of the products from left to right and from right to left are averaged.
"""

import re
from collections.abc import Iterator
from itertools import product

import torch
from jaxtyping import Bool, Float
from tokenizers import Tokenizer
from torch import Tensor

from textdiff.config import Precision, SamplingConfig, check
from textdiff.device import autocast
from textdiff.diffusion.gaussian import diffuse
from textdiff.prng import normal, sample_keys, uniform
from textdiff.sampling import sampling_precision
from textdiff.text.control import allowed_rows
from textdiff.text.decoding import Decoding
from textdiff.text.functional import cross_entropy
from textdiff.text.lengths import writes_documents
from textdiff.text.predictor import WordPredictor
from textdiff.text.requests import infill_request, joined
from textdiff.text.sequence_likelihood import ROWS, padded
from textdiff.text.special_tokens import ANY_NUMBER, MASK
from textdiff.text.transformer import NoisyText

COMBINATIONS = 64  # most numbers of words that are compared for a text
MOST_MASKS = 6  # so that each can stand for one or two words
MOST_NATS = 50.0  # of a word; [UNK] may have probability 0 at every place


def placed_texts(text: str, longest: int) -> list[str]:
    """The text with each possible number of [MASK]s in place of its [MASK*]s.

    Args:
        longest: Largest number. Several [MASK*]s share 64 combinations, so theirs is smaller.

    Raises:
        UserError: If there are too many [MASK*]s.
    """
    first, *rest = text.split(ANY_NUMBER)
    rule = f"a text with at most {MOST_MASKS} {ANY_NUMBER}"
    check(len(rest) <= MOST_MASKS, "--text", rule, text)
    while longest ** len(rest) > COMBINATIONS:
        longest -= 1
    return [
        first + "".join(" ".join([MASK] * k) + part for k, part in zip(numbers, rest, strict=True))
        for numbers in product(range(1, longest + 1), repeat=len(rest))
    ]


def choose_lengths(
    model: WordPredictor,
    tokenizer: Tokenizer,
    text: str,
    n: int,
    longest: int,
    config: SamplingConfig,
    decoding: Decoding = Decoding(),  # noqa: B008
    first: int = 0,
) -> list[str]:
    """The text n times, with a number of [MASK]s in place of each [MASK*].

    Numbers are drawn from their probability given the other words. Number i depends only on the
    seed and on i.

    Args:
        longest: Largest number of words for which a [MASK*] stands.
        decoding: Its constraints rule out numbers without an allowed text.
        first: Number of the first text, if there are others before these.

    Raises:
        UserError: If a mark has another spelling, the text is too long for the model with the
            smallest numbers.
    """
    for mark in re.findall(r"\[(?:[A-Z_]+|(?i:mask)\w*)[*+?]*\][*+]?", text):
        rule = f"written {MASK}, or {ANY_NUMBER} for one or more"
        check(mark in (MASK, ANY_NUMBER), "a missing word in --text", rule, mark)
    if ANY_NUMBER not in text:
        return [text] * n
    possible = _possible_texts(model, tokenizer, placed_texts(text, longest), decoding)
    mask_id, keys = tokenizer.token_to_id(MASK), sample_keys(config.seed, n, first)
    nats = placement_nats(model, [*possible.values()], mask_id, config.precision)
    drawn = torch.searchsorted((-nats).softmax(0).cumsum(0), uniform(keys, 0).double())
    return [[*possible][min(i, len(possible) - 1)] for i in drawn.tolist()]


def _possible_texts(
    model: WordPredictor, tokenizer: Tokenizer, texts: list[str], decoding: Decoding
) -> dict[str, list[int]]:
    """Tokens of the texts that fit into the model and its constraints, or into the model."""
    sequences = [each.ids for each in tokenizer.encode_batch(texts, add_special_tokens=False)]
    room, mask_id = model.config.length, tokenizer.token_to_id(MASK)
    rule = f"at most {room} tokens for this model, with one for each {ANY_NUMBER}"
    check(len(sequences[0]) <= room, "the text", rule, len(sequences[0]))
    pairs = [pair for pair in zip(texts, sequences, strict=True) if len(pair[1]) <= room]
    if decoding.control.require or decoding.control.forbid:
        requests = [infill_request(model, ids, 1, mask_id, decoding) for _, ids in pairs]
        allowed = allowed_rows(model, tokenizer, joined(requests)).tolist()
        pairs = [pair for pair, allows in zip(pairs, allowed, strict=True) if allows] or pairs
    return dict(pairs)


@torch.no_grad()
def placement_nats(
    model: WordPredictor,
    sequences: list[list[int]],
    mask_id: int | None,
    precision: Precision = "no",
) -> Float[Tensor, " n"]:
    """-log p(length, given words at their places) of each sequence in nats, in float64.

    All are estimated with the same noise.

    Args:
        sequences: Tokens, with `mask_id` in place of words that are not given.
        precision: Precision of the network.
    """
    ids, mask = padded(sequences)
    nats = torch.zeros(len(ids), dtype=torch.float64)
    if not writes_documents(model):  # whose training text has no lengths
        frequencies = model.lengths.cpu().double() + 1e-6
        nats -= frequencies.log()[mask.sum(1)]
    states = [*_states(mask & (ids != mask_id))]
    for first in range(0, len(states), ROWS):
        rows, clean, next_word = zip(*states[first : first + ROWS], strict=True)
        row = torch.tensor(rows)
        with autocast(model.device, sampling_precision(model, precision)):
            found = _next_word_nats(model, ids[row], mask[row], torch.stack(clean))
        of_word = found[torch.stack(next_word)].double().cpu()
        nats.index_add_(0, row, of_word.clamp(max=MOST_NATS) / 2)  # two directions
    return nats


def _states(given: Bool[Tensor, "n l"]) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Row, clean words and next word for each given word of each row, in both directions."""
    for row, places in enumerate(given):
        count = int(places.sum())
        order = places.cumsum(0) - 1
        for rank in (order, count - 1 - order):
            for step in range(count):
                yield row, places & (rank < step), places & (rank == step)


def _next_word_nats(
    model: WordPredictor, ids: Tensor, mask: Tensor, clean: Bool[Tensor, "b l"]
) -> Float[Tensor, "b l"]:
    """Cross-entropy of each word, while only some words are clean and the rest is pure noise."""
    ids, mask, clean = (each.to(model.device) for each in (ids, mask, clean))
    low, high = model.logsnr_range
    logsnr = torch.where(clean, high, low)
    x0 = model.words.embeddings[ids] * clean.unsqueeze(-1)
    eps = normal(torch.zeros(1, dtype=torch.long, device=x0.device), x0[:1].shape, stream=41)
    x_t = diffuse(x0, eps.expand_as(x0), logsnr)
    _, logits = model.predict(NoisyText(x_t, logsnr, mask))  # self-conditioning adds nothing here
    return cross_entropy(logits, ids)
