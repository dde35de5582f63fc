"""Counts of neighbouring words in a text, smoothed for a Markov prior.

Interpolated absolute discounting: each count is lowered by a discount, and the rest of the
probability goes to the shorter context. The discount n1 / (n1 + 2 n2) maximizes the likelihood of
each word when that word itself is left out of the counts (Ney, Essen & Kneser, 1994); n1 and n2 are
the numbers of entries that occur once and twice.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from textdiff.text.dataset import Corpus
from textdiff.text.markov_prior import PairStatistics

ENOUGH = 20  # occurrences of a pair of words that may be a context


class Followers(NamedTuple):
    """The words that follow contexts.

    Args:
        context: Number of the context of each entry; entries are sorted by it and by the word.
        word: Word that follows. The boundary of sentences comes after all words.
        times: Number of times that it follows.
        value: Its discounted probability.
    """

    context: np.ndarray
    word: np.ndarray
    times: np.ndarray
    value: np.ndarray

    def mass(self, entries: np.ndarray, contexts: int) -> np.ndarray:
        """Discounted probability of some entries after each context."""
        return np.bincount(self.context[entries], self.value[entries], contexts)


def pair_statistics(
    corpus: Corpus, vocab_size: int, *, ends: bool = True, most: int = 2**20, contexts: int = 0
) -> PairStatistics:
    """Counts neighbouring words, and discounts the counts.

    Args:
        ends: Whether examples begin and end as sentences do. Blocks of packed text do not.
        most: Largest number of pairs that are kept, the most frequent ones.
        contexts: Largest number of contexts of two words, the most frequent ones.
    """
    size, boundary = vocab_size + 1, vocab_size
    pairs = _followers(corpus, partial(_pairs, boundary=boundary, ends=ends), size)
    backoff = np.bincount(pairs.word, pairs.times, size) + 0.1
    backoff /= backoff.sum()
    chosen = _frequent(pairs, boundary, contexts)
    triples = partial(_triples, boundary=boundary, ends=ends, chosen=chosen)
    longer, k = _followers(corpus, triples, size), len(chosen)
    inner = np.flatnonzero((pairs.context < boundary) & (pairs.word < boundary))
    kept = np.sort(inner[np.argsort(-pairs.times[inner], kind="stable")[:most]])
    seen_end = pairs.mass(pairs.word == boundary, size)[:-1]
    weight = 1 - pairs.mass(kept, size)[:-1] - seen_end
    end = seen_end + weight * backoff[-1]
    last, rest = chosen % size, 1 - np.bincount(longer.context, longer.value, k)
    longer_end = longer.mass(longer.word == boundary, k) + rest * end[last]
    entries, values = _entries(pairs, kept, longer, boundary, chosen)
    return PairStatistics(
        start=_float(_start(pairs, backoff, boundary, chosen)),
        end=_float(np.concatenate([end, longer_end])) if ends else torch.ones(vocab_size + k),
        pairs=torch.from_numpy(entries.astype(np.int32)),
        values=_float(values),
        backoff_weight=_float(np.pad(weight, (0, k))),
        backoff=_float(np.pad(backoff[:-1], (0, k))),
        context_last=torch.from_numpy(last.astype(np.int32)),
        context_weight=_float(rest),
    )


def _entries(
    pairs: Followers, kept: np.ndarray, longer: Followers, boundary: int, chosen: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of states, sorted, and their values."""
    inside = longer.word < boundary
    number, word = longer.context[inside], longer.word[inside]
    last = chosen[number] % (boundary + 1)
    first = np.concatenate([pairs.context[kept], boundary + number])
    before = np.concatenate([pairs.context[kept], last])
    second = _state(before, np.concatenate([pairs.word[kept], word]), boundary, chosen)
    values = np.concatenate([pairs.value[kept], longer.value[inside]])
    order = np.lexsort([second, first])
    return np.stack([first[order], second[order]]), values[order]


def _float(numbers: np.ndarray) -> Tensor:
    return torch.from_numpy(numbers).float()


def _start(pairs: Followers, backoff: np.ndarray, boundary: int, chosen: np.ndarray) -> np.ndarray:
    """Probability that a sentence begins with each state."""
    seen = pairs.context == boundary
    start = np.zeros(boundary + len(chosen))
    start[:boundary] = (1 - pairs.value[seen].sum()) * backoff[:-1]
    words = seen & (pairs.word < boundary)
    state = _state(pairs.context[words], pairs.word[words], boundary, chosen)
    start[state] += pairs.value[words]
    return start


def _frequent(pairs: Followers, boundary: int, most: int) -> np.ndarray:
    """The most frequent pairs a * (boundary + 1) + b that occur often enough, sorted.

    a may be the boundary of sentences, b not.
    """
    often = np.flatnonzero((pairs.times >= ENOUGH) & (pairs.word < boundary))
    often = np.sort(often[np.argsort(-pairs.times[often], kind="stable")[:most]])
    return pairs.context[often] * (boundary + 1) + pairs.word[often]


def _state(before: np.ndarray, word: np.ndarray, boundary: int, chosen: np.ndarray) -> np.ndarray:
    """State of each word after another: the context of both if it is chosen, or the word."""
    if not len(chosen):
        return word
    key = before * (boundary + 1) + word
    number = np.searchsorted(chosen, key).clip(max=len(chosen) - 1)
    return np.where(chosen[number] == key, boundary + number, word)


def _followers(corpus: Corpus, keys: Callable[[Corpus], np.ndarray], size: int) -> Followers:
    """Counts and discounts.

    Args:
        keys: context * size + word for each word of a piece of the text.
    """
    key: np.ndarray = np.empty(0, np.int64)
    count: np.ndarray = np.empty(0)
    for piece in corpus.pieces():
        new, times = np.unique(keys(piece), return_counts=True)
        key, index = np.unique(np.concatenate([key, new]), return_inverse=True)
        count = np.bincount(index, np.concatenate([count, times]))
    context, word = np.divmod(key, size)
    once, twice = (count == 1).sum(), (count == 2).sum()
    discount = once / (once + 2 * twice) if once and twice else 0.5
    value = (count - discount) / np.bincount(context, count)[context]
    return Followers(context, word, count, value)


def _pairs(corpus: Corpus, boundary: int, ends: bool) -> np.ndarray:
    """Every pair of neighbours, and with `ends` the boundaries of the examples."""
    before, tokens, after = _neighbours(corpus, boundary)
    pairs, last = before * (boundary + 1) + tokens, tokens[after == boundary]
    if not ends:
        return pairs[before < boundary]
    return np.concatenate([pairs, last * (boundary + 1) + boundary])


def _triples(corpus: Corpus, boundary: int, ends: bool, chosen: np.ndarray) -> np.ndarray:
    """The word after every chosen pair; with `ends` also the boundaries of the examples."""
    before, tokens, after = _neighbours(corpus, boundary)
    number = _state(before, tokens, boundary, chosen) - boundary
    counted = (number >= 0) & (ends | (after < boundary))
    return number[counted] * (boundary + 1) + after[counted]


def _neighbours(corpus: Corpus, boundary: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The word before each word of the examples, the word, and the word after it."""
    tokens = corpus.tokens.astype(np.int64)
    before, after = np.roll(tokens, 1), np.roll(tokens, -1)
    before[corpus.starts[:-1]], after[corpus.starts[1:] - 1] = boundary, boundary
    return before, tokens, after
